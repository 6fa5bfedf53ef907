/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves what a peer has of a directory from one posix backend to another, in a snapshot of that peer: its node ids and
 * how its files were opened. The second one may serve another directory: what is not there, or not the file that it
 * was (device, number, time of birth, type; without a time of birth its handle), is stale (-ESTALE).
 *
 * Nobody may be served meanwhile. The bytes are hostile input.
 */
#ifndef FUSE_POSIX_SAVE_H
#define FUSE_POSIX_SAVE_H

#include "base/buf.h"
#include "base/cursor.h"
#include "fuse/posix.h"

void fuse_posix_save(struct sm_fs_backend *be, struct buf *out);
/* Into a backend that has served nothing yet; after a failure it is of no use. 0, -EPROTO, -ENOTSUP, -ENOMEM. */
int fuse_posix_load(struct sm_fs_backend *be, struct cursor *in) MUST_CHECK;
/* How a file (no directory) was opened. */
uint32_t fuse_posix_open_flags(uint64_t fh);
/* Opens what was open: as an open of the node by the peer, but nothing is cut short. 0 or -errno. */
int fuse_posix_reopen(struct sm_fs_backend *be, uint64_t id, bool is_dir, uint32_t flags, uint64_t *ret_fh) MUST_CHECK;

#endif
