/* SPDX-License-Identifier: Apache-2.0 */
/* The pieces of the tar reader that need no input: number fields, pax records, sparse maps. Internal to tar.c; also
 * unit-tested. */
#ifndef IMAGE_TARHDR_H
#define IMAGE_TARHDR_H

#include "base/cursor.h"
#include "image/tar.h"

#define TAR_BLOCK_SIZE 512
/* Most bytes of one extended header, and most extents of one sparse file. */
#define TAR_MAX_HEADER (8U << 20)
#define TAR_MAX_EXTENTS (1U << 18)

/* A growing list of extents: data and holes are known before the data comes. */
struct tar_map {
	struct tar_extent *v;
	size_t count, cap;
};
void tar_map_done(struct tar_map *m);
int tar_map_add(struct tar_map *m, uint64_t offset, uint64_t len, struct sm_error *err) MUST_CHECK;
/* Orders, bounds and drops the empty ones: -EBADMSG unless ascending, apart, inside size and `stored` bytes in all. */
int tar_map_check(struct tar_map *m, uint64_t size, uint64_t stored, struct sm_error *err) MUST_CHECK;

/* What a pax extended header says; pointers go into the header's bytes. */
struct pax {
	bool has_path, has_link, has_size, has_uid, has_gid, has_mtime;
	struct tar_bytes path, link;
	uint64_t size, uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	struct tar_xattr *xattrs;
	size_t num_xattrs, cap_xattrs;
	/* GNU.sparse.*: the version, the real size and name, and the map where the header carries it (0.0, 0.1). */
	bool sparse, sparse_map, has_real_size, has_sparse_name, half;
	unsigned sparse_major, sparse_minor;
	struct tar_bytes sparse_name;
	uint64_t real_size, offset;
	struct tar_map map;
};
void pax_done(struct pax *x);
int pax_parse(struct pax *x, const uint8_t *p, size_t len, struct sm_error *err) MUST_CHECK;

/* A numeric header field: octal with blanks, or base-256. -EBADMSG otherwise, or past 64 bits. */
int tar_number(const uint8_t *p, size_t len, int64_t *ret) MUST_CHECK;
/* Bytes up to the first NUL. */
struct tar_bytes tar_string(const uint8_t *p, size_t len);
/* Decimal digits, all of them. */
int tar_decimal(const uint8_t *p, size_t len, uint64_t *ret) MUST_CHECK;
bool tar_checksum_ok(const uint8_t *block);
/* Old GNU sparse: n pairs of 12-byte fields. Stops at the first blank one. */
int tar_map_add_old(struct tar_map *m, const uint8_t *p, size_t n, struct sm_error *err) MUST_CHECK;

int tar_bad(struct sm_error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
