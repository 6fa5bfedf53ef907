/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a watch on the host. See hostwatch.h. */
#include "proto/hostwatch.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"

/* One component that is a name: neither empty, nor this directory or its parent. */
static bool is_name(const char *p, size_t len)
{
	return len && len <= NAME_MAX && !(len <= 2 && memcmp(p, "..", len) == 0);
}

/* "" or names between single slashes. */
static bool is_path(const char *p)
{
	while (*p) {
		size_t len = strcspn(p, "/");

		if (!is_name(p, len))
			return false;
		p += len;
		if (*p && !*++p)
			return false;
	}
	return true;
}

static bool has_id(enum hostwatch_op op)
{
	return op != HOSTWATCH_RESET && op != HOSTWATCH_HELLO && op != HOSTWATCH_LOST;
}

int hostwatch_encode(struct buf *b, const struct hostwatch_record *r)
{
	bool add = r->op == HOSTWATCH_ADD, added = r->op == HOSTWATCH_ADDED, event = r->op == HOSTWATCH_EVENT;
	size_t len = add || event ? strlen(r->text) : 0;

	if (len >= sizeof(r->text))
		return -ENAMETOOLONG;
	buf_put_u32(b, (uint32_t)(1 + (has_id(r->op) ? 4 : 0) + (add ? 9 : added ? 8 : event ? 4 : 0) + len));
	buf_put_u8(b, (uint8_t)r->op);
	if (has_id(r->op))
		buf_put_u32(b, r->id);
	if (add) {
		buf_put_u64(b, r->ino);
		buf_put_u8(b, r->share);
	}
	if (added)
		buf_put_u64(b, r->quiet_ns);
	if (event)
		buf_put_u32(b, r->mask);
	buf_put(b, r->text, len);
	return b->error;
}

static bool take_text(struct cursor *c, struct hostwatch_record *r)
{
	size_t len = c->left;

	if (len >= sizeof(r->text) || memchr(c->p, '\0', len))
		return false;
	memcpy(r->text, cursor_take(c, len), len);
	r->text[len] = '\0';
	return true;
}

/* c: the record's bytes, all of which have to be used. */
static int decode(struct cursor c, bool from_host, struct hostwatch_record *r)
{
	r->op = cursor_u8(&c);
	r->text[0] = '\0';
	if (from_host ? r->op < HOSTWATCH_HELLO || r->op > HOSTWATCH_LOST
		      : r->op < HOSTWATCH_ADD || r->op > HOSTWATCH_RESET)
		return -EPROTO;
	r->id = has_id(r->op) ? cursor_u32(&c) : 0;
	r->ino = r->op == HOSTWATCH_ADD ? cursor_u64(&c) : 0;
	r->share = r->op == HOSTWATCH_ADD ? cursor_u8(&c) : 0;
	r->quiet_ns = r->op == HOSTWATCH_ADDED ? cursor_u64(&c) : 0;
	r->mask = r->op == HOSTWATCH_EVENT ? cursor_u32(&c) : 0;
	if (c.bad || r->id > HOSTWATCH_MAX_ID || r->share >= HOSTWATCH_SHARES)
		return -EPROTO;
	if (r->op == HOSTWATCH_ADD && !(take_text(&c, r) && is_path(r->text)))
		return -EPROTO;
	if (r->op == HOSTWATCH_EVENT &&
	    !(take_text(&c, r) && (!r->text[0] || (is_name(r->text, strlen(r->text)) && !strchr(r->text, '/')))))
		return -EPROTO;
	return c.left ? -EPROTO : 0;
}

int hostwatch_decode(struct cursor *c, bool from_host, struct hostwatch_record *ret)
{
	struct cursor rest = *c;
	uint32_t len;
	int r;

	if (c->left < sizeof(len))
		return 0;
	len = cursor_u32(&rest);
	if (!len || len > HOSTWATCH_RECORD)
		return -EPROTO;
	if (rest.left < len)
		return 0;
	r = decode(cursor_of(rest.p, len), from_host, ret);
	if (r < 0)
		return r;
	cursor_take(&rest, len);
	*c = rest;
	return 1;
}
