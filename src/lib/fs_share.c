/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared trees through the public header: a backend for clients in other processes, the client's side, and directories
 * that supermachine-fsd serves to all of this user's programs.
 *
 * A directory's server is found by its socket, whose name is a digest of all that makes two of them different:
 * directory (by identity), options, group, program. It is started with the listening socket, under a lock which it
 * takes, too, before it ends for lack of clients: whoever holds the lock and can connect is served.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "fuse/daemon.h"
#include "lib/fs.h"

#define IDLE "10s" /* a server without a client ends */
#define CONNECT_TRIES 5

int sm_fs_serve_shared(struct sm_fs_backend *backend, const char *path, int fd,
		       const struct sm_fs_shared_options *options, struct sm_fs_server **ret, struct sm_error *err)
{
	struct sm_fs_shared_options o = OPTIONS_GET(struct sm_fs_shared_options, options);
	struct share_server_options own = {.read_only = o.read_only, .path = path};
	_fd_ int sock = path ? unix_listen(path, 64) : fd;
	_free_ struct sm_fs_server *server = calloc(1, sizeof(*server));
	int r;

	if (sock < 0)
		return path ? error_sys(err, -sock, "listen on %s", path)
			    : error_set(err, SM_ERROR_INVALID, EBADF, "shared tree: no path and no socket");
	if (!server)
		return error_sys(err, ENOMEM, "shared tree");
	r = share_server_start(backend, TAKE_FD(sock), &own, &server->share, err);
	if (r == 0)
		*ret = TAKE_PTR(server);
	return r;
}

int sm_fs_connect(const char *path, struct sm_fs_backend **ret, struct sm_error *err)
{
	return fuse_daemon_new(path, NULL, ret, err);
}

/* --------------------------------------------------------------------------------------------- directories */

/* What it takes to start one: kept as long as its backend may need another. */
struct tree {
	char *fsd, *source, *socket, *lock;
	struct sm_fs_posix_options o;
	char *id_ranges;
};

static void tree_free(void *arg)
{
	struct tree *t = arg;

	if (!t)
		return;
	free(t->fsd);
	free(t->source);
	free(t->socket);
	free(t->lock);
	free(t->id_ranges);
	free(t);
}

static const char *cache_text(enum sm_fs_cache cache)
{
	return cache == SM_FS_CACHE_NONE ? "none" : cache == SM_FS_CACHE_ALWAYS ? "always" : "auto";
}

static const char *links_text(enum sm_fs_symlinks symlinks)
{
	return symlinks == SM_FS_SYMLINKS_DENY ? "deny" : symlinks == SM_FS_SYMLINKS_FOLLOW ? "follow" : "opaque";
}

static const char *ids_text(const struct tree *t)
{
	switch (t->o.ids) {
	case SM_FS_IDS_SAME:
		return "same";
	case SM_FS_IDS_NONE:
		return "none";
	case SM_FS_IDS_RANGES:
		return t->id_ranges;
	default:
		return "caller";
	}
}

/* The socket's name: 128 bits of a digest. */
static int name_tree(struct tree *t, const char *runtime_dir, const char *group, struct sm_error *err)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	struct stat st, program;
	struct buf b = {0};
	char hex[33];
	unsigned len;
	int r;

	if (stat(t->source, &st) < 0 || stat(t->fsd, &program) < 0)
		return error_sys(err, errno, "directory %s", t->source);
	buf_printf(&b, "%s\n%s\n%ju %ju\n%ju %ju %jd\n%s %s %s %d %d %d %u %u", group ? group : "", t->source,
		   (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, (uintmax_t)program.st_dev, (uintmax_t)program.st_ino,
		   (intmax_t)program.st_mtime, cache_text(t->o.cache), links_text(t->o.symlinks), ids_text(t),
		   (int)t->o.xattrs, t->o.read_only, t->o.direct, t->o.max_fds, t->o.max_open);
	r = b.error ? b.error : EVP_Digest(b.data, b.len, digest, &len, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
	buf_done(&b);
	for (unsigned i = 0; r == 0 && i < 16; i++)
		snprintf(hex + (size_t)2 * i, 3, "%02x", digest[i]);
	if (r == 0 && (asprintf(&t->socket, "%s/fs-%s.sock", runtime_dir, hex) < 0 ||
		       asprintf(&t->lock, "%s/fs-%s.lock", runtime_dir, hex) < 0))
		r = -ENOMEM;
	return r < 0 ? error_sys(err, -r, "directory %s", t->source) : 0;
}

/* Starts it with a socket that listens already: who connects is served as soon as it is up. */
static int start_server(const struct tree *t, struct sm_error *err)
{
	char number[16], max_fds[16], max_open[16];
	const char *argv[32] = {t->fsd,	      "--share",
				"--fd",	      number,
				"--socket",   t->socket,
				"--lock",     t->lock,
				"--source",   t->source,
				"--idle",     IDLE,
				"--cache",    cache_text(t->o.cache),
				"--symlinks", links_text(t->o.symlinks),
				"--ids",      ids_text(t),
				"--xattrs",   t->o.xattrs == SM_FS_XATTRS_MAPPED ? "mapped" : "auto",
				"--max-fds",  max_fds,
				"--max-open", max_open};
	_fd_ int listener = -1;
	size_t n = 24;
	struct process_options o = {
		.argv = argv, .fds = {-1, -1, -1}, .keep = &listener, .num_keep = 1, .new_session = true};
	pid_t pid;

	if (t->o.read_only)
		argv[n++] = "--read-only";
	if (t->o.direct)
		argv[n++] = "--direct";
	unlink(t->socket); /* of one that was killed */
	listener = unix_listen(t->socket, 64);
	if (listener < 0)
		return error_sys(err, -listener, "listen on %s", t->socket);
	snprintf(number, sizeof(number), "%d", listener);
	snprintf(max_fds, sizeof(max_fds), "%u", t->o.max_fds);
	snprintf(max_open, sizeof(max_open), "%u", t->o.max_open);
	pid = process_detach(&o, err);
	return pid < 0 ? (int)pid : 0;
}

/* A connection to the directory's server, which is started if there is none: the socket, or -errno. */
static int connect_tree(void *arg, struct sm_error *err)
{
	struct tree *t = arg;
	_fd_ int lock = open(t->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int sock, r = 0;

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return error_sys(err, errno, "lock %s", t->lock);
	sock = unix_connect(t->socket);
	for (int i = 0; sock < 0 && r == 0 && i < CONNECT_TRIES; i++) {
		r = start_server(t, err);
		if (r == 0)
			sock = unix_connect(t->socket);
	}
	if (r < 0)
		return r;
	return sock < 0 ? error_sys(err, -sock, "connect to the file server on %s", t->socket) : sock;
}

static int check_options(const struct sm_fs_posix_options *o, const char *path, struct sm_error *err)
{
	if ((unsigned)o->ids > SM_FS_IDS_RANGES || (unsigned)o->symlinks > SM_FS_SYMLINKS_FOLLOW ||
	    (unsigned)o->xattrs > SM_FS_XATTRS_MAPPED || (unsigned)o->cache > SM_FS_CACHE_ALWAYS ||
	    (o->ids == SM_FS_IDS_RANGES && (!o->id_ranges || fuse_posix_check_ranges(o->id_ranges) < 0)))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "directory %s: an option has no such value", path);
	return 0;
}

int sm_fs_daemon_new(struct sm_client *client, const char *path, const struct sm_fs_posix_options *options,
		     const char *group, struct sm_fs_backend **ret, struct sm_error *err)
{
	struct sm_fs_posix_options o = OPTIONS_GET(struct sm_fs_posix_options, options);
	struct fuse_daemon_options own = {.connect = connect_tree, .done = tree_free};
	struct stat st;
	struct tree *t;
	int r = check_options(&o, path, err);

	if (r < 0)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_sys(err, ENOMEM, "directory %s", path);
	t->o = o;
	t->o.id_ranges = NULL;
	t->source = realpath(path, NULL);
	if (!t->source || stat(t->source, &st) < 0)
		r = error_sys(err, errno, "directory %s", path);
	else if (!S_ISDIR(st.st_mode))
		r = error_sys(err, ENOTDIR, "directory %s", path);
	else if (o.id_ranges && !(t->id_ranges = strdup(o.id_ranges)))
		r = error_sys(err, ENOMEM, "directory %s", path);
	if (r == 0)
		r = client_helper(client, "supermachine-fsd", &t->fsd, err);
	if (r == 0)
		r = name_tree(t, client->runtime_dir, group, err);
	own.arg = t;
	if (r < 0)
		tree_free(t);
	else
		r = fuse_daemon_new_with(&own, ret, err); /* t is its from now on */
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

struct sm_fs_backend *sm_fs_daemon_free(struct sm_fs_backend *backend)
{
	return fuse_daemon_free(backend);
}
