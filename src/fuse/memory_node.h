/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes and names of the memory backend: shared by memory.c (operations on names), memory_tree.c (the tables) and
 * memory_file.c (contents, attributes). Internal to the room.
 *
 * One mutex guards the whole file system; functions that need it held end in _locked. A node lives while it has a name,
 * a lookup reference or an open handle. Node ids are never used again.
 */
#ifndef FUSE_MEMORY_NODE_H
#define FUSE_MEMORY_NODE_H

#include <pthread.h>

#include "fuse/memory.h"
#include "fuse/pages.h"

struct memory_xattr {
	struct memory_xattr *next;
	size_t size;
	char *name;
	uint8_t *value;
};

struct memory_node;

struct memory_dirent {
	struct memory_dirent *hash_next, *next, *prev; /* in the name table; among its siblings, by cookie */
	struct memory_node *parent, *node;
	uint64_t cookie; /* readdir offset, grows, never used again in this directory */
	char name[];
};

struct memory_node {
	struct memory_node *hash_next;
	uint64_t id, refs; /* refs: lookups that the peer has not forgotten */
	uint32_t opens;
	struct stat st; /* st_size, st_nlink, times, ...: always current; st_blocks is filled when asked */
	struct timespec birth;
	struct memory_node *parent; /* directories; not counted: a directory has one name */
	struct memory_dirent *first, *last;
	uint64_t next_cookie, num_entries;
	char *target; /* symbolic links */
	struct pages pages;
	struct memory_xattr *xattrs;
};

struct memory_fs {
	struct sm_fs_backend be; /* first */
	pthread_mutex_t lock;	 /* guards all below */
	struct fuse_memory_options options;
	struct memory_node **nodes;   /* by id */
	struct memory_dirent **names; /* by parent and name */
	uint64_t num_buckets, num_nodes, next_id, used_pages;
};

static inline struct memory_fs *memory_fs_of(struct sm_fs_backend *be)
{
	return (struct memory_fs *)be;
}

struct memory_node *memory_find_locked(struct memory_fs *fs, uint64_t id);
void memory_touch(struct memory_node *node, bool atime, bool mtime, bool ctime);
void memory_stat_locked(const struct memory_node *node, struct stat *ret);
/* Frees the node if nothing holds it any more. */
void memory_drop_locked(struct memory_fs *fs, struct memory_node *node);

/* memory_tree.c; all but make_tables with the lock held */
struct memory_dirent *memory_find_name(struct memory_fs *fs, const struct memory_node *parent, const char *name);
int memory_make_tables(struct memory_fs *fs);
struct memory_node *memory_node_new(struct memory_fs *fs, uint32_t mode, uint32_t uid, uint32_t gid);
void memory_node_free(struct memory_fs *fs, struct memory_node *node);
int memory_name_add(struct memory_fs *fs, struct memory_node *parent, const char *name, struct memory_node *node);
void memory_name_remove(struct memory_fs *fs, struct memory_dirent *d);
void memory_link_node(struct memory_node *parent, struct memory_node *node);
void memory_unlink_node(struct memory_fs *fs, struct memory_node *parent, struct memory_node *node);
void memory_fill_entry(struct memory_fs *fs, struct memory_node *node, struct sm_fs_entry *ret);
int memory_find_dir(struct memory_fs *fs, uint64_t id, struct memory_node **ret);

/* memory_file.c, entered in the operations table of memory.c */
int memory_getattr(struct sm_fs_backend *be, uint64_t id, bool has_fh, uint64_t fh, struct stat *ret,
		   uint64_t *ret_valid);
int memory_setattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, bool has_fh, uint64_t fh,
		   uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid);
int memory_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint32_t flags,
		struct sm_fs_open *ret);
ssize_t memory_read(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const struct iovec *iov, int count,
		    uint64_t off);
ssize_t memory_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
		     const struct iovec *iov, int count, uint64_t off, uint32_t flags);
void memory_release(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool flock_release, uint64_t owner);
int memory_fallocate(struct sm_fs_backend *be, uint64_t id, uint64_t fh, int mode, uint64_t off, uint64_t len);
int64_t memory_lseek(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, int whence);
ssize_t memory_getxattr(struct sm_fs_backend *be, uint64_t id, const char *name, void *value, size_t size);
ssize_t memory_listxattr(struct sm_fs_backend *be, uint64_t id, char *list, size_t size);
int memory_setxattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name,
		    const void *value, size_t size, int flags);
int memory_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name);
void memory_xattrs_done(struct memory_node *node);

#endif
