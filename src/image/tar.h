/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A streaming reader of tar: V7, ustar, star prefixes, GNU (long names, base-256 numbers, old sparse) and pax (names,
 * numbers, times, SCHILY.xattr, GNU.sparse 0.0, 0.1 and 1.0). POSIX.1-2017 pax, "ustar Interchange Format" and "pax
 * Extended Header"; GNU tar manual, appendix D. Why not libarchive: it converts names through the process's locale,
 * which a library may not set, and drops what is not text; here names are bytes from end to end.
 *
 * The input is hostile. Memory is bounded: one read-ahead buffer, and extended headers up to a limit. One thread per
 * reader.
 */
#ifndef IMAGE_TAR_H
#define IMAGE_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Where the uncompressed bytes come from. read: a count, 0 at the end, -errno (err filled, or left alone). */
struct tar_input {
	ssize_t (*read)(void *arg, void *p, size_t len, struct sm_error *err);
	void *arg;
};

enum tar_type { TAR_FILE, TAR_HARDLINK, TAR_SYMLINK, TAR_CHAR, TAR_BLOCK, TAR_DIR, TAR_FIFO };

/* Bytes with a length: names in tar are any bytes without NUL. */
struct tar_bytes {
	const uint8_t *p;
	size_t len;
};

struct tar_xattr {
	struct tar_bytes name, value;
};

struct tar_extent {
	uint64_t offset, len;
};

/* Valid until the next tar_next. */
struct tar_entry {
	enum tar_type type;
	struct tar_bytes path, link;
	uint32_t mode; /* permission bits, 07777 */
	uint32_t uid, gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint64_t size; /* of the file, holes included */
	uint64_t major, minor;
	bool sparse;			  /* its data is that of `extents`, in order, back to back */
	const struct tar_extent *extents; /* ascending, apart, inside size; none empty */
	size_t num_extents;
	const struct tar_xattr *xattrs; /* as in the archive: a later one of the same name wins */
	size_t num_xattrs;
};

struct tar;

/* max_bytes: of the whole archive; one byte more is -EFBIG. */
int tar_open(const struct tar_input *input, uint64_t max_bytes, struct tar **ret) MUST_CHECK;
struct tar *tar_close(struct tar *t);

/* The next entry: 1, or 0 after the last one, or -EBADMSG (not tar), -E2BIG (an extended header over the limit), or
 * what read returned. What is left of the entry before is skipped. On an error found after the name is known, *ret is
 * that entry's name, for messages. */
int tar_next(struct tar *t, const struct tar_entry **ret, struct sm_error *err) MUST_CHECK;

/* The next piece of the entry's stored bytes, in the reader's buffer until the next call; 0 at the entry's end. */
ssize_t tar_data(struct tar *t, const uint8_t **ret, struct sm_error *err) MUST_CHECK;

/* Reads the input to its end (what follows the end marker is ignored), so that the source has verified all of it. */
int tar_drain(struct tar *t, struct sm_error *err) MUST_CHECK;

/* Bytes of the archive consumed so far. */
uint64_t tar_position(const struct tar *t);

#endif
