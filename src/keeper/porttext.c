/* SPDX-License-Identifier: Apache-2.0 */
/* See porttext.h. */
#include "keeper/porttext.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/util.h"

#define ALL "*"
#define UNIX "unix"

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place. */
static int take_path(char *text, char **ret)
{
	char *to = text;

	if (*text != '/' || !text[1])
		return -EINVAL;
	*ret = text;
	for (; *text; text++) {
		int c = (unsigned char)*text;

		if (c == '%') {
			int high = digit(text[1]), low = high < 0 ? -1 : digit(text[2]);

			if (low < 0 || (high == 0 && low == 0))
				return -EINVAL;
			c = high << 4 | low;
			text += 2;
		}
		*to++ = (char)c;
	}
	*to = '\0';
	return 0;
}

static int take_port(const char *text, unsigned min, uint16_t *ret)
{
	uint64_t v;

	if (parse_u64(text, min, UINT16_MAX, &v) < 0)
		return -EINVAL;
	*ret = (uint16_t)v;
	return 0;
}

int port_text_parse(char *text, struct port_text *ret)
{
	char *host = strchr(text, ' '), *guest = host ? strchr(host + 1, ' ') : NULL;
	bool all;
	int r;

	*ret = (struct port_text){0};
	if (!guest)
		return -EINVAL;
	*host++ = *guest++ = '\0';
	ret->reverse = *text == PORT_TEXT_REVERSE;
	text += ret->reverse;
	all = streq(text, ALL);
	if (streq(text, UNIX)) {
		r = take_path(host, &ret->host_path);
	} else {
		ret->address = all ? NULL : text;
		r = all && ret->reverse ? -EINVAL : take_port(host, ret->reverse, &ret->host_port);
	}
	if (r < 0)
		return r;
	return *guest == '/' ? take_path(guest, &ret->guest_path) : take_port(guest, 1, &ret->guest_port);
}

static void put_path(struct buf *b, const char *path)
{
	for (; *path; path++) {
		if (isgraph((unsigned char)*path) && *path != '%')
			buf_printf(b, "%c", *path);
		else
			buf_printf(b, "%%%02X", (unsigned char)*path);
	}
}

char *port_text_format(const struct port_text *p)
{
	struct buf b = {0};

	buf_printf(&b, "%s%s ", p->reverse ? "<" : "", p->host_path ? UNIX : p->address ? p->address : ALL);
	if (p->host_path)
		put_path(&b, p->host_path);
	else
		buf_printf(&b, "%u", p->host_port);
	buf_printf(&b, " ");
	if (p->guest_path)
		put_path(&b, p->guest_path);
	else
		buf_printf(&b, "%u", p->guest_port);
	buf_put_u8(&b, 0);
	if (!b.error)
		return (char *)b.data;
	buf_done(&b);
	return NULL;
}
