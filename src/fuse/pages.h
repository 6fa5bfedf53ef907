/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sparse file contents in memory: 4 KiB pages under leaves of 512, holes are absent pages. Not thread-safe: the owner
 * locks. A byte of a present page beyond the file's size is always zero, so growing a file needs no clearing.
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
	uint64_t present; /* pages that exist */
};

void pages_done(struct pages *p);
/* The page that holds `offset`, or NULL for a hole; create: makes it (zeroed), NULL on -ENOMEM. */
uint8_t *pages_get(struct pages *p, uint64_t offset, bool create);
/* Frees whole pages inside [from, to) and zeroes the parts of pages at its ends. */
void pages_punch(struct pages *p, uint64_t from, uint64_t to);
/* The first offset >= from and < size that is data (or a hole); size when there is none. */
uint64_t pages_seek(const struct pages *p, uint64_t from, uint64_t size, bool data);

#endif
