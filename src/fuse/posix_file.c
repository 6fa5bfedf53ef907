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
 * Flags for the host. O_APPEND is dropped: the peer's kernel computes the offset of an append itself. O_NOFOLLOW and
 * O_CREAT have done their work; O_NOATIME needs ownership. O_DIRECT would ask for alignment that the peer's buffers
 * need not have.
 */
static int host_flags(uint32_t flags)
{
	int out = (int)(flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC));

	return out | O_NONBLOCK | O_CLOEXEC; /* nonblocking: nothing here may hang on a lease or a device */
}

/* Close-to-open: the peer may keep what it cached if the contents are those that this server showed it last. */
static bool unchanged(struct posix_fs *fs, struct posix_node *node, int fd)
{
	struct stat st;
	bool same;

	if (fstat(fd, &st) < 0)
		return false;
	pthread_mutex_lock(&fs->lock);
	same = node->shown && st.st_size == node->shown_size && st.st_mtim.tv_sec == node->shown_mtime.tv_sec &&
	       st.st_mtim.tv_nsec == node->shown_mtime.tv_nsec && st.st_ctim.tv_sec == node->shown_ctime.tv_sec &&
	       st.st_ctim.tv_nsec == node->shown_ctime.tv_nsec;
	node->shown = true;
	node->shown_size = st.st_size;
	node->shown_mtime = st.st_mtim;
	node->shown_ctime = st.st_ctim;
	pthread_mutex_unlock(&fs->lock);
	return same;
}

int posix_open_done(struct posix_fs *fs, struct posix_node *node, int fd, struct sm_fs_open *ret)
{
	*ret = (struct sm_fs_open){.fh = (uint64_t)fd, .flags = SM_FS_OPEN_NOFLUSH};
	if (unchanged(fs, node, fd))
		ret->flags |= SM_FS_OPEN_KEEP_CACHE;
	posix_node_opened(fs, node);
	return 0;
}

int posix_open_node(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t flags, struct sm_fs_open *ret)
{
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
	fd = open(posix_proc_path(path_fd).path, host_flags(flags));
	if (fd < 0) {
		r = -errno;
		posix_open_uncount(fs);
		return r;
	}
	return posix_open_done(fs, node, fd, ret);
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
	struct posix_fs *fs = posix_fs_of(be);

	close((int)fh);
	posix_open_uncount(fs);
	posix_node_closed(fs, id);
}

ssize_t posix_read(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const struct iovec *iov, int count, uint64_t off)
{
	ssize_t n;

	do
		n = preadv((int)fh, iov, MIN(count, IOV_MAX), (off_t)off);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Our own write changed mtime and ctime: what the peer cached is still what is there. */
static void remember(struct posix_fs *fs, uint64_t id, int fd)
{
	struct posix_node *node;

	if (posix_fd_get(fs, id, &node) < 0)
		return;
	unchanged(fs, node, fd);
	posix_fd_put(fs, node);
}

static void drop_suidgid(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !(st.st_mode & (S_ISUID | S_ISGID)))
		return;
	/* Nothing can be done if it fails: the write has been made. */
	if (fchmod(fd, st.st_mode & ~(mode_t)(S_ISUID | (st.st_mode & S_IXGRP ? S_ISGID : 0)) & 07777) < 0)
		return;
}

ssize_t posix_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
		    const struct iovec *iov, int count, uint64_t off, bool kill_suidgid)
{
	ssize_t n;

	do
		n = pwritev((int)fh, iov, MIN(count, IOV_MAX), (off_t)off);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (kill_suidgid)
		drop_suidgid((int)fh);
	return n;
}

int posix_fsync(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only)
{
	int r = (data_only ? fdatasync((int)fh) : fsync((int)fh)) < 0 ? -errno : 0;

	remember(posix_fs_of(be), id, (int)fh);
	return r;
}

int posix_fallocate_op(struct sm_fs_backend *be, uint64_t id, uint64_t fh, int mode, uint64_t off, uint64_t len)
{
	return fallocate((int)fh, mode, (off_t)off, (off_t)len) < 0 ? -errno : 0;
}

int64_t posix_lseek(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, int whence)
{
	off_t at = lseek((int)fh, (off_t)off, whence);

	return at < 0 ? -errno : at;
}

ssize_t posix_copy_file_range(struct sm_fs_backend *be, uint64_t id_in, uint64_t fh_in, uint64_t off_in,
			      uint64_t id_out, uint64_t fh_out, uint64_t off_out, uint64_t len)
{
	off_t in = (off_t)off_in, out = (off_t)off_out;
	ssize_t n = copy_file_range((int)fh_in, &in, (int)fh_out, &out, len, 0);

	return n < 0 ? -errno : n;
}

int posix_dax_map(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, uint64_t len, int prot,
		  struct sm_fs_map *ret)
{
	struct posix_fs *fs = posix_fs_of(be);
	int flags = fcntl((int)fh, F_GETFL), allowed = PROT_READ;

	if (flags < 0)
		return -errno;
	if (!fs->options.read_only && (flags & O_ACCMODE) == O_RDWR)
		allowed |= PROT_WRITE;
	if ((flags & O_ACCMODE) == O_WRONLY || prot & ~allowed)
		return -EACCES;
	*ret = (struct sm_fs_map){.fd = (int)fh, .offset = off, .length = len, .protection = allowed};
	return 0;
}
