/* SPDX-License-Identifier: Apache-2.0 */
/* What the two sides of a shared tree say to each other: encoding. See share_proto.h. */
#include "fuse/share_proto.h"

#include "base/util.h"

/* A failed buf_put shows in buf.error, a short packet in cursor.bad: looked at once, at the end. */

void share_put_request(struct buf *b, const struct share_request *rq)
{
	buf_put_u32(b, rq->op);
	buf_put_u32(b, rq->bulk);
	buf_put_u32(b, rq->who.uid);
	buf_put_u32(b, rq->who.gid);
	buf_put_u32(b, rq->who.pid);
	buf_put_u32(b, rq->who.umask);
	buf_put_u64(b, rq->nodeid);
	buf_put_u64(b, rq->fh);
}

void share_get_request(struct cursor *c, struct share_request *ret)
{
	ret->op = cursor_u32(c);
	ret->bulk = cursor_u32(c);
	ret->who.uid = cursor_u32(c);
	ret->who.gid = cursor_u32(c);
	ret->who.pid = cursor_u32(c);
	ret->who.umask = cursor_u32(c);
	ret->nodeid = cursor_u64(c);
	ret->fh = cursor_u64(c);
}

static void put_time(struct buf *b, const struct timespec *t)
{
	buf_put_u64(b, (uint64_t)t->tv_sec);
	buf_put_u32(b, (uint32_t)t->tv_nsec);
}

static struct timespec get_time(struct cursor *c)
{
	struct timespec t = {.tv_sec = (time_t)cursor_u64(c)};

	t.tv_nsec = cursor_u32(c);
	return t;
}

void share_put_stat(struct buf *b, const struct stat *st)
{
	buf_put_u64(b, st->st_ino);
	buf_put_u64(b, (uint64_t)st->st_size);
	buf_put_u64(b, (uint64_t)st->st_blocks);
	buf_put_u64(b, st->st_rdev);
	buf_put_u32(b, (uint32_t)st->st_nlink);
	buf_put_u32(b, st->st_mode);
	buf_put_u32(b, st->st_uid);
	buf_put_u32(b, st->st_gid);
	buf_put_u32(b, (uint32_t)st->st_blksize);
	put_time(b, &st->st_atim);
	put_time(b, &st->st_mtim);
	put_time(b, &st->st_ctim);
}

void share_get_stat(struct cursor *c, struct stat *ret)
{
	*ret = (struct stat){.st_ino = cursor_u64(c)};
	ret->st_size = (off_t)cursor_u64(c);
	ret->st_blocks = (blkcnt_t)cursor_u64(c);
	ret->st_rdev = cursor_u64(c);
	ret->st_nlink = cursor_u32(c);
	ret->st_mode = cursor_u32(c);
	ret->st_uid = cursor_u32(c);
	ret->st_gid = cursor_u32(c);
	ret->st_blksize = (blksize_t)cursor_u32(c);
	ret->st_atim = get_time(c);
	ret->st_mtim = get_time(c);
	ret->st_ctim = get_time(c);
}

void share_put_entry(struct buf *b, const struct sm_fs_entry *e)
{
	buf_put_u64(b, e->nodeid);
	buf_put_u64(b, e->generation);
	buf_put_u64(b, e->entry_valid_ns);
	buf_put_u64(b, e->attr_valid_ns);
	buf_put_u8(b, e->submount);
	share_put_stat(b, &e->attr);
}

void share_get_entry(struct cursor *c, struct sm_fs_entry *ret)
{
	*ret = (struct sm_fs_entry){.nodeid = cursor_u64(c)};
	ret->generation = cursor_u64(c);
	ret->entry_valid_ns = cursor_u64(c);
	ret->attr_valid_ns = cursor_u64(c);
	ret->submount = cursor_u8(c);
	share_get_stat(c, &ret->attr);
}

void share_put_lock(struct buf *b, const struct sm_fs_lock *lock)
{
	buf_put_u64(b, lock->owner);
	buf_put_u64(b, lock->start);
	buf_put_u64(b, lock->end);
	buf_put_u32(b, (uint32_t)lock->type);
	buf_put_u32(b, lock->pid);
	buf_put_u8(b, lock->flock);
}

void share_get_lock(struct cursor *c, struct sm_fs_lock *ret)
{
	*ret = (struct sm_fs_lock){.owner = cursor_u64(c)};
	ret->start = cursor_u64(c);
	ret->end = cursor_u64(c);
	ret->type = (int)cursor_u32(c);
	ret->pid = cursor_u32(c);
	ret->flock = cursor_u8(c);
}

void share_put_str(struct buf *b, const char *s)
{
	buf_put(b, s, strlen(s) + 1);
}

const char *share_get_name(struct cursor *c)
{
	const char *name = cursor_str(c);

	if (name && *name && strlen(name) <= 255 && !strchr(name, '/') && !streq(name, ".") && !streq(name, ".."))
		return name;
	c->bad = true;
	return NULL;
}
