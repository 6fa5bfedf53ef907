/* SPDX-License-Identifier: Apache-2.0 */
/* FUSE operations on open files. Data goes straight between the request's buffers and the backend. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/request.h"

#define INC(s, member, n) __atomic_fetch_add(&(s)->stats.member, (n), __ATOMIC_RELAXED)

void session_release(struct fuse_session *s, uint64_t nodeid, uint64_t fh, bool flock_release, uint64_t owner)
{
	if (s->features & NEWER_PASSTHROUGH)
		backing_closed(s->backing, nodeid);
	if (s->ops->release)
		s->ops->release(s->be, nodeid, fh, flock_release, owner);
}

static uint32_t fopen_flags(uint32_t flags)
{
	uint32_t out = 0;

	out |= flags & SM_FS_OPEN_DIRECT_IO ? FOPEN_DIRECT_IO : 0;
	out |= flags & SM_FS_OPEN_KEEP_CACHE ? FOPEN_KEEP_CACHE : 0;
	out |= flags & SM_FS_OPEN_CACHE_DIR ? FOPEN_CACHE_DIR : 0;
	out |= flags & SM_FS_OPEN_NOFLUSH ? FOPEN_NOFLUSH : 0;
	out |= flags & SM_FS_OPEN_PARALLEL_WRITES ? FOPEN_PARALLEL_DIRECT_WRITES : 0;
	return out;
}

/*
 * Writing to such a file drops the bits. The kernel leaves that to us (KILLPRIV_V2), so the data has to come through
 * here: what it moves itself it writes with the server's privileges, which keep them.
 */
static bool has_set_id(struct fuse_session *s, uint64_t nodeid, uint64_t fh)
{
	struct stat st = {0};
	uint64_t valid;

	return s->ops->getattr(s->be, nodeid, true, fh, &st, &valid) < 0 || st.st_mode & (S_ISUID | S_ISGID);
}

/* Where the kernel can move the data itself, it is told from where; the page cache is then the file's own. */
static void pass_through(struct fuse_session *s, uint64_t nodeid, uint64_t fh, struct fuse_open_out *out)
{
	struct sm_fs_map map = {.fd = -1};

	if (!(s->features & NEWER_PASSTHROUGH))
		return;
	if (has_set_id(s, nodeid, fh) || s->ops->dax_map(s->be, nodeid, fh, 0, 0, 0, &map) < 0)
		map.fd = -1;
	out->padding = backing_opened(s->backing, nodeid, map.fd);
	if (out->padding)
		out->open_flags = (out->open_flags & FOPEN_NOFLUSH) | NEWER_FOPEN_PASSTHROUGH;
}

/* Of a file whose data the kernel moves itself nothing is heard in between: it is taken for written to when it is
 * opened for that, and when it is closed. */
static void maybe_written(struct fuse_session *s, uint64_t nodeid, uint32_t flags)
{
	if (s->features & NEWER_PASSTHROUGH && (flags & O_ACCMODE) != O_RDONLY)
		watch_written(s->watch, nodeid);
}

/* Enters what the backend opened into the table; on failure it is released again. */
static int publish(struct fuse_request *rq, uint64_t nodeid, uint32_t flags, const struct sm_fs_open *o,
		   struct fuse_open_out *out)
{
	int r = handles_add(&rq->s->handles, nodeid, o->fh, false, &out->fh);

	out->open_flags = fopen_flags(o->flags);
	pass_through(rq->s, nodeid, o->fh, out);
	maybe_written(rq->s, nodeid, flags);
	if (r < 0)
		session_release(rq->s, nodeid, o->fh, false, 0);
	return r;
}

/*
 * What the backend is asked to open. A peer that caches writes reads what it is about to write a part of, and keeps
 * track of the end itself.
 */
static uint32_t backend_flags(const struct fuse_session *s, uint32_t flags)
{
	if (!(s->features & FUSE_WRITEBACK_CACHE))
		return flags;
	if ((flags & O_ACCMODE) == O_WRONLY)
		flags = (flags & ~(uint32_t)O_ACCMODE) | O_RDWR;
	return flags & ~(uint32_t)O_APPEND;
}

/* The peer asks for set-id bits to go with the old contents (KILLPRIV_V2). */
static void kill_suidgid(struct fuse_request *rq, uint64_t nodeid, uint32_t flags, uint32_t open_flags)
{
	struct stat none = {0}, now;
	uint64_t valid;

	/* The truncation is made: nothing can be done if this fails. */
	if (flags & O_TRUNC && open_flags & FUSE_OPEN_KILL_SUIDGID && rq->s->ops->setattr &&
	    rq->s->ops->setattr(rq->s->be, &rq->who, nodeid, false, 0, SM_FS_SET_KILL_SUIDGID, &none, &now, &valid) < 0)
		return;
}

static int open_node(struct fuse_request *rq, uint32_t flags, struct sm_fs_open *ret)
{
	uint32_t wanted = backend_flags(rq->s, flags);
	int r;

	if (!rq->s->ops->open)
		return 0;
	r = rq->s->ops->open(rq->s->be, &rq->who, rq->h.nodeid, wanted, ret);
	return r == -EACCES && wanted != flags ? rq->s->ops->open(rq->s->be, &rq->who, rq->h.nodeid, flags, ret) : r;
}

/* An open file that the peer will not hear of: it would never give it back. */
static void take_back(struct fuse_request *rq, uint64_t nodeid, uint64_t handle)
{
	uint64_t fh;

	if (handles_remove(&rq->s->handles, handle, nodeid, false, &fh) == 0)
		session_release(rq->s, nodeid, fh, false, 0);
}

/* Close-to-open: the peer must not read the file as it is now by the length that it had, nor one in whose place there
 * is another by now. 0, or -ESTALE. */
static int settle_open(struct fuse_request *rq, uint32_t flags, const struct sm_fs_open *o, struct fuse_open_out *out)
{
	enum watch_open how = WATCH_OPEN_AS_IS;
	int64_t length = o->length;

	/* Where the kernel moves the data itself, no length holds; one that caches writes keeps track of it. */
	if (flags & O_TRUNC || out->open_flags & NEWER_FOPEN_PASSTHROUGH || rq->s->features & FUSE_WRITEBACK_CACHE)
		length = WATCH_ANY_LENGTH;
	if (o->flags & SM_FS_OPEN_LENGTH)
		how = watch_opened(rq->s->watch, rq->h.nodeid, length, o->flags & SM_FS_OPEN_NAMELESS);
	if (how != WATCH_OPEN_AS_IS)
		out->open_flags &= ~(uint32_t)FOPEN_KEEP_CACHE;
	if (how == WATCH_OPEN_UNCACHED)
		out->open_flags |= FOPEN_DIRECT_IO;
	if (how != WATCH_OPEN_AGAIN)
		return 0;
	take_back(rq, rq->h.nodeid, out->fh);
	return -ESTALE;
}

ssize_t op_open(struct fuse_request *rq)
{
	struct fuse_open_in in;
	struct fuse_open_out out = {0};
	struct sm_fs_open o = {0};
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (rq->s->options.read_only && ((in.flags & O_ACCMODE) != O_RDONLY || in.flags & O_TRUNC))
		return -EROFS;
	r = open_node(rq, in.flags, &o);
	if (r == 0)
		kill_suidgid(rq, rq->h.nodeid, in.flags, in.open_flags);
	if (r == 0 && in.flags & O_TRUNC)
		watch_written(rq->s->watch, rq->h.nodeid);
	if (r == 0)
		r = publish(rq, rq->h.nodeid, in.flags, &o, &out);
	if (r == 0)
		r = settle_open(rq, in.flags, &o, &out);
	return r < 0 ? r : request_reply(rq, &out, sizeof(out));
}

/* The shared tail of create and tmpfile: an entry and an open handle in one reply. */
static ssize_t reply_created(struct fuse_request *rq, uint32_t flags, const struct sm_fs_entry *e,
			     const struct sm_fs_open *o)
{
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} out = {0};
	int r = publish(rq, e->nodeid, flags, o, &out.open);

	entry_out_from(rq->s, e, &out.entry);
	if (r == 0 && request_room(rq) >= sizeof(out))
		return request_reply(rq, &out, sizeof(out));
	if (r == 0) { /* no room to tell: the peer will never give these back */
		take_back(rq, e->nodeid, out.open.fh);
		r = -EIO;
	}
	if (rq->s->ops->forget)
		rq->s->ops->forget(rq->s->be, e->nodeid, 1);
	return r;
}

ssize_t op_create(struct fuse_request *rq)
{
	struct fuse_create_in in;
	const char *name = request_arg(rq, &in, sizeof(in)) ? request_name(rq) : NULL;
	struct sm_fs_entry e = {0};
	struct sm_fs_open o = {0};
	struct watch_mark mark;
	int r;

	if (!name)
		return request_no_name(rq);
	if (!rq->s->ops->create)
		return -ENOSYS;
	rq->who.umask = in.umask;
	mark = watch_making(rq->s->watch, rq->h.nodeid);
	r = rq->s->ops->create(rq->s->be, &rq->who, rq->h.nodeid, name, in.mode & 07777, backend_flags(rq->s, in.flags),
			       &e, &o);
	if (r < 0) {
		watch_not_made(rq->s->watch, &mark);
		return r;
	}
	kill_suidgid(rq, e.nodeid, in.flags, in.open_flags);
	watch_entry(rq->s->watch, &mark, name, &e);
	return reply_created(rq, in.flags, &e, &o);
}

ssize_t op_tmpfile(struct fuse_request *rq)
{
	struct fuse_create_in in;
	struct sm_fs_entry e = {0};
	struct sm_fs_open o = {0};
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (!rq->s->ops->tmpfile)
		return -EOPNOTSUPP;
	rq->who.umask = in.umask;
	r = rq->s->ops->tmpfile(rq->s->be, &rq->who, rq->h.nodeid, in.mode & 07777, backend_flags(rq->s, in.flags), &e,
				&o);
	return r < 0 ? r : reply_created(rq, in.flags, &e, &o);
}

/* The part [skip, skip + len) of the iovecs, in a new array; *ret_count entries. NULL on -ENOMEM or when there is less.
 */
static struct iovec *iov_slice(const struct iovec *iov, int count, size_t skip, size_t len, int *ret_count)
{
	struct iovec *part = calloc((size_t)MAX(count, 1), sizeof(*part));
	int n = 0;

	for (int i = 0; part && i < count && len; i++) {
		size_t from = MIN(skip, iov[i].iov_len), step = MIN(iov[i].iov_len - from, len);

		skip -= from;
		if (!step)
			continue;
		part[n++] = (struct iovec){.iov_base = (char *)iov[i].iov_base + from, .iov_len = step};
		len -= step;
	}
	if (len) {
		free(part);
		return NULL;
	}
	*ret_count = n;
	return part;
}

ssize_t op_read(struct fuse_request *rq)
{
	struct fuse_read_in in;
	_free_ struct iovec *iov = NULL;
	uint64_t fh;
	ssize_t n;
	int count, r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0)
		return r;
	if (in.size > rq->s->options.max_write || in.size > request_room(rq) ||
	    in.offset > (uint64_t)INT64_MAX - in.size)
		return -EINVAL;
	if (!rq->s->ops->read)
		return -ENOSYS;
	iov = iov_slice(rq->out, rq->num_out, sizeof(struct fuse_out_header), in.size, &count);
	if (!iov)
		return -ENOMEM;
	n = rq->s->ops->read(rq->s->be, rq->h.nodeid, fh, iov, count, in.offset);
	if (n > (ssize_t)in.size)
		return -EIO;
	if (n > 0)
		INC(rq->s, bytes_read, (uint64_t)n);
	return n;
}

/* Pages that the peer wrote to its cache have their place, whatever file they are sent through. */
static uint32_t write_flags(const struct fuse_write_in *in)
{
	uint32_t out = in->write_flags & FUSE_WRITE_KILL_SUIDGID ? SM_FS_WRITE_KILL_SUIDGID : 0;

	if (in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE))
		out |= SM_FS_WRITE_APPEND;
	return out;
}

ssize_t op_write(struct fuse_request *rq)
{
	struct fuse_write_in in;
	struct fuse_write_out out = {0};
	_free_ struct iovec *iov = NULL;
	size_t skip = sizeof(rq->h) + sizeof(in);
	uint64_t fh;
	ssize_t n;
	int count, r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0)
		return r;
	if (in.size > rq->s->options.max_write || in.size > rq->in_len - skip ||
	    in.offset > (uint64_t)INT64_MAX - in.size)
		return -EINVAL;
	if (!rq->s->ops->write)
		return -EROFS;
	iov = iov_slice(rq->in, rq->num_in, skip, in.size, &count);
	if (!iov)
		return -ENOMEM;
	n = rq->s->ops->write(rq->s->be, &rq->who, rq->h.nodeid, fh, iov, count, in.offset, write_flags(&in));
	if (n < 0)
		return n;
	watch_written(rq->s->watch, rq->h.nodeid);
	INC(rq->s, bytes_written, (uint64_t)n);
	out.size = (uint32_t)n;
	return request_reply(rq, &out, sizeof(out));
}

ssize_t op_flush(struct fuse_request *rq)
{
	struct fuse_flush_in in;
	uint64_t fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0)
		return r;
	return rq->s->ops->flush ? rq->s->ops->flush(rq->s->be, rq->h.nodeid, fh, in.lock_owner) : -ENOSYS;
}

ssize_t op_release(struct fuse_request *rq)
{
	struct fuse_release_in in;
	uint64_t fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = handles_remove(&rq->s->handles, in.fh, rq->h.nodeid, false, &fh);
	if (r == 0)
		maybe_written(rq->s, rq->h.nodeid, in.flags);
	if (r == 0)
		session_release(rq->s, rq->h.nodeid, fh, in.release_flags & FUSE_RELEASE_FLOCK_UNLOCK, in.lock_owner);
	return r;
}

ssize_t op_fsync(struct fuse_request *rq)
{
	struct fuse_fsync_in in;
	uint64_t fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0 || !rq->s->ops->fsync)
		return r;
	return rq->s->ops->fsync(rq->s->be, rq->h.nodeid, fh, in.fsync_flags & FUSE_FSYNC_FDATASYNC);
}

static int decode_lock(struct fuse_request *rq, uint64_t *ret_fh, struct sm_fs_lock *ret)
{
	struct fuse_lk_in in;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (in.lk.start > in.lk.end || (in.lk.type != F_RDLCK && in.lk.type != F_WRLCK && in.lk.type != F_UNLCK))
		return -EINVAL;
	*ret = (struct sm_fs_lock){
		.owner = in.owner,
		.start = in.lk.start,
		.end = in.lk.end,
		.type = (int)in.lk.type,
		.pid = in.lk.pid,
		.flock = in.lk_flags & FUSE_LK_FLOCK,
	};
	return request_handle(rq, in.fh, rq->h.nodeid, false, ret_fh);
}

ssize_t op_getlk(struct fuse_request *rq)
{
	struct fuse_lk_out out = {0};
	struct sm_fs_lock lock;
	uint64_t fh;
	int r = decode_lock(rq, &fh, &lock);

	if (r < 0)
		return r;
	if (!rq->s->ops->getlk)
		return -ENOSYS;
	r = rq->s->ops->getlk(rq->s->be, rq->h.nodeid, fh, &lock);
	if (r < 0)
		return r;
	out.lk = (struct fuse_file_lock){
		.start = lock.start, .end = lock.end, .type = (uint32_t)lock.type, .pid = lock.pid};
	return request_reply(rq, &out, sizeof(out));
}

static ssize_t set_lock(struct fuse_request *rq, bool wait)
{
	struct sm_fs_lock lock;
	uint64_t fh;
	int r = decode_lock(rq, &fh, &lock);

	if (r < 0)
		return r;
	return rq->s->ops->setlk ? rq->s->ops->setlk(rq->s->be, rq->h.nodeid, fh, &lock, wait) : -ENOSYS;
}

ssize_t op_setlk(struct fuse_request *rq)
{
	return set_lock(rq, false);
}

ssize_t op_setlkw(struct fuse_request *rq)
{
	return set_lock(rq, true);
}

ssize_t op_fallocate(struct fuse_request *rq)
{
	struct fuse_fallocate_in in;
	uint64_t fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0)
		return r;
	if (!in.length || in.offset > (uint64_t)INT64_MAX || in.length > (uint64_t)INT64_MAX - in.offset)
		return in.length && in.offset <= INT64_MAX ? -EFBIG : -EINVAL;
	if (!rq->s->ops->fallocate)
		return -EOPNOTSUPP;
	watch_written(rq->s->watch, rq->h.nodeid);
	return rq->s->ops->fallocate(rq->s->be, rq->h.nodeid, fh, (int)in.mode, in.offset, in.length);
}

ssize_t op_lseek(struct fuse_request *rq)
{
	struct fuse_lseek_in in;
	struct fuse_lseek_out out = {0};
	uint64_t fh;
	int64_t off;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh, rq->h.nodeid, false, &fh);
	if (r < 0)
		return r;
	if (!rq->s->ops->lseek)
		return -ENOSYS;
	if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE)
		return -EINVAL;
	if (in.offset > INT64_MAX)
		return -ENXIO;
	off = rq->s->ops->lseek(rq->s->be, rq->h.nodeid, fh, in.offset, (int)in.whence);
	if (off < 0)
		return (ssize_t)off;
	out.offset = (uint64_t)off;
	return request_reply(rq, &out, sizeof(out));
}

/* The count copied, or -errno. */
static ssize_t copy_range(struct fuse_request *rq, uint64_t max)
{
	struct fuse_copy_file_range_in in;
	uint64_t from, to;
	ssize_t n;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = request_handle(rq, in.fh_in, rq->h.nodeid, false, &from);
	if (r == 0)
		r = request_handle(rq, in.fh_out, in.nodeid_out, false, &to);
	if (r < 0)
		return r;
	in.len = MIN(in.len, max);
	if (in.flags || in.off_in > (uint64_t)INT64_MAX - in.len || in.off_out > (uint64_t)INT64_MAX - in.len)
		return -EINVAL;
	if (!rq->s->ops->copy_file_range)
		return -EOPNOTSUPP;
	watch_written(rq->s->watch, in.nodeid_out);
	n = rq->s->ops->copy_file_range(rq->s->be, rq->h.nodeid, from, in.off_in, in.nodeid_out, to, in.off_out,
					in.len);
	return n > (ssize_t)in.len ? -EIO : n;
}

ssize_t op_copy_file_range(struct fuse_request *rq)
{
	ssize_t n = copy_range(rq, (uint64_t)INT32_MAX & ~4095ULL); /* the reply counts in 32 bits */
	struct fuse_write_out out = {.size = (uint32_t)n};

	return n < 0 ? n : request_reply(rq, &out, sizeof(out));
}

ssize_t op_copy_file_range_64(struct fuse_request *rq)
{
	ssize_t n = copy_range(rq, (uint64_t)INT64_MAX & ~4095ULL);
	struct newer_copy_file_range_out out = {.bytes_copied = (uint64_t)n};

	return n < 0 ? n : request_reply(rq, &out, sizeof(out));
}
