/* SPDX-License-Identifier: Apache-2.0 */
/* The message of a secret: its bytes are any, and stay where they are. See messages.h. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "proto/messages.h"

enum { TAG_NAME = 1, TAG_ENV = 2, TAG_DATA = 3 };

int proto_secret_encode(struct buf *b, const struct proto_secret *x)
{
	tlv_put_str(b, TAG_NAME, x->name);
	if (x->env[0])
		tlv_put_str(b, TAG_ENV, x->env);
	tlv_put(b, TAG_DATA, x->data, x->len);
	return b->error;
}

static int text(const struct tlv *t, char *to, size_t size)
{
	if (t->len == 0 || t->len >= size || memchr(t->p, 0, t->len) || *to)
		return -EPROTO;
	memcpy(to, t->p, t->len);
	to[t->len] = '\0';
	return 0;
}

int proto_secret_decode(struct cursor *c, struct proto_secret *ret)
{
	struct proto_secret s = {.data = NULL};
	bool seen = false;
	struct tlv t;
	int r;

	while ((r = tlv_next(c, &t)) > 0) {
		if (t.tag == TAG_NAME)
			r = text(&t, s.name, sizeof(s.name));
		else if (t.tag == TAG_ENV)
			r = text(&t, s.env, sizeof(s.env));
		else if (t.tag == TAG_DATA)
			r = seen || t.len > PROTO_SECRET_MAX ? -EPROTO : 0;
		else
			r = t.tag & 0x8000 ? 0 : -EPROTO;
		if (r < 0)
			return r;
		if (t.tag == TAG_DATA) {
			seen = true;
			s.data = t.p;
			s.len = t.len;
		}
	}
	if (r < 0 || !seen || !s.name[0] || strchr(s.name, '/') || streq(s.name, ".") || streq(s.name, "..") ||
	    strchr(s.env, '='))
		return -EPROTO;
	*ret = s;
	return 0;
}
