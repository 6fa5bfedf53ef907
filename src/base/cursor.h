/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded reader over bytes that a peer controls. Every decoder reads through it: no pointer arithmetic.
 * Past the end it returns zeros or NULL and sets `bad`, so a decoder may read all its fields and check once:
 *
 *	struct cursor c = cursor_of(p, len);
 *	type = cursor_u16(&c);
 *	name = cursor_take(&c, cursor_u16(&c));
 *	if (c.bad)
 *		return -EPROTO;
 */
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline struct cursor cursor_of(const void *p, size_t len)
{
	return (struct cursor){.p = p, .left = len, .bad = false};
}

/* The next len bytes, or NULL and bad. */
const void *cursor_take(struct cursor *c, size_t len);
uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c); /* little-endian, unaligned, as are all below */
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
/* A NUL-terminated string within the bytes left (the NUL is consumed too), or NULL and bad. */
const char *cursor_str(struct cursor *c);

#endif
