/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared trees through the public header: a backend for clients in other processes, the client's side, and directories
 * that supermachine-fsd serves to all of this user's programs (keeper/fileserver.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/daemon.h"
#include "keeper/fileserver.h"
#include "lib/fs.h"

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

/* What it takes to find its server again: kept as long as its backend may need another. */
struct tree {
	char *program, *runtime_dir, *group, *source, *id_ranges;
	struct fileserver server; /* points to these */
};

static void tree_free(void *arg)
{
	struct tree *t = arg;

	if (!t)
		return;
	fd_close(t->server.fd);
	free(t->program);
	free(t->runtime_dir);
	free(t->group);
	free(t->source);
	free(t->id_ranges);
	free(t);
}

static int connect_tree(void *arg, struct sm_error *err)
{
	return fileserver_connect(&((struct tree *)arg)->server, err);
}

static int check_options(const struct sm_fs_posix_options *o, const char *path, struct sm_error *err)
{
	if ((unsigned)o->ids > SM_FS_IDS_RANGES || (unsigned)o->symlinks > SM_FS_SYMLINKS_FOLLOW ||
	    (unsigned)o->xattrs > SM_FS_XATTRS_MAPPED || (unsigned)o->cache > SM_FS_CACHE_ALWAYS ||
	    (o->ids == SM_FS_IDS_RANGES && (!o->id_ranges || fuse_posix_check_ranges(o->id_ranges) < 0)))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "directory %s: an option has no such value", path);
	return 0;
}

/* The directory stays the same one, whatever becomes of its name. */
static int fill_tree(struct tree *t, struct sm_client *client, const struct sm_fs_posix_options *o, const char *group,
		     struct sm_error *err)
{
	t->runtime_dir = strdup(client->runtime_dir);
	t->group = strdup(group ? group : "");
	t->id_ranges = strdup(o->id_ranges ? o->id_ranges : "");
	if (!t->runtime_dir || !t->group || !t->id_ranges)
		return error_sys(err, ENOMEM, "file server");
	t->server = (struct fileserver){.program = t->program,
					.runtime_dir = t->runtime_dir,
					.group = t->group,
					.source = t->source,
					.fd = open(t->source, O_PATH | O_DIRECTORY | O_CLOEXEC),
					.options = *o};
	t->server.options.id_ranges = t->id_ranges;
	return t->server.fd < 0 ? error_sys(err, errno, "open it") : 0;
}

int sm_fs_daemon_new(struct sm_client *client, const char *path, const struct sm_fs_posix_options *options,
		     const char *group, struct sm_fs_backend **ret, struct sm_error *err)
{
	struct sm_fs_posix_options o = OPTIONS_GET(struct sm_fs_posix_options, options);
	struct fuse_daemon_options own = {.connect = connect_tree, .done = tree_free};
	struct tree *t;
	int r = check_options(&o, path, err);

	if (r < 0)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return error_sys(err, ENOMEM, "directory %s", path);
	t->server.fd = -1;
	t->source = realpath(path, NULL);
	r = t->source ? client_helper(client, "supermachine-fsd", &t->program, err) : error_sys(err, errno, "find it");
	if (r == 0)
		r = fill_tree(t, client, &o, group, err);
	own.arg = t;
	if (r < 0)
		tree_free(t);
	else
		r = fuse_daemon_new_with(&own, ret, err); /* t is its from now on */
	return r < 0 ? error_wrap(err, r, "directory %s", path) : 0;
}

struct sm_fs_backend *sm_fs_daemon_free(struct sm_fs_backend *backend)
{
	return fuse_daemon_free(backend);
}
