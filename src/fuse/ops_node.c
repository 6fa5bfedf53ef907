/* SPDX-License-Identifier: Apache-2.0 */
/* FUSE operations on names, attributes and extended attributes. Each decodes its arguments, calls the backend once,
 * encodes the answer. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/request.h"

#define MAX_LINK_TARGET 4095u
#define MAX_XATTR 65536u /* XATTR_SIZE_MAX and XATTR_LIST_MAX */

ssize_t reply_entry(struct fuse_request *rq, const struct watch_mark *mark, const char *name, struct sm_fs_entry *e)
{
	struct fuse_entry_out out;
	ssize_t r;

	watch_entry(rq->s->watch, mark, name, e);
	entry_out_from(rq->s, e, &out);
	r = request_reply(rq, &out, sizeof(out));
	if (r < 0 && e->nodeid && rq->s->ops->forget)
		rq->s->ops->forget(rq->s->be, e->nodeid, 1);
	return r;
}

/* The answer to a request that makes a name. */
static ssize_t reply_made(struct fuse_request *rq, const struct watch_mark *mark, const char *name,
			  struct sm_fs_entry *e, int r)
{
	if (r == 0)
		return reply_entry(rq, mark, name, e);
	watch_not_made(rq->s->watch, mark);
	return r;
}

ssize_t op_lookup(struct fuse_request *rq)
{
	const char *name = request_name(rq);
	struct sm_fs_entry e = {0};
	struct watch_mark mark;
	int r;

	if (!name)
		return request_no_name(rq);
	mark = watch_begin(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->lookup(rq->s->be, &rq->who, rq->h.nodeid, name, &e);
	return r < 0 ? r : reply_entry(rq, &mark, name, &e);
}

static void forget(struct fuse_session *s, uint64_t nodeid, uint64_t count)
{
	watch_forget(s->watch, nodeid, count);
	readings_forget(s, nodeid);
	if (s->ops->forget)
		s->ops->forget(s->be, nodeid, count);
	dax_forgotten(s, nodeid);
}

ssize_t op_forget(struct fuse_request *rq)
{
	struct fuse_forget_in in;

	if (request_arg(rq, &in, sizeof(in)))
		forget(rq->s, rq->h.nodeid, in.nlookup);
	return FUSE_NO_REPLY;
}

ssize_t op_batch_forget(struct fuse_request *rq)
{
	struct fuse_batch_forget_in in;
	struct fuse_forget_one one;

	if (!request_arg(rq, &in, sizeof(in)))
		return FUSE_NO_REPLY;
	for (uint32_t i = 0; i < in.count && request_arg(rq, &one, sizeof(one)); i++)
		forget(rq->s, one.nodeid, one.nlookup);
	return FUSE_NO_REPLY;
}

static ssize_t reply_attr(struct fuse_request *rq, const struct watch_mark *mark, const struct stat *st,
			  uint64_t valid_ns)
{
	struct fuse_attr_out out = {0};

	watch_attr(rq->s->watch, mark, st, &valid_ns);
	set_valid(valid_ns, &out.attr_valid, &out.attr_valid_nsec);
	attr_from_stat(rq->s, rq->h.nodeid, st, false, &out.attr);
	return request_reply(rq, &out, sizeof(out));
}

/* The backend's handle when the peer names one. A directory's handle is no help to attributes: it is left out. */
static int optional_handle(struct fuse_request *rq, bool given, uint64_t handle, uint64_t *ret_fh)
{
	return given && request_handle(rq, handle, rq->h.nodeid, false, ret_fh) == 0;
}

/* Asks the backend for the attributes of the request's node and answers with them. */
static ssize_t attributes(struct fuse_request *rq, bool has_fh, uint64_t fh)
{
	struct watch_mark mark = watch_begin_attr(rq->s->watch, rq->h.nodeid);
	struct stat st = {0};
	uint64_t valid = 0;
	int r = rq->s->ops->getattr(rq->s->be, rq->h.nodeid, has_fh, fh, &st, &valid);

	return r < 0 ? r : reply_attr(rq, &mark, &st, valid);
}

ssize_t op_getattr(struct fuse_request *rq)
{
	struct fuse_getattr_in in;
	uint64_t fh = 0;
	bool has_fh;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	has_fh = optional_handle(rq, in.getattr_flags & FUSE_GETATTR_FH, in.fh, &fh);
	return attributes(rq, has_fh, fh);
}

static struct newer_time statx_time(const struct timespec *t)
{
	return (struct newer_time){.sec = t->tv_sec, .nsec = (uint32_t)t->tv_nsec};
}

/* Asked for by kernels from 7.39 on when somebody wants the time of birth; without one to give, never again. */
ssize_t op_statx(struct fuse_request *rq)
{
	struct newer_statx_in in;
	struct newer_statx_out out = {0};
	struct timespec birth = {0};
	struct watch_mark mark;
	struct stat st = {0};
	uint64_t fh = 0, valid = 0;
	bool has_fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (!rq->s->ops->birth)
		return -ENOSYS;
	has_fh = optional_handle(rq, in.getattr_flags & FUSE_GETATTR_FH, in.fh, &fh);
	mark = watch_begin_attr(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->getattr(rq->s->be, rq->h.nodeid, has_fh, fh, &st, &valid);
	if (r < 0)
		return r;
	watch_attr(rq->s->watch, &mark, &st, &valid);
	out.stat = (struct newer_statx){
		.mask = STATX_BASIC_STATS,
		.blksize = (uint32_t)st.st_blksize,
		.nlink = (uint32_t)st.st_nlink,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.mode = (uint16_t)st.st_mode,
		.ino = st.st_ino,
		.size = (uint64_t)st.st_size,
		.blocks = (uint64_t)st.st_blocks,
		.atime = statx_time(&st.st_atim),
		.ctime = statx_time(&st.st_ctim),
		.mtime = statx_time(&st.st_mtim),
		.rdev_major = major(st.st_rdev),
		.rdev_minor = minor(st.st_rdev),
	};
	if (rq->s->ops->birth(rq->s->be, rq->h.nodeid, &birth) == 0) {
		out.stat.mask |= STATX_BTIME;
		out.stat.btime = statx_time(&birth);
	}
	set_valid(valid, &out.attr_valid, &out.attr_valid_nsec);
	return request_reply(rq, &out, sizeof(out));
}

static uint32_t set_from_valid(uint32_t valid)
{
	static const struct {
		uint32_t fattr, set;
	} map[] = {
		{FATTR_MODE, SM_FS_SET_MODE},
		{FATTR_UID, SM_FS_SET_UID},
		{FATTR_GID, SM_FS_SET_GID},
		{FATTR_SIZE, SM_FS_SET_SIZE},
		{FATTR_ATIME, SM_FS_SET_ATIME},
		{FATTR_MTIME, SM_FS_SET_MTIME},
		{FATTR_ATIME_NOW, SM_FS_SET_ATIME_NOW},
		{FATTR_MTIME_NOW, SM_FS_SET_MTIME_NOW},
		{FATTR_CTIME, SM_FS_SET_CTIME},
		{FATTR_KILL_SUIDGID, SM_FS_SET_KILL_SUIDGID},
	};
	uint32_t set = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (valid & map[i].fattr)
			set |= map[i].set;
	return set;
}

ssize_t op_setattr(struct fuse_request *rq)
{
	struct fuse_setattr_in in;
	struct stat st = {0}, now = {0};
	struct watch_mark mark;
	uint64_t fh = 0, valid = 0;
	bool has_fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (rq->s->watch && in.valid & FATTR_MTIME && (int64_t)in.mtime == WATCH_EVENT_SEC &&
	    in.mtimensec == WATCH_EVENT_NSEC)
		return attributes(rq, false, 0);
	if (!rq->s->ops->setattr)
		return -EROFS;
	if ((in.valid & FATTR_SIZE && in.size > INT64_MAX) || in.atimensec > 999999999 || in.mtimensec > 999999999 ||
	    in.ctimensec > 999999999)
		return -EINVAL;
	has_fh = optional_handle(rq, in.valid & FATTR_FH, in.fh, &fh);
	st.st_mode = in.mode & 07777;
	st.st_uid = in.uid;
	st.st_gid = in.gid;
	st.st_size = (off_t)in.size;
	st.st_atim = (struct timespec){.tv_sec = (time_t)in.atime, .tv_nsec = in.atimensec};
	st.st_mtim = (struct timespec){.tv_sec = (time_t)in.mtime, .tv_nsec = in.mtimensec};
	st.st_ctim = (struct timespec){.tv_sec = (time_t)in.ctime, .tv_nsec = in.ctimensec};
	mark = watch_begin_attr(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->setattr(rq->s->be, &rq->who, rq->h.nodeid, has_fh, fh, set_from_valid(in.valid), &st, &now,
				&valid);
	if (r == 0 && in.valid & FATTR_SIZE)
		watch_length_set(rq->s->watch, &mark);
	return r < 0 ? r : reply_attr(rq, &mark, &now, valid);
}

ssize_t op_readlink(struct fuse_request *rq)
{
	char target[PATH_MAX];
	ssize_t n;

	if (!rq->s->ops->readlink)
		return -EINVAL;
	n = rq->s->ops->readlink(rq->s->be, rq->h.nodeid, target, sizeof(target) - 1);
	return n < 0 ? n : request_reply(rq, target, (size_t)n);
}

ssize_t op_symlink(struct fuse_request *rq)
{
	const char *name = request_name(rq), *target = name ? cursor_str(&rq->args) : NULL;
	struct sm_fs_entry e = {0};
	struct watch_mark mark;
	int r;

	if (!target)
		return request_no_name(rq);
	if (!*target)
		return -ENOENT;
	if (strlen(target) > MAX_LINK_TARGET)
		return -ENAMETOOLONG;
	if (!rq->s->ops->symlink)
		return -EROFS;
	mark = watch_making(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->symlink(rq->s->be, &rq->who, rq->h.nodeid, name, target, &e);
	return reply_made(rq, &mark, name, &e, r);
}

ssize_t op_mknod(struct fuse_request *rq)
{
	struct fuse_mknod_in in;
	struct sm_fs_entry e = {0};
	struct watch_mark mark;
	const char *name = request_arg(rq, &in, sizeof(in)) ? request_name(rq) : NULL;
	int r;

	if (!name)
		return request_no_name(rq);
	if (rq->s->watch && S_ISCHR(in.mode) && in.rdev == WATCH_PROBE_RDEV)
		return -EEXIST;
	if (!rq->s->ops->mknod)
		return -EROFS;
	rq->who.umask = in.umask;
	mark = watch_making(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->mknod(rq->s->be, &rq->who, rq->h.nodeid, name, in.mode, in.rdev, &e);
	return reply_made(rq, &mark, name, &e, r);
}

ssize_t op_mkdir(struct fuse_request *rq)
{
	struct fuse_mkdir_in in;
	struct sm_fs_entry e = {0};
	struct watch_mark mark;
	const char *name = request_arg(rq, &in, sizeof(in)) ? request_name(rq) : NULL;
	int r;

	if (!name)
		return request_no_name(rq);
	if (!rq->s->ops->mkdir)
		return -EROFS;
	rq->who.umask = in.umask;
	mark = watch_making(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->mkdir(rq->s->be, &rq->who, rq->h.nodeid, name, in.mode & 07777, &e);
	return reply_made(rq, &mark, name, &e, r);
}

static ssize_t remove_name(struct fuse_request *rq,
			   int (*remove)(struct sm_fs_backend *, const struct sm_fs_caller *, uint64_t, const char *))
{
	const char *name = request_name(rq);
	int r;

	if (!name)
		return request_no_name(rq);
	r = remove ? remove(rq->s->be, &rq->who, rq->h.nodeid, name) : -EROFS;
	if (r == 0)
		watch_removed(rq->s->watch, rq->h.nodeid, name);
	return r;
}

ssize_t op_unlink(struct fuse_request *rq)
{
	return remove_name(rq, rq->s->ops->unlink);
}

ssize_t op_rmdir(struct fuse_request *rq)
{
	return remove_name(rq, rq->s->ops->rmdir);
}

static ssize_t rename_to(struct fuse_request *rq, uint64_t new_parent, uint32_t flags)
{
	const char *name = request_name(rq), *new_name = name ? request_name(rq) : NULL;
	int r;

	if (!new_name)
		return request_no_name(rq);
	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if (!rq->s->ops->rename)
		return -EROFS;
	watch_begin(rq->s->watch, new_parent);
	r = rq->s->ops->rename(rq->s->be, &rq->who, rq->h.nodeid, name, new_parent, new_name, flags);
	if (r == 0)
		watch_renamed(rq->s->watch, rq->h.nodeid, name, new_parent, new_name, flags & RENAME_EXCHANGE);
	return r;
}

ssize_t op_rename(struct fuse_request *rq)
{
	struct fuse_rename_in in;

	return request_arg(rq, &in, sizeof(in)) ? rename_to(rq, in.newdir, 0) : -EPROTO;
}

ssize_t op_rename2(struct fuse_request *rq)
{
	struct fuse_rename2_in in;

	return request_arg(rq, &in, sizeof(in)) ? rename_to(rq, in.newdir, in.flags) : -EPROTO;
}

ssize_t op_link(struct fuse_request *rq)
{
	struct fuse_link_in in;
	struct sm_fs_entry e = {0};
	struct watch_mark mark;
	const char *name = request_arg(rq, &in, sizeof(in)) ? request_name(rq) : NULL;
	int r;

	if (!name)
		return request_no_name(rq);
	if (!rq->s->ops->link)
		return -EROFS;
	mark = watch_making(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->link(rq->s->be, &rq->who, in.oldnodeid, rq->h.nodeid, name, &e);
	return reply_made(rq, &mark, name, &e, r);
}

ssize_t op_statfs(struct fuse_request *rq)
{
	struct fuse_statfs_out out = {0};
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
	int r = rq->s->ops->statfs ? rq->s->ops->statfs(rq->s->be, rq->h.nodeid, &st) : 0;

	if (r < 0)
		return r;
	out.st = (struct fuse_kstatfs){
		.blocks = st.f_blocks,
		.bfree = st.f_bfree,
		.bavail = st.f_bavail,
		.files = st.f_files,
		.ffree = st.f_ffree,
		.bsize = (uint32_t)st.f_bsize,
		.namelen = (uint32_t)st.f_namemax,
		.frsize = (uint32_t)st.f_frsize,
	};
	return request_reply(rq, &out, sizeof(out));
}

ssize_t op_syncfs(struct fuse_request *rq)
{
	if (!rq->s->ops->syncfs)
		return -ENOSYS;
	return rq->s->ops->syncfs(rq->s->be, rq->h.nodeid);
}

/* The shared tail of getxattr and listxattr: a length alone, or the bytes. */
static ssize_t reply_sized(struct fuse_request *rq, uint32_t asked, const void *bytes, ssize_t n)
{
	struct fuse_getxattr_out out = {0};

	if (n < 0)
		return n;
	if (asked)
		return (size_t)n > asked ? -ERANGE : request_reply(rq, bytes, (size_t)n);
	out.size = (uint32_t)n;
	return request_reply(rq, &out, sizeof(out));
}

ssize_t op_getxattr(struct fuse_request *rq)
{
	struct fuse_getxattr_in in;
	const char *name = request_arg(rq, &in, sizeof(in)) ? cursor_str(&rq->args) : NULL;
	_free_ void *value = NULL;

	if (!name || !*name || strlen(name) > 255)
		return rq->args.bad ? -EPROTO : -EINVAL;
	if (!rq->s->ops->getxattr)
		return -ENOSYS;
	in.size = MIN(in.size, MAX_XATTR);
	if (in.size && !(value = malloc(in.size)))
		return -ENOMEM;
	return reply_sized(rq, in.size, value, rq->s->ops->getxattr(rq->s->be, rq->h.nodeid, name, value, in.size));
}

ssize_t op_listxattr(struct fuse_request *rq)
{
	struct fuse_getxattr_in in;
	_free_ char *list = NULL;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (!rq->s->ops->listxattr)
		return -ENOSYS;
	in.size = MIN(in.size, MAX_XATTR);
	if (in.size && !(list = malloc(in.size)))
		return -ENOMEM;
	return reply_sized(rq, in.size, list, rq->s->ops->listxattr(rq->s->be, rq->h.nodeid, list, in.size));
}

ssize_t op_setxattr(struct fuse_request *rq)
{
	struct fuse_setxattr_in in = {0};
	size_t fixed = rq->s->features & FUSE_SETXATTR_EXT ? sizeof(in) : FUSE_COMPAT_SETXATTR_IN_SIZE;
	const char *name = request_arg(rq, &in, fixed) ? cursor_str(&rq->args) : NULL;
	const void *value;

	if (!name || !*name || strlen(name) > 255 || in.size > MAX_XATTR)
		return rq->args.bad ? -EPROTO : -EINVAL;
	value = cursor_take(&rq->args, in.size);
	if (!value && in.size)
		return -EPROTO;
	if (!rq->s->ops->setxattr)
		return -ENOSYS;
	return rq->s->ops->setxattr(rq->s->be, &rq->who, rq->h.nodeid, name, value, in.size, (int)in.flags);
}

ssize_t op_removexattr(struct fuse_request *rq)
{
	const char *name = cursor_str(&rq->args);

	if (!name || !*name || strlen(name) > 255)
		return rq->args.bad ? -EPROTO : -EINVAL;
	if (!rq->s->ops->removexattr)
		return -ENOSYS;
	return rq->s->ops->removexattr(rq->s->be, &rq->who, rq->h.nodeid, name);
}
