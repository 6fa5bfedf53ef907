/* SPDX-License-Identifier: Apache-2.0 */
/* See staged.h. */
#include "lib/staged.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "proto/stage.h"

#define MODE_DEFAULT 0644u

static struct sm_exec_file file_at(const struct sm_exec_options *o, size_t i)
{
	struct sm_exec_file f = OPTIONS_GET(struct sm_exec_file, OPTIONS_AT(struct sm_exec_file, o->files, i));

	return f;
}

static int check_files(const struct sm_exec_options *o, struct sm_error *err)
{
	if (o->num_files > PROTO_STAGED_FILES)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu files with one command are too many: at most %u",
				 o->num_files, PROTO_STAGED_FILES);
	for (size_t i = 0; i < o->num_files; i++) {
		struct sm_exec_file f = file_at(o, i);

		if (!f.path || !*f.path)
			return error_set(err, SM_ERROR_INVALID, EINVAL, "a file with no path");
		if (f.mode > 07777 || (f.length && !f.data))
			return error_set(err, SM_ERROR_INVALID, EINVAL, "file %s: %s", f.path,
					 f.mode > 07777 ? "its mode is not permission bits" : "it has no data");
	}
	return 0;
}

/* Words of all commands. */
static size_t chain_length(const struct sm_exec_options *o)
{
	const char *const *w = o->chain;
	size_t n = 0;

	for (; w && *w; w++)
		while (*w) {
			n++;
			w++;
		}
	return n;
}

static size_t chain_commands(const struct sm_exec_options *o)
{
	const char *const *w = o->chain;
	size_t n = 0;

	for (; w && *w; w++, n++)
		while (*w)
			w++;
	return n;
}

int staged_check(const struct sm_exec_options *o, struct sm_error *err)
{
	size_t commands = chain_commands(o);

	if (commands >= PROTO_CHAIN_STEPS)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "%zu commands after the first are too many: at most %u",
				 commands, PROTO_CHAIN_STEPS - 1);
	if (commands && o->tty)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "commands that follow one another have no terminal");
	return check_files(o, err);
}

char **staged_files(const struct sm_exec_options *o)
{
	char **v = o->num_files ? calloc(o->num_files + 1, sizeof(*v)) : NULL;

	for (size_t i = 0; v && i < o->num_files; i++) {
		struct sm_exec_file f = file_at(o, i);
		struct proto_staged s = {.mode = f.mode ? f.mode : MODE_DEFAULT, .size = f.length, .path = f.path};

		v[i] = proto_staged_format(&s);
		if (!v[i]) {
			strv_free(v);
			return NULL;
		}
	}
	return v;
}

char **staged_chain(const struct sm_exec_options *o)
{
	size_t n = chain_length(o), i = 0;
	char **v = n ? calloc(n + 1, sizeof(*v)) : NULL;
	const char *const *w = o->chain;

	for (; v && *w; w++)
		for (bool first = true; *w; w++, first = false, i++)
			if (asprintf(&v[i], "%c%s", first ? PROTO_CHAIN_BEGIN : PROTO_CHAIN_WORD, *w) < 0) {
				v[i] = NULL;
				strv_free(v);
				return NULL;
			}
	return v;
}

int staged_contents(const struct sm_exec_options *o, struct buf *ret)
{
	for (size_t i = 0; i < o->num_files; i++) {
		struct sm_exec_file f = file_at(o, i);

		buf_put(ret, f.data, f.length);
	}
	return ret->error;
}
