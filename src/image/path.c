/* SPDX-License-Identifier: Apache-2.0 */
/* Entry names. See path.h. */
#include "image/path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

/* Takes the next component off *rest; NULL length at the end. Empty components come out as such. */
static struct tar_bytes next_component(struct tar_bytes *rest)
{
	const uint8_t *slash = rest->len ? memchr(rest->p, '/', rest->len) : NULL;
	struct tar_bytes c = {rest->p, slash ? (size_t)(slash - rest->p) : rest->len};

	rest->p += c.len + (slash ? 1 : 0);
	rest->len -= c.len + (slash ? 1 : 0);
	return c;
}

static bool is_dots(struct tar_bytes c, size_t n)
{
	return c.len == n && memcmp(c.p, "..", n) == 0;
}

int path_normalise(struct tar_bytes path, unsigned max_path, unsigned max_depth, struct buf *out, struct sm_error *err)
{
	unsigned depth = 0;

	out->len = 0;
	if (path.len > max_path)
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "a name of %zu bytes (limit %u)", path.len,
				 max_path);
	if (path.len && memchr(path.p, 0, path.len))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "a name with a NUL in it");
	while (path.len) {
		struct tar_bytes c = next_component(&path);

		if (c.len == 0 || is_dots(c, 1))
			continue;
		if (is_dots(c, 2))
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "a name with \"..\" in it");
		if (c.len > PATH_NAME_MAX)
			return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG,
					 "a name with a component of %zu bytes (limit %d)", c.len, PATH_NAME_MAX);
		if (++depth > max_depth)
			return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "a name of more than %u components",
					 max_depth);
		if (out->len)
			buf_put_u8(out, '/');
		buf_put(out, c.p, c.len);
	}
	return out->error ? error_sys(err, -out->error, "name") : 0;
}

bool path_is_normal(const uint8_t *p, size_t len, unsigned max_depth)
{
	struct tar_bytes rest = {p, len};
	unsigned depth = 0;

	if (len && (memchr(p, 0, len) || p[len - 1] == '/'))
		return false;
	while (rest.len) {
		struct tar_bytes c = next_component(&rest);

		if (c.len == 0 || c.len > PATH_NAME_MAX || is_dots(c, 1) || is_dots(c, 2) || ++depth > max_depth)
			return false;
	}
	return true;
}

static size_t put_escaped(char *out, size_t pos, struct tar_bytes s)
{
	for (size_t i = 0; i < s.len; i++) {
		uint8_t c = s.p[i];

		if (c < ' ' || c == 0x7f || c == '"' || c == '\\')
			pos += (size_t)snprintf(out + pos, 5, "\\x%02x", c);
		else
			out[pos++] = (char)c;
	}
	return pos;
}

const char *path_text(struct tar_bytes path, char out[static PATH_TEXT_MAX])
{
	/* Four output bytes for one input byte at worst: 2 * 38 * 4 + quotes and dots fit. */
	const size_t half = 38, whole = 76;
	size_t plain = 0, pos = 0;

	for (size_t i = 0; i < path.len; i++)
		plain += path.p[i] >= ' ' && path.p[i] != 0x7f && path.p[i] != '"' && path.p[i] != '\\';
	out[pos++] = '"';
	if (path.len <= whole || (plain == path.len && path.len < PATH_TEXT_MAX - 8)) {
		pos = put_escaped(out, pos, path);
	} else {
		pos = put_escaped(out, pos, (struct tar_bytes){path.p, half});
		memcpy(out + pos, "...", 3);
		pos = put_escaped(out, pos + 3, (struct tar_bytes){path.p + path.len - half, half});
	}
	out[pos++] = '"';
	out[pos] = 0;
	return out;
}
