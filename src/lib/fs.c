/* SPDX-License-Identifier: Apache-2.0 */
/* File systems through the public header: the backends that the library brings, and the doors. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/memory.h"
#include "lib/fs.h"

int sm_fs_memory_new(const struct sm_fs_memory_options *options, struct sm_fs_backend **ret, struct sm_error *err)
{
	struct sm_fs_memory_options o = OPTIONS_GET(struct sm_fs_memory_options, options);
	struct fuse_memory_options own = {
		.max_bytes = o.max_bytes,
		.max_nodes = o.max_nodes,
		.root_mode = o.root_mode & 07777,
		.uid = o.uid,
		.gid = o.gid,
	};
	int r = fuse_memory_new(&own, ret);

	return r < 0 ? error_sys(err, -r, "file system in memory") : 0;
}

struct sm_fs_backend *sm_fs_memory_free(struct sm_fs_backend *backend)
{
	return fuse_memory_free(backend);
}

static int valid_ns(enum sm_fs_cache cache, uint64_t *ret)
{
	switch (cache) {
	case SM_FS_CACHE_AUTO:
		*ret = SECOND_NS;
		return 0;
	case SM_FS_CACHE_NONE:
		*ret = 0;
		return 0;
	case SM_FS_CACHE_ALWAYS:
		*ret = 86400 * SECOND_NS;
		return 0;
	}
	return -EINVAL;
}

int sm_fs_posix_new(const char *path, const struct sm_fs_posix_options *options, struct sm_fs_backend **ret,
		    struct sm_error *err)
{
	struct sm_fs_posix_options o = OPTIONS_GET(struct sm_fs_posix_options, options);
	struct fuse_posix_options own = {
		.ids = (enum fuse_posix_ids)o.ids,
		.id_ranges = o.id_ranges,
		.xattrs = (enum fuse_posix_xattrs)o.xattrs,
		.symlinks = (enum fuse_posix_symlinks)o.symlinks,
		.read_only = o.read_only,
		.direct = o.direct,
		.max_fds = o.max_fds,
		.max_open = o.max_open,
	};

	if (valid_ns(o.cache, &own.valid_ns) < 0 || (unsigned)o.ids > SM_FS_IDS_RANGES ||
	    (unsigned)o.symlinks > SM_FS_SYMLINKS_FOLLOW || (unsigned)o.xattrs > SM_FS_XATTRS_MAPPED)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "directory %s: an option has no such value", path);
	return fuse_posix_new(path, &own, ret, err);
}

struct sm_fs_backend *sm_fs_posix_free(struct sm_fs_backend *backend)
{
	return fuse_posix_free(backend);
}

static void audit_done(struct sm_fs_server *server)
{
	if (server->audit)
		fd_close(server->audit_fd);
	server->audit = audit_log_free(server->audit);
	free(server->audit_source);
	free(server->audit_mount);
}

/* Has it written down what is done through the mount. */
static int audit_begin(struct sm_fs_server *server, struct sm_fs_backend *backend, const char *mountpoint,
		       const struct sm_fs_mount_options *o, struct sm_error *err)
{
	char source[PATH_MAX];
	_fd_ int fd = -1;
	struct audit_root root;

	if (!fuse_posix_source(backend, source, sizeof(source)))
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
				 "an audit tells of a directory of the host that this process serves itself");
	fd = audit_of_mount(o->audit, source, o->read_only, err);
	if (fd < 0)
		return fd;
	server->audit_source = strdup(source);
	server->audit_mount = realpath(mountpoint, NULL);
	if (!server->audit_source || !server->audit_mount)
		return error_sys(err, errno, "mount on %s", mountpoint);
	root = (struct audit_root){server->audit_source, backend};
	server->audit = audit_log_new(&(struct audit_options){
		.fd = fd, .key = "mount", .value = server->audit_mount, .roots = &root, .count = 1});
	if (!server->audit)
		return error_sys(err, ENOMEM, "mount on %s", mountpoint);
	server->audit_fd = TAKE_FD(fd);
	return 0;
}

int sm_fs_mount(struct sm_fs_backend *backend, const char *mountpoint, const struct sm_fs_mount_options *options,
		struct sm_fs_server **ret, struct sm_error *err)
{
	struct sm_fs_mount_options o = OPTIONS_GET(struct sm_fs_mount_options, options);
	struct fuse_dev_options own = {
		/* A backend serves one mount at a time: nobody else reaches what is in memory. */
		.session = {.read_only = o.read_only,
			    .writeback = o.writeback,
			    .watch = !o.writeback,
			    .sole = fuse_is_memory(backend)},
		.threads = o.threads,
		.source = o.source,
		.allow_other = o.allow_other,
	};
	struct sm_fs_server *server = calloc(1, sizeof(*server));
	struct fuse_audit_port audit;
	int r;

	if (!server)
		return error_sys(err, ENOMEM, "mount on %s", mountpoint);
	r = o.audit ? audit_begin(server, backend, mountpoint, &o, err) : 0;
	if (server->audit) {
		audit = audit_log_port(server->audit);
		own.session.audit = &audit;
	}
	r = r < 0 ? r : fuse_dev_mount(backend, mountpoint, &own, &server->dev, err);
	if (r < 0) {
		audit_done(server);
		free(server);
		return r;
	}
	*ret = server;
	return 0;
}

int sm_fs_serve_vhost_user(struct sm_fs_backend *backend, const char *path, int fd,
			   const struct sm_fs_vhost_user_options *options, struct sm_fs_server **ret,
			   struct sm_error *err)
{
	struct sm_fs_vhost_user_options o = OPTIONS_GET(struct sm_fs_vhost_user_options, options);
	struct fuse_session_options own = {.read_only = o.read_only, .writeback = o.writeback};
	_fd_ int sock = path ? unix_listen(path, 1) : fd;
	_free_ struct sm_fs_server *server = calloc(1, sizeof(*server));
	int r;

	if (sock < 0)
		return path ? error_sys(err, -sock, "listen on %s", path)
			    : error_set(err, SM_ERROR_INVALID, EBADF, "vhost-user server: no path and no socket");
	if (!server)
		return error_sys(err, ENOMEM, "vhost-user server");
	r = vhost_server_start(backend, &own, TAKE_FD(sock), path, &server->vhost, err);
	if (r == 0)
		*ret = TAKE_PTR(server);
	return r;
}

/* A shared tree ends by sm_fs_stop alone. */
static int wait_for_cancel(int cancel_fd, struct sm_error *err)
{
	struct pollfd p = {.fd = cancel_fd, .events = POLLIN};

	while (poll(&p, 1, -1) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "wait");
	return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
}

int sm_fs_wait(struct sm_fs_server *server, int cancel_fd, struct sm_error *err)
{
	int r;

	if (server->vhost)
		return vhost_server_wait(server->vhost, cancel_fd, err);
	if (server->share)
		return wait_for_cancel(cancel_fd, err);
	r = fuse_dev_wait(server->dev, cancel_fd);
	if (r == -ECANCELED)
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
	return r < 0 ? error_sys(err, -r, "wait for a mount's end") : 0;
}

struct sm_fs_server *sm_fs_stop(struct sm_fs_server *server)
{
	if (server) {
		fuse_dev_unmount(server->dev);
		vhost_server_stop(server->vhost);
		share_server_stop(server->share);
		audit_done(server);
	}
	free(server);
	return NULL;
}

void sm_fs_get_stats(struct sm_fs_server *server, struct sm_fs_stats *ret)
{
	size_t size = ret->size ? MIN(ret->size, sizeof(*ret)) : sizeof(*ret);
	struct fuse_session_stats s = {0};
	struct share_server_stats shared;
	struct sm_fs_stats now;

	if (server->share) {
		share_server_get_stats(server->share, &shared);
		s = (struct fuse_session_stats){.requests = shared.requests,
						.errors = shared.errors,
						.malformed = shared.cut_off,
						.handles_open = shared.handles};
	} else if (server->vhost) {
		vhost_server_get_stats(server->vhost, &s);
	} else {
		fuse_dev_get_stats(server->dev, &s);
	}
	now = (struct sm_fs_stats){
		.size = size,
		.requests = s.requests,
		.errors = s.errors,
		.malformed = s.malformed,
		.bytes_read = s.bytes_read,
		.bytes_written = s.bytes_written,
		.handles_open = s.handles_open,
	};
	memcpy(ret, &now, size);
}
