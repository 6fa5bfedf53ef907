/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend's contents and attributes. See memory_node.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"
#include "fuse/memory_node.h"

int memory_getattr(struct sm_fs_backend *be, uint64_t id, bool has_fh, uint64_t fh, struct stat *ret,
		   uint64_t *ret_valid)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node)
		memory_stat_locked(node, ret);
	*ret_valid = fs->options.valid_ns;
	pthread_mutex_unlock(&fs->lock);
	return node ? 0 : -ESTALE;
}

/* Frees what lies beyond the new end, so that the bytes there are zero when the file grows again. */
static int truncate_locked(struct memory_fs *fs, struct memory_node *node, uint64_t size)
{
	uint64_t before = node->pages.present;

	if (S_ISDIR(node->st.st_mode))
		return -EISDIR;
	if (!S_ISREG(node->st.st_mode))
		return -EINVAL;
	if (size > PAGES_MAX_FILE)
		return -EFBIG;
	if (size < (uint64_t)node->st.st_size)
		pages_punch(&node->pages, size, align_up((uint64_t)node->st.st_size, PAGES_SIZE));
	fs->used_pages -= before - node->pages.present;
	node->st.st_size = (off_t)size;
	memory_touch(node, false, true, true);
	return 0;
}

static void kill_suidgid(struct memory_node *node)
{
	node->st.st_mode &= ~(mode_t)S_ISUID;
	if (node->st.st_mode & S_IXGRP)
		node->st.st_mode &= ~(mode_t)S_ISGID;
}

static void set_times(struct memory_node *node, uint32_t set, const struct stat *in)
{
	if (set & SM_FS_SET_ATIME)
		node->st.st_atim = in->st_atim;
	if (set & SM_FS_SET_MTIME)
		node->st.st_mtim = in->st_mtim;
	memory_touch(node, set & SM_FS_SET_ATIME_NOW, set & SM_FS_SET_MTIME_NOW, true);
	if (set & SM_FS_SET_CTIME)
		node->st.st_ctim = in->st_ctim;
}

static int setattr_locked(struct memory_fs *fs, struct memory_node *node, uint32_t set, const struct stat *in)
{
	int r = set & SM_FS_SET_SIZE ? truncate_locked(fs, node, (uint64_t)in->st_size) : 0;

	if (r < 0)
		return r;
	if (set & SM_FS_SET_UID)
		node->st.st_uid = in->st_uid;
	if (set & SM_FS_SET_GID)
		node->st.st_gid = in->st_gid;
	if (set & SM_FS_SET_KILL_SUIDGID)
		kill_suidgid(node);
	if (set & SM_FS_SET_MODE)
		node->st.st_mode = (node->st.st_mode & S_IFMT) | (in->st_mode & 07777);
	set_times(node, set, in);
	return 0;
}

int memory_setattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, bool has_fh, uint64_t fh,
		   uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int r = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node)
		r = setattr_locked(fs, node, set, in);
	if (r == 0)
		memory_stat_locked(node, ret);
	*ret_valid = fs->options.valid_ns;
	pthread_mutex_unlock(&fs->lock);
	return r;
}

int memory_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint32_t flags,
		struct sm_fs_open *ret)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int r = 0;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (!node)
		r = -ESTALE;
	else if (S_ISDIR(node->st.st_mode))
		r = -EISDIR;
	else if (!S_ISREG(node->st.st_mode))
		r = -ENXIO;
	else if (flags & O_TRUNC)
		r = truncate_locked(fs, node, 0);
	if (r == 0) {
		node->opens++;
		*ret = (struct sm_fs_open){.flags = SM_FS_OPEN_KEEP_CACHE | SM_FS_OPEN_NOFLUSH};
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

void memory_release(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool flock_release, uint64_t owner)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node && node->opens) {
		node->opens--;
		memory_drop_locked(fs, node);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* Walks iovecs and pages together. */
struct io_cursor {
	const struct iovec *iov;
	int count;
	size_t done; /* in the first iovec */
};

/* The longest contiguous piece of at most len bytes. */
static size_t io_next(struct io_cursor *io, size_t len, void **ret)
{
	size_t step;

	while (io->count && io->done == io->iov->iov_len) {
		io->iov++;
		io->count--;
		io->done = 0;
	}
	if (!io->count)
		return 0;
	step = MIN(len, io->iov->iov_len - io->done);
	*ret = (char *)io->iov->iov_base + io->done;
	io->done += step;
	return step;
}

static ssize_t read_locked(struct memory_node *node, const struct iovec *iov, int count, uint64_t off)
{
	struct io_cursor io = {.iov = iov, .count = count};
	uint64_t start = off, size = (uint64_t)node->st.st_size;
	void *to;

	while (off < size) {
		size_t in_page = off % PAGES_SIZE;
		size_t step = io_next(&io, MIN((uint64_t)(PAGES_SIZE - in_page), size - off), &to);
		const uint8_t *page = pages_look(&node->pages, off);

		if (!step)
			break;
		if (page)
			memcpy(to, page + in_page, step);
		else
			memset(to, 0, step);
		off += step;
	}
	memory_touch(node, true, false, false);
	return (ssize_t)(off - start);
}

ssize_t memory_read(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const struct iovec *iov, int count,
		    uint64_t off)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	ssize_t n = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node)
		n = read_locked(node, iov, count, off);
	pthread_mutex_unlock(&fs->lock);
	return n;
}

static bool has_room(const struct memory_fs *fs, uint64_t pages)
{
	uint64_t max = fs->options.max_bytes / PAGES_SIZE;

	return fs->used_pages <= max && pages <= max - fs->used_pages;
}

/* The page for a write, within the file system's budget. */
static uint8_t *page_for_write(struct memory_fs *fs, struct memory_node *node, uint64_t off, int *ret)
{
	bool hole = !pages_look(&node->pages, off);
	uint8_t *page;

	*ret = 0;
	if (hole && !has_room(fs, 1)) {
		*ret = -ENOSPC;
		return NULL;
	}
	page = pages_make(&node->pages, off);
	if (!page)
		*ret = -ENOMEM;
	else
		fs->used_pages += hole;
	return page;
}

static ssize_t write_locked(struct memory_fs *fs, struct memory_node *node, const struct iovec *iov, int count,
			    uint64_t off)
{
	struct io_cursor io = {.iov = iov, .count = count};
	uint64_t start = off;
	int r = 0;

	for (;;) {
		size_t in_page = off % PAGES_SIZE, step;
		void *from;
		uint8_t *page;

		if (off >= PAGES_MAX_FILE) {
			r = -EFBIG;
			break;
		}
		step = io_next(&io, PAGES_SIZE - in_page, &from);
		if (!step)
			break;
		page = page_for_write(fs, node, off, &r);
		if (!page)
			break;
		memcpy(page + in_page, from, step);
		off += step;
	}
	if (off == start && r < 0)
		return r;
	node->st.st_size = MAX(node->st.st_size, (off_t)off);
	memory_touch(node, false, true, true);
	return (ssize_t)(off - start);
}

ssize_t memory_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
		     const struct iovec *iov, int count, uint64_t off, uint32_t flags)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	ssize_t n = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node && !S_ISREG(node->st.st_mode))
		n = -EINVAL;
	else if (node)
		n = write_locked(fs, node, iov, count, flags & SM_FS_WRITE_APPEND ? (uint64_t)node->st.st_size : off);
	if (n > 0 && flags & SM_FS_WRITE_KILL_SUIDGID)
		kill_suidgid(node);
	pthread_mutex_unlock(&fs->lock);
	return n;
}

/* As a disk's file system does, all of it or, where there is no room, nothing. */
static int reserve_locked(struct memory_fs *fs, struct memory_node *node, uint64_t off, uint64_t end)
{
	uint64_t before = node->pages.present;
	int r;

	if (!has_room(fs, pages_count_holes(&node->pages, off, end)))
		return -ENOSPC;
	r = pages_reserve(&node->pages, off, end);
	fs->used_pages += node->pages.present - before;
	return r;
}

static int allocate_locked(struct memory_fs *fs, struct memory_node *node, int mode, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, before = node->pages.present;
	int r = 0;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (end > PAGES_MAX_FILE)
		return -EFBIG;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		if (mode & FALLOC_FL_PUNCH_HOLE && !(mode & FALLOC_FL_KEEP_SIZE))
			return -EOPNOTSUPP;
		pages_punch(&node->pages, off, MIN(end, align_up((uint64_t)node->st.st_size, PAGES_SIZE)));
		fs->used_pages -= before - node->pages.present;
	}
	if (!(mode & FALLOC_FL_PUNCH_HOLE))
		r = reserve_locked(fs, node, off, end);
	if (r == 0 && !(mode & FALLOC_FL_KEEP_SIZE))
		node->st.st_size = MAX(node->st.st_size, (off_t)end);
	memory_touch(node, false, true, true);
	return r;
}

int memory_fallocate(struct sm_fs_backend *be, uint64_t id, uint64_t fh, int mode, uint64_t off, uint64_t len)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int r = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node)
		r = allocate_locked(fs, node, mode, off, len);
	pthread_mutex_unlock(&fs->lock);
	return r;
}

int64_t memory_lseek(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, int whence)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int64_t at = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node) {
		uint64_t size = (uint64_t)node->st.st_size;
		uint64_t found = pages_seek(&node->pages, off, size, whence == SEEK_DATA);

		at = off >= size || (whence == SEEK_DATA && found >= size) ? -ENXIO : (int64_t)found;
	}
	pthread_mutex_unlock(&fs->lock);
	return at;
}

/* ---------------------------------------------------------------------------------- extended attributes */

/* The namespaces that Linux knows, but for system (access control lists), which nobody here would obey. */
static int check_xattr_name(const char *name)
{
	static const char *const prefixes[] = {"user.", "trusted.", "security."};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (str_starts(name, prefixes[i]))
			return name[strlen(prefixes[i])] ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

static struct memory_xattr **find_xattr(struct memory_node *node, const char *name)
{
	struct memory_xattr **x = &node->xattrs;

	while (*x && !streq((*x)->name, name))
		x = &(*x)->next;
	return x;
}

static void free_xattr(struct memory_xattr *x)
{
	free(x->name);
	free(x->value);
	free(x);
}

void memory_xattrs_done(struct memory_node *node)
{
	while (node->xattrs) {
		struct memory_xattr *x = node->xattrs;

		node->xattrs = x->next;
		free_xattr(x);
	}
}

ssize_t memory_getxattr(struct sm_fs_backend *be, uint64_t id, const char *name, void *value, size_t size)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	ssize_t n = -ESTALE;

	if (check_xattr_name(name) < 0)
		return check_xattr_name(name);
	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node) {
		const struct memory_xattr *x = *find_xattr(node, name);

		n = !x ? -ENODATA : size && x->size > size ? -ERANGE : (ssize_t)x->size;
		if (n > 0 && size)
			memcpy(value, x->value, x->size);
	}
	pthread_mutex_unlock(&fs->lock);
	return n;
}

ssize_t memory_listxattr(struct sm_fs_backend *be, uint64_t id, char *list, size_t size)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	size_t total = 0;
	ssize_t n = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node) {
		for (const struct memory_xattr *x = node->xattrs; x; x = x->next) {
			size_t len = strlen(x->name) + 1;

			if (size && total + len <= size)
				memcpy(list + total, x->name, len);
			total += len;
		}
		n = size && total > size ? -ERANGE : (ssize_t)total;
	}
	pthread_mutex_unlock(&fs->lock);
	return n;
}

static int set_xattr_locked(struct memory_node *node, const char *name, const void *value, size_t size, int flags)
{
	struct memory_xattr **at = find_xattr(node, name), *x = *at;
	uint8_t *copy;

	if (x && flags & XATTR_CREATE)
		return -EEXIST;
	if (!x && flags & XATTR_REPLACE)
		return -ENODATA;
	copy = malloc(MAX(size, (size_t)1));
	if (!copy)
		return -ENOMEM;
	if (size)
		memcpy(copy, value, size);
	if (!x) {
		x = calloc(1, sizeof(*x));
		if (!x || !(x->name = strdup(name))) {
			free(x);
			free(copy);
			return -ENOMEM;
		}
		*at = x;
	}
	free(x->value);
	x->value = copy;
	x->size = size;
	memory_touch(node, false, false, true);
	return 0;
}

int memory_setxattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name,
		    const void *value, size_t size, int flags)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int r = -ESTALE;

	if (check_xattr_name(name) < 0)
		return check_xattr_name(name);
	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node)
		r = set_xattr_locked(node, name, value, size, flags);
	pthread_mutex_unlock(&fs->lock);
	return r;
}

int memory_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name)
{
	struct memory_fs *fs = memory_fs_of(be);
	struct memory_node *node;
	int r = -ESTALE;

	if (check_xattr_name(name) < 0)
		return check_xattr_name(name);
	pthread_mutex_lock(&fs->lock);
	node = memory_find_locked(fs, id);
	if (node) {
		struct memory_xattr **at = find_xattr(node, name), *x = *at;

		r = x ? 0 : -ENODATA;
		if (x) {
			*at = x->next;
			free_xattr(x);
			memory_touch(node, false, false, true);
		}
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}
