/* SPDX-License-Identifier: Apache-2.0 */
/* Open files of the posix backend: a handle is the host's descriptor. Data goes straight between it and the request's
 * buffers. */
#include <errno.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_node.h"

int posix_open_count(struct posix_fs *fs)
{
	int r = 0;

	pthread_mutex_lock(&fs->lock);
	if (fs->num_open >= fs->options.max_open)
		r = -ENFILE;
	else
		fs->num_open++;
	pthread_mutex_unlock(&fs->lock);
	return r;
}

void posix_open_uncount(struct posix_fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	fs->num_open--;
	pthread_mutex_unlock(&fs->lock);
}

/*
 * Flags for the host. O_APPEND is no flag of the descriptor: the peer's kernel may write cached pages through any open
 * file, and those have their place; an appending write says so itself. O_NOFOLLOW and O_CREAT have done their work;
 * O_NOATIME needs ownership. O_DIRECT asks for alignment that the peer's buffers need not have: it is on a descriptor
 * beside (open_direct), if at all; the peer's own cache is left out all the same, the host's is one for all.
 */
int posix_host_flags(uint32_t flags)
{
	int out = (int)(flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC));

	return out | O_NONBLOCK | O_CLOEXEC; /* nonblocking: nothing here may hang on a lease or a device */
}

/* It counts as an open file; if it may not be one, or the file system has no such thing, the host's cache is used. */
static int open_direct(struct posix_fs *fs, int fd, uint32_t flags)
{
	int n;

	if (!fs->options.direct || !(flags & O_DIRECT) || posix_open_count(fs) < 0)
		return -1;
	n = posix_reopen(fs, fd, (posix_host_flags(flags) & ~O_TRUNC) | O_DIRECT);
	if (n < 0)
		posix_open_uncount(fs);
	return n < 0 ? -1 : n;
}

static void close_direct(struct posix_fs *fs, int fd)
{
	if (fd < 0)
		return;
	close(fd);
	posix_open_uncount(fs);
}

static uint8_t access_of(uint32_t flags)
{
	return (uint8_t)((flags & O_ACCMODE) == O_WRONLY ? 0
			 : (flags & O_ACCMODE) == O_RDWR ? PROT_READ | PROT_WRITE
							 : PROT_READ);
}

int posix_open_done(struct posix_fs *fs, uint64_t id, int fd, uint32_t flags, const struct stat *st,
		    struct sm_fs_open *ret)
{
	struct posix_file *file = malloc(sizeof(*file));
	int r;

	if (!file)
		return -ENOMEM;
	*file = (struct posix_file){.fd = fd,
				    .direct_fd = open_direct(fs, fd, flags),
				    .flags = flags,
				    .append = flags & O_APPEND,
				    .access = access_of(flags)};
	*ret = (struct sm_fs_open){.fh = (uint64_t)(uintptr_t)file,
				   .flags = SM_FS_OPEN_NOFLUSH | SM_FS_OPEN_LENGTH,
				   .length = st->st_size};
	if (!st->st_nlink)
		ret->flags |= SM_FS_OPEN_NAMELESS;
	/* Close-to-open: what the peer cached may stay if the contents are those that it was shown last. */
	if (posix_node_shown(fs, id, st))
		ret->flags |= SM_FS_OPEN_KEEP_CACHE;
	r = posix_node_opened(fs, id, file);
	if (r < 0) {
		close_direct(fs, file->direct_fd);
		free(file);
	}
	return r;
}

int posix_open_node(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t flags, struct sm_fs_open *ret)
{
	struct stat st;
	int fd, r;

	if (S_ISDIR(node->type))
		return -EISDIR;
	if (!S_ISREG(node->type)) /* never a device or fifo of the host's */
		return S_ISLNK(node->type) ? -ELOOP : -ENXIO;
	if (fs->options.read_only && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC))
		return -EROFS;
	r = posix_open_count(fs);
	if (r < 0)
		return r;
	fd = posix_reopen(fs, path_fd, posix_host_flags(flags));
	r = fd;
	if (fd >= 0)
		r = posix_see_now(fd, &st);
	if (r == 0)
		r = posix_open_done(fs, node->id, fd, flags, &st, ret);
	if (r == 0 && flags & O_TRUNC)
		posix_written(fs, posix_file_of(ret->fh));
	if (r < 0) {
		fd_close(fd);
		posix_open_uncount(fs);
	}
	return r < 0 ? r : 0;
}

int posix_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint32_t flags,
	       struct sm_fs_open *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r, fd = posix_fd_get(fs, id, &node);

	if (fd < 0)
		return fd;
	r = posix_open_node(fs, node, fd, flags, ret);
	posix_fd_put(fs, node);
	return r;
}

void posix_release(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool flock_release, uint64_t owner)
{
	struct posix_file *file = posix_file_of(fh);
	struct posix_fs *fs = posix_fs_of(be);

	posix_node_closed(fs, id, file);
	close(file->fd);
	close_direct(fs, file->direct_fd);
	free(file);
	posix_open_uncount(fs);
}

static ssize_t read_at(int fd, const struct iovec *iov, int count, uint64_t off)
{
	ssize_t n;

	do
		n = preadv(fd, iov, MIN(count, IOV_MAX), (off_t)off);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t posix_read(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const struct iovec *iov, int count, uint64_t off)
{
	const struct posix_file *file = posix_file_of(fh);
	ssize_t n = file->direct_fd < 0 ? -EINVAL : read_at(file->direct_fd, iov, count, off);

	return n == -EINVAL ? read_at(file->fd, iov, count, off) : n; /* not aligned */
}

/*
 * Set-id bits go when somebody without the privilege writes. Where they are kept in the attribute, there. Nothing can
 * be done if it fails: the write has been made.
 */
static void drop_suidgid(struct posix_fs *fs, uint64_t id, int fd)
{
	struct posix_kept kept = {0};
	struct posix_seen seen;
	mode_t mode;

	if (posix_node_see(fs, id, &seen, &kept) < 0)
		return;
	posix_apply_kept(fs, &kept, &seen.st);
	mode = seen.st.st_mode & ~(mode_t)(S_ISUID | (seen.st.st_mode & S_IXGRP ? S_ISGID : 0));
	if (mode == seen.st.st_mode)
		return;
	seen.st.st_mode = mode;
	if (posix_keeps(fs) ? posix_keep(fs, fd, &seen.st) : fchmod(fd, mode & 07777))
		return;
}

static ssize_t write_at(int fd, const struct iovec *iov, int count, uint64_t off, bool append)
{
	ssize_t n;

	do
		n = append ? pwritev2(fd, iov, MIN(count, IOV_MAX), (off_t)off, RWF_APPEND)
			   : pwritev(fd, iov, MIN(count, IOV_MAX), (off_t)off);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t posix_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
		    const struct iovec *iov, int count, uint64_t off, uint32_t flags)
{
	struct posix_file *file = posix_file_of(fh);
	struct posix_fs *fs = posix_fs_of(be);
	bool ours = false, append = file->append && flags & SM_FS_WRITE_APPEND;
	ssize_t n = -EINVAL;
	struct stat st;

	/* What the peer writes it has in its cache, if nobody wrote between: then that is right at the next open, too.
	 */
	if (fs->fine_times && fstat(file->fd, &st) == 0)
		ours = posix_node_unchanged(fs, id, &st);
	if (file->direct_fd >= 0)
		n = write_at(file->direct_fd, iov, count, off, append);
	if (n == -EINVAL) /* not aligned */
		n = write_at(file->fd, iov, count, off, append);
	if (n < 0)
		return n;
	if (flags & SM_FS_WRITE_KILL_SUIDGID)
		drop_suidgid(fs, id, file->fd);
	posix_written(fs, file);
	if (ours && fstat(file->fd, &st) == 0)
		posix_node_shown(fs, id, &st);
	return n;
}

int posix_fsync(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only)
{
	int fd = posix_file_of(fh)->fd;

	return (data_only ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

/* Of the file system that the node lies on. */
int posix_syncfs(struct sm_fs_backend *be, uint64_t id)
{
	struct posix_fs *fs = posix_fs_of(be);
	struct posix_node *node;
	int r, path_fd = posix_fd_get(fs, id, &node);
	_fd_ int fd = -1;

	if (path_fd < 0)
		return path_fd;
	r = fd = S_ISDIR(node->type) ? openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
				     : posix_reopen(fs, path_fd, O_RDONLY | O_NONBLOCK);
	if (fd >= 0)
		r = syncfs(fd) < 0 ? -errno : 0;
	else if (fd == -1)
		r = -errno;
	posix_fd_put(fs, node);
	return r;
}

int posix_fallocate_op(struct sm_fs_backend *be, uint64_t id, uint64_t fh, int mode, uint64_t off, uint64_t len)
{
	if (fallocate(posix_file_of(fh)->fd, mode, (off_t)off, (off_t)len) < 0)
		return -errno;
	posix_written(posix_fs_of(be), posix_file_of(fh));
	return 0;
}

int64_t posix_lseek(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, int whence)
{
	off_t at = lseek(posix_file_of(fh)->fd, (off_t)off, whence);

	return at < 0 ? -errno : at;
}

ssize_t posix_copy_file_range(struct sm_fs_backend *be, uint64_t id_in, uint64_t fh_in, uint64_t off_in,
			      uint64_t id_out, uint64_t fh_out, uint64_t off_out, uint64_t len)
{
	off_t in = (off_t)off_in, out = (off_t)off_out;
	ssize_t n = copy_file_range(posix_file_of(fh_in)->fd, &in, posix_file_of(fh_out)->fd, &out, len, 0);

	if (n < 0)
		return -errno;
	posix_written(posix_fs_of(be), posix_file_of(fh_out));
	return n;
}

/* A descriptor of its own for a mapping of the node, which needs one that can be read. */
static int map_node(struct posix_fs *fs, uint64_t id, int prot)
{
	struct posix_node *node;
	int r = posix_fd_get(fs, id, &node);

	if (r < 0)
		return r;
	if (!S_ISREG(node->type))
		r = -ENODEV;
	else if (prot & PROT_WRITE && fs->options.read_only)
		r = -EROFS;
	else
		r = posix_reopen(fs, r, posix_host_flags(prot & PROT_WRITE ? O_RDWR : O_RDONLY));
	posix_fd_put(fs, node);
	return r;
}

/* What is written through a mapping nobody sees: what a write would take from the file goes now. */
static int map_by_node(struct posix_fs *fs, uint64_t id, uint64_t off, uint64_t len, int prot, struct sm_fs_map *ret)
{
	int fd = map_node(fs, id, prot);

	if (fd < 0)
		return fd;
	if (prot & PROT_WRITE) {
		drop_suidgid(fs, id, fd);
		posix_drop_capabilities(fs, fd);
	}
	*ret = (struct sm_fs_map){.fd = fd, .offset = off, .length = len, .protection = PROT_READ | prot, .give = true};
	return 0;
}

static int map_by_handle(struct posix_fs *fs, const struct posix_file *file, uint64_t off, uint64_t len, int prot,
			 struct sm_fs_map *ret)
{
	int allowed = fs->options.read_only ? file->access & ~PROT_WRITE : file->access;

	if (prot & ~allowed)
		return -EACCES;
	*ret = (struct sm_fs_map){.fd = file->fd, .offset = off, .length = len, .protection = allowed};
	return 0;
}

int posix_dax_map(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, uint64_t len, int prot,
		  struct sm_fs_map *ret)
{
	if (fh == SM_FS_NO_HANDLE)
		return map_by_node(posix_fs_of(be), id, off, len, prot, ret);
	return map_by_handle(posix_fs_of(be), posix_file_of(fh), off, len, prot, ret);
}
