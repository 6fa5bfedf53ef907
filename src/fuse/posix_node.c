/* SPDX-License-Identifier: Apache-2.0 */
/* The posix backend's inode table. See posix_node.h. */
#include "fuse/posix_node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define MAX_DEPTH 128 /* of re-walks by name: a deeper node without a handle is stale when its descriptor went */

int posix_table_init(struct posix_fs *fs)
{
	fs->num_buckets = 1u << 16;
	fs->by_id = calloc(fs->num_buckets, sizeof(struct posix_node *));
	fs->by_key = calloc(fs->num_buckets, sizeof(struct posix_node *));
	fs->next_id = SM_FS_ROOT;
	return fs->by_id && fs->by_key ? 0 : -ENOMEM;
}

static struct posix_node **id_bucket(struct posix_fs *fs, uint64_t id)
{
	return &fs->by_id[id * 0x9e3779b97f4a7c15ULL % fs->num_buckets];
}

static struct posix_node **key_bucket(struct posix_fs *fs, dev_t dev, ino_t ino)
{
	return &fs->by_key[((uint64_t)ino ^ (uint64_t)dev << 40) * 0x9e3779b97f4a7c15ULL % fs->num_buckets];
}

static struct posix_node *find_locked(struct posix_fs *fs, uint64_t id)
{
	struct posix_node *node = *id_bucket(fs, id);

	while (node && node->id != id)
		node = node->id_next;
	return node;
}

/* ------------------------------------------------------------------------------------- descriptors in the budget */

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

static void drop_fd_locked(struct posix_fs *fs, struct posix_node *node)
{
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
		if (!node->pins && node != fs->root)
			drop_fd_locked(fs, node);
	}
}

static void hold_fd_locked(struct posix_fs *fs, struct posix_node *node, int fd)
{
	node->fd = fd;
	fs->num_fds++;
	lru_append(fs, node);
	trim_locked(fs);
}

/* ----------------------------------------------------------------------------------------------- handles */

struct handle_room {
	struct file_handle h;
	uint8_t bytes[POSIX_HANDLE_MAX];
};

static void read_handle(struct posix_fs *fs, int fd, struct posix_node *node)
{
	struct handle_room room = {.h.handle_bytes = POSIX_HANDLE_MAX};
	int mount_id;

	node->handle_size = 0;
	if (!fs->by_handle || name_to_handle_at(fd, "", &room.h, &mount_id, AT_EMPTY_PATH) < 0)
		return;
	node->handle_size = room.h.handle_bytes;
	node->handle_type = room.h.handle_type;
	memcpy(node->handle, room.h.f_handle, room.h.handle_bytes);
}

static int open_by_handle(struct posix_fs *fs, const struct posix_node *node)
{
	struct handle_room room = {.h = {.handle_bytes = node->handle_size, .handle_type = node->handle_type}};
	int fd;

	if (!node->handle_size)
		return -ESTALE;
	memcpy(room.h.f_handle, node->handle, node->handle_size);
	fd = open_by_handle_at(fs->mount_fd, &room.h, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static bool same_file(int fd, const struct posix_node *node)
{
	struct stat st;

	return fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && st.st_dev == node->dev && st.st_ino == node->ino &&
	       (st.st_mode & S_IFMT) == node->type;
}

/* Walks down from the nearest ancestor that holds a descriptor. Under the lock: rare, and the walk is short. */
static int open_by_name_locked(struct posix_fs *fs, struct posix_node *node, int depth)
{
	int parent_fd, fd;
	bool temporary;

	if (!node->parent || !node->name || depth > MAX_DEPTH)
		return -ESTALE;
	temporary = node->parent->fd < 0;
	parent_fd = temporary ? open_by_name_locked(fs, node->parent, depth + 1) : node->parent->fd;
	if (parent_fd < 0)
		return parent_fd;
	fd = openat(parent_fd, node->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (temporary)
		close(parent_fd);
	if (fd >= 0 && !same_file(fd, node))
		fd = fd_close(fd);
	return fd < 0 ? -ESTALE : fd;
}

static int reopen_locked(struct posix_fs *fs, struct posix_node *node)
{
	int fd = open_by_handle(fs, node);

	if (fd >= 0 && !same_file(fd, node)) /* the inode number lives again as another file */
		fd = fd_close(fd);
	if (fd < 0)
		fd = open_by_name_locked(fs, node, 0);
	if (fd < 0)
		return -ESTALE;
	fs->reopened++;
	hold_fd_locked(fs, node, fd);
	return 0;
}

int posix_fd_get(struct posix_fs *fs, uint64_t id, struct posix_node **ret_node)
{
	struct posix_node *node;
	int r = -ESTALE;

	pthread_mutex_lock(&fs->lock);
	node = find_locked(fs, id);
	if (node) {
		node->pins++; /* before anything may be trimmed */
		r = node->fd >= 0 ? 0 : reopen_locked(fs, node);
		if (r < 0)
			node->pins--;
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

/* ------------------------------------------------------------------------------------------------- nodes */

static void set_parent_locked(struct posix_fs *fs, struct posix_node *node, struct posix_node *parent, char *name);

/* Frees a node that nothing holds, then its parent, if it was the last to hold that. */
static void drop_locked(struct posix_fs *fs, struct posix_node *node)
{
	while (node && node != fs->root && !node->refs && !node->opens && !node->pins && !node->children) {
		struct posix_node *parent = node->parent, **at;

		for (at = id_bucket(fs, node->id); *at != node;)
			at = &(*at)->id_next;
		*at = node->id_next;
		for (at = key_bucket(fs, node->dev, node->ino); *at && *at != node;)
			at = &(*at)->key_next;
		if (*at)
			*at = node->key_next;
		if (node->fd >= 0)
			drop_fd_locked(fs, node);
		if (parent)
			parent->children--;
		free(node->name);
		free(node);
		fs->num_nodes--;
		node = parent;
	}
}

static void set_parent_locked(struct posix_fs *fs, struct posix_node *node, struct posix_node *parent, char *name)
{
	struct posix_node *old = node->parent;

	free(node->name);
	node->name = name;
	node->parent = parent;
	parent->children++;
	if (old) {
		old->children--;
		drop_locked(fs, old);
	}
}

void posix_fd_put(struct posix_fs *fs, struct posix_node *node)
{
	pthread_mutex_lock(&fs->lock);
	node->pins--;
	drop_locked(fs, node);
	trim_locked(fs);
	pthread_mutex_unlock(&fs->lock);
}

/* Takes an old node out of the key table when its inode number has become another file's: it keeps its id, and is
 * stale. */
static void unkey_locked(struct posix_fs *fs, struct posix_node *node)
{
	struct posix_node **at = key_bucket(fs, node->dev, node->ino);

	while (*at && *at != node)
		at = &(*at)->key_next;
	if (*at)
		*at = node->key_next;
	node->key_next = NULL;
}

static bool is_same_incarnation(const struct posix_node *node, const struct posix_node *seen)
{
	if (node->fd >= 0) /* an inode that is held cannot be used again */
		return true;
	if (!node->handle_size || !seen->handle_size)
		return node->handle_size == seen->handle_size;
	return node->handle_size == seen->handle_size && node->handle_type == seen->handle_type &&
	       memcmp(node->handle, seen->handle, seen->handle_size) == 0;
}

static struct posix_node *find_key_locked(struct posix_fs *fs, const struct posix_node *seen)
{
	struct posix_node *node = *key_bucket(fs, seen->dev, seen->ino);

	while (node && (node->dev != seen->dev || node->ino != seen->ino))
		node = node->key_next;
	if (node && (node->type != seen->type || !is_same_incarnation(node, seen))) {
		unkey_locked(fs, node);
		return NULL;
	}
	return node;
}

static void insert_locked(struct posix_fs *fs, struct posix_node *node)
{
	struct posix_node **bucket;

	node->id = fs->next_id++;
	bucket = id_bucket(fs, node->id);
	node->id_next = *bucket;
	*bucket = node;
	bucket = key_bucket(fs, node->dev, node->ino);
	node->key_next = *bucket;
	*bucket = node;
	fs->num_nodes++;
}

int posix_node_enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd, const struct stat *st,
		     struct posix_node **ret)
{
	struct posix_node *node = calloc(1, sizeof(*node)), *known;
	char *copy = name ? strdup(name) : NULL;

	if (!node || (name && !copy)) {
		free(node);
		free(copy);
		close(fd);
		return -ENOMEM;
	}
	*node = (struct posix_node){.fd = -1, .dev = st->st_dev, .ino = st->st_ino, .type = st->st_mode & S_IFMT};
	read_handle(fs, fd, node);
	pthread_mutex_lock(&fs->lock);
	known = find_key_locked(fs, node);
	if (known) {
		free(node);
		node = known;
	} else {
		insert_locked(fs, node);
	}
	node->refs++;
	node->pins++; /* a hostile peer may forget the node at this very moment */
	if (node->fd < 0)
		hold_fd_locked(fs, node, fd);
	else
		close(fd);
	if (parent && copy && node != fs->root && node != parent)
		set_parent_locked(fs, node, parent, copy);
	else
		free(copy);
	*ret = node;
	pthread_mutex_unlock(&fs->lock);
	return 0;
}

void posix_node_forget(struct posix_fs *fs, uint64_t id, uint64_t count)
{
	struct posix_node *node;

	pthread_mutex_lock(&fs->lock);
	node = find_locked(fs, id);
	if (node) {
		node->refs -= MIN(count, node->refs);
		drop_locked(fs, node);
	}
	pthread_mutex_unlock(&fs->lock);
}

void posix_node_forget_all(struct posix_fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	for (uint64_t i = 0; i < fs->num_buckets; i++) {
		struct posix_node *node;

		for (node = fs->by_id[i]; node; node = node->id_next)
			node->refs = 0;
	}
	/* Dropping one may free its parents anywhere in the table: begin a bucket anew after each. */
	for (uint64_t i = 0; i < fs->num_buckets; i++) {
		struct posix_node *node = fs->by_id[i];

		while (node) {
			if (node != fs->root && !node->opens && !node->pins && !node->children) {
				drop_locked(fs, node);
				node = fs->by_id[i];
			} else {
				node = node->id_next;
			}
		}
	}
	pthread_mutex_unlock(&fs->lock);
}

void posix_node_renamed(struct posix_fs *fs, struct posix_node *parent, const char *name, dev_t dev, ino_t ino)
{
	struct posix_node *node;
	char *copy = strdup(name);

	pthread_mutex_lock(&fs->lock);
	node = *key_bucket(fs, dev, ino);
	while (node && (node->dev != dev || node->ino != ino))
		node = node->key_next;
	if (node && copy && node != fs->root && node != parent)
		set_parent_locked(fs, node, parent, copy);
	else
		free(copy);
	pthread_mutex_unlock(&fs->lock);
}

void posix_node_opened(struct posix_fs *fs, struct posix_node *node)
{
	pthread_mutex_lock(&fs->lock);
	node->opens++;
	pthread_mutex_unlock(&fs->lock);
}

void posix_node_closed(struct posix_fs *fs, uint64_t id)
{
	struct posix_node *node;

	pthread_mutex_lock(&fs->lock);
	node = find_locked(fs, id);
	if (node && node->opens) {
		node->opens--;
		drop_locked(fs, node);
	}
	pthread_mutex_unlock(&fs->lock);
}

void posix_table_done(struct posix_fs *fs)
{
	for (uint64_t i = 0; fs->by_id && i < fs->num_buckets; i++) {
		while (fs->by_id[i]) {
			struct posix_node *node = fs->by_id[i];

			fs->by_id[i] = node->id_next;
			fd_close(node->fd);
			free(node->name);
			free(node);
		}
	}
	free(fs->by_id);
	free(fs->by_key);
}
