/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of EROFS files written for the tests alone, from the kernel's documents and not from the writer: checks
 * every rule that Linux 6.1 relies on, and shows the tree. Nothing in the file is trusted.
 */
#ifndef TESTS_IMAGE_EROFS_CHECK_H
#define TESTS_IMAGE_EROFS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct check_xattr {
	char name[300];
	const uint8_t *value;
	size_t value_len;
};

struct check_inode {
	uint64_t nid;
	uint16_t mode;
	uint32_t uid, gid, nlink, rdev;
	uint64_t size;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t layout, u;
	uint64_t xattr_size;
	uint64_t pos; /* of the inode in the file */
};

struct check {
	const uint8_t *data;
	uint64_t size;
	bool chunked;
	uint64_t inos, xattr_pos;
	char error[512]; /* "" as long as all is well */
	void (*visit)(struct check *c, const char *path, size_t len, const struct check_inode *inode);
	void *arg;
	struct check_link *links; /* what was seen of each inode: see erofs_check.c */
	size_t num_links, cap_links;
};

/* 0, or -1 with c->error. data, size, visit (may be NULL) and arg are the caller's to set. */
int erofs_check(struct check *c);

/* Bytes [at, at + len) of a file or link into p; holes read as zeros. */
int check_read(struct check *c, const struct check_inode *inode, uint64_t at, void *p, size_t len);
/* Calls fn for each attribute. */
int check_xattrs(struct check *c, const struct check_inode *inode, void (*fn)(void *arg, const struct check_xattr *x),
		 void *arg);
/* The inode at a path from the root, links not followed; false if there is none. */
bool check_lookup(struct check *c, const char *path, struct check_inode *ret);

#endif
