/* SPDX-License-Identifier: Apache-2.0 */
/* The posix backend's inode table: nodes by id and by identity, who holds them. See posix_node.h; their descriptors are
 * in posix_fd.c. */
#include "fuse/posix_node.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/posix_table.h"

#define FIRST_BUCKETS (1u << 12)
#define MAX_ANCESTORS 4096
#define MANY_NODES (1u << 16)

int posix_table_init(struct posix_fs *fs)
{
	fs->num_buckets = FIRST_BUCKETS;
	fs->by_id = calloc(fs->num_buckets, sizeof(struct posix_node *));
	fs->by_key = calloc(fs->num_buckets, sizeof(struct posix_node *));
	fs->next_id = SM_FS_ROOT;
	return fs->by_id && fs->by_key ? 0 : -ENOMEM;
}

static uint64_t mix(uint64_t x)
{
	x *= 0x9e3779b97f4a7c15ULL;
	return x ^ x >> 32;
}

static struct posix_node **id_bucket(struct posix_fs *fs, uint64_t id)
{
	return &fs->by_id[mix(id) & (fs->num_buckets - 1)];
}

static struct posix_node **key_bucket(struct posix_fs *fs, dev_t dev, ino_t ino)
{
	return &fs->by_key[mix((uint64_t)ino ^ (uint64_t)dev << 40) & (fs->num_buckets - 1)];
}

struct posix_node *posix_find_locked(struct posix_fs *fs, uint64_t id)
{
	struct posix_node *node = *id_bucket(fs, id);

	while (node && node->id != id)
		node = node->id_next;
	return node;
}

static void link_locked(struct posix_fs *fs, struct posix_node *node)
{
	struct posix_node **bucket = id_bucket(fs, node->id);

	node->id_next = *bucket;
	*bucket = node;
	bucket = key_bucket(fs, node->dev, node->ino);
	node->key_next = *bucket;
	*bucket = node;
}

/* Twice the buckets once there are more nodes than those. Without memory for it the chains grow instead. */
static void grow_locked(struct posix_fs *fs)
{
	uint64_t more = fs->num_buckets * 2;
	struct posix_node **by_id, **by_key, **old = fs->by_id;

	if (fs->num_nodes <= fs->num_buckets)
		return;
	by_id = calloc(more, sizeof(struct posix_node *));
	by_key = calloc(more, sizeof(struct posix_node *));
	if (!by_id || !by_key) {
		free(by_id);
		free(by_key);
		return;
	}
	free(fs->by_key);
	fs->by_id = by_id;
	fs->by_key = by_key;
	fs->num_buckets = more;
	for (uint64_t i = 0; i < more / 2; i++) {
		for (struct posix_node *node = old[i], *next; node; node = next) {
			next = node->id_next;
			link_locked(fs, node);
		}
	}
	free(old);
}

bool posix_is_file(const struct posix_node *node, const struct posix_seen *seen)
{
	return node->ino == seen->st.st_ino && node->dev == seen->st.st_dev && node->birth == seen->birth &&
	       node->type == (seen->st.st_mode & S_IFMT);
}

static void unkey_locked(struct posix_fs *fs, struct posix_node *node)
{
	struct posix_node **at = key_bucket(fs, node->dev, node->ino);

	while (*at && *at != node)
		at = &(*at)->key_next;
	if (*at)
		*at = node->key_next;
	node->key_next = NULL;
}

bool posix_handle_same(const struct posix_handle *a, const struct posix_handle *b)
{
	return a->size == b->size && a->type == b->type && memcmp(a->bytes, b->bytes, a->size) == 0;
}

/* What the peer holds for one directory is one to it, with one place in its tree; so one that has several, by links, is
 * as many nodes. */
static uint64_t view_of(const struct posix_seen *seen, const struct posix_node *parent)
{
	if (!S_ISDIR(seen->st.st_mode))
		return 0;
	return seen->view ? seen->view : parent ? parent->view : 0;
}

/* handle: of the file seen where only a handle can tell it from an earlier one of the same number, else NULL. */
static struct posix_node *find_key_locked(struct posix_fs *fs, const struct posix_seen *seen, uint64_t view,
					  const struct posix_handle *handle)
{
	struct posix_node *node = *key_bucket(fs, seen->st.st_dev, seen->st.st_ino);

	while (node && !(posix_is_file(node, seen) && node->view == view))
		node = node->key_next;
	/* An inode that is held cannot be used again; a time of birth tells. Else the handles must agree. */
	if (!node || node->fd >= 0 || node->birth || (!handle && !node->restored))
		return node;
	if (!handle)
		return NULL;
	if (node->handle && posix_handle_same(node->handle, handle))
		return node;
	unkey_locked(fs, node); /* it keeps its id, and is stale */
	return NULL;
}

/* ------------------------------------------------------------------------------------------ who holds a node */

void posix_drop_locked(struct posix_fs *fs, struct posix_node *node)
{
	while (node && node != fs->root && !node->refs && !node->opens && !node->pins && !node->children) {
		struct posix_node *parent = node->parent, **at;

		for (at = id_bucket(fs, node->id); *at != node;)
			at = &(*at)->id_next;
		*at = node->id_next;
		unkey_locked(fs, node);
		posix_drop_fd_locked(fs, node);
		if (parent)
			parent->children--;
		free(node->name);
		free(node->handle);
		free(node->shown);
		free(node->kept);
		free(node);
		fs->num_nodes--;
		node = parent;
	}
}

/* A directory that the host moved beneath one that was once beneath it would make a ring of the two. */
static bool is_beneath(const struct posix_node *node, const struct posix_node *above)
{
	for (int i = 0; node && i < MAX_ANCESTORS; i++, node = node->parent)
		if (node == above)
			return true;
	return node != NULL;
}

/* Takes name over. */
static void set_parent_locked(struct posix_fs *fs, struct posix_node *node, struct posix_node *parent, char *name)
{
	struct posix_node *old = node->parent;

	if (node == fs->root || (old != parent && S_ISDIR(node->type) && is_beneath(parent, node))) {
		free(name);
		return;
	}
	free(node->name);
	node->name = name;
	node->parent = parent;
	parent->children++;
	if (old) {
		old->children--;
		posix_drop_locked(fs, old);
	}
}

static int place_locked(struct posix_fs *fs, struct posix_node *node, struct posix_node *parent, const char *name)
{
	char *copy;

	if (!parent || (node->parent == parent && node->name && streq(node->name, name)))
		return 0;
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	set_parent_locked(fs, node, parent, copy);
	return 0;
}

static struct posix_node *node_new_locked(struct posix_fs *fs, const struct posix_seen *seen, uint64_t view)
{
	struct posix_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	*node = (struct posix_node){.fd = -1,
				    .dev = seen->st.st_dev,
				    .ino = seen->st.st_ino,
				    .birth = seen->birth,
				    .view = view,
				    .type = seen->st.st_mode & S_IFMT,
				    .id = fs->next_id++};
	grow_locked(fs);
	link_locked(fs, node);
	fs->num_nodes++;
	fs->most_nodes = MAX(fs->most_nodes, fs->num_nodes);
	return node;
}

static void keep_locked(struct posix_node *node, const struct posix_kept *kept)
{
	if (!kept || !(node->kept || (node->kept = malloc(sizeof(*kept)))))
		return; /* it is read again each time */
	*node->kept = *kept;
}

int posix_node_enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd,
		     const struct posix_seen *seen, const struct posix_kept *kept, uint64_t *ret_id)
{
	uint64_t view = view_of(seen, parent);
	struct posix_handle *handle = NULL;
	struct posix_node *node;
	int r = -ENOMEM;

	if (!seen->birth && fd >= 0)
		handle = posix_handle_read(fd);
	pthread_mutex_lock(&fs->lock);
	node = find_key_locked(fs, seen, view, handle);
	if (!node)
		node = node_new_locked(fs, seen, view);
	if (node) {
		node->pins++;
		r = place_locked(fs, node, parent, name);
		node->pins--;
	}
	if (r == 0) {
		node->refs++;
		node->refused = seen->refused;
		if (!node->handle)
			node->handle = TAKE_PTR(handle);
		keep_locked(node, kept);
		*ret_id = node->id;
		if (fd >= 0 && node->fd < 0) {
			posix_hold_fd_locked(fs, node, fd);
			fd = -1;
		}
	} else if (node) {
		posix_drop_locked(fs, node);
	}
	pthread_mutex_unlock(&fs->lock);
	fd_close(fd);
	free(handle);
	return r;
}

/* Few are left of very many: what they took is worth giving back to the host. */
static bool shrunk_locked(struct posix_fs *fs)
{
	if (fs->most_nodes < MANY_NODES || fs->num_nodes > fs->most_nodes / 16)
		return false;
	fs->most_nodes = fs->num_nodes;
	return true;
}

void posix_node_forget(struct posix_fs *fs, uint64_t id, uint64_t count)
{
	struct posix_node *node;
	bool shrunk;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	if (node) {
		node->refs -= MIN(count, node->refs);
		posix_drop_locked(fs, node);
	}
	shrunk = shrunk_locked(fs);
	pthread_mutex_unlock(&fs->lock);
	if (shrunk)
		malloc_trim(0);
}

void posix_node_forget_all(struct posix_fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	for (uint64_t i = 0; i < fs->num_buckets; i++)
		for (struct posix_node *node = fs->by_id[i]; node; node = node->id_next)
			node->refs = 0;
	/* Dropping one may free its parents anywhere in the table: begin a bucket anew after each. */
	for (uint64_t i = 0; i < fs->num_buckets; i++) {
		struct posix_node *node = fs->by_id[i];

		while (node) {
			if (node != fs->root && !node->opens && !node->pins && !node->children) {
				posix_drop_locked(fs, node);
				node = fs->by_id[i];
			} else {
				node = node->id_next;
			}
		}
	}
	pthread_mutex_unlock(&fs->lock);
}

void posix_node_renamed(struct posix_fs *fs, struct posix_node *parent, const char *name, const struct posix_seen *seen)
{
	struct posix_node *node;

	pthread_mutex_lock(&fs->lock);
	node = find_key_locked(fs, seen, view_of(seen, parent), NULL);
	if (node && place_locked(fs, node, parent, name) < 0) {
		/* Its old name stays, and leads to nothing: it is looked up anew. */
	}
	pthread_mutex_unlock(&fs->lock);
}

int posix_node_opened(struct posix_fs *fs, uint64_t id, struct posix_file *file)
{
	struct posix_node *node;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	if (node) {
		node->opens++;
		if (file) {
			file->next = node->files;
			node->files = file;
		}
	}
	pthread_mutex_unlock(&fs->lock);
	return node ? 0 : -ESTALE;
}

void posix_node_closed(struct posix_fs *fs, uint64_t id, struct posix_file *file)
{
	struct posix_node *node;

	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	if (node && node->opens) {
		struct posix_file **at = &node->files;

		while (*at && *at != file)
			at = &(*at)->next;
		if (*at)
			*at = file->next;
		node->opens--;
		posix_drop_locked(fs, node);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* ------------------------------------------------------------------------------------- nodes of a snapshot */

int posix_node_restore_locked(struct posix_fs *fs, const struct posix_node *like, const char *name, size_t name_len,
			      const struct posix_handle *handle)
{
	struct posix_node *node;

	if (posix_find_locked(fs, like->id))
		return -EPROTO;
	node = malloc(sizeof(*node));
	if (!node)
		return -ENOMEM;
	*node = *like;
	node->name = name_len ? strndup(name, name_len) : NULL;
	node->handle = handle ? malloc(sizeof(*handle)) : NULL;
	if ((name_len && !node->name) || (handle && !node->handle)) {
		free(node->name);
		free(node->handle);
		free(node);
		return -ENOMEM;
	}
	if (handle)
		*node->handle = *handle;
	grow_locked(fs);
	link_locked(fs, node);
	fs->num_nodes++;
	fs->most_nodes = MAX(fs->most_nodes, fs->num_nodes);
	return 0;
}

int posix_node_join_locked(struct posix_fs *fs, uint64_t id, uint64_t parent_id)
{
	struct posix_node *node = posix_find_locked(fs, id), *parent = posix_find_locked(fs, parent_id);

	if (!parent || !S_ISDIR(parent->type) || is_beneath(parent, node))
		return -EPROTO;
	node->parent = parent;
	parent->children++;
	return 0;
}

/* -------------------------------------------------------------------------------- what the peer has been shown */

static bool is_shown(const struct posix_node *node, const struct stat *st)
{
	const struct posix_version *was = node ? node->shown : NULL;

	return was && was->sure && was->size == st->st_size && posix_same_time(&was->mtime, &st->st_mtim) &&
	       posix_same_time(&was->ctime, &st->st_ctim);
}

bool posix_node_sure(struct posix_fs *fs, const struct posix_node *node)
{
	bool sure;

	pthread_mutex_lock(&fs->lock);
	sure = node->shown && node->shown->sure;
	pthread_mutex_unlock(&fs->lock);
	return sure;
}

bool posix_node_unchanged(struct posix_fs *fs, uint64_t id, const struct stat *st)
{
	bool same;

	pthread_mutex_lock(&fs->lock);
	same = is_shown(posix_find_locked(fs, id), st);
	pthread_mutex_unlock(&fs->lock);
	return same;
}

bool posix_node_shown(struct posix_fs *fs, uint64_t id, const struct stat *st)
{
	struct posix_version now = {.mtime = st->st_mtim, .ctime = st->st_ctim, .size = st->st_size};
	struct posix_node *node;
	bool same;

	now.sure = posix_times_tell(fs, st);
	pthread_mutex_lock(&fs->lock);
	node = posix_find_locked(fs, id);
	same = is_shown(node, st);
	if (node && (node->shown || (node->shown = calloc(1, sizeof(now)))))
		*node->shown = now;
	pthread_mutex_unlock(&fs->lock);
	return same;
}

bool posix_node_kept(struct posix_fs *fs, const struct posix_seen *seen, struct posix_kept *ret)
{
	struct posix_node *node;
	bool known = false;

	pthread_mutex_lock(&fs->lock);
	node = find_key_locked(fs, seen, seen->view, NULL); /* another view's knows no more than a look would tell */
	if (node && node->kept && posix_same_time(&node->kept->ctime, &seen->st.st_ctim) &&
	    (node->birth || node->fd >= 0)) {
		*ret = *node->kept;
		known = true;
	}
	pthread_mutex_unlock(&fs->lock);
	return known;
}

void posix_node_keep(struct posix_fs *fs, struct posix_node *node, const struct posix_kept *kept)
{
	pthread_mutex_lock(&fs->lock);
	keep_locked(node, kept);
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
			free(node->handle);
			free(node->shown);
			free(node->kept);
			free(node);
		}
	}
	free(fs->by_id);
	free(fs->by_key);
}
