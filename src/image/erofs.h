/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a merged tree as EROFS metadata over layer blobs (kernel: fs/erofs/erofs_fs.h,
 * Documentation/filesystems/erofs.rst), as Linux 6.1 reads it.
 *
 * Block 0 holds the superblock; inodes follow, in the order of a walk by levels, each with its attributes and the tail
 * of its directory, link or chunk map; then directories' whole blocks; then shared attributes. Blobs begin at the next
 * multiples of 2 MiB, and files point into them by absolute block numbers: FLAT_PLAIN, or CHUNK_BASED with holes. There
 * is no device table.
 */
#ifndef IMAGE_EROFS_H
#define IMAGE_EROFS_H

#include <stdint.h>

#include "base/error.h"
#include "image/tree.h"

/* Counts in image's metadata that another version of this code would write otherwise: part of the metadata's key. */
#define EROFS_LAYOUT_VERSION 1

struct erofs_blob {
	uint64_t size;	 /* in: whole blocks */
	bool used;	 /* out: some file lies in it */
	uint64_t offset; /* out, if used: in the window */
};

struct erofs_result {
	uint64_t meta_size, window_size;
	uint64_t inodes;
};

/* blobs: by inode.blob. fd: an empty file; it is not synced. The tree is sorted and numbered on the way: good for
 * tree_done only afterwards. -EFBIG: the window is past what 32-bit block numbers reach. */
int erofs_write(struct tree *t, struct erofs_blob *blobs, uint32_t num_blobs, const uint8_t uuid[static 16], int fd,
		struct erofs_result *ret, struct sm_error *err) MUST_CHECK;

#endif
