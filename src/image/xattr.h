/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The extended attributes of an image: each distinct name and value once, each distinct set of them once. Attributes
 * that several inodes carry go into EROFS's shared area, the rest beside their inode.
 */
#ifndef IMAGE_XATTR_H
#define IMAGE_XATTR_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "image/tar.h"

struct xattr_pool;

struct xattr_pool *xattr_pool_new(void);
struct xattr_pool *xattr_pool_free(struct xattr_pool *pool);

/* The set of these attributes, whatever their order: 0 for none, else a number from 1. -ENOMEM, or -EINVAL for a name
 * space without a number. */
int xattr_intern(struct xattr_pool *pool, const struct tar_xattr *v, size_t n, uint32_t *ret_set) MUST_CHECK;

/* One more inode carries the set. */
void xattr_count_use(struct xattr_pool *pool, uint32_t set);

/* After the last xattr_count_use: decides what is shared and gives the shared area's bytes (owned by the pool). */
int xattr_layout(struct xattr_pool *pool, const struct buf **ret_shared) MUST_CHECK;

/* Bytes that the set takes after an inode, a multiple of 4; 0 for none. And what goes there. */
size_t xattr_inline_size(const struct xattr_pool *pool, uint32_t set);
int xattr_put(const struct xattr_pool *pool, uint32_t set, struct buf *out) MUST_CHECK;

#endif
