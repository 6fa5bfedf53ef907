/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session: gathering a request, INIT, the opcode table, replies. See session.h.
 *
 * States: NEW (nothing but INIT is served) -> READY (after INIT) -> ENDED (after DESTROY) -> READY (a new INIT: a
 * remount over the same virtio-fs device, say). A second INIT in READY is refused.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "fuse/request.h"

#define OUR_MINOR                                                                                                      \
	SESSION_MINOR /* protocol 7.45: what later minors added is negotiated by flags, or refused by opcode */
#define LEAST_MINOR SESSION_LEAST_MINOR /* older kernels have other struct sizes */
#define MAX_GATHER                                                                                                     \
	139264u /* header + setxattr arguments + a 64 KiB value + a 64 KiB name list: nothing but WRITE is longer */
#define MAX_FORGETS (FUSE_SESSION_MAX_WRITE + 65536u)
#define GATHER_ON_STACK 4608u /* header, arguments and two names of 255 bytes, or a symlink's target of 4095 */

#define INC(s, member, n) __atomic_fetch_add(&(s)->stats.member, (n), __ATOMIC_RELAXED)

int fuse_session_new(struct sm_fs_backend *backend, const struct fuse_session_options *options,
		     struct fuse_session **ret)
{
	struct fuse_session *s;
	int r;

	if (!backend->ops || backend->ops->size < offsetof(struct sm_fs_ops, dax_map) || !backend->ops->lookup ||
	    !backend->ops->getattr || !backend->ops->readdir || !backend->ops->read)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->be = backend;
	memcpy(&s->own_ops, backend->ops, MIN(backend->ops->size, sizeof(s->own_ops)));
	s->ops = &s->own_ops;
	if (options)
		s->options = *options;
	if (!s->options.max_write || s->options.max_write > FUSE_SESSION_MAX_WRITE)
		s->options.max_write = FUSE_SESSION_MAX_WRITE;
	if (!s->options.max_handles)
		s->options.max_handles = FUSE_SESSION_MAX_HANDLES;
	if (s->options.audit)
		s->audit = *s->options.audit;
	readings_init(&s->readings);
	r = handles_init(&s->handles, s->options.max_handles);
	/* Without inotify (out of instances, say) answers are valid for as long as the backend says: slower, not wrong.
	 */
	if (r == 0 && s->options.watch && s->ops->watch && watch_new(backend, s->ops, &s->watch) < 0)
		s->watch = NULL;
	if (r == 0 && s->options.backing && s->ops->dax_map && !(s->backing = backing_new(s->options.backing))) {
		handles_done(&s->handles);
		r = -ENOMEM;
	}
	if (r == 0 && s->options.dax && !(s->dax = dax_new(s->options.dax))) {
		handles_done(&s->handles);
		r = -ENOMEM;
	}
	if (r < 0) {
		readings_done(&s->readings);
		watch_free(s->watch);
		backing_free(s->backing);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* What the peer left open when it went away. */
static void release_all(struct fuse_session *s)
{
	readings_close_all(s);
	for (uint32_t i = 0; i < s->handles.count; i++) {
		struct fuse_handle *h = &s->handles.slots[i];
		uint64_t fh;

		if (!h->used ||
		    handles_remove(&s->handles, (uint64_t)h->generation << 32 | i, h->nodeid, h->is_dir, &fh) < 0)
			continue;
		if (h->is_dir)
			session_releasedir(s, h->nodeid, fh);
		else
			session_release(s, h->nodeid, fh, true, 0);
	}
}

struct fuse_session *fuse_session_free(struct fuse_session *s)
{
	if (!s)
		return NULL;
	release_all(s);
	dax_clear(s);
	if (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == STATE_READY && s->ops->destroy)
		s->ops->destroy(s->be);
	handles_done(&s->handles);
	readings_done(&s->readings);
	watch_free(s->watch);
	backing_free(s->backing);
	dax_free(s->dax);
	free(s);
	return NULL;
}

struct watch *fuse_session_watch(struct fuse_session *s)
{
	return s->watch;
}

bool fuse_session_over_uring(const struct fuse_session *s)
{
	return s->features & NEWER_OVER_IO_URING;
}

bool fuse_session_ended(struct fuse_session *s)
{
	return __atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == STATE_ENDED;
}

void fuse_session_get_stats(struct fuse_session *s, struct fuse_session_stats *ret)
{
	*ret = (struct fuse_session_stats){
		.requests = __atomic_load_n(&s->stats.requests, __ATOMIC_RELAXED),
		.errors = __atomic_load_n(&s->stats.errors, __ATOMIC_RELAXED),
		.bytes_read = __atomic_load_n(&s->stats.bytes_read, __ATOMIC_RELAXED),
		.bytes_written = __atomic_load_n(&s->stats.bytes_written, __ATOMIC_RELAXED),
		.malformed = __atomic_load_n(&s->stats.malformed, __ATOMIC_RELAXED),
		.handles_open = handles_used(&s->handles),
	};
}

/* ------------------------------------------------------------------------------------- arguments and replies */

static size_t iov_length(const struct iovec *iov, int count)
{
	size_t len = 0;

	for (int i = 0; i < count; i++)
		if (__builtin_add_overflow(len, iov[i].iov_len, &len))
			return SIZE_MAX;
	return len;
}

/* Copies len bytes from the start of the iovecs; the caller knows that they hold as many. */
static void iov_gather(const struct iovec *iov, int count, void *p, size_t len)
{
	for (int i = 0; i < count && len; i++) {
		size_t step = MIN(iov[i].iov_len, len);

		if (!step) /* an empty piece may have no address */
			continue;
		memcpy(p, iov[i].iov_base, step);
		p = (char *)p + step;
		len -= step;
	}
}

static void iov_scatter(const struct iovec *iov, int count, size_t off, const void *p, size_t len)
{
	for (int i = 0; i < count && len; i++) {
		size_t step;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		step = MIN(iov[i].iov_len - off, len); /* not 0 */
		memcpy((char *)iov[i].iov_base + off, p, step);
		p = (const char *)p + step;
		len -= step;
		off = 0;
	}
}

bool request_arg(struct fuse_request *rq, void *p, size_t size)
{
	const void *from = cursor_take(&rq->args, size);

	if (from)
		memcpy(p, from, size);
	return from != NULL;
}

const char *request_name(struct fuse_request *rq)
{
	const char *name = cursor_str(&rq->args);

	if (!name || !*name || streq(name, ".") || streq(name, "..") || strchr(name, '/'))
		return NULL;
	rq->long_name = strlen(name) > 255; /* the kernel passes up to 1024 bytes on */
	return rq->long_name ? NULL : name;
}

ssize_t request_no_name(const struct fuse_request *rq)
{
	return rq->args.bad ? -EPROTO : rq->long_name ? -ENAMETOOLONG : -EINVAL;
}

size_t request_room(const struct fuse_request *rq)
{
	return rq->out_len - sizeof(struct fuse_out_header);
}

ssize_t request_put(struct fuse_request *rq, size_t offset, const void *p, size_t len)
{
	if (!range_inside(offset, len, request_room(rq)))
		return -EIO;
	iov_scatter(rq->out, rq->num_out, sizeof(struct fuse_out_header) + offset, p, len);
	return (ssize_t)len;
}

ssize_t request_reply(struct fuse_request *rq, const void *p, size_t len)
{
	return request_put(rq, 0, p, len);
}

int request_handle(struct fuse_request *rq, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh)
{
	int r = handles_get(&rq->s->handles, handle, nodeid, is_dir, ret_fh);

	if (r == 0)
		rq->pinned[rq->num_pinned++] = handle;
	return r;
}

void set_valid(uint64_t ns, uint64_t *ret_s, uint32_t *ret_ns)
{
	*ret_s = ns / 1000000000;
	*ret_ns = (uint32_t)(ns % 1000000000);
}

void attr_from_stat(struct fuse_session *s, uint64_t nodeid, const struct stat *st, bool submount,
		    struct fuse_attr *ret)
{
	*ret = (struct fuse_attr){
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = (uint64_t)st->st_atim.tv_sec,
		.mtime = (uint64_t)st->st_mtim.tv_sec,
		.ctime = (uint64_t)st->st_ctim.tv_sec,
		.atimensec = (uint32_t)st->st_atim.tv_nsec,
		.mtimensec = (uint32_t)st->st_mtim.tv_nsec,
		.ctimensec = (uint32_t)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev,
		.blksize = (uint32_t)st->st_blksize,
		.flags = (submount ? FUSE_ATTR_SUBMOUNT : 0) | (dax_wanted(s, nodeid, st) ? FUSE_ATTR_DAX : 0),
	};
}

void entry_out_from(struct fuse_session *s, const struct sm_fs_entry *e, struct fuse_entry_out *ret)
{
	*ret = (struct fuse_entry_out){.nodeid = e->nodeid, .generation = e->generation};
	set_valid(e->entry_valid_ns, &ret->entry_valid, &ret->entry_valid_nsec);
	set_valid(e->attr_valid_ns, &ret->attr_valid, &ret->attr_valid_nsec);
	if (e->nodeid)
		attr_from_stat(s, e->nodeid, &e->attr, e->submount, &ret->attr);
}

/* ------------------------------------------------------------------------------------------------ INIT */

/*
 * Feature bits that we take when the peer offers them, and why. No OPENDIR (readings.h) where the peer can be told that
 * what it has listed is not so any more, or nobody else changes the tree. Left out on purpose: SECURITY_CTX, a label
 * for what is made, since the host's security module labels its files itself; CREATE_SUPP_GROUP, the groups of who
 * makes something, since owners are set by number and nobody is asked for permission by them; POSIX_ACL, since the
 * host's ACLs act there and are not spoken of; WRITEBACK_CACHE unless asked for, with which the peer believes its own
 * size and times for good.
 */
uint64_t session_wanted_features(const struct fuse_session *s)
{
	uint64_t want = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_PARALLEL_DIROPS |
			FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | /* ls -l without a round trip a file */
			FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
			FUSE_HANDLE_KILLPRIV_V2 | /* saves a getxattr(security.capability) before writes */
			FUSE_SETXATTR_EXT | FUSE_SUBMOUNTS | FUSE_INIT_EXT;

	/* Cached pages are dropped when mtime or size are others than they were; or never. */
	want |= s->options.sole ? FUSE_EXPLICIT_INVAL_DATA : FUSE_AUTO_INVAL_DATA;
	if (s->watch || s->options.sole)
		want |= FUSE_NO_OPENDIR_SUPPORT;
	if (s->ops->getlk && s->ops->setlk)
		want |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
	if (s->dax)
		want |= FUSE_MAP_ALIGNMENT | FUSE_HAS_INODE_DAX;
	if (s->options.writeback && !s->options.read_only)
		want |= FUSE_WRITEBACK_CACHE;
	else if (s->backing)
		want |= NEWER_PASSTHROUGH;
	if (s->options.over_uring)
		want |= NEWER_OVER_IO_URING;
	return want;
}

static ssize_t op_init(struct fuse_request *rq)
{
	struct fuse_session *s = rq->s;
	struct fuse_init_in in = {0};
	struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION};
	size_t known = MIN(rq->args.left, sizeof(in));
	uint64_t offered;
	int r = 0;

	/* Kernels before 7.36 send 16 bytes, later ones 64. */
	if (known < 16 || !request_arg(rq, &in, known))
		return -EPROTO;
	if (in.major > FUSE_KERNEL_VERSION) /* the peer asks again in our major version */
		return request_reply(rq, &out, sizeof(out));
	if (in.major < FUSE_KERNEL_VERSION || in.minor < LEAST_MINOR)
		return -EPROTO;
	offered = in.flags | (in.flags & FUSE_INIT_EXT ? (uint64_t)in.flags2 << 32 : 0);
	s->features = offered & session_wanted_features(s);
	s->minor = MIN(in.minor, OUR_MINOR);
	out.minor = OUR_MINOR;
	out.max_readahead = in.max_readahead;
	out.flags = (uint32_t)s->features;
	out.flags2 = (uint32_t)(s->features >> 32);
	out.max_background = 1024; /* the default of 12 stalls asynchronous reads */
	out.congestion_threshold = 768;
	out.max_write = s->options.max_write;
	out.max_pages = (uint16_t)(s->options.max_write / 4096);
	out.time_gran = 1;
	out.map_alignment = s->features & FUSE_MAP_ALIGNMENT ? FUSE_DAX_SHIFT : 0;
	/* Files of a file system that itself lies on none: more levels would have to be counted. */
	out.unused[0] = s->features & NEWER_PASSTHROUGH ? 1 : 0; /* max_stack_depth of 7.40 */
	if (s->ops->init)
		r = s->ops->init(s->be);
	return r < 0 ? r : request_reply(rq, &out, sizeof(out));
}

static ssize_t serve_init(struct fuse_request *rq)
{
	struct fuse_session *s = rq->s;
	int state = __atomic_load_n(&s->state, __ATOMIC_ACQUIRE);
	ssize_t r;

	if (state != STATE_NEW && state != STATE_ENDED)
		return -EIO;
	if (!__atomic_compare_exchange_n(&s->state, &state, STATE_INIT, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return -EIO;
	s->minor = 0;
	watch_reset(s->watch);
	dax_clear(s);
	r = op_init(rq);
	/* A reply with another major version asks for a second INIT. */
	__atomic_store_n(&s->state, r >= 0 && s->minor ? STATE_READY : STATE_NEW, __ATOMIC_RELEASE);
	return r;
}

static ssize_t op_destroy(struct fuse_request *rq)
{
	struct fuse_session *s = rq->s;

	release_all(s);
	dax_clear(s);
	if (s->ops->destroy)
		s->ops->destroy(s->be);
	__atomic_store_n(&s->state, STATE_ENDED, __ATOMIC_RELEASE);
	return 0;
}

/* The peer wants an older request cut short. Nothing here blocks on another peer's doing, so there is nothing to cut.
 */
static ssize_t op_interrupt(struct fuse_request *rq)
{
	(void)rq;
	return FUSE_NO_REPLY;
}

/* The peer checks permissions itself (default_permissions); ENOSYS tells it never to ask again. */
static ssize_t op_unsupported(struct fuse_request *rq)
{
	(void)rq;
	return -ENOSYS;
}

/* --------------------------------------------------------------------------------------------- dispatch */

struct operation {
	fuse_handler handler;
	bool changes; /* refused with EROFS on a read-only session */
};

static const struct operation operations[] = {
	[FUSE_LOOKUP] = {op_lookup, false},
	[FUSE_FORGET] = {op_forget, false},
	[FUSE_GETATTR] = {op_getattr, false},
	[FUSE_SETATTR] = {op_setattr, true},
	[FUSE_READLINK] = {op_readlink, false},
	[FUSE_SYMLINK] = {op_symlink, true},
	[FUSE_MKNOD] = {op_mknod, true},
	[FUSE_MKDIR] = {op_mkdir, true},
	[FUSE_UNLINK] = {op_unlink, true},
	[FUSE_RMDIR] = {op_rmdir, true},
	[FUSE_RENAME] = {op_rename, true},
	[FUSE_LINK] = {op_link, true},
	[FUSE_OPEN] = {op_open, false},
	[FUSE_READ] = {op_read, false},
	[FUSE_WRITE] = {op_write, true},
	[FUSE_STATFS] = {op_statfs, false},
	[FUSE_RELEASE] = {op_release, false},
	[FUSE_FSYNC] = {op_fsync, false},
	[FUSE_SETXATTR] = {op_setxattr, true},
	[FUSE_GETXATTR] = {op_getxattr, false},
	[FUSE_LISTXATTR] = {op_listxattr, false},
	[FUSE_REMOVEXATTR] = {op_removexattr, true},
	[FUSE_FLUSH] = {op_flush, false},
	[FUSE_OPENDIR] = {op_opendir, false},
	[FUSE_READDIR] = {op_readdir, false},
	[FUSE_RELEASEDIR] = {op_releasedir, false},
	[FUSE_FSYNCDIR] = {op_fsyncdir, false},
	[FUSE_GETLK] = {op_getlk, false},
	[FUSE_SETLK] = {op_setlk, false},
	[FUSE_SETLKW] = {op_setlkw, false},
	[FUSE_ACCESS] = {op_unsupported, false},
	[FUSE_CREATE] = {op_create, true},
	[FUSE_INTERRUPT] = {op_interrupt, false},
	[FUSE_BMAP] = {op_unsupported, false},
	[FUSE_DESTROY] = {op_destroy, false},
	[FUSE_IOCTL] = {op_unsupported, false},
	[FUSE_POLL] = {op_unsupported, false},
	[FUSE_BATCH_FORGET] = {op_batch_forget, false},
	[FUSE_FALLOCATE] = {op_fallocate, true},
	[FUSE_READDIRPLUS] = {op_readdirplus, false},
	[FUSE_RENAME2] = {op_rename2, true},
	[FUSE_LSEEK] = {op_lseek, false},
	[FUSE_COPY_FILE_RANGE] = {op_copy_file_range, true},
	[FUSE_SETUPMAPPING] = {op_setupmapping, false},
	[FUSE_REMOVEMAPPING] = {op_removemapping, false},
	[FUSE_SYNCFS] = {op_syncfs, false},
	[FUSE_TMPFILE] = {op_tmpfile, true},
	[NEWER_OP_STATX] = {op_statx, false},
	[NEWER_OP_COPY_FILE_RANGE_64] = {op_copy_file_range_64, true},
};

static ssize_t dispatch(struct fuse_request *rq)
{
	const struct operation *op;
	ssize_t r;

	if (rq->h.opcode == FUSE_INIT)
		return serve_init(rq);
	if (__atomic_load_n(&rq->s->state, __ATOMIC_ACQUIRE) != STATE_READY)
		return -EIO;
	if (rq->h.opcode >= ARRAY_SIZE(operations) || !operations[rq->h.opcode].handler)
		return -ENOSYS;
	op = &operations[rq->h.opcode];
	rq->herald = herald_serves(rq, op->changes, &r);
	if (rq->herald)
		return r;
	if (op->changes && rq->s->options.read_only)
		return -EROFS;
	return op->handler(rq);
}

static bool never_replies(uint32_t opcode)
{
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
}

/* How much of the request is gathered: all of it, but for WRITE only its fixed part. 0: too long for what it is. */
static size_t gather_length(const struct fuse_request *rq)
{
	if (rq->h.opcode == FUSE_WRITE)
		return MIN(rq->in_len, sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in));
	/* The kernel packs as many of these as it finds room for in what /dev/fuse is read into. */
	if (rq->h.opcode == FUSE_BATCH_FORGET)
		return rq->in_len <= MAX_FORGETS ? rq->in_len : 0;
	return rq->in_len <= MAX_GATHER ? rq->in_len : 0;
}

static ssize_t serve_gathered(struct fuse_request *rq, const uint8_t *bytes, size_t len)
{
	struct fuse_out_header out = {.unique = rq->h.unique};
	ssize_t r;

	rq->args = cursor_of(bytes + sizeof(rq->h), len - sizeof(rq->h));
	r = dispatch(rq);
	if (rq->s->audit.note)
		audit_served(rq, cursor_of(bytes + sizeof(rq->h), len - sizeof(rq->h)), r);
	dax_settle(rq->s);
	while (rq->num_pinned)
		handles_put(&rq->s->handles, rq->pinned[--rq->num_pinned]);
	if (r == FUSE_NO_REPLY || never_replies(rq->h.opcode))
		return 0;
	if (r < 0) {
		INC(rq->s, errors, 1);
		if (r == -EPROTO) { /* ours for "no kernel sends that"; the peer sees an invalid argument */
			INC(rq->s, malformed, 1);
			r = -EINVAL;
		}
		out.error = (int32_t)r;
		r = 0;
	}
	out.len = (uint32_t)(sizeof(out) + (size_t)r);
	iov_scatter(rq->out, rq->num_out, 0, &out, sizeof(out));
	return (ssize_t)out.len;
}

ssize_t fuse_session_serve(struct fuse_session *s, const struct iovec *in, int num_in, const struct iovec *out,
			   int num_out)
{
	uint8_t small[GATHER_ON_STACK];
	struct fuse_request rq = {.s = s, .in = in, .out = out, .num_in = num_in, .num_out = num_out};
	uint8_t *bytes = small;
	size_t len;
	ssize_t r;

	INC(s, requests, 1);
	rq.in_len = iov_length(in, num_in);
	rq.out_len = iov_length(out, num_out);
	if (rq.in_len < sizeof(rq.h) || rq.in_len == SIZE_MAX || rq.out_len == SIZE_MAX)
		goto broken;
	iov_gather(in, num_in, &rq.h, sizeof(rq.h));
	if (rq.h.len > rq.in_len || rq.h.len < sizeof(rq.h))
		goto broken;
	if (rq.out_len < sizeof(struct fuse_out_header) && !never_replies(rq.h.opcode))
		goto broken;
	rq.in_len = rq.h.len;
	rq.who = (struct sm_fs_caller){.uid = rq.h.uid, .gid = rq.h.gid, .pid = rq.h.pid};
	len = gather_length(&rq);
	if (!len)
		goto broken;
	if (len > sizeof(small) && !(bytes = malloc(len)))
		bytes = small, len = sizeof(rq.h),
		rq.h.opcode = UINT32_MAX; /* answered as unknown: no memory for more */
	iov_gather(in, num_in, bytes, len);
	r = serve_gathered(&rq, bytes, len);
	if (bytes != small)
		free(bytes);
	return r;
broken:
	INC(s, malformed, 1);
	return -EPROTO;
}
