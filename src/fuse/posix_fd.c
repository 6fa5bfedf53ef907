/* SPDX-License-Identifier: Apache-2.0 */
/* The posix backend's descriptors: which nodes hold one, and how a node that holds none finds its file again. See
 * posix_node.h. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_table.h"

#define MAX_DEPTH 512 /* of walks by name: a deeper node without a handle is stale when its descriptor went */

static struct stat stat_of(const struct statx *x)
{
	return (struct stat){.st_dev = makedev(x->stx_dev_major, x->stx_dev_minor),
			     .st_rdev = makedev(x->stx_rdev_major, x->stx_rdev_minor),
			     .st_ino = x->stx_ino,
			     .st_mode = x->stx_mode,
			     .st_nlink = x->stx_nlink,
			     .st_uid = x->stx_uid,
			     .st_gid = x->stx_gid,
			     .st_size = (off_t)x->stx_size,
			     .st_blocks = (blkcnt_t)x->stx_blocks,
			     .st_blksize = (blksize_t)x->stx_blksize,
			     .st_atim = {.tv_sec = x->stx_atime.tv_sec, .tv_nsec = x->stx_atime.tv_nsec},
			     .st_mtim = {.tv_sec = x->stx_mtime.tv_sec, .tv_nsec = x->stx_mtime.tv_nsec},
			     .st_ctim = {.tv_sec = x->stx_ctime.tv_sec, .tv_nsec = x->stx_ctime.tv_nsec}};
}

int posix_see(int fd, const char *name, struct posix_seen *ret)
{
	struct statx x;

	if (statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH),
		  STATX_BASIC_STATS | STATX_BTIME, &x) < 0)
		return -errno;
	*ret = (struct posix_seen){
		.st = stat_of(&x),
		.birth = x.stx_mask & STATX_BTIME ? x.stx_btime.tv_sec * 1000000000 + x.stx_btime.tv_nsec : 0,
	};
	return 0;
}

int posix_see_now(int fd, struct stat *ret)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &x) < 0)
		return -errno;
	*ret = stat_of(&x);
	return 0;
}

/* ---------------------------------------------------------------------------------------------- the budget */

static void lru_unlink(struct posix_fs *fs, struct posix_node *node)
{
	*(node->lru_prev ? &node->lru_prev->lru_next : &fs->lru_first) = node->lru_next;
	*(node->lru_next ? &node->lru_next->lru_prev : &fs->lru_last) = node->lru_prev;
	node->lru_prev = node->lru_next = NULL;
}

static void lru_append(struct posix_fs *fs, struct posix_node *node)
{
	node->lru_prev = fs->lru_last;
	*(fs->lru_last ? &fs->lru_last->lru_next : &fs->lru_first) = node;
	fs->lru_last = node;
}

void posix_drop_fd_locked(struct posix_fs *fs, struct posix_node *node)
{
	if (node->fd < 0)
		return;
	lru_unlink(fs, node);
	node->fd = fd_close(node->fd);
	fs->num_fds--;
}

/* Closes the least recently used descriptors that nobody uses, down to the budget. The root keeps its own. */
static void trim_locked(struct posix_fs *fs)
{
	struct posix_node *node = fs->lru_first, *next;

	for (; node && fs->num_fds > fs->options.max_fds; node = next) {
		next = node->lru_next;
		if (node->pins || node == fs->root)
			continue;
		if (!node->handle && __atomic_load_n(&fs->by_handle, __ATOMIC_RELAXED) && node->refs)
			node->handle = posix_handle_read(node->fd);
		posix_drop_fd_locked(fs, node);
	}
}

void posix_hold_fd_locked(struct posix_fs *fs, struct posix_node *node, int fd)
{
	node->fd = fd;
	fs->num_fds++;
	lru_append(fs, node);
	trim_locked(fs);
}

/* ------------------------------------------------------------------------------------------------ handles */

struct handle_room {
	struct file_handle h;
	uint8_t bytes[POSIX_HANDLE_MAX];
};

struct posix_handle *posix_handle_read(int fd)
{
	struct handle_room room = {.h.handle_bytes = POSIX_HANDLE_MAX};
	struct posix_handle *handle;
	int mount_id;

	if (name_to_handle_at(fd, "", &room.h, &mount_id, AT_EMPTY_PATH) < 0)
		return NULL;
	handle = malloc(sizeof(*handle));
	if (handle) {
		handle->size = room.h.handle_bytes;
		handle->type = room.h.handle_type;
		memcpy(handle->bytes, room.h.f_handle, room.h.handle_bytes);
	}
	return handle;
}

static int open_by_handle(struct posix_fs *fs, const struct posix_handle *handle)
{
	struct handle_room room = {.h = {.handle_bytes = handle->size, .handle_type = handle->type}};
	int fd;

	if (!__atomic_load_n(&fs->by_handle, __ATOMIC_RELAXED))
		return -ESTALE;
	memcpy(room.h.f_handle, handle->bytes, handle->size);
	fd = open_by_handle_at(fs->mount_fd, &room.h, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == EPERM || errno == ENOSYS)) /* the privilege has been given up: names must do */
		__atomic_store_n(&fs->by_handle, false, __ATOMIC_RELAXED);
	return fd < 0 ? -errno : fd;
}

/* ----------------------------------------------------------------------------------------- finding it again */

/* What a node without a descriptor can be found by, copied out of the lock. */
struct clue {
	struct posix_node *parent; /* pinned, NULL: none */
	char name[NAME_MAX + 1];
	bool has_handle, strict;
	struct posix_handle handle, was; /* was: what it has to have (strict) */
	int open_fd;			 /* of the file behind an open handle; negative: none */
};

static void clue_init_locked(struct posix_fs *fs, const struct posix_node *node, struct clue *c)
{
	c->parent = node->name ? node->parent : NULL;
	if (c->parent) {
		c->parent->pins++;
		snprintf(c->name, sizeof(c->name), "%s", node->name);
	}
	c->strict = node->restored && !node->birth;
	c->has_handle = node->handle && !node->restored;
	c->was.size = 0;
	if (c->has_handle)
		c->handle = *node->handle;
	else if (node->handle)
		c->was = *node->handle;
	c->open_fd = node->files ? posix_reopen(fs, node->files->fd, O_PATH) : -1;
}

static int get_at_depth(struct posix_fs *fs, uint64_t id, int depth, struct posix_node **ret_node);

/* Of a node from a snapshot, where no time of birth tells: nobody has held the number since. */
static bool has_handle(const struct clue *c, int fd)
{
	struct posix_handle *now = c->was.size ? posix_handle_read(fd) : NULL;
	bool same = now && posix_handle_same(now, &c->was);

	free(now);
	return same;
}

/* A descriptor that is the node's file for certain, or -ESTALE. */
static int check_file(const struct posix_node *node, const struct clue *c, int fd)
{
	struct posix_seen seen;

	if (fd < 0)
		return -ESTALE;
	if (posix_see(fd, "", &seen) == 0 && posix_is_file(node, &seen) && (!c->strict || has_handle(c, fd)))
		return fd;
	close(fd);
	return -ESTALE;
}

static int open_by_clue(struct posix_fs *fs, const struct posix_node *node, struct clue *c, int depth)
{
	struct posix_node *parent;
	int fd, parent_fd;

	if (c->open_fd >= 0)
		return TAKE_FD(c->open_fd);
	fd = c->has_handle ? check_file(node, c, open_by_handle(fs, &c->handle)) : -ESTALE;
	/* A number alone may be another file's by now; where there are handles they alone are believed. */
	if (fd >= 0 || !c->parent || depth >= MAX_DEPTH ||
	    (c->has_handle && !node->birth && __atomic_load_n(&fs->by_handle, __ATOMIC_RELAXED)))
		return fd;
	parent_fd = get_at_depth(fs, c->parent->id, depth + 1, &parent);
	if (parent_fd < 0)
		return parent_fd;
	fd = check_file(node, c, openat(parent_fd, c->name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	posix_fd_put(fs, parent);
	return fd;
}

static int reopen(struct posix_fs *fs, struct posix_node *node, int depth)
{
	struct clue clue;
	int fd;

	clue_init_locked(fs, node, &clue);
	pthread_mutex_unlock(&fs->lock);
	fd = open_by_clue(fs, node, &clue, depth);
	fd_close(clue.open_fd);
	pthread_mutex_lock(&fs->lock);
	if (clue.parent) {
		clue.parent->pins--;
		posix_drop_locked(fs, clue.parent);
	}
	if (node->fd >= 0) { /* another thread was quicker */
		fd_close(fd);
		return 0;
	}
	if (fd < 0)
		return fd;
	fs->reopened++;
	posix_hold_fd_locked(fs, node, fd);
	return 0;
}

static int get_at_depth(struct posix_fs *fs, uint64_t id, int depth, struct posix_node **ret_node)
{
	struct posix_node *node;
	int r = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	if (node) {
		node->pins++; /* before anything may be trimmed */
		r = node->fd >= 0 ? 0 : reopen(fs, node, depth);
		if (r < 0) {
			node->pins--;
			posix_drop_locked(fs, node);
		}
	}
	if (r == 0) {
		lru_unlink(fs, node);
		lru_append(fs, node);
		*ret_node = node;
		r = node->fd;
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

int posix_fd_get(struct posix_fs *fs, uint64_t id, struct posix_node **ret_node)
{
	return get_at_depth(fs, id, 0, ret_node);
}

int posix_node_pin(struct posix_fs *fs, uint64_t id, struct posix_node **ret_node)
{
	pthread_mutex_lock(&fs->lock);
	*ret_node = posix_find_locked(fs, id);
	if (*ret_node)
		(*ret_node)->pins++;
	pthread_mutex_unlock(&fs->lock);
	return *ret_node ? 0 : -ESTALE;
}

void posix_fd_put(struct posix_fs *fs, struct posix_node *node)
{
	pthread_mutex_lock(&fs->lock);
	node->pins--;
	posix_drop_locked(fs, node);
	trim_locked(fs);
	pthread_mutex_unlock(&fs->lock);
}

/* By its name under a parent that holds a descriptor: one system call. False: it takes more than that. */
static bool see_by_name(struct posix_fs *fs, uint64_t id, struct posix_seen *ret)
{
	struct posix_node *node, *parent = NULL;
	char name[NAME_MAX + 1];
	bool same = false;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	if (node && node->fd < 0 && node->name && node->parent->fd >= 0 && node->birth) {
		node->pins++;
		parent = node->parent;
		parent->pins++;
		snprintf(name, sizeof(name), "%s", node->name);
	}
	pthread_mutex_unlock(&fs->lock);
	if (!parent)
		return false;
	if (posix_see(parent->fd, name, ret) == 0)
		same = posix_is_file(node, ret);
	posix_fd_put(fs, parent);
	posix_fd_put(fs, node);
	return same;
}

int posix_node_see(struct posix_fs *fs, uint64_t id, struct posix_seen *ret, struct posix_kept *ret_kept)
{
	bool owners = posix_keeps(fs);
	struct posix_node *node;
	int fd, r;

	if (see_by_name(fs, id, ret) && (!owners || posix_node_kept(fs, ret, ret_kept)))
		return 0;
	fd = posix_fd_get(fs, id, &node);
	if (fd < 0)
		return fd;
	r = posix_see(fd, "", ret);
	if (r == 0 && owners && !posix_node_kept(fs, ret, ret_kept)) {
		posix_read_kept(fs, fd, &ret->st, ret_kept);
		posix_node_keep(fs, node, ret_kept);
	}
	posix_fd_put(fs, node);
	return r;
}
