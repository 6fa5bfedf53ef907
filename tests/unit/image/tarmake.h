/* SPDX-License-Identifier: Apache-2.0 */
/* Test helper: archives in memory, header by header, right or wrong on purpose. */
#ifndef TESTS_IMAGE_TARMAKE_H
#define TESTS_IMAGE_TARMAKE_H

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "image/tar.h"

struct tarmake {
	struct buf out;
	size_t header; /* of the last one */
};

static inline void tm_checksum(struct tarmake *m)
{
	uint8_t *h = m->out.data + m->header;
	unsigned sum = 0;

	memset(h + 148, ' ', 8);
	for (int i = 0; i < 512; i++)
		sum += h[i];
	snprintf((char *)h + 148, 8, "%06o", sum);
}

/* Overwrites len bytes of the last header and puts its checksum right. */
static inline void tm_patch(struct tarmake *m, size_t off, const void *p, size_t len)
{
	memcpy(m->out.data + m->header + off, p, len);
	tm_checksum(m);
}

static inline void tm_header(struct tarmake *m, const char *name, char type, uint64_t size, const char *link)
{
	uint8_t *h;

	m->header = m->out.len;
	h = buf_extend(&m->out, 512);
	memset(h, 0, 512);
	strncpy((char *)h, name, 100);
	memcpy(h + 100, "0000644", 7);
	memcpy(h + 108, "0000000", 7);
	memcpy(h + 116, "0000000", 7);
	snprintf((char *)h + 124, 12, "%011llo", (unsigned long long)size);
	memcpy(h + 136, "00000000000", 11);
	h[156] = (uint8_t)type;
	if (link)
		strncpy((char *)h + 157, link, 100);
	memcpy(h + 257, "ustar\00000", 8);
	memcpy(h + 329, "0000000", 7);
	memcpy(h + 337, "0000000", 7);
	tm_checksum(m);
}

static inline void tm_data(struct tarmake *m, const void *p, size_t len)
{
	buf_put(&m->out, p, len);
	buf_put_zero(&m->out, -len & 511);
}

static inline void tm_file(struct tarmake *m, const char *name, const char *data)
{
	tm_header(m, name, '0', strlen(data), NULL);
	tm_data(m, data, strlen(data));
}

/* One pax record before the next entry. */
static inline void tm_pax(struct tarmake *m, const char *key, const void *value, size_t len)
{
	struct buf rec = {0};
	char head[32];
	size_t n = strlen(key) + len + 3, digits = 1, total;

	for (total = n + digits; snprintf(head, sizeof(head), "%zu", total) > (int)digits; total = n + digits)
		digits++;
	buf_printf(&rec, "%zu %s=", total, key);
	buf_put(&rec, value, len);
	buf_put_u8(&rec, '\n');
	tm_header(m, "PaxHeader", 'x', rec.len, NULL);
	tm_data(m, rec.data, rec.len);
	buf_done(&rec);
}

static inline void tm_end(struct tarmake *m)
{
	buf_put_zero(&m->out, 1024);
}

struct tm_source {
	const uint8_t *p;
	size_t left, step; /* step: most bytes at once, 0: all */
};

static inline ssize_t tm_read(void *arg, void *p, size_t len, struct sm_error *err)
{
	struct tm_source *s = arg;
	size_t n = len < s->left ? len : s->left;

	(void)err;
	if (s->step && n > s->step)
		n = s->step;
	if (n) {
		memcpy(p, s->p, n);
		s->p += n;
	}
	s->left -= n;
	return (ssize_t)n;
}

#endif
