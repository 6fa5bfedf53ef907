/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the file server of a directory, or starts it. See fileserver.h. */
#include "keeper/fileserver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"

#define IDLE "10s" /* a server without a client ends */
#define CONNECT_TRIES 5
#define MOST_ALIKE 8 /* of one hash */
#define KEY_MAX 2048

struct place {
	char socket[4096], lock[4096];
};

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

/* All that makes two servers different: a directory by its identity, and a program that was replaced is another one. */
static int put_key(const struct fileserver *s, struct buf *b)
{
	const struct sm_fs_posix_options *o = &s->options;
	struct stat st, program;

	if (fstat(s->fd, &st) < 0 || stat(s->program, &program) < 0)
		return -errno;
	buf_printf(b, "group %s\ntree %ju %ju\nprogram %ju %ju %jd\n", s->group ? s->group : "", (uintmax_t)st.st_dev,
		   (uintmax_t)st.st_ino, (uintmax_t)program.st_dev, (uintmax_t)program.st_ino,
		   (intmax_t)program.st_mtime);
	buf_printf(b, "options %s %s %s %d %d %d %u %u\n", cache_text(o->cache), links_text(o->symlinks), ids_text(o),
		   (int)o->xattrs, o->read_only, o->direct, o->max_fds, o->max_open);
	return b->error ? b->error : b->len < KEY_MAX ? 0 : -ENAMETOOLONG;
}

static uint64_t hash(const struct buf *key) /* FNV-1a */
{
	uint64_t h = 0xcbf29ce484222325;

	for (size_t i = 0; i < key->len; i++)
		h = (h ^ key->data[i]) * 0x100000001b3;
	return h;
}

/* The lock, taken, if it is of this key: its file has the key in it. Else -EEXIST. */
static int lock_one(const char *path, const struct buf *key)
{
	_fd_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char have[KEY_MAX];
	ssize_t n;

	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return -errno;
	n = pread_full(fd, have, sizeof(have), 0);
	if (n < 0)
		return (int)n;
	if (n == 0) {
		int r = write_full(fd, key->data, key->len);

		return r < 0 ? r : TAKE_FD(fd);
	}
	return (size_t)n == key->len && memcmp(have, key->data, key->len) == 0 ? TAKE_FD(fd) : -EEXIST;
}

/* Its names, and its lock, taken. */
static int find_place(const struct fileserver *s, struct place *ret, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf key = {0};
	int r = put_key(s, &key), lock = -EEXIST;

	if (r < 0)
		return error_sys(err, -r, "directory %s", s->source);
	for (unsigned i = 0; i < MOST_ALIKE && lock == -EEXIST; i++) {
		char name[32];

		snprintf(name, sizeof(name), "fs-%016jx-%u", (uintmax_t)hash(&key), i);
		if (snprintf(ret->socket, sizeof(ret->socket), "%s/%s.sock", s->runtime_dir, name) >=
			    (int)sizeof(ret->socket) ||
		    snprintf(ret->lock, sizeof(ret->lock), "%s/%s.lock", s->runtime_dir, name) >=
			    (int)sizeof(ret->lock))
			return error_sys(err, ENAMETOOLONG, "directory %s", s->source);
		lock = lock_one(ret->lock, &key);
	}
	return lock < 0 ? error_sys(err, -lock, "lock %s", ret->lock) : lock;
}

/* Starts it with a socket that listens already: who connects is served as soon as it is up. */
static int start_server(const struct fileserver *s, const struct place *at, struct sm_error *err)
{
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
	_fd_ int listener = -1;
	int keep[2];
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
	unlink(at->socket); /* of one that was killed */
	listener = unix_listen(at->socket, 64);
	if (listener < 0)
		return error_sys(err, -listener, "listen on %s", at->socket);
	keep[0] = listener;
	keep[1] = s->fd;
	snprintf(number, sizeof(number), "%d", listener);
	snprintf(source_fd, sizeof(source_fd), "%d", s->fd);
	snprintf(max_fds, sizeof(max_fds), "%u", so->max_fds);
	snprintf(max_open, sizeof(max_open), "%u", so->max_open);
	pid = process_detach(&o, err);
	return pid < 0 ? (int)pid : 0;
}

int fileserver_connect(const struct fileserver *s, struct sm_error *err)
{
	struct place at;
	_fd_ int lock = find_place(s, &at, err);
	int sock, r = 0;

	if (lock < 0)
		return lock;
	sock = unix_connect(at.socket);
	for (int i = 0; sock < 0 && r == 0 && i < CONNECT_TRIES; i++) {
		r = start_server(s, &at, err);
		if (r == 0)
			sock = unix_connect(at.socket);
	}
	if (r < 0)
		return r;
	return sock < 0 ? error_sys(err, -sock, "connect to the file server on %s", at.socket) : sock;
}
