/* SPDX-License-Identifier: Apache-2.0 */
/* The requests of a shared tree's client that are about open files, locks and listings. See share_ops.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "fuse/share_client.h"

#define LOCK_POLL_LEAST_NS 1000000
#define LOCK_POLL_MOST_NS 50000000
#define ROOM_OF_ENTRY 512u /* of a listing: all but the name */

/* ---------------------------------------------------------------------------------------------- files */

static bool writes(uint32_t flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

static void give_up(struct share_call *call, uint64_t nodeid, uint64_t fh)
{
	if (call->client->ops->release)
		call->client->ops->release(call->client->be, nodeid, fh, false, 0);
}

/* What the client has in its cache was shown to it, whatever others were shown since; only then may it keep that. */
static uint32_t keep_flags(struct share_call *call, uint64_t nodeid, uint64_t fh, uint32_t flags)
{
	struct share_ref *ref;
	struct stat st = {0};
	uint64_t valid;
	bool keep = false;

	if (!(flags & SM_FS_OPEN_KEEP_CACHE))
		return flags;
	if (call->client->ops->getattr(call->client->be, nodeid, true, fh, &st, &valid) == 0) {
		pthread_mutex_lock(&call->client->lock);
		ref = share_refs_find(&call->client->refs, nodeid);
		keep = ref && share_ref_is(ref, &st);
		pthread_mutex_unlock(&call->client->lock);
	}
	return keep ? flags : flags & ~(uint32_t)SM_FS_OPEN_KEEP_CACHE;
}

static void answer_fd(struct share_call *call, const struct sm_fs_map *map)
{
	call->out_fd = map->fd;
	call->give = map->give;
}

/* A part of a file that the client maps for its peer, by node: u64 offset, length, u32 protection. */
int64_t share_do_map(struct share_call *call)
{
	uint64_t offset = cursor_u64(&call->args), length = cursor_u64(&call->args);
	uint32_t protection = cursor_u32(&call->args);
	struct sm_fs_map map = {.fd = -1};
	int r;

	if (call->args.bad || offset > INT64_MAX || length > (uint64_t)INT64_MAX - offset ||
	    protection & ~(uint32_t)(PROT_READ | PROT_WRITE))
		return SHARE_BROKEN;
	if (call->client->read_only && protection & PROT_WRITE)
		return -EROFS;
	r = call->client->ops->dax_map(call->client->be, call->rq.nodeid, SM_FS_NO_HANDLE, offset, length,
				       (int)protection, &map);
	if (r < 0)
		return r;
	answer_fd(call, &map);
	buf_put_u64(&call->values, map.offset);
	buf_put_u64(&call->values, map.length);
	buf_put_u32(&call->values, (uint32_t)map.protection);
	return 0;
}

/*
 * An open file becomes a handle of the client's, pinned until the answer is out: nobody closes the descriptor before.
 * The client moves the data itself where there is one, unless it asked to leave out the host's cache.
 */
static int answer_open(struct share_call *call, uint64_t nodeid, uint32_t flags, const struct sm_fs_open *o)
{
	struct sm_fs_map map = {.fd = -1};
	uint64_t handle, fh;
	int r = handles_add(&call->client->handles, nodeid, o->fh, false, &handle);

	if (r < 0) {
		give_up(call, nodeid, o->fh);
		return r;
	}
	r = share_get_handle(call, handle, nodeid, false, &fh);
	if (r < 0) /* another thread of the client's guessed and closed it */
		return r;
	if (!(flags & O_DIRECT) && call->client->ops->dax_map &&
	    call->client->ops->dax_map(call->client->be, nodeid, fh, 0, 0, 0, &map) == 0)
		answer_fd(call, &map);
	buf_put_u64(&call->values, handle);
	buf_put_u32(&call->values, keep_flags(call, nodeid, fh, o->flags));
	buf_put_u64(&call->values, (uint64_t)o->length);
	return 0;
}

int64_t share_do_open(struct share_call *call)
{
	uint32_t flags = cursor_u32(&call->args);
	struct sm_fs_open o = {0};
	int r = 0;

	if (call->args.bad)
		return SHARE_BROKEN;
	if (call->client->read_only && writes(flags))
		return -EROFS;
	if (call->client->ops->open)
		r = call->client->ops->open(call->client->be, &call->rq.who, call->rq.nodeid, flags, &o);
	return r < 0 ? r : answer_open(call, call->rq.nodeid, flags, &o);
}

static int64_t answer_created(struct share_call *call, int r, uint32_t flags, const struct sm_fs_entry *e,
			      const struct sm_fs_open *o)
{
	if (r < 0)
		return r;
	r = share_adopt(call, e);
	if (r < 0) {
		give_up(call, e->nodeid, o->fh);
		return r;
	}
	share_put_entry(&call->values, e);
	return answer_open(call, e->nodeid, flags, o); /* if that fails the client has a reference that it ends with */
}

int64_t share_do_create(struct share_call *call)
{
	const char *name = share_get_name(&call->args);
	uint32_t mode = cursor_u32(&call->args), flags = cursor_u32(&call->args);
	struct sm_fs_entry e = {0};
	struct sm_fs_open o = {0};

	if (call->args.bad)
		return SHARE_BROKEN;
	return answer_created(
		call,
		call->client->ops->create(call->client->be, &call->rq.who, call->rq.nodeid, name, mode, flags, &e, &o),
		flags, &e, &o);
}

int64_t share_do_tmpfile(struct share_call *call)
{
	uint32_t mode = cursor_u32(&call->args), flags = cursor_u32(&call->args);
	struct sm_fs_entry e = {0};
	struct sm_fs_open o = {0};

	if (call->args.bad)
		return SHARE_BROKEN;
	return answer_created(
		call, call->client->ops->tmpfile(call->client->be, &call->rq.who, call->rq.nodeid, mode, flags, &e, &o),
		flags, &e, &o);
}

int64_t share_do_read(struct share_call *call)
{
	uint64_t offset = cursor_u64(&call->args), fh;
	uint32_t size = cursor_u32(&call->args);
	struct iovec iov = {.iov_base = call->mem, .iov_len = size};
	int r;

	if (call->args.bad || size > SHARE_BULK || offset > (uint64_t)INT64_MAX - size)
		return SHARE_BROKEN;
	r = share_own_handle(call, false, &fh);
	return r < 0 ? r
		     : share_answer_bulk(
			       call, call->client->ops->read(call->client->be, call->rq.nodeid, fh, &iov, 1, offset),
			       size);
}

int64_t share_do_write(struct share_call *call)
{
	uint64_t offset = cursor_u64(&call->args), fh;
	uint32_t flags = cursor_u32(&call->args);
	struct iovec iov = {.iov_base = call->mem, .iov_len = call->rq.bulk};
	int r;

	if (call->args.bad || offset > (uint64_t)INT64_MAX - call->rq.bulk)
		return SHARE_BROKEN;
	r = share_own_handle(call, false, &fh);
	return r < 0 ? r
		     : call->client->ops->write(call->client->be, &call->rq.who, call->rq.nodeid, fh, &iov, 1, offset,
						flags);
}

static uint64_t salted(const struct share_call *call, uint64_t owner)
{
	return owner ^ call->client->salt;
}

int64_t share_do_flush(struct share_call *call)
{
	uint64_t owner = cursor_u64(&call->args), fh;
	int r = call->args.bad ? SHARE_BROKEN : share_own_handle(call, false, &fh);

	return r < 0 ? r : call->client->ops->flush(call->client->be, call->rq.nodeid, fh, salted(call, owner));
}

/* A lock that was taken through a handle, or through any: false when there is none. */
static bool take_lock(struct share_client *c, uint64_t handle, bool any, struct share_lock *ret)
{
	bool found = false;

	pthread_mutex_lock(&c->lock);
	for (size_t i = c->num_locks; i-- > 0 && !found;) {
		found = any || c->locks[i].handle == handle;
		if (found) {
			*ret = c->locks[i];
			c->locks[i] = c->locks[--c->num_locks];
		}
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

int64_t share_do_release(struct share_call *call)
{
	bool flock_release = cursor_u8(&call->args);
	uint64_t owner = cursor_u64(&call->args), fh;
	struct share_client *c = call->client;
	struct share_lock lock;
	int r;

	if (call->args.bad)
		return SHARE_BROKEN;
	r = handles_remove(&c->handles, call->rq.fh, call->rq.nodeid, false, &fh);
	if (r < 0)
		return r;
	while (take_lock(c, call->rq.fh, false, &lock))
		if (c->ops->flush)
			(void)c->ops->flush(c->be, call->rq.nodeid, fh, lock.owner);
	if (c->ops->release)
		c->ops->release(c->be, call->rq.nodeid, fh, flock_release, salted(call, owner));
	return 0;
}

void share_unlock_all(struct share_client *c)
{
	struct share_lock lock;
	uint64_t fh;

	while (take_lock(c, 0, true, &lock)) {
		if (!c->ops->flush || handles_get(&c->handles, lock.handle, lock.nodeid, false, &fh) < 0)
			continue;
		(void)c->ops->flush(c->be, lock.nodeid, fh, lock.owner);
		handles_put(&c->handles, lock.handle);
	}
}

int64_t share_do_fsync(struct share_call *call)
{
	bool data_only = cursor_u8(&call->args), is_dir = call->rq.op == SHARE_FSYNCDIR;
	uint64_t fh;
	int r = share_own_handle(call, is_dir, &fh);

	if (r < 0)
		return r;
	return (is_dir ? call->client->ops->fsyncdir : call->client->ops->fsync)(call->client->be, call->rq.nodeid, fh,
										 data_only);
}

int64_t share_do_fallocate(struct share_call *call)
{
	uint32_t mode = cursor_u32(&call->args);
	uint64_t offset = cursor_u64(&call->args), length = cursor_u64(&call->args), fh;
	int r;

	if (call->args.bad || offset > INT64_MAX || length > (uint64_t)INT64_MAX - offset)
		return SHARE_BROKEN;
	r = share_own_handle(call, false, &fh);
	return r < 0 ? r
		     : call->client->ops->fallocate(call->client->be, call->rq.nodeid, fh, (int)mode, offset, length);
}

int64_t share_do_lseek(struct share_call *call)
{
	uint64_t offset = cursor_u64(&call->args), fh;
	uint32_t whence = cursor_u32(&call->args);
	int r;

	if (call->args.bad || offset > INT64_MAX || (whence != SEEK_DATA && whence != SEEK_HOLE))
		return SHARE_BROKEN;
	r = share_own_handle(call, false, &fh);
	return r < 0 ? r : call->client->ops->lseek(call->client->be, call->rq.nodeid, fh, offset, (int)whence);
}

int64_t share_do_copy_file_range(struct share_call *call)
{
	uint64_t from = cursor_u64(&call->args), node_to = cursor_u64(&call->args), handle_to = cursor_u64(&call->args),
		 to = cursor_u64(&call->args), length = cursor_u64(&call->args), fh, fh_to;
	int r;

	if (call->args.bad || length > INT64_MAX || from > INT64_MAX - length || to > INT64_MAX - length)
		return SHARE_BROKEN;
	r = share_own_handle(call, false, &fh);
	if (r == 0)
		r = share_get_handle(call, handle_to, node_to, false, &fh_to);
	return r < 0 ? r
		     : call->client->ops->copy_file_range(call->client->be, call->rq.nodeid, fh, from, node_to, fh_to,
							  to, length);
}

/* ---------------------------------------------------------------------------------------------- locks */

static int get_lock(struct share_call *call, struct sm_fs_lock *ret, uint64_t *ret_fh)
{
	share_get_lock(&call->args, ret);
	if (call->args.bad || ret->start > ret->end ||
	    (ret->type != F_RDLCK && ret->type != F_WRLCK && ret->type != F_UNLCK))
		return SHARE_BROKEN;
	ret->owner = salted(call, ret->owner);
	return share_own_handle(call, false, ret_fh);
}

int64_t share_do_getlk(struct share_call *call)
{
	struct sm_fs_lock lock;
	uint64_t fh;
	int r = get_lock(call, &lock, &fh);

	if (r == 0)
		r = call->client->ops->getlk(call->client->be, call->rq.nodeid, fh, &lock);
	if (r == 0)
		share_put_lock(&call->values, &lock);
	return r;
}

/* Written down before it is taken: 0, -ENOLCK, -ENOMEM. */
static int note_lock(struct share_call *call, const struct sm_fs_lock *lock)
{
	struct share_lock now = {call->rq.nodeid, call->rq.fh, lock->owner};
	struct share_client *c = call->client;
	int r = 0;

	if (lock->flock || lock->type == F_UNLCK)
		return 0;
	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < c->num_locks && r == 0; i++)
		r = memcmp(&c->locks[i], &now, sizeof(now)) == 0;
	if (r == 0 && c->num_locks == SHARE_MAX_LOCKS)
		r = -ENOLCK;
	if (r == 0 && !c->locks && !(c->locks = calloc(SHARE_MAX_LOCKS, sizeof(*c->locks))))
		r = -ENOMEM;
	if (r == 0)
		c->locks[c->num_locks++] = now;
	pthread_mutex_unlock(&c->lock);
	return MIN(r, 0);
}

/* Waiting is asking again and again: a client that is gone waits no more. */
int64_t share_do_setlk(struct share_call *call)
{
	struct timespec pause = {.tv_nsec = LOCK_POLL_LEAST_NS};
	struct sm_fs_lock lock;
	bool wait;
	uint64_t fh;
	int r = get_lock(call, &lock, &fh);

	wait = cursor_u8(&call->args);
	if (r == 0)
		r = call->args.bad ? SHARE_BROKEN : note_lock(call, &lock);
	if (r < 0)
		return r;
	while ((r = call->client->ops->setlk(call->client->be, call->rq.nodeid, fh, &lock, false)) == -EAGAIN && wait &&
	       !__atomic_load_n(&call->client->ended, __ATOMIC_ACQUIRE)) {
		nanosleep(&pause, NULL);
		pause.tv_nsec = MIN(pause.tv_nsec * 2, LOCK_POLL_MOST_NS);
	}
	return r;
}

/* ------------------------------------------------------------------------------------------ directories */

int64_t share_do_opendir(struct share_call *call)
{
	struct sm_fs_open o = {0};
	uint64_t handle;
	int r = 0;

	if (call->client->ops->opendir)
		r = call->client->ops->opendir(call->client->be, &call->rq.who, call->rq.nodeid, &o);
	if (r < 0)
		return r;
	r = handles_add(&call->client->handles, call->rq.nodeid, o.fh, true, &handle);
	if (r < 0) {
		if (call->client->ops->releasedir)
			call->client->ops->releasedir(call->client->be, call->rq.nodeid, o.fh);
		return r;
	}
	buf_put_u64(&call->values, handle);
	/* Whose listing the backend means is not known: the client reads it anew. */
	buf_put_u32(&call->values, o.flags & ~(uint32_t)SM_FS_OPEN_KEEP_CACHE);
	buf_put_u64(&call->values, 0); /* of a directory */
	return 0;
}

struct listing {
	struct share_call *call;
	struct buf out;
	bool full;
};

static bool add_entry(void *arg, const char *name, uint64_t ino, uint32_t d_type, uint64_t next_offset,
		      const struct sm_fs_entry *entry)
{
	static const struct sm_fs_entry nothing;
	struct listing *l = arg;

	l->full = l->out.len + strlen(name) + ROOM_OF_ENTRY > SHARE_LISTING || l->out.error;
	if (l->full || buf_reserve(&l->out, ROOM_OF_ENTRY + strlen(name)) < 0)
		return false;
	if (entry && share_adopt(l->call, entry) < 0)
		entry = &nothing; /* listed all the same: the client looks it up */
	share_put_str(&l->out, name);
	buf_put_u64(&l->out, ino);
	buf_put_u32(&l->out, d_type);
	buf_put_u64(&l->out, next_offset);
	buf_put_u8(&l->out, entry != NULL);
	if (entry)
		share_put_entry(&l->out, entry);
	return true;
}

/* A part of a listing in the bulk; the result: whether there may be more. */
int64_t share_do_readdir(struct share_call *call)
{
	uint64_t offset = cursor_u64(&call->args), fh;
	bool plus = cursor_u8(&call->args);
	struct listing l = {.call = call};
	int r;

	if (call->args.bad)
		return SHARE_BROKEN;
	r = share_own_handle(call, true, &fh);
	if (r == 0)
		r = call->client->ops->readdir(call->client->be, &call->rq.who, call->rq.nodeid, fh, offset, plus,
					       add_entry, &l);
	if (r == 0 && l.out.error)
		r = -ENOMEM;
	if (r == 0) {
		memcpy(call->mem, l.out.data ? l.out.data : (const uint8_t *)"", l.out.len);
		call->bulk = (uint32_t)l.out.len;
		r = l.full;
	}
	buf_done(&l.out);
	return r;
}

int64_t share_do_releasedir(struct share_call *call)
{
	uint64_t fh;
	int r = handles_remove(&call->client->handles, call->rq.fh, call->rq.nodeid, true, &fh);

	if (r == 0 && call->client->ops->releasedir)
		call->client->ops->releasedir(call->client->be, call->rq.nodeid, fh);
	return r;
}
