/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend's two tables, of nodes and of names, and what holds a node. See memory_node.h. */
#include "fuse/memory_node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"

void memory_touch(struct memory_node *node, bool atime, bool mtime, bool ctime)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (atime)
		node->st.st_atim = now;
	if (mtime)
		node->st.st_mtim = now;
	if (ctime)
		node->st.st_ctim = now;
}

void memory_stat_locked(const struct memory_node *node, struct stat *ret)
{
	*ret = node->st;
	ret->st_blocks = (blkcnt_t)(node->pages.present * (PAGES_SIZE / 512));
}

/* ------------------------------------------------------------------------------------------- the two tables */

static struct memory_node **node_bucket(struct memory_fs *fs, uint64_t id)
{
	return &fs->nodes[id * 0x9e3779b97f4a7c15ULL % fs->num_buckets];
}

struct memory_node *memory_find_locked(struct memory_fs *fs, uint64_t id)
{
	struct memory_node *node = *node_bucket(fs, id);

	while (node && node->id != id)
		node = node->hash_next;
	return node;
}

/* FNV-1a over the parent's id and the name. */
static struct memory_dirent **name_bucket(struct memory_fs *fs, const struct memory_node *parent, const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ULL ^ parent->id * 0x9e3779b97f4a7c15ULL;

	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 0x100000001b3ULL;
	return &fs->names[hash % fs->num_buckets];
}

struct memory_dirent *memory_find_name(struct memory_fs *fs, const struct memory_node *parent, const char *name)
{
	struct memory_dirent *d = *name_bucket(fs, parent, name);

	while (d && (d->parent != parent || !streq(d->name, name)))
		d = d->hash_next;
	return d;
}

/* Enough buckets for the most nodes there may be, but no more than 2^17: the tables are small beside the nodes. */
int memory_make_tables(struct memory_fs *fs)
{
	fs->num_buckets = MIN(fs->options.max_nodes, 1ULL << 17);
	fs->nodes = calloc(fs->num_buckets, sizeof(struct memory_node *));
	fs->names = calloc(fs->num_buckets, sizeof(struct memory_dirent *));
	return fs->nodes && fs->names ? 0 : -ENOMEM;
}

/* ---------------------------------------------------------------------------------------- nodes and names */

struct memory_node *memory_node_new(struct memory_fs *fs, uint32_t mode, uint32_t uid, uint32_t gid)
{
	struct memory_node *node = calloc(1, sizeof(*node)), **bucket;

	if (!node)
		return NULL;
	node->id = fs->next_id++;
	node->next_cookie = 3; /* 1 and 2 stand for . and .. */
	node->st = (struct stat){
		.st_ino = node->id, .st_mode = mode, .st_uid = uid, .st_gid = gid, .st_blksize = PAGES_SIZE};
	memory_touch(node, true, true, true);
	node->birth = node->st.st_ctim;
	bucket = node_bucket(fs, node->id);
	node->hash_next = *bucket;
	*bucket = node;
	fs->num_nodes++;
	return node;
}

void memory_node_free(struct memory_fs *fs, struct memory_node *node)
{
	struct memory_node **at = node_bucket(fs, node->id);

	while (*at != node)
		at = &(*at)->hash_next;
	*at = node->hash_next;
	fs->num_nodes--;
	fs->used_pages -= node->pages.present;
	pages_done(&node->pages);
	memory_xattrs_done(node);
	free(node->target);
	free(node);
}

void memory_drop_locked(struct memory_fs *fs, struct memory_node *node)
{
	if (!node->st.st_nlink && !node->refs && !node->opens && node->id != SM_FS_ROOT)
		memory_node_free(fs, node);
}

int memory_name_add(struct memory_fs *fs, struct memory_node *parent, const char *name, struct memory_node *node)
{
	struct memory_dirent *d = calloc(1, sizeof(*d) + strlen(name) + 1), **bucket;

	if (!d)
		return -ENOMEM;
	memcpy(d->name, name, strlen(name) + 1);
	d->parent = parent;
	d->node = node;
	d->cookie = parent->next_cookie++;
	bucket = name_bucket(fs, parent, name);
	d->hash_next = *bucket;
	*bucket = d;
	d->prev = parent->last;
	if (d->prev)
		d->prev->next = d;
	else
		parent->first = d;
	parent->last = d;
	parent->num_entries++;
	memory_touch(parent, false, true, true);
	return 0;
}

void memory_name_remove(struct memory_fs *fs, struct memory_dirent *d)
{
	struct memory_dirent **at = name_bucket(fs, d->parent, d->name);
	struct memory_node *parent = d->parent;

	while (*at != d)
		at = &(*at)->hash_next;
	*at = d->hash_next;
	*(d->prev ? &d->prev->next : &parent->first) = d->next;
	*(d->next ? &d->next->prev : &parent->last) = d->prev;
	parent->num_entries--;
	memory_touch(parent, false, true, true);
	free(d);
}

/* Counts links: a directory counts itself and its parent's name; its parent gains one for "..". */
void memory_link_node(struct memory_node *parent, struct memory_node *node)
{
	if (S_ISDIR(node->st.st_mode)) {
		node->parent = parent;
		parent->st.st_nlink++;
		node->st.st_nlink = 2;
	} else {
		node->st.st_nlink++;
	}
	memory_touch(node, false, false, true);
}

void memory_unlink_node(struct memory_fs *fs, struct memory_node *parent, struct memory_node *node)
{
	if (S_ISDIR(node->st.st_mode)) {
		parent->st.st_nlink--;
		node->st.st_nlink = 0;
		node->parent = NULL;
	} else {
		node->st.st_nlink--;
	}
	memory_touch(node, false, false, true);
	memory_drop_locked(fs, node);
}

void memory_fill_entry(struct memory_fs *fs, struct memory_node *node, struct sm_fs_entry *ret)
{
	node->refs++;
	*ret = (struct sm_fs_entry){
		.nodeid = node->id,
		.entry_valid_ns = fs->options.valid_ns,
		.attr_valid_ns = fs->options.valid_ns,
	};
	memory_stat_locked(node, &ret->attr);
}

/* A directory that still has a name (or is the root), or an error. */
int memory_find_dir(struct memory_fs *fs, uint64_t id, struct memory_node **ret)
{
	struct memory_node *node = memory_find_locked(fs, id);

	if (!node)
		return -ESTALE;
	if (!S_ISDIR(node->st.st_mode))
		return -ENOTDIR;
	*ret = node;
	return node->st.st_nlink ? 0 : -ENOENT;
}
