/* SPDX-License-Identifier: Apache-2.0 */
/* What posix_node.c and posix_fd.c share. Functions that need the table's lock held end in _locked. */
#ifndef FUSE_POSIX_TABLE_H
#define FUSE_POSIX_TABLE_H

#include "fuse/posix_node.h"

/* posix_node.c */
struct posix_node *posix_find_locked(struct posix_fs *fs, uint64_t id);
/* Frees a node that nothing holds, then its parent, if it was the last to hold that. */
void posix_drop_locked(struct posix_fs *fs, struct posix_node *node);
/* True if what was seen is the node's file. */
bool posix_is_file(const struct posix_node *node, const struct posix_seen *seen);
/*
 * A node of a snapshot: a copy of `like`. handle: NULL: none. 0, -EPROTO, -ENOMEM. When all are there each is put
 * beneath its parent: 0, -EPROTO.
 */
int posix_node_restore_locked(struct posix_fs *fs, const struct posix_node *like, const char *name, size_t name_len,
			      const struct posix_handle *handle) MUST_CHECK;
int posix_node_join_locked(struct posix_fs *fs, uint64_t id, uint64_t parent) MUST_CHECK;
bool posix_handle_same(const struct posix_handle *a, const struct posix_handle *b);

/* posix_fd.c */
void posix_hold_fd_locked(struct posix_fs *fs, struct posix_node *node, int fd);
void posix_drop_fd_locked(struct posix_fs *fs, struct posix_node *node);
/* The file handle of a descriptor's file, to be freed; NULL where it has none. */
struct posix_handle *posix_handle_read(int fd);

#endif
