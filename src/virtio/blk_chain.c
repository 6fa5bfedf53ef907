/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing through a chain of layers. See blk_chain.h; what a layer is, is in blk_layer.c. */
#include "virtio/blk_chain.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "virtio/blk_layer.h"
#include "virtio/queue.h"

#define SECTOR 512
#define ZERO_FILE_SIZE (8 * GIB) /* at least the longest request */

struct blk_chain {
	struct blk_layer layers[BLK_MAX_LAYERS + 1]; /* lowest first */
	unsigned count;
	struct blk_layer *top; /* NULL: read-only */
	uint64_t size;
	int zero_fd;  /* a memory file that is one hole */
	bool unsaved; /* atomic: bits of the top are set in memory that the file may lack */
};

static bool sparse_top(const struct blk_chain *chain)
{
	return chain->top && chain->top->kind == BLK_SPARSE;
}

static int chain_new(struct blk_chain **ret, struct sm_error *err)
{
	struct blk_chain *chain = calloc(1, sizeof(*chain));

	if (!chain)
		return error_sys(err, ENOMEM, "disk");
	chain->zero_fd = memfd_create("zeros", MFD_CLOEXEC);
	if (chain->zero_fd < 0 || ftruncate(chain->zero_fd, ZERO_FILE_SIZE) < 0) {
		int r = error_sys(err, errno, "memory file for a disk");

		blk_chain_free(chain);
		return r;
	}
	*ret = chain;
	return 0;
}

struct blk_chain *blk_chain_free(struct blk_chain *chain)
{
	if (!chain)
		return NULL;
	for (unsigned i = 0; i < chain->count; i++)
		blk_layer_done(&chain->layers[i]);
	fd_close(chain->zero_fd);
	free(chain);
	return NULL;
}

static int open_layers(struct blk_chain *chain, const struct blk_file *layers, unsigned num_layers,
		       const struct blk_file *top, struct sm_error *err)
{
	for (unsigned i = 0; i < num_layers; i++) {
		struct blk_layer *l = &chain->layers[i];
		int r = i ? blk_layer_open_sparse(l, &layers[i], false, err)
			  : blk_layer_open_raw(l, &layers[i], false, err);

		if (r < 0)
			return error_wrap(err, r, "layer %u", i);
		chain->count++;
		chain->size = MAX(chain->size, align_up(l->size, SECTOR));
	}
	if (top) {
		struct blk_layer *l = &chain->layers[chain->count];
		int r = num_layers ? blk_layer_open_sparse(l, top, true, err) : blk_layer_open_raw(l, top, true, err);

		if (r < 0)
			return error_wrap(err, r, "top layer");
		chain->count++;
		chain->top = l;
		chain->size = l->size;
	}
	return 0;
}

int blk_chain_open(const struct blk_file *layers, unsigned num_layers, const struct blk_file *top,
		   struct blk_chain **ret, struct sm_error *err)
{
	struct blk_chain *chain = NULL;
	int r;

	if (num_layers > BLK_MAX_LAYERS || (!num_layers && !top))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a disk of %u layers", num_layers);
	r = chain_new(&chain, err);
	if (r == 0)
		r = open_layers(chain, layers, num_layers, top, err);
	if (r < 0) {
		blk_chain_free(chain);
		return r;
	}
	*ret = chain;
	return 0;
}

int blk_chain_open_concat(const struct blk_file *parts, unsigned num_parts, struct blk_chain **ret,
			  struct sm_error *err)
{
	struct blk_chain *chain = NULL;
	int r = chain_new(&chain, err);

	if (r == 0)
		r = blk_layer_open_concat(&chain->layers[0], parts, num_parts, err);
	if (r < 0) {
		blk_chain_free(chain);
		return r;
	}
	chain->count = 1;
	chain->size = align_up(chain->layers[0].size, SECTOR);
	*ret = chain;
	return 0;
}

uint64_t blk_chain_size(const struct blk_chain *chain)
{
	return chain->size;
}

bool blk_chain_read_only(const struct blk_chain *chain)
{
	return !chain->top;
}

static bool range_good(const struct blk_chain *chain, uint64_t off, uint64_t len)
{
	return (off | len) % SECTOR == 0 && len && len <= ZERO_FILE_SIZE && range_inside(off, len, chain->size);
}

/* ---- where bytes are ---- */

/* The layer that has a block: the highest sparse one, else the lowest layer. */
static const struct blk_layer *owner(const struct blk_chain *chain, uint64_t block)
{
	for (unsigned i = chain->count - 1; i > 0; i--)
		if (blk_layer_has(&chain->layers[i], block))
			return &chain->layers[i];
	return &chain->layers[0];
}

static struct blk_extent zeros(const struct blk_chain *chain, uint64_t len)
{
	return (struct blk_extent){.fd = chain->zero_fd, .off = 0, .len = len};
}

/* The first stretch of [off, off + len) in a lowest layer. */
static struct blk_extent base_extent(const struct blk_chain *chain, const struct blk_layer *l, uint64_t off,
				     uint64_t len)
{
	unsigned lo = 0, hi = l->num_parts;

	if (off >= l->size)
		return zeros(chain, len);
	if (l->kind == BLK_RAW)
		return (struct blk_extent){.fd = l->fd, .off = off, .len = MIN(len, l->size - off)};
	/* The last part that begins at or before off. */
	while (hi - lo > 1) {
		unsigned mid = (lo + hi) / 2;

		if (l->parts[mid].offset <= off)
			lo = mid;
		else
			hi = mid;
	}
	if (off < l->parts[lo].offset)
		return zeros(chain, MIN(len, l->parts[lo].offset - off));
	if (off - l->parts[lo].offset < l->parts[lo].size)
		return (struct blk_extent){.fd = l->parts[lo].fd,
					   .off = off - l->parts[lo].offset,
					   .len = MIN(len, l->parts[lo].size - (off - l->parts[lo].offset))};
	/* A gap; the layer's end lies after off, so there is a next part. */
	return zeros(chain, MIN(len, l->parts[lo + 1].offset - off));
}

/* The first stretch of [off, off + len). */
static struct blk_extent first_extent(const struct blk_chain *chain, uint64_t off, uint64_t len)
{
	uint64_t block = off / BLK_BLOCK, end = off + len, run;
	const struct blk_layer *l;

	if (chain->count == 1)
		return base_extent(chain, &chain->layers[0], off, len);
	l = owner(chain, block);
	for (run = block + 1; run * BLK_BLOCK < end; run++)
		if (owner(chain, run) != l)
			break;
	len = MIN(end, run * BLK_BLOCK) - off;
	if (l->kind != BLK_SPARSE)
		return base_extent(chain, l, off, len);
	return (struct blk_extent){.fd = l->fd, .off = l->data_off + off, .len = len};
}

int blk_chain_map_read(struct blk_chain *chain, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max)
{
	unsigned n = 0;

	if (!range_good(chain, off, len))
		return -EINVAL;
	while (len) {
		if (n == max)
			return -E2BIG;
		out[n] = first_extent(chain, off, len);
		off += out[n].len;
		len -= out[n].len;
		n++;
	}
	return (int)n;
}

/* ---- transfers ---- */

/* All of [file_off, file_off + len) to or from iov at iov_off. A file that ends early is an error. */
static int transfer(int fd, const struct iovec *iov, unsigned n, uint64_t iov_off, uint64_t file_off, uint64_t len,
		    bool write)
{
	struct iovec part[256];

	while (len) {
		uint64_t here = len;
		int parts = virtq_iov_slice(iov, n, iov_off, here, part, ARRAY_SIZE(part));
		ssize_t done;

		/* Too many pieces for one call: as many as fit. */
		if (parts < 0)
			parts = ARRAY_SIZE(part);
		done = write ? pwritev(fd, part, parts, (off_t)file_off) : preadv(fd, part, parts, (off_t)file_off);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -errno;
		if (done == 0)
			return -EIO;
		iov_off += (uint64_t)done;
		file_off += (uint64_t)done;
		len -= (uint64_t)done;
	}
	return 0;
}

static uint64_t iov_total(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

int blk_chain_read(struct blk_chain *chain, const struct iovec *iov, unsigned n, uint64_t off, uint64_t len)
{
	uint64_t iov_off = 0;

	if (!range_good(chain, off, len) || iov_total(iov, n) < len)
		return -EINVAL;
	while (len) {
		struct blk_extent e = first_extent(chain, off, len);
		int r = transfer(e.fd, iov, n, iov_off, e.off, e.len, false);

		if (r < 0)
			return r;
		iov_off += e.len;
		off += e.len;
		len -= e.len;
	}
	return 0;
}

/* ---- the top ---- */

static uint64_t block_end(const struct blk_chain *chain, uint64_t block)
{
	return MIN((block + 1) * BLK_BLOCK, chain->size);
}

/* True if [off, end) touches this block only in part, and the top does not have it: it must be merged. */
static bool must_merge(const struct blk_chain *chain, uint64_t block, uint64_t off, uint64_t end)
{
	bool whole = off <= block * BLK_BLOCK && end >= block_end(chain, block);

	return !whole && !blk_layer_has(chain->top, block);
}

int blk_chain_map_write(struct blk_chain *chain, uint64_t off, uint64_t len, struct blk_extent *out, bool *ret_new)
{
	uint64_t first = off / BLK_BLOCK, last = (off + len - 1) / BLK_BLOCK;

	if (!range_good(chain, off, len))
		return -EINVAL;
	if (!chain->top)
		return -EROFS;
	*ret_new = false;
	*out = (struct blk_extent){.fd = chain->top->fd, .off = chain->top->data_off + off, .len = len};
	if (!sparse_top(chain))
		return 1;
	if (must_merge(chain, first, off, off + len) || must_merge(chain, last, off, off + len))
		return 0;
	if (__atomic_load_n(&chain->unsaved, __ATOMIC_ACQUIRE))
		*ret_new = true;
	for (uint64_t b = first; b <= last && !*ret_new; b++)
		*ret_new = !blk_layer_has(chain->top, b);
	return 1;
}

const void *blk_chain_mark(struct blk_chain *chain, uint64_t off, uint64_t len, struct blk_extent *where)
{
	uint64_t first = off / BLK_BLOCK, last = (off + len - 1) / BLK_BLOCK;
	uint8_t *bitmap = chain->top->bitmap;

	for (uint64_t b = first; b <= last; b++)
		__atomic_fetch_or(&bitmap[b / 8], (uint8_t)(1U << (b % 8)), __ATOMIC_RELEASE);
	*where = (struct blk_extent){
		.fd = chain->top->fd, .off = BLK_BLOCK + first / 8, .len = last / 8 - first / 8 + 1};
	return bitmap + first / 8;
}

void blk_chain_unsaved(struct blk_chain *chain)
{
	__atomic_store_n(&chain->unsaved, true, __ATOMIC_RELEASE);
}

/* After a bitmap write that failed, e.g. for want of space: until it is repaired, nothing new may be acknowledged. */
static int save_unsaved(struct blk_chain *chain)
{
	int r;

	if (!__atomic_exchange_n(&chain->unsaved, false, __ATOMIC_ACQ_REL))
		return 0;
	r = blk_layer_save_bitmap(chain->top);
	if (r < 0)
		blk_chain_unsaved(chain);
	return r;
}

int blk_chain_commit(struct blk_chain *chain, uint64_t off, uint64_t len)
{
	struct blk_extent where;
	const void *p;
	int r;

	if (!sparse_top(chain))
		return 0;
	p = blk_chain_mark(chain, off, len, &where);
	r = pwrite_full(where.fd, p, where.len, (off_t)where.off);
	if (r < 0) {
		blk_chain_unsaved(chain);
		return r;
	}
	return save_unsaved(chain);
}

int blk_chain_sync_fd(const struct blk_chain *chain)
{
	return chain->top && !__atomic_load_n(&chain->unsaved, __ATOMIC_ACQUIRE) ? chain->top->fd : -1;
}

int blk_chain_push(struct blk_chain *chain, int fd, struct sm_error *err)
{
	struct blk_file file = {.fd = fd, .size = chain->size};
	int r;

	if (!sparse_top(chain))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "a disk without a layer below its top");
	if (chain->count > BLK_MAX_LAYERS)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "the disk has %u layers already", chain->count);
	r = save_unsaved(chain);
	if (r < 0)
		return error_sys(err, -r, "bitmap of the disk's top layer");
	r = blk_layer_open_sparse(&chain->layers[chain->count], &file, true, err);
	if (r < 0)
		return r;
	chain->top = &chain->layers[chain->count++];
	return 0;
}

int blk_chain_renew(struct blk_chain *chain)
{
	int r = sparse_top(chain) ? blk_layer_renew(chain->top) : -EINVAL;

	if (r == 0)
		__atomic_store_n(&chain->unsaved, false, __ATOMIC_RELEASE);
	return r;
}

/* Puts into the top what a block's lower layers hold, so that it can then be changed in part. Its bit stays clear. */
static int copy_up(struct blk_chain *chain, uint64_t block)
{
	uint64_t start = block * BLK_BLOCK, len = block_end(chain, block) - start;
	uint8_t bytes[BLK_BLOCK];
	struct iovec iov = {.iov_base = bytes, .iov_len = len};
	int r = blk_chain_read(chain, &iov, 1, start, len);

	return r < 0 ? r : pwrite_full(chain->top->fd, bytes, len, (off_t)(chain->top->data_off + start));
}

/* Copies up the blocks at the ends of a range that are changed in part and are not in the top. */
static int copy_up_ends(struct blk_chain *chain, uint64_t off, uint64_t len)
{
	uint64_t first = off / BLK_BLOCK, last = (off + len - 1) / BLK_BLOCK;
	int r = 0;

	if (!sparse_top(chain))
		return 0;
	if (must_merge(chain, first, off, off + len))
		r = copy_up(chain, first);
	if (r == 0 && last != first && must_merge(chain, last, off, off + len))
		r = copy_up(chain, last);
	return r;
}

int blk_chain_write(struct blk_chain *chain, const struct iovec *iov, unsigned n, uint64_t off, uint64_t len)
{
	struct blk_extent e;
	bool new;
	int r;

	if (iov_total(iov, n) < len)
		return -EINVAL;
	r = blk_chain_map_write(chain, off, len, &e, &new);
	if (r == 0) {
		new = true;
		r = copy_up_ends(chain, off, len);
	}
	if (r >= 0)
		r = transfer(e.fd, iov, n, 0, e.off, len, true);
	return r == 0 && new ? blk_chain_commit(chain, off, len) : r;
}

int blk_chain_flush(struct blk_chain *chain)
{
	int r;

	if (!chain->top)
		return 0;
	r = save_unsaved(chain);
	if (r < 0)
		return r;
	return fdatasync(chain->top->fd) < 0 ? -errno : 0;
}

/* fallocate of a range of the disk in the top. -EOPNOTSUPP where the file system cannot. */
static int top_fallocate(struct blk_chain *chain, int mode, uint64_t off, uint64_t len)
{
	int r;

	do {
		r = fallocate(chain->top->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)(chain->top->data_off + off),
			      (off_t)len);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == ENOSYS ? -EOPNOTSUPP : -errno;
	return 0;
}

int blk_chain_discard(struct blk_chain *chain, uint64_t off, uint64_t len)
{
	int r;

	if (!range_good(chain, off, len))
		return -EINVAL;
	if (!chain->top)
		return -EROFS;
	/* A block of the top becomes zeros; one that is not there keeps what the layers below say. */
	r = top_fallocate(chain, FALLOC_FL_PUNCH_HOLE, off, len);
	return r == -EOPNOTSUPP ? 0 : r;
}

static int write_zero_bytes(struct blk_chain *chain, uint64_t off, uint64_t len)
{
	uint8_t *bytes = calloc(1, 64 * KIB);
	int r = bytes ? 0 : -ENOMEM;

	while (r == 0 && len) {
		size_t n = MIN(len, 64 * KIB);

		r = pwrite_full(chain->top->fd, bytes, n, (off_t)(chain->top->data_off + off));
		off += n;
		len -= n;
	}
	free(bytes);
	return r;
}

int blk_chain_write_zeroes(struct blk_chain *chain, uint64_t off, uint64_t len, bool unmap)
{
	int r;

	if (!range_good(chain, off, len))
		return -EINVAL;
	if (!chain->top)
		return -EROFS;
	r = copy_up_ends(chain, off, len);
	if (r < 0)
		return r;
	/* A block that was not in the top may hold garbage there, so it is zeroed all the same. */
	r = top_fallocate(chain, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, off, len);
	if (r == -EOPNOTSUPP)
		r = write_zero_bytes(chain, off, len);
	return r == 0 ? blk_chain_commit(chain, off, len) : r;
}

const int blk_chain_syscalls[] = {SYS_preadv,	 SYS_pwritev, SYS_pread64, SYS_pwrite64, SYS_fdatasync,
				  SYS_fallocate, SYS_mmap,    SYS_munmap,  SYS_brk,	 -1};
