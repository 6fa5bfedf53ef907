/* SPDX-License-Identifier: Apache-2.0 */
/* Number fields, pax records and sparse maps of tar. See tarhdr.h. */
#include "image/tarhdr.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

int tar_bad(struct sm_error *err, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s", text);
}

struct tar_bytes tar_string(const uint8_t *p, size_t len)
{
	return (struct tar_bytes){.p = p, .len = strnlen((const char *)p, len)};
}

static int number_base256(const uint8_t *p, size_t len, int64_t *ret)
{
	uint8_t invert = p[0] & 0x40 ? 0xff : 0;
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t b = (uint8_t)(p[i] ^ invert);

		if (i == 0)
			b &= 0x7f; /* the bit that marks the encoding */
		if (v >> 55)
			return -EBADMSG;
		v = v << 8 | b;
	}
	*ret = invert ? (int64_t)~v : (int64_t)v;
	return 0;
}

int tar_number(const uint8_t *p, size_t len, int64_t *ret)
{
	uint64_t v = 0;

	if (len && (p[0] & 0x80))
		return number_base256(p, len, ret);
	while (len && (*p == ' ' || *p == 0))
		p++, len--;
	while (len && (p[len - 1] == ' ' || p[len - 1] == 0))
		len--;
	for (; len; p++, len--) {
		if (*p == 0 || *p == ' ') /* some writers leave old bytes after the terminator */
			break;
		if (*p < '0' || *p > '7' || v >> 60)
			return -EBADMSG;
		v = v << 3 | (uint64_t)(*p - '0');
	}
	if (v > INT64_MAX)
		return -EBADMSG;
	*ret = (int64_t)v;
	return 0;
}

int tar_decimal(const uint8_t *p, size_t len, uint64_t *ret)
{
	uint64_t v = 0;

	if (!len)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)p[i] - '0';

		if (digit > 9 || v > ((uint64_t)INT64_MAX - digit) / 10)
			return -EBADMSG;
		v = v * 10 + digit;
	}
	*ret = v;
	return 0;
}

bool tar_checksum_ok(const uint8_t *block)
{
	int64_t want, plain = 0, with_sign = 0;

	if (tar_number(block + 148, 8, &want) < 0)
		return false;
	for (size_t i = 0; i < TAR_BLOCK_SIZE; i++) {
		uint8_t b = i >= 148 && i < 156 ? ' ' : block[i];

		plain += b;
		with_sign += (int8_t)b; /* historic writers summed signed characters */
	}
	return want == plain || want == with_sign;
}

void tar_map_done(struct tar_map *m)
{
	free(m->v);
	*m = (struct tar_map){0};
}

int tar_map_add(struct tar_map *m, uint64_t offset, uint64_t len, struct sm_error *err)
{
	if (m->count == TAR_MAX_EXTENTS)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "a sparse file of more than %u extents", TAR_MAX_EXTENTS);
	if (m->count == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 16;
		struct tar_extent *v = realloc(m->v, cap * sizeof(*v));

		if (!v)
			return error_sys(err, ENOMEM, "sparse map");
		m->v = v;
		m->cap = cap;
	}
	m->v[m->count++] = (struct tar_extent){offset, len};
	return 0;
}

int tar_map_check(struct tar_map *m, uint64_t size, uint64_t stored, struct sm_error *err)
{
	uint64_t end = 0, total = 0;
	size_t kept = 0;

	for (size_t i = 0; i < m->count; i++) {
		struct tar_extent e = m->v[i];

		if (e.offset < end || !range_inside(e.offset, e.len, size))
			return tar_bad(err, "sparse map out of order or past the end of the file");
		end = e.offset + e.len;
		total += e.len; /* cannot overflow: extents are apart and inside size */
		if (e.len)
			m->v[kept++] = e;
	}
	if (total != stored)
		return tar_bad(err, "sparse map of %llu bytes over %llu stored ones", (unsigned long long)total,
			       (unsigned long long)stored);
	m->count = kept;
	return 0;
}

int tar_map_add_old(struct tar_map *m, const uint8_t *p, size_t n, struct sm_error *err)
{
	for (; n; n--, p += 24) {
		int64_t offset, len;
		int r;

		if (p[0] == 0)
			return 0;
		if (tar_number(p, 12, &offset) < 0 || tar_number(p + 12, 12, &len) < 0 || offset < 0 || len < 0)
			return tar_bad(err, "bad number in a sparse map");
		r = tar_map_add(m, (uint64_t)offset, (uint64_t)len, err);
		if (r < 0)
			return r;
	}
	return 0;
}

void pax_done(struct pax *x)
{
	tar_map_done(&x->map);
	free(x->xattrs);
	*x = (struct pax){0};
}

static bool bytes_are(struct tar_bytes b, const char *s)
{
	return b.len == strlen(s) && memcmp(b.p, s, b.len) == 0;
}

static bool take_prefix(struct tar_bytes *b, const char *s)
{
	size_t n = strlen(s);

	if (b->len < n || memcmp(b->p, s, n) != 0)
		return false;
	b->p += n;
	b->len -= n;
	return true;
}

/* "[-]seconds[.fraction]"; digits past the ninth are dropped. Before 1970 the fraction counts backwards too. */
static int parse_time(struct tar_bytes v, int64_t *ret, uint32_t *ret_nsec)
{
	bool negative = take_prefix(&v, "-");
	const uint8_t *dot = memchr(v.p, '.', v.len);
	size_t whole = dot ? (size_t)(dot - v.p) : v.len;
	uint32_t nsec = 0, unit = 100000000;
	uint64_t sec;

	if (tar_decimal(v.p, whole, &sec) < 0)
		return -EBADMSG;
	for (size_t i = whole + 1; i < v.len; i++, unit /= 10) {
		if (v.p[i] < '0' || v.p[i] > '9')
			return -EBADMSG;
		nsec += unit * (uint32_t)(v.p[i] - '0');
	}
	*ret = negative ? -(int64_t)sec : (int64_t)sec;
	if (negative && nsec) {
		*ret -= 1;
		nsec = 1000000000 - nsec;
	}
	*ret_nsec = nsec;
	return 0;
}

static int add_xattr(struct pax *x, struct tar_bytes name, struct tar_bytes value, struct sm_error *err)
{
	if (x->num_xattrs == x->cap_xattrs) {
		size_t cap = x->cap_xattrs ? x->cap_xattrs * 2 : 8;
		struct tar_xattr *v = realloc(x->xattrs, cap * sizeof(*v));

		if (!v)
			return error_sys(err, ENOMEM, "extended attributes");
		x->xattrs = v;
		x->cap_xattrs = cap;
	}
	x->xattrs[x->num_xattrs++] = (struct tar_xattr){name, value};
	return 0;
}

/* 0.1: "offset,length,offset,length,..." */
static int sparse_text(struct tar_map *m, struct tar_bytes v, struct sm_error *err)
{
	uint64_t pair[2];
	unsigned have = 0;

	for (;;) {
		const uint8_t *comma = v.len ? memchr(v.p, ',', v.len) : NULL;
		size_t n = comma ? (size_t)(comma - v.p) : v.len;
		int r;

		if (tar_decimal(v.p, n, &pair[have]) < 0)
			return tar_bad(err, "bad number in GNU.sparse.map");
		if (++have == 2) {
			r = tar_map_add(m, pair[0], pair[1], err);
			if (r < 0)
				return r;
			have = 0;
		}
		if (!comma)
			break;
		v.p += n + 1;
		v.len -= n + 1;
	}
	return have ? tar_bad(err, "GNU.sparse.map of an odd count") : 0;
}

static int sparse_record(struct pax *x, struct tar_bytes key, struct tar_bytes v, struct sm_error *err)
{
	uint64_t n = 0;

	x->sparse = true;
	if (bytes_are(key, "name")) {
		x->has_sparse_name = true;
		x->sparse_name = v;
		return 0;
	}
	if (bytes_are(key, "map")) {
		x->sparse_map = true;
		return sparse_text(&x->map, v, err);
	}
	if (tar_decimal(v.p, v.len, &n) < 0)
		return tar_bad(err, "bad number in a GNU.sparse record");
	if (bytes_are(key, "major"))
		x->sparse_major = (unsigned)MIN(n, 99U);
	else if (bytes_are(key, "minor"))
		x->sparse_minor = (unsigned)MIN(n, 99U);
	else if (bytes_are(key, "size") || bytes_are(key, "realsize")) {
		x->has_real_size = true;
		x->real_size = n;
	} else if (bytes_are(key, "offset")) {
		x->half = true;
		x->offset = n;
	} else if (bytes_are(key, "numbytes")) {
		if (!x->half)
			return tar_bad(err, "GNU.sparse.numbytes without an offset");
		x->half = false;
		x->sparse_map = true;
		return tar_map_add(&x->map, x->offset, n, err);
	} else if (bytes_are(key, "numblocks")) {
		x->sparse_map = true;
	}
	return 0;
}

static int number_record(struct tar_bytes v, bool *has, uint64_t *ret, const char *what, struct sm_error *err)
{
	if (!v.len) { /* an empty value takes the record back */
		*has = false;
		return 0;
	}
	if (tar_decimal(v.p, v.len, ret) < 0)
		return tar_bad(err, "bad %s in a pax header", what);
	*has = true;
	return 0;
}

static int name_record(struct tar_bytes v, bool *has, struct tar_bytes *ret, const char *what, struct sm_error *err)
{
	if (memchr(v.p, 0, v.len))
		return tar_bad(err, "NUL in a pax %s", what);
	*has = v.len > 0;
	*ret = v;
	return 0;
}

static int pax_record(struct pax *x, struct tar_bytes key, struct tar_bytes v, struct sm_error *err)
{
	if (bytes_are(key, "path"))
		return name_record(v, &x->has_path, &x->path, "path", err);
	if (bytes_are(key, "linkpath"))
		return name_record(v, &x->has_link, &x->link, "linkpath", err);
	if (bytes_are(key, "size"))
		return number_record(v, &x->has_size, &x->size, "size", err);
	if (bytes_are(key, "uid"))
		return number_record(v, &x->has_uid, &x->uid, "uid", err);
	if (bytes_are(key, "gid"))
		return number_record(v, &x->has_gid, &x->gid, "gid", err);
	if (bytes_are(key, "mtime")) {
		x->has_mtime = v.len > 0;
		if (v.len && parse_time(v, &x->mtime, &x->mtime_nsec) < 0)
			return tar_bad(err, "bad mtime in a pax header");
		return 0;
	}
	if (take_prefix(&key, "SCHILY.xattr."))
		return add_xattr(x, key, v, err);
	if (take_prefix(&key, "GNU.sparse."))
		return sparse_record(x, key, v, err);
	return 0; /* times we do not keep, names of users, comments, vendors' own */
}

int pax_parse(struct pax *x, const uint8_t *p, size_t len, struct sm_error *err)
{
	struct cursor c = cursor_of(p, len);

	/* Records are "LENGTH KEY=VALUE\n"; the length counts the whole record. Padding of NULs may follow. */
	while (c.left && *c.p != 0) {
		const uint8_t *record = c.p, *space = memchr(c.p, ' ', MIN(c.left, 12U)), *equals;
		uint64_t n;
		size_t head;
		int r;

		if (!space || tar_decimal(record, (size_t)(space - record), &n) < 0)
			return tar_bad(err, "bad record length in a pax header");
		head = (size_t)(space - record) + 1;
		if (n < head + 2 || n > c.left || record[n - 1] != '\n')
			return tar_bad(err, "bad record length in a pax header");
		equals = memchr(space + 1, '=', n - head - 1);
		if (!equals || equals == space + 1)
			return tar_bad(err, "a pax record without a key");
		cursor_take(&c, n);
		r = pax_record(x, (struct tar_bytes){space + 1, (size_t)(equals - space - 1)},
			       (struct tar_bytes){equals + 1, (size_t)(record + n - 1 - (equals + 1))}, err);
		if (r < 0)
			return r;
	}
	return 0;
}
