/* SPDX-License-Identifier: Apache-2.0 */
/* See stage.h. */
#include "proto/stage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

char *proto_staged_format(const struct proto_staged *s)
{
	char *text;

	return asprintf(&text, "%o:%" PRIu64 ":%s", s->mode, s->size, s->path) < 0 ? NULL : text;
}

/* The digits up to the next colon. */
static int take_number(const char **text, unsigned base, uint64_t max, uint64_t *ret)
{
	const char *p = *text;
	uint64_t v = 0;

	for (; *p >= '0' && *p < (char)('0' + (int)base); p++) {
		if (v > (max - (uint64_t)(*p - '0')) / base)
			return -EPROTO;
		v = v * base + (uint64_t)(*p - '0');
	}
	if (p == *text || *p != ':')
		return -EPROTO;
	*text = p + 1;
	*ret = v;
	return 0;
}

int proto_staged_parse(const char *text, struct proto_staged *ret)
{
	uint64_t mode;
	int r = take_number(&text, 8, 07777, &mode);

	if (r == 0)
		r = take_number(&text, 10, INT64_MAX, &ret->size);
	if (r < 0 || !*text)
		return -EPROTO;
	ret->mode = (uint32_t)mode;
	ret->path = text;
	return 0;
}

size_t proto_chain_count(const struct proto_exec *x)
{
	size_t n = 0;

	for (char **w = x->chain; w && *w; w++)
		n += **w == PROTO_CHAIN_BEGIN;
	return n;
}

char **proto_chain_argv(const struct proto_exec *x, size_t n)
{
	char **begin = x->chain, **end, **argv;

	for (; begin && *begin; begin++)
		if (**begin == PROTO_CHAIN_BEGIN && n-- == 0)
			break;
	if (!begin || !*begin)
		return NULL;
	for (end = begin + 1; *end && **end == PROTO_CHAIN_WORD; end++)
		;
	argv = calloc((size_t)(end - begin) + 1, sizeof(*argv));
	for (char **w = begin; argv && w < end; w++)
		argv[w - begin] = *w + 1;
	return argv;
}

static int check_chain(const struct proto_exec *x)
{
	if (!x->chain)
		return 0;
	if (x->chain[0][0] != PROTO_CHAIN_BEGIN || proto_chain_count(x) >= PROTO_CHAIN_STEPS)
		return -EPROTO;
	for (char **w = x->chain; *w; w++)
		if (**w != PROTO_CHAIN_BEGIN && **w != PROTO_CHAIN_WORD)
			return -EPROTO;
	return 0;
}

uint64_t proto_staged_total(const struct proto_exec *x)
{
	struct proto_staged s;
	uint64_t total = 0;

	for (char **f = x->files; f && *f; f++)
		if (proto_staged_parse(*f, &s) == 0)
			total += s.size;
	return total;
}

int proto_stage_check(const struct proto_exec *x)
{
	struct proto_staged s;
	uint64_t total = 0;
	size_t n = 0;

	for (char **f = x->files; f && *f; f++, n++) {
		if (n >= PROTO_STAGED_FILES || proto_staged_parse(*f, &s) < 0 || s.size > INT64_MAX - total)
			return -EPROTO;
		total += s.size;
	}
	if (x->contents_follow ? !total || x->contents.len : x->contents.len != total)
		return -EPROTO;
	if ((x->main || x->hold) && (n || x->chain))
		return -EPROTO;
	/* A terminal goes with the first command that has it. */
	return x->chain && x->tty ? -EPROTO : check_chain(x);
}
