/* SPDX-License-Identifier: Apache-2.0 */
/* --format templates. See template.h. */
#include "cli/template.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

bool template_is(const char *format)
{
	return strstr(format, "{{") != NULL;
}

/* s: behind "{{". Returns what is behind "}}", or NULL. */
static const char *expand_one(const char *s, const void *row, template_field field, struct buf *ret, char *what)
{
	const char *end = strstr(s, "}}");
	char name[64];
	size_t len;

	if (!end) {
		snprintf(what, 96, "'{{' without '}}'");
		return NULL;
	}
	s += strspn(s, " ");
	len = strcspn(s, " }");
	if (s[0] != '.' || len < 2 || len > sizeof(name) || s + len + strspn(s + len, " ") != end) {
		snprintf(what, 96, "{{%.*s}}: only fields are known, as in {{.ID}}", (int)MIN((size_t)(end - s), 40u),
			 s);
		return NULL;
	}
	memcpy(name, s + 1, len - 1);
	name[len - 1] = '\0';
	if (!field(row, name, ret)) {
		snprintf(what, 96, "there is no field .%.60s", name);
		return NULL;
	}
	return end + 2;
}

int template_expand(const char *format, const void *row, template_field field, struct buf *ret, char what[static 96])
{
	while (*format) {
		if (str_starts(format, "{{")) {
			format = expand_one(format + 2, row, field, ret, what);
			if (!format)
				return -EINVAL;
		} else if (format[0] == '\\' && (format[1] == 't' || format[1] == 'n')) {
			buf_put_u8(ret, format[1] == 't' ? '\t' : '\n');
			format += 2;
		} else {
			buf_put_u8(ret, (uint8_t)*format++);
		}
	}
	return ret->error;
}
