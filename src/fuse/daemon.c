/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon backend: nodes, directories, and how it is made. Open files are daemon_file.c. See daemon.h. */
#include "fuse/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/daemon_file.h"
#include "fuse/watch.h"

#define DEFAULT_LANES 4

/* ---------------------------------------------------------------------------------------------- answers */

/* For requests whose answer is 0 or an error. */
static int run_plain(struct daemon_call *call)
{
	int64_t r = daemon_call_run(call);

	daemon_call_end(call);
	return r < 0 ? (int)r : 0;
}

int daemon_get_entry(struct daemon_call *call, struct sm_fs_entry *ret)
{
	struct sm_fs_entry e;

	share_get_entry(&call->in, &e);
	if (call->in.bad || e.nodeid > DAEMON_ID_MASK) /* one that large leaves no room for the epoch */
		return daemon_call_break(call);
	if (e.nodeid && e.nodeid != SM_FS_ROOT)
		e.nodeid |= call->conn->epoch;
	*ret = e;
	return 0;
}

static int run_entry(struct daemon_call *call, struct sm_fs_entry *ret)
{
	int64_t r = daemon_call_run(call);

	r = r < 0 ? r : daemon_get_entry(call, ret);
	daemon_call_end(call);
	return (int)r;
}

static int run_attr(struct daemon_call *call, struct stat *ret, uint64_t *ret_valid_ns)
{
	int64_t r = daemon_call_run(call);
	struct stat st;
	uint64_t valid;

	if (r >= 0) {
		valid = cursor_u64(&call->in);
		share_get_stat(&call->in, &st);
		r = call->in.bad ? daemon_call_break(call) : 0;
	}
	if (r == 0) {
		*ret = st;
		*ret_valid_ns = valid;
	}
	daemon_call_end(call);
	return (int)r;
}

/* An answer of bytes; room 0: it was asked for the length alone. */
static ssize_t run_bytes(struct daemon_call *call, void *p, size_t room)
{
	int64_t r = daemon_call_run(call);

	if (r >= 0 && (room ? r > (int64_t)room || call->bulk != r : r > SHARE_BULK))
		r = daemon_call_break(call);
	if (r > 0 && room)
		memcpy(p, call->lane->mem, (size_t)r);
	daemon_call_end(call);
	return (ssize_t)r;
}

/* ------------------------------------------------------------------------------------------------ nodes */

static int daemon_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			 struct sm_fs_entry *ret)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_LOOKUP, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	return run_entry(&call, ret);
}

static void daemon_forget(struct sm_fs_backend *be, uint64_t nodeid, uint64_t count)
{
	struct daemon_call call;
	struct buf b = {0};
	uint64_t id;

	if (nodeid == SM_FS_ROOT || daemon_call_begin(&call, be, SHARE_FORGET, NULL, SM_FS_ROOT, 0, 16) < 0)
		return; /* a server that is gone has forgotten */
	if (daemon_call_node(&call, nodeid, &id) < 0) {
		daemon_call_end(&call);
		return;
	}
	buf_put_u64(&b, id);
	buf_put_u64(&b, count);
	buf_put_u32(&call.out, 1);
	if (!b.error)
		memcpy(call.lane->mem, b.data, b.len);
	buf_done(&b);
	(void)run_plain(&call);
}

static int daemon_getattr(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
			  uint64_t *ret_valid_ns)
{
	struct daemon_call call;
	int r = has_fh ? daemon_file_begin(&call, be, SHARE_GETATTR, NULL, nodeid, fh, 0)
		       : daemon_call_begin(&call, be, SHARE_GETATTR, NULL, nodeid, 0, 0);

	if (r < 0)
		return r;
	buf_put_u8(&call.out, has_fh);
	return run_attr(&call, ret, ret_valid_ns);
}

static int daemon_setattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, bool has_fh,
			  uint64_t fh, uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid_ns)
{
	struct daemon_call call;
	int r = has_fh ? daemon_file_begin(&call, be, SHARE_SETATTR, who, nodeid, fh, 0)
		       : daemon_call_begin(&call, be, SHARE_SETATTR, who, nodeid, 0, 0);

	if (r < 0)
		return r;
	buf_put_u8(&call.out, has_fh);
	buf_put_u32(&call.out, set);
	share_put_stat(&call.out, in);
	return run_attr(&call, ret, ret_valid_ns);
}

static ssize_t daemon_readlink(struct sm_fs_backend *be, uint64_t nodeid, char *buf, size_t size)
{
	struct daemon_call call;
	char target[PATH_MAX];
	ssize_t n = daemon_call_begin(&call, be, SHARE_READLINK, NULL, nodeid, 0, 0);

	if (n < 0)
		return n;
	n = run_bytes(&call, target, sizeof(target));
	if (n > 0)
		memcpy(buf, target, MIN((size_t)n, size));
	return n < 0 ? n : (ssize_t)MIN((size_t)n, size);
}

static int daemon_symlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			  const char *target, struct sm_fs_entry *ret)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_SYMLINK, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	share_put_str(&call.out, target);
	return run_entry(&call, ret);
}

static int daemon_mknod(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_MKNOD, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	buf_put_u32(&call.out, mode);
	buf_put_u32(&call.out, rdev);
	return run_entry(&call, ret);
}

static int daemon_mkdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			uint32_t mode, struct sm_fs_entry *ret)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_MKDIR, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	buf_put_u32(&call.out, mode);
	return run_entry(&call, ret);
}

/* A second node goes along: 0, or the call is over. */
static int put_node(struct daemon_call *call, uint64_t nodeid)
{
	uint64_t id;
	int r = daemon_call_node(call, nodeid, &id);

	if (r == 0)
		buf_put_u64(&call->out, id);
	else
		daemon_call_end(call);
	return r;
}

static int daemon_link(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t parent,
		       const char *name, struct sm_fs_entry *ret)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_LINK, who, nodeid, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	r = put_node(&call, parent);
	return r < 0 ? r : run_entry(&call, ret);
}

static int remove_name(struct sm_fs_backend *be, enum share_op op, const struct sm_fs_caller *who, uint64_t parent,
		       const char *name)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, op, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	return run_plain(&call);
}

static int daemon_unlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	return remove_name(be, SHARE_UNLINK, who, parent, name);
}

static int daemon_rmdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name)
{
	return remove_name(be, SHARE_RMDIR, who, parent, name);
}

static int daemon_rename(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
			 uint64_t new_parent, const char *new_name, uint32_t flags)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_RENAME, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	share_put_str(&call.out, new_name);
	r = put_node(&call, new_parent);
	if (r < 0)
		return r;
	buf_put_u32(&call.out, flags);
	return run_plain(&call);
}

static int daemon_statfs(struct sm_fs_backend *be, uint64_t nodeid, struct statvfs *ret)
{
	struct daemon_call call;
	uint64_t v[9];
	int64_t r = daemon_call_begin(&call, be, SHARE_STATFS, NULL, nodeid, 0, 0);

	if (r < 0)
		return (int)r;
	r = daemon_call_run(&call);
	if (r >= 0) {
		for (size_t i = 0; i < ARRAY_SIZE(v); i++)
			v[i] = cursor_u64(&call.in);
		r = call.in.bad ? daemon_call_break(&call) : 0;
	}
	if (r == 0)
		*ret = (struct statvfs){.f_bsize = v[0],
					.f_frsize = v[1],
					.f_blocks = v[2],
					.f_bfree = v[3],
					.f_bavail = v[4],
					.f_files = v[5],
					.f_ffree = v[6],
					.f_favail = v[7],
					.f_namemax = v[8]};
	daemon_call_end(&call);
	return (int)r;
}

static ssize_t daemon_getxattr(struct sm_fs_backend *be, uint64_t nodeid, const char *name, void *value, size_t size)
{
	struct daemon_call call;
	ssize_t n = daemon_call_begin(&call, be, SHARE_GETXATTR, NULL, nodeid, 0, 0);

	if (n < 0)
		return n;
	size = MIN(size, SHARE_BULK);
	buf_put_u32(&call.out, (uint32_t)size);
	share_put_str(&call.out, name);
	return run_bytes(&call, value, size);
}

static ssize_t daemon_listxattr(struct sm_fs_backend *be, uint64_t nodeid, char *list, size_t size)
{
	struct daemon_call call;
	ssize_t n = daemon_call_begin(&call, be, SHARE_LISTXATTR, NULL, nodeid, 0, 0);

	if (n < 0)
		return n;
	size = MIN(size, SHARE_BULK);
	buf_put_u32(&call.out, (uint32_t)size);
	return run_bytes(&call, list, size);
}

static int daemon_setxattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name,
			   const void *value, size_t size, int flags)
{
	struct daemon_call call;
	int r;

	if (size > SHARE_BULK)
		return -E2BIG;
	r = daemon_call_begin(&call, be, SHARE_SETXATTR, who, nodeid, 0, (uint32_t)size);
	if (r < 0)
		return r;
	buf_put_u32(&call.out, (uint32_t)flags);
	share_put_str(&call.out, name);
	if (size)
		memcpy(call.lane->mem, value, size);
	return run_plain(&call);
}

static int daemon_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid,
			      const char *name)
{
	return remove_name(be, SHARE_REMOVEXATTR, who, nodeid, name);
}

static int daemon_syncfs(struct sm_fs_backend *be, uint64_t nodeid)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_SYNCFS, NULL, nodeid, 0, 0);

	return r < 0 ? r : run_plain(&call);
}

static int daemon_birth(struct sm_fs_backend *be, uint64_t nodeid, struct timespec *ret)
{
	struct daemon_call call;
	int64_t r = daemon_call_begin(&call, be, SHARE_BIRTH, NULL, nodeid, 0, 0);

	if (r < 0)
		return (int)r;
	r = daemon_call_run(&call);
	if (r >= 0) {
		ret->tv_sec = (time_t)cursor_u64(&call.in);
		ret->tv_nsec = cursor_u32(&call.in);
		r = call.in.bad ? daemon_call_break(&call) : 0;
	}
	daemon_call_end(&call);
	return (int)r;
}

/* The server has agreed; a feed that is new comes along. */
static int begin_feed(struct daemon_call *call, uint64_t feed)
{
	int r;

	if (call->fd < 0)
		return daemon_call_break(call);
	r = watch_feed_begin(feed, TAKE_FD(call->fd));
	if (r == 0)
		__atomic_store_n(&call->conn->feed, feed, __ATOMIC_RELAXED);
	return r;
}

/* -EPIPE: the server has ended the feed. */
static int ask_for_watch(struct sm_fs_backend *be, uint64_t nodeid, bool fresh)
{
	struct daemon_call call;
	int64_t r = daemon_call_begin(&call, be, SHARE_WATCH, NULL, nodeid, 0, 0);
	uint64_t before = r < 0 || fresh ? 0 : __atomic_load_n(&call.conn->feed, __ATOMIC_RELAXED), feed = before;
	int wd;

	if (r < 0)
		return (int)r;
	wd = watch_feed_number(&feed);
	buf_put_u32(&call.out, (uint32_t)wd);
	buf_put_u8(&call.out, feed != before);
	r = wd < 0 ? wd : daemon_call_run(&call);
	if (r > 0)
		r = daemon_call_break(&call);
	else if (r == 0 && feed != before)
		r = begin_feed(&call, feed);
	if (r < 0 && feed != before)
		watch_feed_drop(feed);
	daemon_call_end(&call);
	return r < 0 ? (int)r : wd;
}

/* Events come by the server's feed, not by the instance. */
static int daemon_watch(struct sm_fs_backend *be, uint64_t nodeid, int inotify_fd, uint32_t mask)
{
	int r = ask_for_watch(be, nodeid, false);

	return r == -EPIPE ? ask_for_watch(be, nodeid, true) : r;
}

/* The peer begins anew, and so does what the server knows of it. */
static void daemon_destroy(struct sm_fs_backend *be)
{
	struct daemon_call call;

	if (daemon_call_begin(&call, be, SHARE_RESET, NULL, SM_FS_ROOT, 0, 0) == 0)
		(void)run_plain(&call);
}

/* ------------------------------------------------------------------------------------------ directories */

static int daemon_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid,
			  struct sm_fs_open *ret)
{
	struct daemon_call call;
	int64_t r = daemon_call_begin(&call, be, SHARE_OPENDIR, who, nodeid, 0, 0);

	if (r < 0)
		return (int)r;
	r = daemon_call_run(&call);
	if (r >= 0)
		r = daemon_file_new(&call, ret);
	daemon_call_end(&call);
	return (int)r;
}

/* Hands a part of a listing on: 1 when there is room for more, and *offset is where that begins. */
static int add_part(struct daemon_call *call, struct cursor *c, uint64_t *offset, sm_fs_add_dirent add, void *arg)
{
	bool room = true;

	while (c->left && !c->bad) {
		const char *name = cursor_str(c); /* "." and ".." are among them */
		uint64_t ino = cursor_u64(c);
		uint32_t type = cursor_u32(c);
		uint64_t next = cursor_u64(c);
		bool has_entry = cursor_u8(c);
		struct sm_fs_entry e = {0};

		if (has_entry) {
			share_get_entry(c, &e);
			if (e.nodeid > DAEMON_ID_MASK)
				c->bad = true;
			else if (e.nodeid && e.nodeid != SM_FS_ROOT)
				e.nodeid |= call->conn->epoch;
		}
		c->bad |= !name || !*name || strlen(name) > NAME_MAX || strchr(name, '/');
		if (c->bad)
			break;
		if (room)
			room = add(arg, name, ino, type, next, has_entry ? &e : NULL);
		if (room)
			*offset = next;
		else if (has_entry && e.nodeid) /* what the peer is not shown it does not forget */
			daemon_forget(&call->d->be, e.nodeid, 1);
	}
	return c->bad ? -EIO : room;
}

static int daemon_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
			  uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	int64_t more;
	int r;

	do {
		_free_ uint8_t *part = NULL;
		struct daemon_call call;
		struct cursor c;

		r = daemon_file_begin(&call, be, SHARE_READDIR, who, nodeid, fh, 0);
		if (r < 0)
			return r;
		buf_put_u64(&call.out, offset);
		buf_put_u8(&call.out, plus);
		more = daemon_call_run(&call);
		if (more >= 0 && (part = malloc((size_t)call.bulk + 1)))
			memcpy(part, call.lane->mem, call.bulk);
		c = cursor_of(part, part ? call.bulk : 0);
		daemon_call_end(&call); /* the lane is free for the forgetting of what finds no room */
		r = more < 0 ? (int)more : part ? add_part(&call, &c, &offset, add, arg) : -ENOMEM;
		more = more > 0 && call.bulk;
	} while (r > 0 && more);
	return MIN(r, 0);
}

static void daemon_releasedir(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh)
{
	struct daemon_call call;

	if (daemon_file_begin(&call, be, SHARE_RELEASEDIR, NULL, nodeid, fh, 0) == 0)
		(void)run_plain(&call);
	daemon_file_free(fh);
}

/* -------------------------------------------------------------------------------------------- making one */

static const struct sm_fs_ops daemon_ops = {
	.size = sizeof(daemon_ops),
	.destroy = daemon_destroy,
	.lookup = daemon_lookup,
	.forget = daemon_forget,
	.getattr = daemon_getattr,
	.setattr = daemon_setattr,
	.readlink = daemon_readlink,
	.symlink = daemon_symlink,
	.mknod = daemon_mknod,
	.mkdir = daemon_mkdir,
	.link = daemon_link,
	.create = daemon_create,
	.tmpfile = daemon_tmpfile,
	.unlink = daemon_unlink,
	.rmdir = daemon_rmdir,
	.rename = daemon_rename,
	.open = daemon_open,
	.read = daemon_read,
	.write = daemon_write,
	.flush = daemon_flush,
	.release = daemon_release,
	.fsync = daemon_fsync,
	.fsyncdir = daemon_fsyncdir,
	.syncfs = daemon_syncfs,
	.opendir = daemon_opendir,
	.readdir = daemon_readdir,
	.releasedir = daemon_releasedir,
	.statfs = daemon_statfs,
	.getxattr = daemon_getxattr,
	.listxattr = daemon_listxattr,
	.setxattr = daemon_setxattr,
	.removexattr = daemon_removexattr,
	.getlk = daemon_getlk,
	.setlk = daemon_setlk,
	.fallocate = daemon_fallocate,
	.lseek = daemon_lseek,
	.copy_file_range = daemon_copy_file_range,
	.dax_map = daemon_dax_map,
	.watch = daemon_watch,
	.birth = daemon_birth,
};

/* What the server's backend lacks is lacking here: the session then answers for it. */
static void leave_out(struct sm_fs_ops *ops, uint64_t mask)
{
#define LEAVE(op, member)                                                                                              \
	if (!(mask >> SHARE_##op & 1))                                                                                 \
	ops->member = NULL
	LEAVE(SETATTR, setattr);
	LEAVE(READLINK, readlink);
	LEAVE(SYMLINK, symlink);
	LEAVE(MKNOD, mknod);
	LEAVE(MKDIR, mkdir);
	LEAVE(LINK, link);
	LEAVE(CREATE, create);
	LEAVE(TMPFILE, tmpfile);
	LEAVE(UNLINK, unlink);
	LEAVE(RMDIR, rmdir);
	LEAVE(RENAME, rename);
	LEAVE(WRITE, write);
	LEAVE(FLUSH, flush);
	LEAVE(FSYNC, fsync);
	LEAVE(FSYNCDIR, fsyncdir);
	LEAVE(SYNCFS, syncfs);
	LEAVE(STATFS, statfs);
	LEAVE(GETXATTR, getxattr);
	LEAVE(LISTXATTR, listxattr);
	LEAVE(SETXATTR, setxattr);
	LEAVE(REMOVEXATTR, removexattr);
	LEAVE(GETLK, getlk);
	LEAVE(SETLK, setlk);
	LEAVE(FALLOCATE, fallocate);
	LEAVE(LSEEK, lseek);
	LEAVE(COPY_FILE_RANGE, copy_file_range);
	LEAVE(MAP, dax_map);
	LEAVE(WATCH, watch);
	LEAVE(BIRTH, birth);
#undef LEAVE
}

/* Operations that change something. */
#define CHANGES                                                                                                        \
	(1ULL << SHARE_SETATTR | 1ULL << SHARE_SYMLINK | 1ULL << SHARE_MKNOD | 1ULL << SHARE_MKDIR |                   \
	 1ULL << SHARE_LINK | 1ULL << SHARE_CREATE | 1ULL << SHARE_TMPFILE | 1ULL << SHARE_UNLINK |                    \
	 1ULL << SHARE_RMDIR | 1ULL << SHARE_RENAME | 1ULL << SHARE_WRITE | 1ULL << SHARE_SETXATTR |                   \
	 1ULL << SHARE_REMOVEXATTR | 1ULL << SHARE_FALLOCATE | 1ULL << SHARE_COPY_FILE_RANGE)

static int daemon_new(int sock, const struct fuse_daemon_options *o, struct sm_fs_backend **ret, struct sm_error *err)
{
	struct daemon *d = calloc(1, sizeof(*d));
	int r;

	if (!d) {
		fd_close(sock);
		if (o->done)
			o->done(o->arg);
		return error_sys(err, ENOMEM, "file server");
	}
	d->connect = o->connect;
	d->done = o->done;
	d->read_only = o->read_only;
	d->arg = o->arg;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->free, NULL);
	r = sock < 0 ? sock : daemon_lanes_init(d, o->lanes ? MIN(o->lanes, SHARE_MAX_LANES) : DEFAULT_LANES);
	if (r < 0 && sock >= 0) {
		fd_close(sock);
		r = error_sys(err, -r, "file server");
	} else if (r == 0) {
		r = daemon_conn_open(d, sock, &d->conn, err);
	}
	if (r < 0) {
		fuse_daemon_free(&d->be);
		return r;
	}
	d->conn->epoch = 1ULL << DAEMON_EPOCH_SHIFT;
	d->epochs = 1;
	d->ops = daemon_ops;
	leave_out(&d->ops, d->conn->ops & ~(o->read_only ? CHANGES : 0));
	d->be.ops = &d->ops;
	*ret = &d->be;
	return 0;
}

int fuse_daemon_new_with(const struct fuse_daemon_options *options, struct sm_fs_backend **ret, struct sm_error *err)
{
	return daemon_new(options->connect(options->arg, err), options, ret, err);
}

static int connect_path(void *path, struct sm_error *err)
{
	int sock = unix_connect(path);

	return sock < 0 ? error_sys(err, -sock, "connect to the file server on %s", (const char *)path) : sock;
}

int fuse_daemon_new(const char *path, const struct fuse_daemon_options *options, struct sm_fs_backend **ret,
		    struct sm_error *err)
{
	struct fuse_daemon_options o = {.connect = connect_path, .done = free};
	int r;

	o.lanes = options ? options->lanes : 0;
	o.arg = strdup(path);
	if (!o.arg)
		return error_sys(err, ENOMEM, "file server");
	r = fuse_daemon_new_with(&o, ret, err);
	return r < 0 ? error_wrap(err, r, "%s", path) : 0;
}

int fuse_daemon_new_fd(int fd, const struct fuse_daemon_options *options, struct sm_fs_backend **ret,
		       struct sm_error *err)
{
	struct fuse_daemon_options o = {.lanes = options ? options->lanes : 0};

	return daemon_new(fd, &o, ret, err);
}

struct sm_fs_backend *fuse_daemon_free(struct sm_fs_backend *be)
{
	struct daemon *d = (struct daemon *)be;

	if (!d)
		return NULL;
	daemon_conn_free(d->conn);
	daemon_lanes_done(d);
	pthread_cond_destroy(&d->free);
	pthread_mutex_destroy(&d->lock);
	if (d->done)
		d->done(d->arg);
	free(d);
	return NULL;
}

const int fuse_daemon_syscalls[] = {SYS_sendmsg, SYS_recvmsg, SYS_poll,	 SYS_shutdown, SYS_preadv, SYS_pwritev,
				    SYS_fcntl,	 SYS_close,   SYS_futex, SYS_munmap,   -1};
