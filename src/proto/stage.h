/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a proto_exec has beside its one command: files that are written before it, and commands that follow it. Both are
 * lists of texts in the request; this is what a text means.
 *
 * The files' contents stand in the request one behind the other, or, where they have no room there, come first on
 * stream 0, before what the command reads.
 */
#ifndef PROTO_STAGE_H
#define PROTO_STAGE_H

#include "proto/messages.h"

#define PROTO_STAGED_FILES 256u
#define PROTO_CHAIN_STEPS 64u

/* A file, as text "MODE:SIZE:PATH": octal permission bits, decimal bytes. */
struct proto_staged {
	uint32_t mode;
	uint64_t size;
	const char *path; /* absolute, or beneath the command's working directory; points into what was parsed */
};
char *proto_staged_format(const struct proto_staged *s);		       /* NULL: no memory */
int proto_staged_parse(const char *text, struct proto_staged *ret) MUST_CHECK; /* 0 or -EPROTO */
/* Bytes of all files of a checked request. */
uint64_t proto_staged_total(const struct proto_exec *x);

/* The words of the commands that follow: "+WORD" begins one, "=WORD" goes on with it. */
#define PROTO_CHAIN_BEGIN '+'
#define PROTO_CHAIN_WORD '='
/* How many there are. */
size_t proto_chain_count(const struct proto_exec *x);
/* The words of the nth (from 0) as a vector to free, whose strings are the request's. NULL: no such one, no memory. */
char **proto_chain_argv(const struct proto_exec *x, size_t n);

/* 0, or -EPROTO: a text that means nothing, too many of them, or contents that are not as long as the files are. */
int proto_stage_check(const struct proto_exec *x) MUST_CHECK;

#endif
