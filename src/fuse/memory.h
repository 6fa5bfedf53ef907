/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend: a complete, writable file system that lives in this process. The reference for tests, and scratch
 * space. */
#ifndef FUSE_MEMORY_H
#define FUSE_MEMORY_H

#include "supermachine.h"
#include "base/error.h"

struct fuse_memory_options {
	uint64_t max_bytes; /* of file contents; 0: 1 GiB. Beyond: -ENOSPC */
	uint64_t max_nodes; /* 0: 2^20. Beyond: -ENOSPC */
	uint32_t root_mode; /* 0: 0755 */
	uint32_t uid, gid;  /* of the root directory */
	uint64_t valid_ns;  /* how long names and attributes may be cached; nobody else changes them: 0 means one day */
};

/* options may be NULL. The backend is used through its ops (supermachine.h). 0 or -ENOMEM. */
int fuse_memory_new(const struct fuse_memory_options *options, struct sm_fs_backend **ret) MUST_CHECK;
/* No session may use it any more. NULL allowed; returns NULL. */
struct sm_fs_backend *fuse_memory_free(struct sm_fs_backend *be);
/* True if it is one of these. */
bool fuse_is_memory(const struct sm_fs_backend *be);

#endif
