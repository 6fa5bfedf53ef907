/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a watch. See fileevent.h. */
#include "proto/fileevent.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

#define HEAD 8u
#define FLAG_DIRECTORY 1u

int fileevent_put(struct buf *b, enum fileevent_kind kind, bool directory, const char *path, const char *to)
{
	size_t path_len = strlen(path), to_len = to ? strlen(to) : 0;

	if (path_len > FILEEVENT_MAX_PATH || to_len > FILEEVENT_MAX_PATH)
		return -ENAMETOOLONG;
	buf_put_u8(b, (uint8_t)kind);
	buf_put_u8(b, directory ? FLAG_DIRECTORY : 0);
	buf_put_u16(b, (uint16_t)path_len);
	buf_put_u16(b, (uint16_t)to_len);
	buf_put_u16(b, 0);
	buf_put(b, path, path_len);
	buf_put(b, to, to_len);
	return b->error;
}

/* A text without a NUL. */
static bool take_text(struct cursor *c, size_t len, char *out)
{
	const uint8_t *p = cursor_take(c, len);

	if (!p || (len && memchr(p, 0, len)))
		return false;
	if (len)
		memcpy(out, p, len);
	out[len] = '\0';
	return true;
}

static bool makes_sense(const struct fileevent *e, unsigned flags)
{
	bool words = e->kind == FILEEVENT_ERROR || e->kind == FILEEVENT_MOVED;

	if (e->kind > FILEEVENT_ERROR || flags > FLAG_DIRECTORY || words != (e->to[0] != '\0'))
		return false;
	if (e->kind == FILEEVENT_READY)
		return !e->path[0] && !flags;
	if (e->kind == FILEEVENT_ERROR)
		return !flags && e->path[0] && strlen(e->path) <= 5 && strspn(e->path, "0123456789") == strlen(e->path);
	return e->path[0] == '/' && (e->kind != FILEEVENT_MOVED || e->to[0] == '/');
}

int fileevent_next(const uint8_t *p, size_t len, struct fileevent *ret, size_t *used)
{
	struct cursor c = cursor_of(p, len);
	unsigned flags, path_len, to_len, zero;

	if (len < HEAD)
		return 0;
	ret->kind = (enum fileevent_kind)cursor_u8(&c);
	flags = cursor_u8(&c);
	path_len = cursor_u16(&c);
	to_len = cursor_u16(&c);
	zero = cursor_u16(&c);
	if (zero || path_len > FILEEVENT_MAX_PATH || to_len > FILEEVENT_MAX_PATH)
		return -EPROTO;
	if (len < HEAD + path_len + to_len)
		return 0;
	if (!take_text(&c, path_len, ret->path) || !take_text(&c, to_len, ret->to))
		return -EPROTO;
	ret->directory = flags & FLAG_DIRECTORY;
	*used = HEAD + path_len + to_len;
	return makes_sense(ret, flags) ? 1 : -EPROTO;
}
