/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a layer blob: regions of whole blocks, filled in the order they are given out. Regions of 2 MiB and more start
 * on 2 MiB boundaries, so that a guest can map them with huge pages; the gaps this leaves take later, smaller files.
 * Runs of zeros stay holes.
 */
#ifndef IMAGE_BLOB_H
#define IMAGE_BLOB_H

#include <stdint.h>

#include "base/error.h"

struct blob_writer;

/* fd: an empty file, which stays the caller's. */
int blob_create(int fd, struct blob_writer **ret) MUST_CHECK;
struct blob_writer *blob_free(struct blob_writer *w);

/* Room for `bytes` > 0, rounded up to blocks; what is not written reads as zeros. -EFBIG past `max` bytes of blob. */
int blob_alloc(struct blob_writer *w, uint64_t bytes, uint64_t max, uint64_t *ret_offset) MUST_CHECK;

/* Writes into the region given out last; quick where it goes on where the last one ended. */
int blob_write(struct blob_writer *w, uint64_t offset, const void *p, size_t len) MUST_CHECK;

/* Writes what is pending and sets the file's length, a multiple of the block size. Does not sync. */
int blob_finish(struct blob_writer *w, uint64_t *ret_size) MUST_CHECK;

#endif
