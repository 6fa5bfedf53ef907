/* SPDX-License-Identifier: Apache-2.0 */
/*
 * WWW-Authenticate = #( scheme [ 1*SP #( name "=" ( token / quoted ) ) ] ). Challenges and their parameters are
 * separated by the same comma: a word that no "=" follows begins the next challenge. (What has a token68 instead of
 * parameters is none of the schemes of registries; it breaks this grammar, or is taken for one more scheme.) See
 * challenge.h.
 */
#include "oci/challenge.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define MAX_WORD 64
#define MAX_PARAMETERS 32

struct scanner {
	const char *p, *end;
};

static bool is_token_char(char c)
{
	return c > 32 && c < 127 && !strchr("\"(),/:;<=>?@[\\]{}", c);
}

static void skip_spaces(struct scanner *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
		s->p++;
}

static bool take(struct scanner *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static int take_token(struct scanner *s, char *out, size_t size)
{
	size_t n = 0;

	for (; s->p < s->end && is_token_char(*s->p); s->p++) {
		if (n + 1 == size)
			return -EBADMSG;
		out[n++] = *s->p;
	}
	out[n] = 0;
	return n ? 0 : -EBADMSG;
}

/* After the opening quote: up to the closing one. Control characters and what is not ASCII have no business here. */
static int take_quoted(struct scanner *s, char *out, size_t size)
{
	size_t n = 0;

	while (s->p < s->end && *s->p != '"') {
		if (*s->p == '\\' && ++s->p == s->end)
			return -EBADMSG;
		if (*s->p < 32 || *s->p > 126 || n + 1 == size)
			return -EBADMSG;
		out[n++] = *s->p++;
	}
	out[n] = 0;
	return take(s, '"') ? 0 : -EBADMSG;
}

static int take_value(struct scanner *s, char *out, size_t size)
{
	return take(s, '"') ? take_quoted(s, out, size) : take_token(s, out, size);
}

/* One challenge's parameters, until the end or the next one's scheme, where the scanner then stands. */
static int take_parameters(struct scanner *s, struct challenge *c, bool wanted)
{
	for (unsigned n = 0;; n++) {
		char name[MAX_WORD], value[CHALLENGE_MAX_VALUE];
		struct scanner before;

		skip_spaces(s);
		while (take(s, ','))
			skip_spaces(s);
		before = *s;
		if (s->p == s->end)
			return 0;
		if (n == MAX_PARAMETERS || take_token(s, name, sizeof(name)) < 0)
			return -EBADMSG;
		skip_spaces(s);
		if (!take(s, '=')) {
			*s = before;
			return 0;
		}
		skip_spaces(s);
		if (take_value(s, value, sizeof(value)) < 0)
			return -EBADMSG;
		skip_spaces(s);
		if (s->p < s->end && *s->p != ',')
			return -EBADMSG;
		if (wanted && strcasecmp(name, "realm") == 0)
			memcpy(c->realm, value, sizeof(value));
		else if (wanted && strcasecmp(name, "service") == 0)
			memcpy(c->service, value, sizeof(value));
	}
}

int challenge_parse(const char *value, size_t len, struct challenge *ret)
{
	struct scanner s = {value, value + len};
	struct challenge c = *ret;

	if (len > CHALLENGE_MAX_HEADER)
		return -EBADMSG;
	for (skip_spaces(&s); s.p < s.end; skip_spaces(&s)) {
		char scheme[MAX_WORD];
		bool bearer;

		if (take(&s, ','))
			continue;
		if (take_token(&s, scheme, sizeof(scheme)) < 0 || (s.p < s.end && *s.p != ' ' && *s.p != ','))
			return -EBADMSG;
		bearer = strcasecmp(scheme, "Bearer") == 0;
		if (take_parameters(&s, &c, bearer && !c.bearer) < 0)
			return -EBADMSG;
		c.bearer |= bearer;
		c.basic |= strcasecmp(scheme, "Basic") == 0;
	}
	*ret = c;
	return 0;
}
