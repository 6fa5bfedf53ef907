/* SPDX-License-Identifier: Apache-2.0 */
/* A growing byte buffer for output, with little-endian writers. Zero-initialise; buf_done frees. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdint.h>
#include <stddef.h>

#include "base/error.h"

struct buf {
	uint8_t *data;
	size_t len, cap;
	int error; /* Sticky -ENOMEM: writers do nothing after it; check once at the end. */
};

void buf_done(struct buf *b);
int buf_reserve(struct buf *b, size_t more);
/* Appends len bytes of room and returns it (uninitialised), NULL on -ENOMEM. */
void *buf_extend(struct buf *b, size_t len);
int buf_put(struct buf *b, const void *p, size_t len);
int buf_put_u8(struct buf *b, uint8_t v);
int buf_put_u16(struct buf *b, uint16_t v);
int buf_put_u32(struct buf *b, uint32_t v);
int buf_put_u64(struct buf *b, uint64_t v);
int buf_put_zero(struct buf *b, size_t len);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A JSON string, quoted; bytes that are no UTF-8 become U+FFFD. */
void buf_put_json(struct buf *b, const char *text);
/* Drops len bytes from the front (len <= b->len). */
void buf_consume(struct buf *b, size_t len);

#endif
