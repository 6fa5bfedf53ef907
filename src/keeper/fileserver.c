/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the file server of a directory, or starts it. See fileserver.h. */
#include "keeper/fileserver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/place.h"

#define IDLE "10s" /* a server without a client ends */
static const char *cache_text(enum sm_fs_cache cache)
{
	return cache == SM_FS_CACHE_NONE ? "none" : cache == SM_FS_CACHE_ALWAYS ? "always" : "auto";
}

static const char *links_text(enum sm_fs_symlinks symlinks)
{
	return symlinks == SM_FS_SYMLINKS_DENY ? "deny" : symlinks == SM_FS_SYMLINKS_FOLLOW ? "follow" : "opaque";
}

static const char *ids_text(const struct sm_fs_posix_options *o)
{
	switch (o->ids) {
	case SM_FS_IDS_SAME:
		return "same";
	case SM_FS_IDS_NONE:
		return "none";
	case SM_FS_IDS_RANGES:
		return o->id_ranges;
	default:
		return "caller";
	}
}

/* All that makes two servers different: a directory by its identity. */
static int put_key(const struct fileserver *s, struct buf *b)
{
	const struct sm_fs_posix_options *o = &s->options;
	struct stat st;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	buf_printf(b, "group %s\ntree %ju %ju\n", s->group ? s->group : "", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	buf_printf(b, "options %s %s %s %d %d %d %u %u\n", cache_text(o->cache), links_text(o->symlinks), ids_text(o),
		   (int)o->xattrs, o->read_only, o->direct, o->max_fds, o->max_open);
	return place_put_program(b, s->program);
}

/* With a socket that listens already: who connects is served as soon as it is up. */
static int start_server(void *arg, const struct place *at, int listener, struct sm_error *err)
{
	const struct fileserver *s = arg;
	const struct sm_fs_posix_options *so = &s->options;
	char number[16], source_fd[16], max_fds[16], max_open[16];
	const char *argv[32] = {s->program,    "--share",
				"--fd",	       number,
				"--socket",    at->socket,
				"--lock",      at->lock,
				"--source",    s->source,
				"--source-fd", source_fd,
				"--idle",      IDLE,
				"--cache",     cache_text(so->cache),
				"--symlinks",  links_text(so->symlinks),
				"--ids",       ids_text(so),
				"--xattrs",    so->xattrs == SM_FS_XATTRS_MAPPED ? "mapped" : "auto",
				"--max-fds",   max_fds,
				"--max-open",  max_open};
	int keep[2] = {listener, s->fd};
	size_t n = 26;
	_free_ const char **env = process_plain_env();
	struct process_options o = {.argv = argv,
				    .env = env,
				    .fds = {-1, -1, -1},
				    .cwd = "/",
				    .keep = keep,
				    .num_keep = 2,
				    .new_session = true};
	pid_t pid;

	if (so->read_only)
		argv[n++] = "--read-only";
	if (so->direct)
		argv[n++] = "--direct";
	snprintf(number, sizeof(number), "%d", listener);
	snprintf(source_fd, sizeof(source_fd), "%d", s->fd);
	snprintf(max_fds, sizeof(max_fds), "%u", so->max_fds);
	snprintf(max_open, sizeof(max_open), "%u", so->max_open);
	pid = process_detach(&o, err);
	return pid < 0 ? (int)pid : 0;
}

int fileserver_connect(const struct fileserver *s, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf key = {0};
	struct place at;
	_fd_ int lock = -1;
	int r = put_key(s, &key);

	if (r < 0)
		return error_sys(err, -r, "directory %s", s->source);
	lock = place_find(s->runtime_dir, "fs", &key, &at, err);
	r = lock < 0 ? lock : place_connect(&at, start_server, (void *)s, err);
	return r < 0 ? error_wrap(err, r, "file server of %s", s->source) : r;
}
