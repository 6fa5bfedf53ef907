/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The herald's requests. Linux 6.1's virtio-fs has no way to tell the peer's watchers (inotify) what came and went on
 * the host; its kernel raises those events for what it is asked to make or remove itself. So an agent of ours in the
 * peer asks for it, as a user that nobody else is, and is answered here as if it had been done: see watch.h.
 *
 * Nothing that this user asks for ever reaches the backend's changing functions, whoever pretends to be it: a program
 * in the peer that does so deceives its own kernel for a moment, and the host is left as it is.
 */
#include <errno.h>
#include <sys/stat.h>

#include "fuse/request.h"

static int find(struct fuse_request *rq, const char *name, struct sm_fs_entry *ret)
{
	int r = rq->s->ops->lookup(rq->s->be, &rq->who, rq->h.nodeid, name, ret);

	return r == 0 && !ret->nodeid ? -ENOENT : r;
}

static void give_back(struct fuse_request *rq, const struct sm_fs_entry *e)
{
	if (rq->s->ops->forget)
		rq->s->ops->forget(rq->s->be, e->nodeid, 1);
}

/* Before it makes a name: absent, as long as the peer does not know what has it by now. */
static ssize_t look_up(struct fuse_request *rq, const char *name)
{
	struct watch_mark mark = watch_begin(rq->s->watch, rq->h.nodeid);
	struct sm_fs_entry e = {0};
	int r = find(rq, name, &e);

	if (r < 0)
		return r;
	if (watch_child(rq->s->watch, rq->h.nodeid, name) == e.nodeid)
		return reply_entry(rq, &mark, name, &e);
	give_back(rq, &e);
	return -ENOENT;
}

static ssize_t made(struct fuse_request *rq, const char *name, mode_t type)
{
	struct watch_mark mark = watch_begin(rq->s->watch, rq->h.nodeid);
	struct sm_fs_entry e = {0};
	int r = find(rq, name, &e);

	if (r < 0)
		return r;
	if ((e.attr.st_mode & S_IFMT) == type && !e.submount)
		return reply_entry(rq, &mark, name, &e);
	give_back(rq, &e);
	return -EEXIST;
}

/* Not if something has the name again; nor, to a directory that lives on elsewhere: see watch.c. */
static ssize_t gone(struct fuse_request *rq, const char *name, bool directory)
{
	uint64_t known = watch_child(rq->s->watch, rq->h.nodeid, name);
	struct sm_fs_entry e = {0};
	int r = find(rq, name, &e);

	if (r == 0)
		give_back(rq, &e);
	if (r != -ENOENT)
		return r < 0 ? r : -EBUSY;
	if (directory && known && !watch_is_dead(rq->s->watch, known))
		return -EBUSY;
	watch_removed(rq->s->watch, rq->h.nodeid, name);
	return 0;
}

static ssize_t serve_name(struct fuse_request *rq, const char *name, mode_t type)
{
	if (!name)
		return request_no_name(rq);
	switch (rq->h.opcode) {
	case FUSE_LOOKUP:
		return look_up(rq, name);
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		return gone(rq, name, rq->h.opcode == FUSE_RMDIR);
	default:
		return made(rq, name, type);
	}
}

static ssize_t serve(struct fuse_request *rq)
{
	struct fuse_mknod_in node;
	struct fuse_mkdir_in dir;

	switch (rq->h.opcode) {
	case FUSE_MKNOD:
		if (!request_arg(rq, &node, sizeof(node)))
			return -EPROTO;
		return serve_name(rq, request_name(rq), node.mode & S_IFMT);
	case FUSE_MKDIR:
		if (!request_arg(rq, &dir, sizeof(dir)))
			return -EPROTO;
		return serve_name(rq, request_name(rq), S_IFDIR);
	default:
		return serve_name(rq, request_name(rq), S_IFLNK);
	}
}

bool herald_serves(struct fuse_request *rq, bool changes, ssize_t *ret)
{
	if (rq->h.uid != WATCH_HERALD_UID)
		return false;
	*ret = -EPERM;
	if (!rq->s->watch)
		return changes || rq->h.opcode == FUSE_OPEN;
	switch (rq->h.opcode) {
	case FUSE_LOOKUP:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_SYMLINK:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
		*ret = serve(rq);
		return true;
	case FUSE_OPEN: /* may truncate */
		return true;
	default:
		return changes;
	}
}
