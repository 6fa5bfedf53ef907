/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of a disk: opening them, and the sparse layer's header and bitmap as hostile input. See blk_chain.h. */
#include "virtio/blk_layer.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/fileio.h"
#include "base/util.h"

#define HEADER_VERSION 1
#define DATA_ALIGN MIB
#define SECTOR 512

static const uint8_t magic[8] = {'S', 'M', 'L', 'A', 'Y', 'E', 'R', 1};

static struct blk_header geometry(uint64_t size)
{
	uint64_t blocks = (size + BLK_BLOCK - 1) / BLK_BLOCK;
	struct blk_header h = {.size = size, .bitmap_size = align_up((blocks + 7) / 8, BLK_BLOCK)};

	h.data_off = align_up(BLK_BLOCK + h.bitmap_size, DATA_ALIGN);
	return h;
}

bool blk_all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && memcmp(p, p + 1, len - 1) == 0);
}

int blk_header_parse(const uint8_t *bytes, struct blk_header *ret)
{
	struct cursor c = cursor_of(bytes, BLK_BLOCK);
	const uint8_t *m = cursor_take(&c, sizeof(magic));
	uint32_t version = cursor_u32(&c), block_size = cursor_u32(&c);
	uint64_t size = cursor_u64(&c), bitmap_off = cursor_u64(&c), data_off = cursor_u64(&c);
	struct blk_header want;

	if (memcmp(m, magic, sizeof(magic)) != 0 || version != HEADER_VERSION || block_size != BLK_BLOCK)
		return -EINVAL;
	if (!size || size % SECTOR || size > BLK_MAX_SIZE || !blk_all_zero(c.p, c.left))
		return -EINVAL;
	/* The size determines the rest: there is one right header for it. */
	want = geometry(size);
	if (bitmap_off != BLK_BLOCK || data_off != want.data_off)
		return -EINVAL;
	*ret = want;
	return 0;
}

void blk_header_format(uint64_t size, uint8_t *bytes)
{
	uint32_t version = htole32(HEADER_VERSION), block_size = htole32(BLK_BLOCK);
	uint64_t words[3] = {htole64(size), htole64(BLK_BLOCK), htole64(geometry(size).data_off)};

	memset(bytes, 0, BLK_BLOCK);
	memcpy(bytes, magic, sizeof(magic));
	memcpy(bytes + 8, &version, sizeof(version));
	memcpy(bytes + 12, &block_size, sizeof(block_size));
	memcpy(bytes + 16, words, sizeof(words));
}

/* The length of a regular file; -errno otherwise. */
static int file_length(int fd, uint64_t *ret, struct sm_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "disk file");
	if (!S_ISREG(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "disk file is not a regular file");
	*ret = (uint64_t)st.st_size;
	return 0;
}

static int extend(int fd, uint64_t have, uint64_t want, struct sm_error *err)
{
	if (have < want && ftruncate(fd, (off_t)want) < 0)
		return error_sys(err, errno, "extend disk file to %llu bytes", (unsigned long long)want);
	return 0;
}

int blk_layer_open_raw(struct blk_layer *layer, const struct blk_file *file, bool writable, struct sm_error *err)
{
	uint64_t have, size;
	int r = file_length(file->fd, &have, err);

	if (r < 0)
		return r;
	size = file->size ? file->size : have;
	if (!size || size > BLK_MAX_SIZE || (writable && size % SECTOR))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "raw disk of %llu bytes", (unsigned long long)size);
	if (writable)
		r = extend(file->fd, have, size, err);
	else if (have < size)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "raw disk layer has %llu bytes, not %llu",
				 (unsigned long long)have, (unsigned long long)size);
	*layer = (struct blk_layer){.kind = BLK_RAW, .fd = file->fd, .size = size};
	return r;
}

/* Reads the bitmap, leaving the memory of what is zero untouched: a large disk with little in it costs little. */
static int load_bitmap(struct blk_layer *layer, bool must_be_empty, struct sm_error *err)
{
	uint8_t page[BLK_BLOCK];

	layer->bitmap = calloc(1, layer->bitmap_size);
	if (!layer->bitmap)
		return error_sys(err, ENOMEM, "disk bitmap");
	for (uint64_t off = 0; off < layer->bitmap_size; off += sizeof(page)) {
		off_t data = lseek(layer->fd, (off_t)(BLK_BLOCK + off), SEEK_DATA);
		ssize_t n;

		if (data < 0 && errno == ENXIO)
			break; /* a hole up to the end */
		if (data >= 0)
			off = align_up((uint64_t)data - BLK_BLOCK + 1, sizeof(page)) - sizeof(page);
		if (off >= layer->bitmap_size)
			break;
		n = pread_full(layer->fd, page, sizeof(page), (off_t)(BLK_BLOCK + off));
		if (n != (ssize_t)sizeof(page))
			return error_sys(err, n < 0 ? (int)-n : EINVAL, "read disk bitmap");
		if (blk_all_zero(page, sizeof(page)))
			continue;
		if (must_be_empty)
			return error_set(err, SM_ERROR_CORRUPT, EINVAL, "disk layer without header, but not empty");
		memcpy(layer->bitmap + off, page, sizeof(page));
	}
	return 0;
}

/* Reads or (new) makes the header. */
static int open_header(struct blk_layer *layer, const struct blk_file *file, bool writable, bool *ret_new,
		       struct sm_error *err)
{
	uint8_t bytes[BLK_BLOCK] = {0};
	struct blk_header h;
	ssize_t n = pread_full(file->fd, bytes, sizeof(bytes), 0);

	*ret_new = false;
	if (n < 0)
		return error_sys(err, (int)-n, "read disk layer header");
	if (writable && blk_all_zero(bytes, sizeof(bytes)) && file->size && file->size % SECTOR == 0 &&
	    file->size <= BLK_MAX_SIZE) {
		*ret_new = true;
		h = geometry(file->size);
	} else if (n != (ssize_t)sizeof(bytes) || blk_header_parse(bytes, &h) < 0) {
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "disk layer has a bad header");
	}
	if (writable && file->size && file->size != h.size)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "disk layer is for %llu bytes, not %llu",
				 (unsigned long long)h.size, (unsigned long long)file->size);
	*layer = (struct blk_layer){.kind = BLK_SPARSE,
				    .fd = file->fd,
				    .size = h.size,
				    .data_off = h.data_off,
				    .bitmap_size = h.bitmap_size};
	return 0;
}

int blk_layer_open_sparse(struct blk_layer *layer, const struct blk_file *file, bool writable, struct sm_error *err)
{
	uint8_t bytes[BLK_BLOCK];
	uint64_t have;
	bool new;
	int r = file_length(file->fd, &have, err);

	if (r == 0)
		r = open_header(layer, file, writable, &new, err);
	if (r < 0)
		return r;
	if (writable)
		r = extend(file->fd, have, layer->data_off + layer->size, err);
	else if (have < layer->data_off)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "disk layer is cut short");
	if (r == 0)
		r = load_bitmap(layer, new, err);
	if (r == 0 && new) {
		/* Last, and in one write: a crash before it leaves a file that is still new. */
		blk_header_format(layer->size, bytes);
		r = pwrite_full(file->fd, bytes, sizeof(bytes), 0);
		if (r < 0)
			error_sys(err, -r, "write disk layer header");
	}
	if (r < 0)
		blk_layer_done(layer);
	return r;
}

/* The header stays. */
int blk_layer_renew(struct blk_layer *layer)
{
	if (blk_all_zero(layer->bitmap, (size_t)layer->bitmap_size))
		return 0;
	if (ftruncate(layer->fd, BLK_BLOCK) < 0 || ftruncate(layer->fd, (off_t)(layer->data_off + layer->size)) < 0)
		return -errno;
	memset(layer->bitmap, 0, (size_t)layer->bitmap_size);
	return 0;
}

int blk_layer_open_concat(struct blk_layer *layer, const struct blk_file *parts, unsigned num_parts,
			  struct sm_error *err)
{
	uint64_t end = 0;

	*layer = (struct blk_layer){.kind = BLK_CONCAT, .fd = -1};
	for (unsigned i = 0; i < num_parts; i++) {
		uint64_t have = 0;
		int r = file_length(parts[i].fd, &have, err);

		if (r < 0)
			return r;
		if (!parts[i].size || parts[i].offset < end || parts[i].offset > BLK_MAX_SIZE ||
		    parts[i].size > BLK_MAX_SIZE - parts[i].offset)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "disk part %u overlaps or is too large", i);
		if (have < parts[i].size)
			return error_set(err, SM_ERROR_CORRUPT, EINVAL, "disk part %u has %llu bytes, not %llu", i,
					 (unsigned long long)have, (unsigned long long)parts[i].size);
		end = parts[i].offset + parts[i].size;
	}
	if (!end)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "disk without parts");
	layer->parts = calloc(num_parts, sizeof(*parts));
	if (!layer->parts)
		return error_sys(err, ENOMEM, "disk parts");
	memcpy(layer->parts, parts, num_parts * sizeof(*parts));
	layer->num_parts = num_parts;
	layer->size = end;
	return 0;
}

void blk_layer_done(struct blk_layer *layer)
{
	free(layer->bitmap);
	free(layer->parts);
	layer->bitmap = NULL;
	layer->parts = NULL;
}

int blk_layer_save_bitmap(struct blk_layer *layer)
{
	for (uint64_t off = 0; off < layer->bitmap_size; off += BLK_BLOCK) {
		int r;

		if (blk_all_zero(layer->bitmap + off, BLK_BLOCK))
			continue; /* bits are never cleared, so the file has zeros there too */
		r = pwrite_full(layer->fd, layer->bitmap + off, BLK_BLOCK, (off_t)(BLK_BLOCK + off));
		if (r < 0)
			return r;
	}
	return 0;
}
