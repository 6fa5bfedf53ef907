/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layer blob's writer. See blob.h.
 *
 * Small files are gathered in a staging buffer, each on its own block, and written many at a time; data that comes in
 * large pieces for a place past the staging buffer's end is written from where it is.
 */
#include "image/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "image/index.h"

#define STAGE_SIZE (1U << 20)
#define DIRECT_SIZE (128U << 10) /* pieces from this size on skip the staging buffer */
#define HOLE_SIZE (64U << 10)	 /* shorter runs of zeros are cheaper written than left out */
#define WRITEBACK_SIZE (16U << 20)
#define NUM_GAPS 32

struct gap {
	uint64_t offset, len;
};

struct blob_writer {
	int fd;
	uint64_t end; /* of the blob: whole blocks */
	struct gap gaps[NUM_GAPS];
	uint8_t *stage;
	uint64_t stage_offset;
	size_t stage_len;
	uint64_t dirty; /* bytes written since the kernel was last told to start writing back */
};

int blob_create(int fd, struct blob_writer **ret)
{
	struct blob_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->fd = fd;
	w->stage = malloc(STAGE_SIZE);
	if (!w->stage) {
		free(w);
		return -ENOMEM;
	}
	*ret = w;
	return 0;
}

struct blob_writer *blob_free(struct blob_writer *w)
{
	if (w) {
		free(w->stage);
		free(w);
	}
	return NULL;
}

/* Remembers room before a huge region; where all places are taken, the smallest gap is forgotten. */
static void keep_gap(struct blob_writer *w, uint64_t offset, uint64_t len)
{
	struct gap *least = &w->gaps[0];

	for (struct gap *g = w->gaps; g < w->gaps + NUM_GAPS; g++)
		if (g->len < least->len)
			least = g;
	if (len > least->len)
		*least = (struct gap){offset, len};
}

/* The lowest gap that is large enough, so that neighbours in the archive stay neighbours. */
static struct gap *find_gap(struct blob_writer *w, uint64_t len)
{
	struct gap *best = NULL;

	for (struct gap *g = w->gaps; g < w->gaps + NUM_GAPS; g++)
		if (g->len >= len && (!best || g->offset < best->offset))
			best = g;
	return best;
}

int blob_alloc(struct blob_writer *w, uint64_t bytes, uint64_t max, uint64_t *ret_offset)
{
	uint64_t start = w->end, len;
	struct gap *gap;

	if (bytes > max)
		return -EFBIG;
	len = align_up(bytes, BLOCK_SIZE);
	gap = len < HUGE_SIZE ? find_gap(w, len) : NULL;
	if (gap) {
		*ret_offset = gap->offset;
		gap->offset += len;
		gap->len -= len;
		return 0;
	}
	if (len >= HUGE_SIZE)
		start = align_up(start, HUGE_SIZE);
	if (!range_inside(start, len, max))
		return -EFBIG;
	if (start > w->end)
		keep_gap(w, w->end, start - w->end);
	w->end = start + len;
	*ret_offset = start;
	return 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static int write_out(struct blob_writer *w, const uint8_t *p, size_t len, uint64_t offset)
{
	if (len == 0)
		return 0;
	w->dirty += len;
	return pwrite_full(w->fd, p, len, (off_t)offset);
}

/* Writes all but the long runs of zeros, which the empty file has already. */
static int write_sparse(struct blob_writer *w, const uint8_t *p, size_t len, uint64_t offset)
{
	size_t from = 0, pos = 0;

	while (pos < len) {
		/* Steps that end on multiples of the hole size in the blob: shorter ones come only at the start and end
		 * of a piece, and leave a hole together with their neighbour's. */
		size_t step = MIN(HOLE_SIZE - (offset + pos) % HOLE_SIZE, len - pos);

		if (is_zero(p + pos, step)) {
			int r = write_out(w, p + from, pos - from, offset + from);

			if (r < 0)
				return r;
			from = pos + step;
		}
		pos += step;
	}
	return write_out(w, p + from, len - from, offset + from);
}

static int flush(struct blob_writer *w)
{
	int r = write_sparse(w, w->stage, w->stage_len, w->stage_offset);

	w->stage_offset += w->stage_len;
	w->stage_len = 0;
	if (w->dirty >= WRITEBACK_SIZE) {
		/* Let the disk work while the next layer data is inflated; only a hint, so that fsync finds less to do.
		 */
		sync_file_range(w->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		w->dirty = 0;
	}
	return r;
}

int blob_write(struct blob_writer *w, uint64_t offset, const void *p, size_t len)
{
	uint64_t next = w->stage_offset + w->stage_len, gap = offset - next;
	int r;

	if (offset < next || gap >= BLOCK_SIZE || gap > STAGE_SIZE - w->stage_len) {
		r = flush(w);
		if (r < 0)
			return r;
		w->stage_offset = offset;
	} else { /* the end of the block before */
		memset(w->stage + w->stage_len, 0, gap);
		w->stage_len += gap;
	}
	if (len >= DIRECT_SIZE) {
		r = flush(w);
		if (r < 0)
			return r;
		w->stage_offset = offset + len;
		return write_sparse(w, p, len, offset);
	}
	while (len) {
		size_t n = MIN(len, STAGE_SIZE - w->stage_len);

		memcpy(w->stage + w->stage_len, p, n);
		w->stage_len += n;
		p = (const uint8_t *)p + n;
		len -= n;
		if (w->stage_len == STAGE_SIZE) {
			r = flush(w);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int blob_finish(struct blob_writer *w, uint64_t *ret_size)
{
	int r = flush(w);

	if (r == 0 && ftruncate(w->fd, (off_t)w->end) < 0)
		r = -errno;
	if (r == 0)
		*ret_size = w->end;
	return r;
}
