/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table behind the file handles that a peer sees: slot and generation, never a backend's own value. A handle is
 * good for the one node it was opened on; a wrong, stale or foreign one is -EBADF, and the right one still works.
 */
#ifndef FUSE_HANDLES_H
#define FUSE_HANDLES_H

#include <pthread.h>

#include "base/error.h"

struct fuse_handle {
	uint64_t nodeid, fh; /* fh: the backend's */
	uint32_t generation;
	uint32_t users;	    /* pins; atomic */
	uint32_t next_free; /* slot, valid while !used */
	bool used, is_dir;
};

struct fuse_handles {
	pthread_rwlock_t lock; /* guards everything below */
	struct fuse_handle *slots;
	uint32_t count, free_head, max, used;
};

int handles_init(struct fuse_handles *h, uint32_t max) MUST_CHECK;
void handles_done(struct fuse_handles *h);
/* How many there are. */
uint32_t handles_used(struct fuse_handles *h);
/* 0, -EMFILE or -ENOMEM. */
int handles_add(struct fuse_handles *h, uint64_t nodeid, uint64_t fh, bool is_dir, uint64_t *ret) MUST_CHECK;
/* The backend's handle for this node, pinned until handles_put: 0 or -EBADF. */
int handles_get(struct fuse_handles *h, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh) MUST_CHECK;
void handles_put(struct fuse_handles *h, uint64_t handle);
/* From a snapshot: a handle as it was, in a table that has none there. handles_restored when all are in. 0, -EPROTO,
 * -ENOMEM, -EMFILE. */
int handles_restore(struct fuse_handles *h, uint32_t slot, const struct fuse_handle *as) MUST_CHECK;
void handles_restored(struct fuse_handles *h);
/* Takes a handle out of the table: 0, -EBADF, or -EBUSY while it is pinned. */
int handles_remove(struct fuse_handles *h, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh) MUST_CHECK;

#endif
