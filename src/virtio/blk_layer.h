/* SPDX-License-Identifier: Apache-2.0 */
/* One layer of a blk_chain: its kind, and for a sparse layer its header and bitmap. The format is in blk_chain.h. */
#ifndef VIRTIO_BLK_LAYER_H
#define VIRTIO_BLK_LAYER_H

#include "virtio/blk_chain.h"

enum blk_layer_kind { BLK_RAW, BLK_SPARSE, BLK_CONCAT };

struct blk_layer {
	enum blk_layer_kind kind;
	int fd;
	uint64_t size;	   /* bytes of the disk that it describes */
	uint64_t data_off; /* sparse: where block 0 would lie */
	uint8_t *bitmap;   /* sparse: a bit a block; accessed atomically, bytewise */
	uint64_t bitmap_size;
	struct blk_file *parts; /* concat */
	unsigned num_parts;
};

/* What a header says, for tests and fuzzing too. */
struct blk_header {
	uint64_t size, bitmap_size, data_off;
};

/* Checks the first BLK_BLOCK bytes of a sparse layer; 0 or -EINVAL. */
int blk_header_parse(const uint8_t *bytes, struct blk_header *ret) MUST_CHECK;
/* The header of a disk of `size` bytes. */
void blk_header_format(uint64_t size, uint8_t *bytes);

int blk_layer_open_raw(struct blk_layer *layer, const struct blk_file *file, bool writable,
		       struct sm_error *err) MUST_CHECK;
/* writable: a new file gets a header for file->size, and an old one must be of that size (0: any). */
int blk_layer_open_sparse(struct blk_layer *layer, const struct blk_file *file, bool writable,
			  struct sm_error *err) MUST_CHECK;
int blk_layer_open_concat(struct blk_layer *layer, const struct blk_file *parts, unsigned num_parts,
			  struct sm_error *err) MUST_CHECK;
void blk_layer_done(struct blk_layer *layer);

static inline bool blk_layer_has(const struct blk_layer *layer, uint64_t block)
{
	if (block >= (layer->size + BLK_BLOCK - 1) / BLK_BLOCK)
		return false;
	return __atomic_load_n(&layer->bitmap[block / 8], __ATOMIC_ACQUIRE) & (1U << (block % 8));
}

/* Empties a sparse layer that is open for writing: 0 or -errno. */
int blk_layer_renew(struct blk_layer *layer) MUST_CHECK;

/*
 * Puts all that the upper of two sparse layers has into the lower, which lies right below it and is open for writing,
 * and syncs it: the upper adds nothing any more. Wherever it ends the two are what they were together.
 */
int blk_layer_merge(int lower_fd, int upper_fd, struct sm_error *err) MUST_CHECK;

bool blk_all_zero(const uint8_t *p, size_t len);

/* Writes the whole bitmap to the file; 0 or -errno. */
int blk_layer_save_bitmap(struct blk_layer *layer) MUST_CHECK;

#endif
