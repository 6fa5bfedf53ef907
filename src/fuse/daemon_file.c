/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon backend's open files. Where the server gave a descriptor the data does not pass through it, with these
 * exceptions: a file's first write, with which the server drops what must not outlive one (capabilities); writes that
 * drop set-id bits; and those that go behind the end.
 */
#include "fuse/daemon_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "base/util.h"

struct daemon_file {
	uint64_t epoch, handle; /* the server's */
	int fd;			/* -1: none */
	bool can_read, can_write;
	bool written; /* atomic: through the server */
};

static struct daemon_file *file_of(uint64_t fh)
{
	return (struct daemon_file *)(uintptr_t)fh;
}

int daemon_file_begin(struct daemon_call *call, struct sm_fs_backend *be, enum share_op op,
		      const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh, uint32_t bulk)
{
	int r = daemon_call_begin(call, be, op, who, nodeid, file_of(fh)->handle, bulk);

	call->harmless = false;					 /* no other server has the handle */
	if (r == 0 && call->conn->epoch != file_of(fh)->epoch) { /* the root is known to every server, its handle not */
		daemon_call_end(call);
		r = -ESTALE;
	}
	return r == -ESTALE ? -EIO : r;
}

int daemon_file_new(struct daemon_call *call, struct sm_fs_open *ret)
{
	struct daemon_file *f = malloc(sizeof(*f));
	int flags = call->fd >= 0 ? fcntl(call->fd, F_GETFL) : -1;

	if (!f)
		return -ENOMEM; /* the server's handle stays until this connection ends */
	*f = (struct daemon_file){.epoch = call->conn->epoch, .fd = -1};
	f->handle = cursor_u64(&call->in);
	ret->flags = cursor_u32(&call->in);
	ret->length = (int64_t)cursor_u64(&call->in);
	if (call->in.bad) {
		free(f);
		return daemon_call_break(call);
	}
	if (flags >= 0) {
		f->fd = TAKE_FD(call->fd);
		f->can_read = (flags & O_ACCMODE) != O_WRONLY;
		f->can_write = (flags & O_ACCMODE) != O_RDONLY && !(flags & O_APPEND);
	}
	ret->fh = (uint64_t)(uintptr_t)f;
	return 0;
}

void daemon_file_free(uint64_t fh)
{
	fd_close(file_of(fh)->fd);
	free(file_of(fh));
}

int daemon_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint32_t flags,
		struct sm_fs_open *ret)
{
	bool changes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
	struct daemon_call call;
	int64_t r;

	if (changes && ((struct daemon *)be)->read_only)
		return -EROFS;
	r = daemon_call_begin(&call, be, SHARE_OPEN, who, nodeid, 0, 0);
	if (r < 0)
		return (int)r;
	call.harmless = !changes;
	buf_put_u32(&call.out, flags);
	r = daemon_call_run(&call);
	if (r >= 0)
		r = daemon_file_new(&call, ret);
	daemon_call_end(&call);
	return (int)r;
}

static int run_created(struct daemon_call *call, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	int64_t r = daemon_call_run(call);

	if (r >= 0)
		r = daemon_get_entry(call, ret);
	if (r == 0)
		r = daemon_file_new(call, ret_open);
	daemon_call_end(call);
	return (int)r;
}

int daemon_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		  uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_CREATE, who, parent, 0, 0);

	if (r < 0)
		return r;
	share_put_str(&call.out, name);
	buf_put_u32(&call.out, mode);
	buf_put_u32(&call.out, flags);
	return run_created(&call, ret, ret_open);
}

int daemon_tmpfile(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, uint32_t mode,
		   uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open)
{
	struct daemon_call call;
	int r = daemon_call_begin(&call, be, SHARE_TMPFILE, who, parent, 0, 0);

	if (r < 0)
		return r;
	buf_put_u32(&call.out, mode);
	buf_put_u32(&call.out, flags);
	return run_created(&call, ret, ret_open);
}

static size_t iov_size(const struct iovec *iov, int count)
{
	size_t len = 0;

	for (int i = 0; i < count; i++)
		len += iov[i].iov_len;
	return len;
}

/* Between the iovecs and shared memory; they hold as much. */
static void iov_copy(const struct iovec *iov, uint8_t *mem, size_t len, bool to_mem)
{
	for (; len; iov++) {
		size_t step = MIN(iov->iov_len, len);

		if (step && to_mem)
			memcpy(mem, iov->iov_base, step);
		else if (step)
			memcpy(iov->iov_base, mem, step);
		mem += step;
		len -= step;
	}
}

ssize_t daemon_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
		    uint64_t offset)
{
	const struct daemon_file *f = file_of(fh);
	size_t size = MIN(iov_size(iov, count), SHARE_BULK);
	struct daemon_call call;
	int64_t n;

	if (f->can_read) {
		n = preadv(f->fd, iov, count, (off_t)offset);
		return n < 0 ? -errno : n;
	}
	n = daemon_file_begin(&call, be, SHARE_READ, NULL, nodeid, fh, 0);
	if (n < 0)
		return n;
	buf_put_u64(&call.out, offset);
	buf_put_u32(&call.out, (uint32_t)size);
	n = daemon_call_run(&call);
	if (n >= 0 && (n > (int64_t)size || n != call.bulk))
		n = daemon_call_break(&call);
	if (n > 0)
		iov_copy(iov, call.lane->mem, (size_t)n, false);
	daemon_call_end(&call);
	return n;
}

ssize_t daemon_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
		     const struct iovec *iov, int count, uint64_t offset, uint32_t flags)
{
	struct daemon_file *f = file_of(fh);
	size_t size = MIN(iov_size(iov, count), SHARE_BULK);
	struct daemon_call call;
	int64_t n;

	if (f->can_write && !flags && __atomic_load_n(&f->written, __ATOMIC_RELAXED)) {
		n = pwritev(f->fd, iov, count, (off_t)offset);
		return n < 0 ? -errno : n;
	}
	n = daemon_file_begin(&call, be, SHARE_WRITE, who, nodeid, fh, (uint32_t)size);
	if (n < 0)
		return n;
	buf_put_u64(&call.out, offset);
	buf_put_u32(&call.out, flags);
	iov_copy(iov, call.lane->mem, size, true);
	n = daemon_call_run(&call);
	if (n > (int64_t)size)
		n = daemon_call_break(&call);
	if (n >= 0)
		__atomic_store_n(&f->written, true, __ATOMIC_RELAXED);
	daemon_call_end(&call);
	return n;
}

/* For requests whose answer is an error or a number up to `most`. */
static int64_t run_number(struct daemon_call *call, uint64_t most)
{
	int64_t r = daemon_call_run(call);

	if (r > 0 && (uint64_t)r > most)
		r = daemon_call_break(call);
	daemon_call_end(call);
	return r;
}

int daemon_flush(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t lock_owner)
{
	struct daemon_call call;
	int r = daemon_file_begin(&call, be, SHARE_FLUSH, NULL, nodeid, fh, 0);

	if (r < 0)
		return r;
	buf_put_u64(&call.out, lock_owner);
	return (int)run_number(&call, 0);
}

/* A server that is gone has released it. */
void daemon_release(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool flock_release, uint64_t lock_owner)
{
	struct daemon_call call;

	if (daemon_file_begin(&call, be, SHARE_RELEASE, NULL, nodeid, fh, 0) == 0) {
		buf_put_u8(&call.out, flock_release);
		buf_put_u64(&call.out, lock_owner);
		(void)run_number(&call, 0);
	}
	daemon_file_free(fh);
}

static int sync_file(struct sm_fs_backend *be, enum share_op op, uint64_t nodeid, uint64_t fh, bool data_only)
{
	struct daemon_call call;
	int r = daemon_file_begin(&call, be, op, NULL, nodeid, fh, 0);

	if (r < 0)
		return r;
	buf_put_u8(&call.out, data_only);
	return (int)run_number(&call, 0);
}

int daemon_fsync(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only)
{
	return sync_file(be, SHARE_FSYNC, nodeid, fh, data_only);
}

int daemon_fsyncdir(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only)
{
	return sync_file(be, SHARE_FSYNCDIR, nodeid, fh, data_only);
}

int daemon_getlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, struct sm_fs_lock *lock)
{
	struct daemon_call call;
	struct sm_fs_lock now;
	int64_t r = daemon_file_begin(&call, be, SHARE_GETLK, NULL, nodeid, fh, 0);

	if (r < 0)
		return (int)r;
	share_put_lock(&call.out, lock);
	r = daemon_call_run(&call);
	if (r >= 0) {
		share_get_lock(&call.in, &now);
		r = call.in.bad ? daemon_call_break(&call) : 0;
	}
	if (r == 0)
		*lock = now;
	daemon_call_end(&call);
	return (int)r;
}

int daemon_setlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct sm_fs_lock *lock, bool wait)
{
	struct daemon_call call;
	int r = daemon_file_begin(&call, be, SHARE_SETLK, NULL, nodeid, fh, 0);

	if (r < 0)
		return r;
	share_put_lock(&call.out, lock);
	buf_put_u8(&call.out, wait);
	return (int)run_number(&call, 0);
}

int daemon_fallocate(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, int mode, uint64_t offset, uint64_t length)
{
	struct daemon_call call;
	int r = daemon_file_begin(&call, be, SHARE_FALLOCATE, NULL, nodeid, fh, 0);

	if (r < 0)
		return r;
	buf_put_u32(&call.out, (uint32_t)mode);
	buf_put_u64(&call.out, offset);
	buf_put_u64(&call.out, length);
	return (int)run_number(&call, 0);
}

int64_t daemon_lseek(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, int whence)
{
	struct daemon_call call;
	int r = daemon_file_begin(&call, be, SHARE_LSEEK, NULL, nodeid, fh, 0);

	if (r < 0)
		return r;
	buf_put_u64(&call.out, offset);
	buf_put_u32(&call.out, (uint32_t)whence);
	return run_number(&call, INT64_MAX);
}

ssize_t daemon_copy_file_range(struct sm_fs_backend *be, uint64_t nodeid_in, uint64_t fh_in, uint64_t offset_in,
			       uint64_t nodeid_out, uint64_t fh_out, uint64_t offset_out, uint64_t length)
{
	struct daemon_call call;
	uint64_t id_out;
	int r = daemon_file_begin(&call, be, SHARE_COPY_FILE_RANGE, NULL, nodeid_in, fh_in, 0);

	if (r < 0)
		return r;
	if (daemon_call_node(&call, nodeid_out, &id_out) < 0 || file_of(fh_out)->epoch != call.conn->epoch) {
		daemon_call_end(&call);
		return -EIO;
	}
	buf_put_u64(&call.out, offset_in);
	buf_put_u64(&call.out, id_out);
	buf_put_u64(&call.out, file_of(fh_out)->handle);
	buf_put_u64(&call.out, offset_out);
	buf_put_u64(&call.out, length);
	return run_number(&call, length);
}

/* By node: the server opens it anew, and the descriptor is ours to give. */
static int map_by_node(struct sm_fs_backend *be, uint64_t nodeid, uint64_t offset, uint64_t length, int protection,
		       struct sm_fs_map *ret)
{
	struct daemon_call call;
	int64_t r = daemon_call_begin(&call, be, SHARE_MAP, NULL, nodeid, 0, 0);

	if (r < 0)
		return (int)r;
	buf_put_u64(&call.out, offset);
	buf_put_u64(&call.out, length);
	buf_put_u32(&call.out, (uint32_t)protection);
	r = daemon_call_run(&call);
	if (r >= 0) {
		struct sm_fs_map map = {.offset = cursor_u64(&call.in), .give = true};

		map.length = cursor_u64(&call.in);
		map.protection = (int)cursor_u32(&call.in);
		r = call.in.bad || call.fd < 0 ? daemon_call_break(&call) : 0;
		if (r == 0) {
			map.fd = TAKE_FD(call.fd);
			*ret = map;
		}
	}
	daemon_call_end(&call);
	return (int)r;
}

int daemon_dax_map(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, uint64_t length,
		   int protection, struct sm_fs_map *ret)
{
	const struct daemon_file *f = file_of(fh);
	int allowed;

	if (fh == SM_FS_NO_HANDLE)
		return map_by_node(be, nodeid, offset, length, protection, ret);
	if (f->fd < 0)
		return -EOPNOTSUPP;
	allowed = (f->can_read ? PROT_READ : 0) | (f->can_read && f->can_write ? PROT_WRITE : 0);
	if (protection & ~allowed)
		return -EACCES;
	*ret = (struct sm_fs_map){.fd = f->fd, .offset = offset, .length = length, .protection = allowed};
	return 0;
}
