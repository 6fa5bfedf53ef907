/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of strings, environments, option structs of other sizes. See lib.h. */
#include "lib/lib.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void options_copy(void *to, size_t to_size, const void *from, size_t from_size)
{
	if (from && from_size >= sizeof(size_t))
		memcpy(to, from, MIN(to_size, from_size));
}

size_t strv_len(const char *const *v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

void strv_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

char **strv_copy(const char *const *v)
{
	char **copy = v ? calloc(strv_len(v) + 1, sizeof(*copy)) : NULL;

	for (size_t i = 0; copy && v[i]; i++) {
		copy[i] = strdup(v[i]);
		if (!copy[i]) {
			strv_free(copy);
			return NULL;
		}
	}
	return copy;
}

/* Of a command: as much as goes with the request, and as the kernel takes. A pointer counts like its string. */
int command_fits(const char *const *argv, const char *const *env, struct sm_error *err)
{
	size_t total = 0;

	for (int round = 0; round < 2; round++) {
		const char *const *v = round ? env : argv;

		for (size_t i = 0; v && v[i]; i++) {
			size_t len = strlen(v[i]);

			if (len >= COMMAND_MAX_STRING)
				return error_set(err, SM_ERROR_LIMIT, E2BIG,
						 "%s %.32s... of the command is %zu bytes long: at most %u can be",
						 round ? "variable" : "argument", v[i], len, COMMAND_MAX_STRING - 1);
			total += len + sizeof(char *);
		}
	}
	if (total > COMMAND_MAX)
		return error_set(err, SM_ERROR_LIMIT, E2BIG,
				 "the command's arguments and environment are %zu bytes: at most %u can be; "
				 "give it more by a file or its input",
				 total, COMMAND_MAX);
	return 0;
}

static size_t key_len(const char *entry)
{
	const char *eq = strchr(entry, '=');

	return eq ? (size_t)(eq - entry) : strlen(entry);
}

static bool same_key(const char *a, const char *b)
{
	return key_len(a) == key_len(b) && memcmp(a, b, key_len(a)) == 0;
}

char **env_merge(const char *const *base, const char *const *over)
{
	char **out = calloc(strv_len(base) + strv_len(over) + 1, sizeof(*out));
	size_t n = 0;

	for (int round = 0; out && round < 2; round++) {
		const char *const *v = round ? over : base;

		for (; v && *v; v++) {
			char *copy = strdup(*v);
			size_t at = 0;

			if (!copy) {
				strv_free(out);
				return NULL;
			}
			while (at < n && !same_key(out[at], copy))
				at++;
			free(out[at]);
			out[at] = copy;
			n = MAX(n, at + 1);
		}
	}
	return out;
}

bool env_has(char *const *env, const char *key)
{
	for (; env && *env; env++)
		if (key_len(*env) == strlen(key) && str_starts(*env, key))
			return true;
	return false;
}
