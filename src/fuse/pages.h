/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sparse file contents in memory: 4 KiB pages under leaves of 512. A page is absent (a hole), reserved (allocated,
 * zeros, but no memory of its own until it is written), or real. Not thread-safe: the owner locks. A byte of a present
 * page beyond the file's size is always zero, so growing a file needs no clearing.
 */
#ifndef FUSE_PAGES_H
#define FUSE_PAGES_H

#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define PAGES_SIZE 4096u
#define PAGES_MAX_FILE (1ULL << 40)

struct pages_leaf {
	uint8_t *page[512];
};

struct pages {
	struct pages_leaf **leaves;
	uint64_t num_leaves;
	uint64_t present; /* pages that are no holes */
};

void pages_done(struct pages *p);
/* The page that holds `offset`, to be read, or NULL for a hole. */
const uint8_t *pages_look(const struct pages *p, uint64_t offset);
/* The page that holds `offset`, to be written, made (zeroed) where it is not real; NULL: no memory. */
uint8_t *pages_make(struct pages *p, uint64_t offset);
/* Holes among the pages that [from, to) touches. */
uint64_t pages_count_holes(const struct pages *p, uint64_t from, uint64_t to);
/* Reserves those holes: 0 or -ENOMEM, with some of them reserved. */
int pages_reserve(struct pages *p, uint64_t from, uint64_t to) MUST_CHECK;
/* Frees whole pages inside [from, to) and zeroes the parts of pages at its ends. */
void pages_punch(struct pages *p, uint64_t from, uint64_t to);
/* The first offset >= from and < size that is data (or a hole); size when there is none. */
uint64_t pages_seek(const struct pages *p, uint64_t from, uint64_t size, bool data);

#endif
