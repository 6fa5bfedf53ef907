/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layer index: what one layer does to a file system, entry by entry in the order of its archive. Our own format,
 *little-endian:
 *
 *	header	magic[8] "smlayer\0", u32 version, u32 zero, u64 records, u64 bytes of records, u64 blob size, u64
 *stripped xattrs, sha256[32] of the records followed by the header up to here record	u32 length of the rest; u8 type,
 *u8 chunk bits, u16 mode, u32 uid, u32 gid, u32 nanoseconds, i64 seconds, u64 size, u64 place (offset into the blob;
 *for a device its number), u32 runs, u32 path length, u32 link length, u32 xattrs; runs of {u64 first chunk, u64
 *chunks}; path; link; xattrs of {u16 name length, u32 value length, name, value}
 *
 * A sparse file's data chunks lie back to back at `place`, in order of the runs; its chunks are 1 << chunk bits bytes.
 *Chunk bits 0: a plain file. Index files are ours, yet they are read as if they were not: a bad disk or another version
 *must be an error, not a crash.
 */
#ifndef IMAGE_INDEX_H
#define IMAGE_INDEX_H

#include <stdint.h>

#include "base/error.h"
#include "image/tar.h"

#define INDEX_VERSION 1
#define INDEX_HEADER_SIZE 80
#define INDEX_MAX_DEPTH 4096 /* components of a path, whatever the limits of the load */
#define INDEX_MAX_XATTRS 255 /* of one entry: what fits beside an inode */

#define BLOCK_SIZE 4096U
#define BLOCK_BITS 12
#define HUGE_SIZE (2U << 20)

enum record_type {
	RECORD_FILE,
	RECORD_HARDLINK, /* link: path of the target, normal */
	RECORD_SYMLINK,	 /* link: the target as it is */
	RECORD_CHAR,
	RECORD_BLOCK,
	RECORD_DIR,
	RECORD_FIFO,
	RECORD_WHITEOUT, /* path: what lower layers lose */
	RECORD_OPAQUE,	 /* path: the directory that loses lower layers' content */
	RECORD_TYPES,
};

struct index_run {
	uint64_t first, count;
};

struct index_record {
	enum record_type type;
	uint8_t chunk_bits;
	uint16_t mode; /* permission bits */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint64_t size;
	uint64_t place;
	struct tar_bytes path, link; /* path: normal, as path_normalise writes it */
	const struct index_run *runs;
	uint32_t num_runs;
	const struct tar_xattr *xattrs; /* names as setxattr(2) takes them; no two alike */
	uint32_t num_xattrs;
};

struct index_totals {
	uint64_t records, bytes;
	uint64_t blob_size;
	uint64_t stripped; /* extended attributes left out: see layer.h */
};

/* Writes to fd from its start. Buffered; nothing is valid before index_finish, which does not sync. */
struct index_writer;
int index_create(int fd, struct index_writer **ret) MUST_CHECK;
int index_add(struct index_writer *w, const struct index_record *record, struct sm_error *err) MUST_CHECK;
int index_finish(struct index_writer *w, uint64_t blob_size, uint64_t stripped, struct sm_error *err) MUST_CHECK;
struct index_writer *index_writer_free(struct index_writer *w);

/* Reads fd from its start; the caller keeps fd open meanwhile. -EUCLEAN: not an index, damaged, or of another version.
 */
struct index_reader;
int index_open(int fd, struct index_reader **ret, struct sm_error *err) MUST_CHECK;
const struct index_totals *index_totals(const struct index_reader *r);
/* 1 and a record (valid until the next call), or 0 after the last one and after the checksum was right, or -errno. */
int index_next(struct index_reader *r, const struct index_record **ret, struct sm_error *err) MUST_CHECK;
struct index_reader *index_close(struct index_reader *r);

#endif
