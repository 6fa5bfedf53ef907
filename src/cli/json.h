/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes JSON into a buffer. Commas and indentation come by themselves:
 *
 *	struct json j = {0};
 *	json_open(&j, NULL, '{');
 *	json_text(&j, "name", name);
 *	json_open(&j, "layers", '[');
 *	json_number(&j, NULL, 1);
 *	json_close(&j, ']');
 *	json_close(&j, '}');
 *
 * A key is NULL inside an array and at the top. Failure (no memory) sticks in j.out.error.
 */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct json {
	struct buf out;
	unsigned depth;
	bool compact; /* all on one line: set before the first call */
	bool more;    /* something stands before this in the same object or array */
};

void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
/* NULL becomes null; bytes that are no UTF-8 become U+FFFD. */
void json_text(struct json *j, const char *key, const char *value);
void json_number(struct json *j, const char *key, int64_t value);
void json_unsigned(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);
/* The same under a key that comes from outside. */
void json_pair(struct json *j, const char *key, const char *value);
/* An array of strings; NULL: an empty one. */
void json_texts(struct json *j, const char *key, const char *const *values);
/* "2026-01-31T12:00:00Z", null for 0. */
void json_time(struct json *j, const char *key, int64_t ns);
/* A finished JSON text, as it is, without the white space at its ends. */
void json_raw(struct json *j, const char *key, const char *text);
void json_done(struct json *j);

#endif
