/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded reader. See cursor.h. */
#include "base/cursor.h"

#include <string.h>

const void *cursor_take(struct cursor *c, size_t len)
{
	const void *p = c->p;

	if (c->bad || len > c->left) {
		c->bad = true;
		return NULL;
	}
	c->p += len;
	c->left -= len;
	return p;
}

static uint64_t take_le(struct cursor *c, size_t size)
{
	const uint8_t *p = cursor_take(c, size);
	uint64_t v = 0;

	for (size_t i = 0; p && i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

uint8_t cursor_u8(struct cursor *c)
{
	return (uint8_t)take_le(c, 1);
}

uint16_t cursor_u16(struct cursor *c)
{
	return (uint16_t)take_le(c, 2);
}

uint32_t cursor_u32(struct cursor *c)
{
	return (uint32_t)take_le(c, 4);
}

uint64_t cursor_u64(struct cursor *c)
{
	return take_le(c, 8);
}

const char *cursor_str(struct cursor *c)
{
	const uint8_t *nul = c->bad || !c->left ? NULL : memchr(c->p, 0, c->left);

	if (!nul) {
		c->bad = true;
		return NULL;
	}
	return cursor_take(c, (size_t)(nul - c->p) + 1);
}
