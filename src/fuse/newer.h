/* SPDX-License-Identifier: Apache-2.0 */
/* What the protocol gained after 7.38, the version of Debian 12's linux/fuse.h: numbers and layouts as newer kernels
 * send and expect them. Internal to the room. */
#ifndef FUSE_NEWER_H
#define FUSE_NEWER_H

#include <linux/ioctl.h>
#include <stdint.h>

/* INIT flags */
#define NEWER_CREATE_SUPP_GROUP (1ULL << 34)	/* 7.38, but not in every copy of its header */
#define NEWER_DIRECT_IO_ALLOW_MMAP (1ULL << 36) /* 7.39 */
#define NEWER_PASSTHROUGH (1ULL << 37)		/* 7.40 */
#define NEWER_OVER_IO_URING (1ULL << 41)	/* 7.42 */

/* Opcodes */
#define NEWER_OP_STATX 52u		/* 7.39 */
#define NEWER_OP_COPY_FILE_RANGE_64 53u /* 7.45 */

/* An open file whose data the kernel moves itself: fuse_open_out.padding is then the backing id. */
#define NEWER_FOPEN_PASSTHROUGH (1u << 7)

struct newer_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define NEWER_IOC_BACKING_OPEN _IOW(229, 1, struct newer_backing_map)
#define NEWER_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

/* Requests by io_uring (7.42): memory that an entry is registered with, and what stands in the second half of its SQE.
 */
struct newer_uring_entry {
	uint64_t flags, commit_id;
	uint32_t payload_size, padding;
	uint64_t reserved;
};

struct newer_uring_header {
	uint8_t in_out[128];	/* fuse_in_header, and over it fuse_out_header */
	uint8_t operation[128]; /* the first argument, if it has a fixed size */
	struct newer_uring_entry entry;
};

struct newer_uring_command {
	uint64_t flags, commit_id;
	uint16_t qid;
	uint8_t padding[6];
};
#define NEWER_URING_REGISTER 1u
#define NEWER_URING_COMMIT_AND_FETCH 2u

struct newer_statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};

struct newer_time {
	int64_t sec;
	uint32_t nsec;
	int32_t reserved;
};

struct newer_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct newer_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};

struct newer_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, flags;
	uint64_t spare[2];
	struct newer_statx stat;
};

struct newer_copy_file_range_out {
	uint64_t bytes_copied;
};

#endif
