/* SPDX-License-Identifier: Apache-2.0 */
/* FUSE operations on directories, opened by the peer or not (readings.h). A listing is packed into a buffer of the size
 * asked for, then scattered into the reply. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/request.h"

ssize_t op_opendir(struct fuse_request *rq)
{
	struct fuse_open_in in;
	struct fuse_open_out out = {0};
	struct sm_fs_open o = {0};
	int r = 0;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (session_opens_no_directories(rq->s))
		return -ENOSYS;
	if (rq->s->ops->opendir)
		r = rq->s->ops->opendir(rq->s->be, &rq->who, rq->h.nodeid, &o);
	if (r < 0)
		return r;
	r = handles_add(&rq->s->handles, rq->h.nodeid, o.fh, true, &out.fh);
	if (r < 0) {
		session_releasedir(rq->s, rq->h.nodeid, o.fh);
		return r;
	}
	out.open_flags = (o.flags & SM_FS_OPEN_CACHE_DIR ? FOPEN_CACHE_DIR : 0) |
			 (o.flags & SM_FS_OPEN_KEEP_CACHE ? FOPEN_KEEP_CACHE : 0);
	return request_reply(rq, &out, sizeof(out));
}

/* The listing being packed. */
struct packing {
	uint8_t *data;
	size_t len, size;
	uint64_t next; /* the offset behind it */
	bool plus;
	struct fuse_session *session;
	struct watch_mark mark;
};

/* Records are 8-byte aligned (FUSE_DIRENT_ALIGN); an entry that does not fit whole is not added. */
static bool pack_dirent(void *arg, const char *name, uint64_t ino, uint32_t d_type, uint64_t next_offset,
			const struct sm_fs_entry *entry)
{
	static const struct sm_fs_entry none;
	struct packing *p = arg;
	size_t name_len = strlen(name), head = p->plus ? sizeof(struct fuse_entry_out) : 0;
	size_t whole = align_up(head + sizeof(struct fuse_dirent) + name_len, 8);
	struct fuse_dirent d = {.ino = ino, .off = next_offset, .namelen = (uint32_t)name_len, .type = d_type};
	uint8_t *to = p->data + p->len;

	if (name_len > 255 || whole > p->size - p->len)
		return false;
	if (p->plus) {
		struct sm_fs_entry known = entry ? *entry : none;
		struct fuse_entry_out e;

		if (known.nodeid)
			watch_entry(p->session->watch, &p->mark, name, &known);
		entry_out_from(p->session, &known, &e);
		memcpy(to, &e, sizeof(e));
	}
	memcpy(to + head, &d, sizeof(d));
	memcpy(to + head + sizeof(d), name, name_len);
	memset(to + head + sizeof(d) + name_len, 0, whole - head - sizeof(d) - name_len);
	p->len += whole;
	p->next = next_offset;
	return true;
}

static int pack_from(struct fuse_request *rq, struct packing *p, uint64_t fh, uint64_t offset)
{
	int r = rq->s->ops->readdir(rq->s->be, &rq->who, rq->h.nodeid, fh, offset, p->plus, pack_dirent, p);

	/* References taken for what is packed already must reach the peer: an error waits for the next call. */
	return p->len ? 0 : r;
}

/* Of a directory that the peer has opened. */
static int list_opened(struct fuse_request *rq, struct packing *p, const struct fuse_read_in *in)
{
	uint64_t fh;
	int r = request_handle(rq, in->fh, rq->h.nodeid, true, &fh);

	if (r < 0)
		return r;
	if (p->plus)
		p->mark = watch_begin(rq->s->watch, rq->h.nodeid);
	return pack_from(rq, p, fh, in->offset);
}

/*
 * Of one that it has not. It keeps every listing whose end is an empty answer. What it must not keep, since it could
 * not be told of changes, ends in one that is too short to be an entry, which Linux takes for an end like any other,
 * only that it has not seen that one.
 */
static int list_unopened(struct fuse_request *rq, struct packing *p, const struct fuse_read_in *in)
{
	struct fuse_session *s = rq->s;
	struct fuse_reading reading;
	int r = reading_take(s, &rq->who, rq->h.nodeid, in->offset, &reading);
	bool keeps, over;

	if (r < 0)
		return r;
	keeps = reading.flags & SM_FS_OPEN_CACHE_DIR;
	p->mark = watch_listing(s->watch, rq->h.nodeid, keeps && in->offset == 0);
	keeps = keeps && (s->options.sole || p->mark.watched);
	r = pack_from(rq, p, reading.fh, in->offset);
	reading.at = p->next;
	over = r < 0 || !p->len;
	reading_put(s, &reading, over);
	if (r == 0 && over && !keeps) {
		p->len = MIN(sizeof(uint64_t), p->size);
		memset(p->data, 0, p->len);
	}
	return r;
}

static ssize_t list(struct fuse_request *rq, bool plus)
{
	struct fuse_read_in in;
	struct packing p = {.plus = plus, .session = rq->s};
	_free_ uint8_t *data = NULL;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	p.size = MIN(MIN((size_t)in.size, request_room(rq)), (size_t)rq->s->options.max_write);
	p.data = data = malloc(MAX(p.size, sizeof(uint64_t)));
	if (!data)
		return -ENOMEM;
	r = session_opens_no_directories(rq->s) ? list_unopened(rq, &p, &in) : list_opened(rq, &p, &in);
	return r < 0 ? r : request_reply(rq, p.data, p.len);
}

ssize_t op_readdir(struct fuse_request *rq)
{
	return list(rq, false);
}

ssize_t op_readdirplus(struct fuse_request *rq)
{
	return list(rq, true);
}

ssize_t op_releasedir(struct fuse_request *rq)
{
	struct fuse_release_in in;
	uint64_t fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	r = handles_remove(&rq->s->handles, in.fh, rq->h.nodeid, true, &fh);
	if (r == 0)
		session_releasedir(rq->s, rq->h.nodeid, fh);
	return r;
}

static int sync_unopened(struct fuse_request *rq, bool data_only)
{
	struct fuse_reading reading;
	int r = reading_take(rq->s, &rq->who, rq->h.nodeid, 0, &reading);

	if (r < 0)
		return r;
	if (rq->s->ops->fsyncdir)
		r = rq->s->ops->fsyncdir(rq->s->be, rq->h.nodeid, reading.fh, data_only);
	reading_put(rq->s, &reading, true);
	return r;
}

ssize_t op_fsyncdir(struct fuse_request *rq)
{
	struct fuse_fsync_in in;
	uint64_t fh;
	int r;

	if (!request_arg(rq, &in, sizeof(in)))
		return -EPROTO;
	if (session_opens_no_directories(rq->s))
		return sync_unopened(rq, in.fsync_flags & FUSE_FSYNC_FDATASYNC);
	r = request_handle(rq, in.fh, rq->h.nodeid, true, &fh);
	if (r < 0 || !rq->s->ops->fsyncdir)
		return r;
	return rq->s->ops->fsyncdir(rq->s->be, rq->h.nodeid, fh, in.fsync_flags & FUSE_FSYNC_FDATASYNC);
}
