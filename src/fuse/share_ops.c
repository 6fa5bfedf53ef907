/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests of a shared tree's client, on the server's side: each is decoded, held against what the client may name,
 * and becomes a call of the backend. Here those about nodes, and the dispatch; about open files: share_files.c. See
 * share_proto.h.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/share_client.h"

/* ------------------------------------------------------------------------------- what a client may name */

/* 0, or -ESTALE for a node that the client does not hold. */
int share_check_node(struct share_call *call, uint64_t nodeid)
{
	bool known;

	if (nodeid == SM_FS_ROOT)
		return 0;
	pthread_mutex_lock(&call->client->lock);
	known = share_refs_find(&call->client->refs, nodeid) != NULL;
	pthread_mutex_unlock(&call->client->lock);
	return known ? 0 : -ESTALE;
}

int share_get_handle(struct share_call *call, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh)
{
	int r = handles_get(&call->client->handles, handle, nodeid, is_dir, ret_fh);

	if (r == 0)
		call->pinned[call->num_pinned++] = handle;
	return r;
}

/* The handle that the request is about. */
int share_own_handle(struct share_call *call, bool is_dir, uint64_t *ret_fh)
{
	return share_get_handle(call, call->rq.fh, call->rq.nodeid, is_dir, ret_fh);
}

static void forget(struct share_call *call, uint64_t nodeid, uint64_t count)
{
	if (count && call->client->ops->forget)
		call->client->ops->forget(call->client->be, nodeid, count);
}

static void note_shown(struct share_call *call, uint64_t nodeid, const struct stat *st)
{
	struct share_ref *ref;

	pthread_mutex_lock(&call->client->lock);
	ref = share_refs_find(&call->client->refs, nodeid);
	if (ref)
		share_ref_show(ref, st);
	pthread_mutex_unlock(&call->client->lock);
}

/* A reference that the backend took is the client's from now on; where that cannot be noted it is given back. */
int share_adopt(struct share_call *call, const struct sm_fs_entry *e)
{
	int r;

	if (!e->nodeid || e->nodeid == SM_FS_ROOT)
		return 0;
	pthread_mutex_lock(&call->client->lock);
	r = share_refs_add(&call->client->refs, e->nodeid);
	if (r == 0)
		share_ref_show(share_refs_find(&call->client->refs, e->nodeid), &e->attr);
	pthread_mutex_unlock(&call->client->lock);
	if (r < 0)
		forget(call, e->nodeid, 1);
	return r;
}

static int64_t answer_entry(struct share_call *call, int r, const struct sm_fs_entry *e)
{
	if (r == 0)
		r = share_adopt(call, e);
	if (r == 0)
		share_put_entry(&call->values, e);
	return r;
}

/* ---------------------------------------------------------------------------------------------- nodes */

static int64_t do_lookup(struct share_call *call)
{
	const char *name = share_get_name(&call->args);
	struct sm_fs_entry e = {0};

	if (!name)
		return SHARE_BROKEN;
	return answer_entry(call, call->client->ops->lookup(call->client->be, &call->rq.who, call->rq.nodeid, name, &e),
			    &e);
}

/* u32 how many; of each u64 node, u64 count: in the bulk. */
static int64_t do_forget(struct share_call *call)
{
	struct cursor c;
	uint8_t *copy = malloc((size_t)call->rq.bulk + 1);
	uint32_t count = cursor_u32(&call->args);

	if (!copy || count != call->rq.bulk / 16) {
		free(copy);
		return copy ? SHARE_BROKEN : -ENOMEM;
	}
	memcpy(copy, call->mem, call->rq.bulk);
	c = cursor_of(copy, call->rq.bulk);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t nodeid = cursor_u64(&c), n = cursor_u64(&c);

		pthread_mutex_lock(&call->client->lock);
		n = share_refs_drop(&call->client->refs, nodeid, n);
		pthread_mutex_unlock(&call->client->lock);
		forget(call, nodeid, n);
	}
	free(copy);
	return 0;
}

static void forget_all(struct share_client *c, struct share_refs *refs)
{
	uint64_t nodeid, count;

	while (share_refs_pop(refs, &nodeid, &count))
		if (c->ops->forget)
			c->ops->forget(c->be, nodeid, count);
	share_refs_done(refs);
}

/* The client begins anew: it holds no node any more. */
static int64_t do_reset(struct share_call *call)
{
	struct share_client *c = call->client;
	struct share_refs old, none;
	int r = share_refs_init(&none, SHARE_MAX_NODES);

	if (r < 0)
		return r;
	pthread_mutex_lock(&c->lock);
	old = c->refs;
	c->refs = none;
	pthread_mutex_unlock(&c->lock);
	forget_all(c, &old);
	return 0;
}

static void answer_attr(struct share_call *call, const struct stat *st, uint64_t valid_ns)
{
	note_shown(call, call->rq.nodeid, st);
	buf_put_u64(&call->values, valid_ns);
	share_put_stat(&call->values, st);
}

static int64_t do_getattr(struct share_call *call)
{
	bool has_fh = cursor_u8(&call->args);
	uint64_t fh = 0, valid = 0;
	struct stat st = {0};
	int r = has_fh ? share_own_handle(call, false, &fh) : 0;

	if (r == 0)
		r = call->client->ops->getattr(call->client->be, call->rq.nodeid, has_fh, fh, &st, &valid);
	if (r == 0)
		answer_attr(call, &st, valid);
	return r;
}

static int64_t do_setattr(struct share_call *call)
{
	bool has_fh = cursor_u8(&call->args);
	uint32_t set = cursor_u32(&call->args);
	uint64_t fh = 0, valid = 0;
	struct stat in, st = {0};
	int r;

	share_get_stat(&call->args, &in);
	if (call->args.bad || in.st_size < 0)
		return SHARE_BROKEN;
	r = has_fh ? share_own_handle(call, false, &fh) : 0;
	if (r == 0)
		r = call->client->ops->setattr(call->client->be, &call->rq.who, call->rq.nodeid, has_fh, fh, set, &in,
					       &st, &valid);
	if (r == 0)
		answer_attr(call, &st, valid);
	return r;
}

/* A result of at most `room` bytes in the bulk. */
int64_t share_answer_bulk(struct share_call *call, ssize_t n, size_t room)
{
	if (n > (ssize_t)room)
		return -EIO;
	call->bulk = n > 0 ? (uint32_t)n : 0;
	return n;
}

static int64_t do_readlink(struct share_call *call)
{
	return share_answer_bulk(
		call, call->client->ops->readlink(call->client->be, call->rq.nodeid, (char *)call->mem, PATH_MAX),
		PATH_MAX);
}

static int64_t do_symlink(struct share_call *call)
{
	const char *name = share_get_name(&call->args), *target = cursor_str(&call->args);
	struct sm_fs_entry e = {0};

	if (!name || !target)
		return SHARE_BROKEN;
	return answer_entry(
		call, call->client->ops->symlink(call->client->be, &call->rq.who, call->rq.nodeid, name, target, &e),
		&e);
}

static int64_t do_mknod(struct share_call *call)
{
	const char *name = share_get_name(&call->args);
	uint32_t mode = cursor_u32(&call->args), rdev = cursor_u32(&call->args);
	struct sm_fs_entry e = {0};

	if (call->args.bad)
		return SHARE_BROKEN;
	return answer_entry(
		call, call->client->ops->mknod(call->client->be, &call->rq.who, call->rq.nodeid, name, mode, rdev, &e),
		&e);
}

static int64_t do_mkdir(struct share_call *call)
{
	const char *name = share_get_name(&call->args);
	uint32_t mode = cursor_u32(&call->args);
	struct sm_fs_entry e = {0};

	if (call->args.bad)
		return SHARE_BROKEN;
	return answer_entry(
		call, call->client->ops->mkdir(call->client->be, &call->rq.who, call->rq.nodeid, name, mode, &e), &e);
}

static int64_t do_link(struct share_call *call)
{
	const char *name = share_get_name(&call->args);
	uint64_t parent = cursor_u64(&call->args);
	struct sm_fs_entry e = {0};
	int r;

	if (call->args.bad)
		return SHARE_BROKEN;
	r = share_check_node(call, parent);
	if (r < 0)
		return r;
	return answer_entry(
		call, call->client->ops->link(call->client->be, &call->rq.who, call->rq.nodeid, parent, name, &e), &e);
}

static int64_t do_unlink(struct share_call *call)
{
	const char *name = share_get_name(&call->args);

	return name ? call->client->ops->unlink(call->client->be, &call->rq.who, call->rq.nodeid, name) : SHARE_BROKEN;
}

static int64_t do_rmdir(struct share_call *call)
{
	const char *name = share_get_name(&call->args);

	return name ? call->client->ops->rmdir(call->client->be, &call->rq.who, call->rq.nodeid, name) : SHARE_BROKEN;
}

static int64_t do_rename(struct share_call *call)
{
	const char *name = share_get_name(&call->args), *new_name = share_get_name(&call->args);
	uint64_t parent = cursor_u64(&call->args);
	uint32_t flags = cursor_u32(&call->args);
	int r;

	if (call->args.bad)
		return SHARE_BROKEN;
	r = share_check_node(call, parent);
	return r < 0 ? r
		     : call->client->ops->rename(call->client->be, &call->rq.who, call->rq.nodeid, name, parent,
						 new_name, flags);
}

static int64_t do_statfs(struct share_call *call)
{
	struct statvfs v = {0};
	int r = call->client->ops->statfs(call->client->be, call->rq.nodeid, &v);
	const uint64_t values[] = {v.f_bsize, v.f_frsize, v.f_blocks, v.f_bfree,  v.f_bavail,
				   v.f_files, v.f_ffree,  v.f_favail, v.f_namemax};

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(values); i++)
		buf_put_u64(&call->values, values[i]);
	return r;
}

static int64_t do_getxattr(struct share_call *call)
{
	uint32_t room = cursor_u32(&call->args);
	const char *name = cursor_str(&call->args);
	ssize_t n;

	if (call->args.bad || room > SHARE_BULK)
		return SHARE_BROKEN;
	n = call->client->ops->getxattr(call->client->be, call->rq.nodeid, name, call->mem, room);
	return room ? share_answer_bulk(call, n, room) : n;
}

static int64_t do_listxattr(struct share_call *call)
{
	uint32_t room = cursor_u32(&call->args);
	ssize_t n;

	if (call->args.bad || room > SHARE_BULK)
		return SHARE_BROKEN;
	n = call->client->ops->listxattr(call->client->be, call->rq.nodeid, (char *)call->mem, room);
	return room ? share_answer_bulk(call, n, room) : n;
}

/* The value is copied: a backend may look at it more than once. */
static int64_t do_setxattr(struct share_call *call)
{
	uint32_t flags = cursor_u32(&call->args);
	const char *name = cursor_str(&call->args);
	uint8_t *copy;
	int r;

	if (call->args.bad)
		return SHARE_BROKEN;
	copy = malloc((size_t)call->rq.bulk + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, call->mem, call->rq.bulk);
	r = call->client->ops->setxattr(call->client->be, &call->rq.who, call->rq.nodeid, name, copy, call->rq.bulk,
					(int)flags);
	free(copy);
	return r;
}

static int64_t do_removexattr(struct share_call *call)
{
	const char *name = cursor_str(&call->args);

	return name ? call->client->ops->removexattr(call->client->be, &call->rq.who, call->rq.nodeid, name)
		    : SHARE_BROKEN;
}

static int64_t do_syncfs(struct share_call *call)
{
	return call->client->ops->syncfs(call->client->be, call->rq.nodeid);
}

static int64_t do_birth(struct share_call *call)
{
	struct timespec t;
	int r = call->client->ops->birth(call->client->be, call->rq.nodeid, &t);

	if (r == 0) {
		buf_put_u64(&call->values, (uint64_t)t.tv_sec);
		buf_put_u32(&call->values, (uint32_t)t.tv_nsec);
	}
	return r;
}

/* Under a number of the client's; one that has no feed, or wants another, gets it with the answer. */
static int64_t do_watch(struct share_call *call)
{
	struct share_client *c = call->client;
	uint32_t id = cursor_u32(&call->args);
	bool fresh = cursor_u8(&call->args);
	int fd = -1, r;

	if (call->args.bad)
		return SHARE_BROKEN;
	r = c->feeds ? share_feeds_watch(c->feeds, &c->feed, call->rq.nodeid, id, fresh, &fd) : -EOPNOTSUPP;
	if (r == 0 && fd >= 0) {
		call->out_fd = fd;
		call->give = true;
	}
	return r;
}

/* ---------------------------------------------------------------------------------------------- dispatch */

struct operation {
	share_handler handler;
	size_t needs; /* the backend's function; 0: it can do without */
	bool changes;
};

#define OP(f) offsetof(struct sm_fs_ops, f)
static const struct operation operations[SHARE_NUM_OPS] = {
	[SHARE_LOOKUP] = {do_lookup, OP(lookup), false},
	[SHARE_FORGET] = {do_forget, 0, false},
	[SHARE_GETATTR] = {do_getattr, OP(getattr), false},
	[SHARE_SETATTR] = {do_setattr, OP(setattr), true},
	[SHARE_READLINK] = {do_readlink, OP(readlink), false},
	[SHARE_SYMLINK] = {do_symlink, OP(symlink), true},
	[SHARE_MKNOD] = {do_mknod, OP(mknod), true},
	[SHARE_MKDIR] = {do_mkdir, OP(mkdir), true},
	[SHARE_LINK] = {do_link, OP(link), true},
	[SHARE_CREATE] = {share_do_create, OP(create), true},
	[SHARE_TMPFILE] = {share_do_tmpfile, OP(tmpfile), true},
	[SHARE_UNLINK] = {do_unlink, OP(unlink), true},
	[SHARE_RMDIR] = {do_rmdir, OP(rmdir), true},
	[SHARE_RENAME] = {do_rename, OP(rename), true},
	[SHARE_OPEN] = {share_do_open, 0, false},
	[SHARE_READ] = {share_do_read, OP(read), false},
	[SHARE_WRITE] = {share_do_write, OP(write), true},
	[SHARE_FLUSH] = {share_do_flush, OP(flush), false},
	[SHARE_RELEASE] = {share_do_release, 0, false},
	[SHARE_FSYNC] = {share_do_fsync, OP(fsync), false},
	[SHARE_FSYNCDIR] = {share_do_fsync, OP(fsyncdir), false},
	[SHARE_SYNCFS] = {do_syncfs, OP(syncfs), false},
	[SHARE_OPENDIR] = {share_do_opendir, 0, false},
	[SHARE_READDIR] = {share_do_readdir, OP(readdir), false},
	[SHARE_RELEASEDIR] = {share_do_releasedir, 0, false},
	[SHARE_STATFS] = {do_statfs, OP(statfs), false},
	[SHARE_GETXATTR] = {do_getxattr, OP(getxattr), false},
	[SHARE_LISTXATTR] = {do_listxattr, OP(listxattr), false},
	[SHARE_SETXATTR] = {do_setxattr, OP(setxattr), true},
	[SHARE_REMOVEXATTR] = {do_removexattr, OP(removexattr), true},
	[SHARE_GETLK] = {share_do_getlk, OP(getlk), false},
	[SHARE_SETLK] = {share_do_setlk, OP(setlk), false},
	[SHARE_FALLOCATE] = {share_do_fallocate, OP(fallocate), true},
	[SHARE_LSEEK] = {share_do_lseek, OP(lseek), false},
	[SHARE_COPY_FILE_RANGE] = {share_do_copy_file_range, OP(copy_file_range), true},
	[SHARE_WATCH] = {do_watch, OP(watch), false},
	[SHARE_MAP] = {share_do_map, OP(dax_map), false},
	[SHARE_RESET] = {do_reset, 0, false},
	[SHARE_BIRTH] = {do_birth, OP(birth), false},
};

static bool has(const struct sm_fs_ops *ops, size_t member)
{
	void *function;

	memcpy(&function, (const char *)ops + member, sizeof(function));
	return !member || function;
}

uint64_t share_ops_mask(const struct sm_fs_ops *ops)
{
	uint64_t mask = 0;

	for (unsigned i = 0; i < SHARE_NUM_OPS; i++)
		if (operations[i].handler && has(ops, operations[i].needs))
			mask |= 1ULL << i;
	return mask;
}

/* What a client leaves: its handles, then its references. */
static void give_up_all(struct share_client *c)
{
	uint64_t fh;

	share_unlock_all(c);
	for (uint32_t i = 0; i < c->handles.count; i++) {
		struct fuse_handle *h = &c->handles.slots[i];

		if (!h->used ||
		    handles_remove(&c->handles, (uint64_t)h->generation << 32 | i, h->nodeid, h->is_dir, &fh) < 0)
			continue;
		if (h->is_dir && c->ops->releasedir)
			c->ops->releasedir(c->be, h->nodeid, fh);
		else if (!h->is_dir && c->ops->release)
			c->ops->release(c->be, h->nodeid, fh, true, 0);
	}
	forget_all(c, &c->refs);
}

int64_t share_call_serve(struct share_call *call)
{
	uint32_t op = call->rq.op;
	int64_t r;

	if (call->args.bad || op >= SHARE_NUM_OPS || !operations[op].handler || call->rq.bulk > SHARE_BULK) {
		call->broken = true;
		return -EPROTO;
	}
	if (!has(call->client->ops, operations[op].needs))
		return -ENOSYS;
	if (operations[op].changes && call->client->read_only)
		return -EROFS;
	r = op == SHARE_FORGET || op == SHARE_RESET ? 0 : share_check_node(call, call->rq.nodeid);
	if (r == 0)
		r = operations[op].handler(call);
	call->broken = r == SHARE_BROKEN;
	return r == SHARE_BROKEN ? -EPROTO : r;
}

void share_call_done(struct share_call *call)
{
	while (call->num_pinned)
		handles_put(&call->client->handles, call->pinned[--call->num_pinned]);
	if (call->give)
		fd_close(call->out_fd);
	buf_done(&call->values);
}

int share_client_init(struct share_client *c, struct sm_fs_backend *be, const struct sm_fs_ops *ops, bool read_only)
{
	int r;

	*c = (struct share_client){.be = be, .ops = ops, .read_only = read_only};
	if (syscall(SYS_getrandom, &c->salt, sizeof(c->salt), 0) != sizeof(c->salt))
		return -EIO;
	r = share_refs_init(&c->refs, SHARE_MAX_NODES);
	if (r < 0)
		return r;
	r = handles_init(&c->handles, SHARE_MAX_HANDLES);
	if (r < 0) {
		share_refs_done(&c->refs);
		return r;
	}
	pthread_mutex_init(&c->lock, NULL);
	return 0;
}

void share_client_done(struct share_client *c)
{
	if (c->feeds)
		share_feeds_end(c->feeds, c->feed);
	give_up_all(c);
	handles_done(&c->handles);
	free(c->locks);
	pthread_mutex_destroy(&c->lock);
}
