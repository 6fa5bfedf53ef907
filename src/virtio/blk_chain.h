/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtual disk is made of: read-only layers, lowest first, and one private writable top.
 *
 * Formats go by position, never by looking for a magic number, since a guest may write any magic into a raw disk:
 *  - the lowest layer is raw: its bytes are the disk's (or it is a concatenation of parts, blk_chain_open_concat);
 *  - every further layer, and a top that has a layer below it, is a *sparse layer* as below;
 *  - a top without layers is raw: a "chain of one" without any bitmap.
 * Where no layer has a block it reads as zeros; so does what lies past the end of a layer smaller than the disk.
 *
 * Sparse layer, version 1 (little-endian):
 *	0	header, 4096 bytes: char magic[8] "SMLAYER\1"; u32 version 1; u32 block size 4096; u64 disk size in
 *bytes (multiple of 512, at most 16 TiB); u64 bitmap offset 4096; u64 data offset; the rest zero 4096	bitmap: bit b %
 *8 of byte b / 8 says that block b is in this layer; padded to 4096 data	block b at data offset + b * 4096; data
 *offset = 4096 + bitmap size, rounded up to 1 MiB A top whose first 4096 bytes are zero, or which is empty, is new and
 *gets its header. Any other value, a nonzero reserved byte, or a file too short for its header, is refused with
 *-EINVAL. Blocks not in the bitmap have undefined content: a crash between data and bit leaves garbage there, so
 *nothing may read them.
 *
 * Crashes: a block's data is written before its bit, and the bit before the guest hears "done", both with plain
 * writes. After kill -9 of the monitor the page cache holds all that was acknowledged. A power failure keeps what
 * a completed flush covered; a block first written after that flush may then read as zeros.
 *
 * Threads: reads, writes and the bitmap may be used from several threads at once, except that partial writes of a block
 *not yet in the top (they read, merge and write a whole block) must all come from one thread. Two overlapping requests
 *at once have no order, as on any disk.
 */
#ifndef VIRTIO_BLK_CHAIN_H
#define VIRTIO_BLK_CHAIN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define BLK_BLOCK 4096U
#define BLK_MAX_LAYERS 64
#define BLK_MAX_SIZE (16ULL << 40)

/* A file or a part of a disk; descriptors stay the caller's and must outlive the chain. */
struct blk_file {
	int fd;
	uint64_t size; /* raw layer or part: bytes used of it; top: size of the disk; sparse layer: ignored (header) */
	uint64_t offset; /* concat: where the part begins on the disk; else 0 */
};

struct blk_chain;

/*
 * Opens layers (lowest first, may be none) under a top (NULL: read-only disk). The disk is as large as the top, else as
 * the largest layer. A top file shorter than its format needs is extended (sparse). -EINVAL: bad header, sizes, too
 * many layers, nothing at all; or the errno of a failing call.
 */
int blk_chain_open(const struct blk_file *layers, unsigned num_layers, const struct blk_file *top,
		   struct blk_chain **ret, struct sm_error *err) MUST_CHECK;
/* A read-only disk of parts laid at their offsets, in rising order without overlap; gaps are zeros. The size is rounded
 * up to 512. */
int blk_chain_open_concat(const struct blk_file *parts, unsigned num_parts, struct blk_chain **ret,
			  struct sm_error *err) MUST_CHECK;
struct blk_chain *blk_chain_free(struct blk_chain *chain); /* NULL allowed; returns NULL */

/*
 * Freezes what was written so far: the top becomes a layer that is only read, and a new one, over the empty file fd,
 * takes its place. Of a disk with a layer below its top, and nothing under way. -EINVAL: no such disk; -E2BIG: too many
 * layers; or the errno of a failing call: nothing has changed then.
 */
int blk_chain_push(struct blk_chain *chain, int fd, struct sm_error *err) MUST_CHECK;

/* Forgets what was written since the last push. Of a disk with a layer below its top (-EINVAL), and nothing under way.
 */
int blk_chain_renew(struct blk_chain *chain) MUST_CHECK;

uint64_t blk_chain_size(const struct blk_chain *chain);
bool blk_chain_read_only(const struct blk_chain *chain);

/*
 * All offsets and lengths in bytes, inside the disk and multiples of 512: checked, -EINVAL. Each does the whole or
 * fails with -errno, after which the range's content is old, new or a mixture. iov may be over windows (system calls
 * only).
 */
int blk_chain_read(struct blk_chain *chain, const struct iovec *iov, unsigned n, uint64_t off, uint64_t len) MUST_CHECK;
int blk_chain_write(struct blk_chain *chain, const struct iovec *iov, unsigned n, uint64_t off,
		    uint64_t len) MUST_CHECK;
int blk_chain_flush(struct blk_chain *chain) MUST_CHECK;
/* Gives space back where that is cheap; the range then reads as zeros or as before, never as anything else. */
int blk_chain_discard(struct blk_chain *chain, uint64_t off, uint64_t len) MUST_CHECK;
/* The range reads as zeros afterwards; `unmap`: its space may be given back. */
int blk_chain_write_zeroes(struct blk_chain *chain, uint64_t off, uint64_t len, bool unmap) MUST_CHECK;

/*
 * For engines that do the transfers themselves: one stretch of a range that lies in one file. Zeros are a stretch of a
 * file with nothing in it, so that reading is reading, also into memory that only system calls may touch.
 */
struct blk_extent {
	int fd;
	uint64_t off, len;
};

/* The extents of a read, in order: their number, or -E2BIG if there are more than max (then use blk_chain_read), or
 * -EINVAL. */
int blk_chain_map_read(struct blk_chain *chain, uint64_t off, uint64_t len, struct blk_extent *out, unsigned max);

/*
 * The one extent of a write that needs no merging with lower layers: 1 and *out; 0: use blk_chain_write; -EINVAL,
 * -EROFS. *ret_new says that blocks are new: when the data is written, and before the guest is told, blk_chain_commit()
 * must make them part of the top, or blk_chain_mark() followed by a write of what it says.
 */
int blk_chain_map_write(struct blk_chain *chain, uint64_t off, uint64_t len, struct blk_extent *out, bool *ret_new);
int blk_chain_commit(struct blk_chain *chain, uint64_t off, uint64_t len) MUST_CHECK;
/* Sets the bits in memory; *ret are the bytes (live: later writes of them may overtake this one) to write at *where. */
const void *blk_chain_mark(struct blk_chain *chain, uint64_t off, uint64_t len, struct blk_extent *where);
/* That write failed: the next commit or flush writes the whole bitmap. */
void blk_chain_unsaved(struct blk_chain *chain);
/* The file that a flush must fdatasync; -1: none, or that will not do now (use blk_chain_flush). */
int blk_chain_sync_fd(const struct blk_chain *chain);

extern const int blk_chain_syscalls[]; /* system calls at run time, ends with -1 */

#endif
