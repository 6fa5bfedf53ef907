/* SPDX-License-Identifier: Apache-2.0 */
/* The growing byte buffer. See buf.h. */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_done(struct buf *b)
{
	free(b->data);
	*b = (struct buf){0};
}

int buf_reserve(struct buf *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 256;
	void *p;

	if (b->error)
		return b->error;
	if (more <= b->cap - b->len)
		return 0;
	if (more > SIZE_MAX / 4 - b->len)
		return b->error = -ENOMEM;
	while (cap - b->len < more)
		cap *= 2;
	p = realloc(b->data, cap);
	if (!p)
		return b->error = -ENOMEM;
	b->data = p;
	b->cap = cap;
	return 0;
}

void *buf_extend(struct buf *b, size_t len)
{
	void *p;

	if (buf_reserve(b, len) < 0)
		return NULL;
	p = b->data ? b->data + b->len : NULL; /* none, of no bytes */
	b->len += len;
	return p;
}

int buf_put(struct buf *b, const void *p, size_t len)
{
	void *room = buf_extend(b, len);

	if (!room)
		return b->error;
	if (len)
		memcpy(room, p, len);
	return 0;
}

static int put_le(struct buf *b, uint64_t v, size_t size)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	return buf_put(b, bytes, size);
}

int buf_put_u8(struct buf *b, uint8_t v)
{
	return put_le(b, v, 1);
}

int buf_put_u16(struct buf *b, uint16_t v)
{
	return put_le(b, v, 2);
}

int buf_put_u32(struct buf *b, uint32_t v)
{
	return put_le(b, v, 4);
}

int buf_put_u64(struct buf *b, uint64_t v)
{
	return put_le(b, v, 8);
}

int buf_put_zero(struct buf *b, size_t len)
{
	void *room = buf_extend(b, len);

	if (!room)
		return b->error;
	memset(room, 0, len);
	return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || buf_reserve(b, (size_t)n + 1) < 0)
		return b->error ? b->error : -EINVAL;
	va_start(ap, fmt);
	vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}

void buf_consume(struct buf *b, size_t len)
{
	b->len -= len;
	if (b->len)
		memmove(b->data, b->data + len, b->len);
}

/* Length of the whole, valid UTF-8 sequence at p, 0 if there is none. */
static size_t utf8_length(const unsigned char *p)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	uint32_t c;

	if (n < 2)
		return n;
	c = p[0] & (0xffU >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

void buf_put_json(struct buf *b, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	buf_put_u8(b, '"');
	while (*p) {
		size_t n = utf8_length(p);

		if (!n)
			buf_printf(b, "\\ufffd");
		else if (*p == '"' || *p == '\\')
			buf_printf(b, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			buf_printf(b, "\\u%04x", *p);
		else
			buf_put(b, p, n);
		p += n ? n : 1;
	}
	buf_put_u8(b, '"');
}
