/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file tree of an image while its layers are merged: names (nodes) that point to inodes. Made for millions of
 * entries: numbers instead of pointers, one hash table for all directories. Number 0 is nothing; node 1 is the root.
 * One thread.
 */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "image/index.h"
#include "image/xattr.h"

#define TREE_ROOT 1U

struct node {
	const char *name; /* not terminated */
	uint32_t parent, inode;
	uint32_t child;	     /* first; a directory's */
	uint32_t next, prev; /* siblings */
	uint32_t layer;	     /* the last one that touched the name or anything beneath */
	uint16_t depth;
	uint8_t name_len;
};

struct inode {
	uint16_t mode;	    /* with the type, as in stat(2) */
	uint8_t chunk_bits; /* of a sparse file, else 0 */
	uint8_t placed;	    /* the writer's mark */
	uint32_t uid, gid;
	uint32_t mtime_nsec;
	int64_t mtime;
	uint64_t size;	/* of a file; of a link's target; the writer sets a directory's */
	uint64_t place; /* into the blob; a device's number; for a directory or link the writer's: its first block, if
			   it has any */
	union {
		const struct index_run *runs; /* of a sparse file */
		const char *target;
	};
	uint32_t num_runs;
	uint32_t blob; /* which, as the caller of the merge counts them */
	uint32_t nlink;
	uint32_t xattrs;
	uint64_t nid;
};

struct tree {
	struct node *nodes;
	struct inode *inodes;
	uint32_t num_nodes, cap_nodes, free_node;    /* free ones are linked by `next` */
	uint32_t num_inodes, cap_inodes, free_inode; /* by `nlink` */
	uint32_t live_nodes, live_inodes;
	uint32_t *slots, num_slots;
	uint64_t seed; /* of the hash: an image cannot choose names that collide */
	struct arena *arena;
	struct xattr_pool *xattrs;
	uint32_t removals; /* of anything but files: what may make a remembered path wrong */
};

int tree_init(struct tree *t) MUST_CHECK; /* with a root: 0755, owned by 0:0, at the epoch */
void tree_done(struct tree *t);

/* The child of a directory, or 0. */
uint32_t tree_find(const struct tree *t, uint32_t dir, const char *name, size_t len);
/* A new name in a directory that has none such; takes over one link of the inode. -ENOMEM, -EMFILE (too many), -ELOOP
 * (too deep). */
int tree_add(struct tree *t, uint32_t dir, const char *name, size_t len, uint32_t inode, uint32_t layer,
	     uint32_t *ret) MUST_CHECK;
/* Removes a name and all beneath it. */
void tree_remove(struct tree *t, uint32_t node);

/* A zeroed inode with one link. */
int tree_new_inode(struct tree *t, uint32_t *ret) MUST_CHECK;
/* Drops one link. */
void tree_put_inode(struct tree *t, uint32_t inode);

/* A copy that lives as long as the tree, aligned for u64; NULL: no memory. */
void *tree_keep(struct tree *t, const void *p, size_t len);

static inline struct inode *tree_inode(const struct tree *t, uint32_t node)
{
	return &t->inodes[t->nodes[node].inode];
}

static inline bool tree_is_dir(const struct tree *t, uint32_t node)
{
	return S_ISDIR(tree_inode(t, node)->mode);
}

/* Marks a node and those above it as touched by the layer. */
void tree_touch(struct tree *t, uint32_t node, uint32_t layer);

#endif
