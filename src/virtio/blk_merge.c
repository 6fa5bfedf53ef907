/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two layers of a disk become one: what the upper has goes into the lower, in place. The two on top of each other say
 * the same before, meanwhile and afterwards, so it may end anywhere and be done again; then the lower says it alone.
 */
#include "virtio/blk_layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define PIECE MIB

/* What the bits of a layer say is in it, from block on: its first block, and how many there are in a row; 0: no more.
 */
static uint64_t next_run(const struct blk_layer *layer, uint64_t *block)
{
	uint64_t end = (layer->size + BLK_BLOCK - 1) / BLK_BLOCK, n = 0;

	while (*block < end && !blk_layer_has(layer, *block))
		*block += layer->bitmap[*block / 8] || *block % 8 ? 1 : 8;
	while (*block + n < end && n < PIECE / BLK_BLOCK && blk_layer_has(layer, *block + n))
		n++;
	return n;
}

/* Zeros of the upper are a hole of the lower, where its file system has holes. */
static int put(const struct blk_layer *lower, const uint8_t *p, size_t len, off_t at)
{
	if (blk_all_zero(p, len) &&
	    fallocate(lower->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)len) == 0)
		return 0;
	return pwrite_full(lower->fd, p, len, at);
}

static int copy_blocks(const struct blk_layer *lower, const struct blk_layer *upper)
{
	_free_ uint8_t *piece = malloc(PIECE);
	uint64_t n;

	if (!piece)
		return -ENOMEM;
	for (uint64_t block = 0; (n = next_run(upper, &block)); block += n) {
		off_t at = (off_t)(upper->data_off + block * BLK_BLOCK);
		size_t len = (size_t)MIN(n * BLK_BLOCK, upper->size - block * BLK_BLOCK);
		ssize_t got = pread_full(upper->fd, piece, len, at);
		int r = got == (ssize_t)len ? put(lower, piece, len, at) : got < 0 ? (int)got : -EIO;

		if (r < 0)
			return r;
	}
	return 0;
}

static int merge(struct blk_layer *lower, const struct blk_layer *upper, struct sm_error *err)
{
	int r;

	if (lower->size != upper->size)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "layers of %llu and of %llu bytes",
				 (unsigned long long)lower->size, (unsigned long long)upper->size);
	r = copy_blocks(lower, upper);
	if (r == 0 && fdatasync(lower->fd) < 0)
		r = -errno;
	for (uint64_t i = 0; r == 0 && i < lower->bitmap_size; i++)
		lower->bitmap[i] |= upper->bitmap[i];
	if (r == 0)
		r = blk_layer_save_bitmap(lower);
	if (r == 0 && fdatasync(lower->fd) < 0)
		r = -errno;
	return r < 0 ? error_sys(err, -r, "merge layers of a disk") : 0;
}

int blk_layer_merge(int lower_fd, int upper_fd, struct sm_error *err)
{
	struct blk_layer lower = {0}, upper = {0};
	int r = blk_layer_open_sparse(&upper, &(struct blk_file){.fd = upper_fd}, false, err);

	if (r < 0)
		return r;
	r = blk_layer_open_sparse(&lower, &(struct blk_file){.fd = lower_fd}, true, err);
	if (r == 0)
		r = merge(&lower, &upper, err);
	blk_layer_done(&lower);
	blk_layer_done(&upper);
	return r;
}
