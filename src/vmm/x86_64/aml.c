/* SPDX-License-Identifier: Apache-2.0 */
/* AML encodings. See aml.h. */
#include "vmm/x86_64/aml.h"

#include <string.h>

#define OP_ZERO 0x00
#define OP_ONE 0x01
#define OP_NAME 0x08
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_METHOD 0x14
#define OP_DEVICE 0x5b82
#define PREFIX_BYTE 0x0a
#define PREFIX_WORD 0x0b
#define PREFIX_DWORD 0x0c
#define PREFIX_STRING 0x0d
#define PREFIX_QWORD 0x0e
#define PREFIX_DUAL 0x2e
#define PREFIX_MULTI 0x2f

size_t aml_open(struct buf *b, uint16_t opcode)
{
	if (opcode >> 8)
		buf_put_u8(b, (uint8_t)(opcode >> 8));
	buf_put_u8(b, (uint8_t)opcode);
	return b->len;
}

/* PkgLength (20.2.4) counts itself: one byte up to 63, else a lead byte with the count of the others and four bits. */
void aml_close(struct buf *b, size_t mark)
{
	size_t body = b->len - mark, extra = 0, total;
	uint8_t enc[4];

	while (body + 1 + extra > (extra ? (1u << (4 + 8 * extra)) - 1 : 0x3f))
		extra++;
	total = body + 1 + extra;
	if (b->error || extra > 3 || !buf_extend(b, 1 + extra))
		return;
	enc[0] = (uint8_t)(extra ? extra << 6 | (total & 0x0f) : total);
	for (size_t i = 1; i <= extra; i++)
		enc[i] = (uint8_t)(total >> (8 * i - 4));
	memmove(b->data + mark + 1 + extra, b->data + mark, body);
	memcpy(b->data + mark, enc, 1 + extra);
}

void aml_path(struct buf *b, const char *path)
{
	size_t segments = 1;

	if (*path == '\\')
		buf_put_u8(b, (uint8_t)*path++);
	for (const char *c = path; *c; c++)
		segments += *c == '.';
	if (segments == 2) {
		buf_put_u8(b, PREFIX_DUAL);
	} else if (segments > 2) {
		buf_put_u8(b, PREFIX_MULTI);
		buf_put_u8(b, (uint8_t)segments);
	}
	for (const char *c = path; *c; c++)
		if (*c != '.')
			buf_put_u8(b, (uint8_t)*c);
}

void aml_name(struct buf *b, const char *path)
{
	buf_put_u8(b, OP_NAME);
	aml_path(b, path);
}

void aml_int(struct buf *b, uint64_t v)
{
	if (v <= 1) {
		buf_put_u8(b, v ? OP_ONE : OP_ZERO);
	} else if (v <= UINT8_MAX) {
		buf_put_u8(b, PREFIX_BYTE);
		buf_put_u8(b, (uint8_t)v);
	} else if (v <= UINT16_MAX) {
		buf_put_u8(b, PREFIX_WORD);
		buf_put_u16(b, (uint16_t)v);
	} else if (v <= UINT32_MAX) {
		buf_put_u8(b, PREFIX_DWORD);
		buf_put_u32(b, (uint32_t)v);
	} else {
		buf_put_u8(b, PREFIX_QWORD);
		buf_put_u64(b, v);
	}
}

void aml_string(struct buf *b, const char *s)
{
	buf_put_u8(b, PREFIX_STRING);
	buf_put(b, s, strlen(s) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* EISA identifiers pack three letters of five bits and four hexadecimal digits, big-endian (19.3.4). */
void aml_eisa_id(struct buf *b, const char *id)
{
	unsigned v = (unsigned)(id[0] - '@') << 26 | (unsigned)(id[1] - '@') << 21 | (unsigned)(id[2] - '@') << 16;

	for (int i = 0; i < 4; i++)
		v |= hex_digit(id[3 + i]) << (12 - 4 * i);
	buf_put_u8(b, PREFIX_DWORD);
	buf_put_u32(b, __builtin_bswap32(v));
}

size_t aml_open_scope(struct buf *b, const char *path)
{
	size_t mark = aml_open(b, OP_SCOPE);

	aml_path(b, path);
	return mark;
}

size_t aml_open_device(struct buf *b, const char *name)
{
	size_t mark = aml_open(b, OP_DEVICE);

	aml_path(b, name);
	return mark;
}

size_t aml_open_method(struct buf *b, const char *name, unsigned args)
{
	size_t mark = aml_open(b, OP_METHOD);

	aml_path(b, name);
	buf_put_u8(b, (uint8_t)(args | 0x08)); /* serialized */
	return mark;
}

size_t aml_open_package(struct buf *b, unsigned count)
{
	size_t mark = aml_open(b, OP_PACKAGE);

	buf_put_u8(b, (uint8_t)count);
	return mark;
}

/* The buffer's size is a word that is patched on closing. */
struct aml_resources aml_open_resources(struct buf *b)
{
	struct aml_resources r = {.package = aml_open(b, OP_BUFFER)};

	buf_put_u8(b, PREFIX_WORD);
	buf_put_u16(b, 0);
	r.start = b->len;
	return r;
}

void aml_close_resources(struct buf *b, struct aml_resources r)
{
	size_t len;

	buf_put_u8(b, 0x79); /* end tag; checksum 0: not checked */
	buf_put_u8(b, 0);
	if (b->error)
		return;
	len = b->len - r.start;
	b->data[r.start - 2] = (uint8_t)len;
	b->data[r.start - 1] = (uint8_t)(len >> 8);
	aml_close(b, r.package);
}

void aml_res_io(struct buf *b, uint16_t base, uint8_t len)
{
	buf_put_u8(b, 0x47);
	buf_put_u8(b, 1); /* decodes 16 bits */
	buf_put_u16(b, base);
	buf_put_u16(b, base);
	buf_put_u8(b, 1);
	buf_put_u8(b, len);
}

void aml_res_irq_edge(struct buf *b, uint32_t gsi)
{
	buf_put_u8(b, 0x89);
	buf_put_u16(b, 6);
	buf_put_u8(b, 0x03); /* consumer, edge-triggered, active high, exclusive */
	buf_put_u8(b, 1);
	buf_put_u32(b, gsi);
}

void aml_res_memory_fixed(struct buf *b, uint32_t base, uint32_t len)
{
	buf_put_u8(b, 0x86);
	buf_put_u16(b, 9);
	buf_put_u8(b, 1); /* writable */
	buf_put_u32(b, base);
	buf_put_u32(b, len);
}

/* Address space descriptors (6.4.3.5): produced by the bridge, both ends fixed. */
static void window_head(struct buf *b, uint8_t tag, uint16_t len, uint8_t type, uint8_t flags)
{
	buf_put_u8(b, tag);
	buf_put_u16(b, len);
	buf_put_u8(b, type);
	buf_put_u8(b, 0x0c);
	buf_put_u8(b, flags);
}

static void word_window(struct buf *b, uint8_t type, uint8_t flags, uint16_t min, uint16_t max)
{
	window_head(b, 0x88, 13, type, flags);
	buf_put_u16(b, 0);
	buf_put_u16(b, min);
	buf_put_u16(b, max);
	buf_put_u16(b, 0);
	buf_put_u16(b, (uint16_t)(max - min + 1));
}

void aml_res_bus(struct buf *b, uint16_t min, uint16_t max)
{
	word_window(b, 2, 0, min, max);
}

void aml_res_io_window(struct buf *b, uint16_t base, uint16_t len)
{
	word_window(b, 1, 3, base, (uint16_t)(base + len - 1));
}

void aml_res_memory_window(struct buf *b, uint32_t base, uint32_t len)
{
	window_head(b, 0x87, 23, 0, 1); /* writable, not cacheable */
	buf_put_u32(b, 0);
	buf_put_u32(b, base);
	buf_put_u32(b, base + len - 1);
	buf_put_u32(b, 0);
	buf_put_u32(b, len);
}

void aml_res_memory_window64(struct buf *b, uint64_t base, uint64_t len)
{
	window_head(b, 0x8a, 43, 0, 7); /* writable, cacheable and prefetchable */
	buf_put_u64(b, 0);
	buf_put_u64(b, base);
	buf_put_u64(b, base + len - 1);
	buf_put_u64(b, 0);
	buf_put_u64(b, len);
}
