/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mux backend: several file systems behind one session. Its root is a read-only directory made up here, with one
 * entry for each of them; a directory is entered as a submount, so that the peer sees it as a file system of its own
 * (device number, statfs, sync); a single regular file is just a file.
 *
 * A node id is the child's own, with the number of the child in its top byte: a child whose ids reach that far cannot
 * be served (-EOVERFLOW). What would reach from one child into another is -EXDEV.
 */
#ifndef FUSE_MUX_H
#define FUSE_MUX_H

#include "base/error.h"

#define FUSE_MUX_MAX 128
#define FUSE_MUX_SHIFT 56 /* of the child's number, from 1 */
#define FUSE_MUX_ID_MASK ((1ULL << FUSE_MUX_SHIFT) - 1)

struct fuse_mux_child {
	struct sm_fs_backend *backend; /* stays the caller's; must outlive the mux */
	const char *name;	       /* kept, not copied; a file name */
};

/* 0, -ENOMEM, or -EINVAL for more than FUSE_MUX_MAX. The children are copied. */
int fuse_mux_new(const struct fuse_mux_child *children, unsigned count, struct sm_fs_backend **ret) MUST_CHECK;
/* No session may use it any more. NULL allowed; returns NULL. */
struct sm_fs_backend *fuse_mux_free(struct sm_fs_backend *be);

#endif
