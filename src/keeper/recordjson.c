/* SPDX-License-Identifier: Apache-2.0 */
/* Checked JSON accessors. See recordjson.h. */
#include "keeper/recordjson.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

int rj_load(struct rj *j, const char *json, size_t len, const char *what, struct sm_error *err)
{
	json_error_t e;

	*j = (struct rj){.object = json_loadb(json, len, JSON_REJECT_DUPLICATES, &e)};
	if (j->object && json_is_object(j->object))
		return 0;
	if (j->object)
		snprintf(e.text, sizeof(e.text), "not an object");
	json_decref(j->object);
	j->object = NULL;
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: line %d: %s", what, e.line, e.text);
}

int rj_finish(struct rj *j, const char *what, struct sm_error *err)
{
	json_decref(j->object);
	j->object = NULL;
	if (!j->member)
		return 0;
	if (!j->why)
		return error_sys(err, ENOMEM, "%s", what);
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: \"%s\": %s", what, j->member, j->why);
}

void rj_fail(struct rj *j, const char *member, const char *why)
{
	if (j->member)
		return;
	j->member = member;
	j->why = why;
}

uint64_t rj_u64(struct rj *j, const char *member, uint64_t min, uint64_t max)
{
	json_t *v = json_object_get(j->object, member);
	json_int_t n = json_integer_value(v);

	if (!v && min == 0)
		return 0;
	if (!json_is_integer(v) || n < 0 || (uint64_t)n < min || (uint64_t)n > max) {
		rj_fail(j, member, "missing, or not a number in range");
		return min;
	}
	return (uint64_t)n;
}

bool rj_bool(struct rj *j, const char *member)
{
	json_t *v = json_object_get(j->object, member);

	if (v && !json_is_boolean(v))
		rj_fail(j, member, "not true or false");
	return json_is_true(v);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char *from_hex(const char *hex)
{
	size_t n = strlen(hex);
	char *s = n % 2 ? NULL : malloc(n / 2 + 1);

	for (size_t i = 0; s && i < n / 2; i++) {
		int hi = hex_digit(hex[2 * i]), lo = hex_digit(hex[2 * i + 1]);

		if (hi < 0 || lo < 0 || (hi == 0 && lo == 0)) {
			free(s);
			return NULL;
		}
		s[i] = (char)(hi * 16 + lo);
	}
	if (s)
		s[n / 2] = '\0';
	return s;
}

/* A string without embedded NUL, either way of writing it; NULL when it is neither. */
static char *get_string(json_t *v)
{
	json_t *hex = json_is_object(v) ? json_object_get(v, "hex") : NULL;

	if (json_is_string(hex))
		return strlen(json_string_value(hex)) == json_string_length(hex) ? from_hex(json_string_value(hex))
										 : NULL;
	if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
		return NULL;
	return strdup(json_string_value(v));
}

char *rj_str(struct rj *j, const char *member, bool required)
{
	json_t *v = json_object_get(j->object, member);
	char *s = get_string(v);

	if (!s && (v || required))
		rj_fail(j, member, "missing, or not a string");
	return s;
}

void rj_str_into(struct rj *j, const char *member, char *out, size_t size)
{
	char *s = rj_str(j, member, false);

	out[0] = '\0';
	if (s && strlen(s) >= size)
		rj_fail(j, member, "too long");
	else if (s)
		memcpy(out, s, strlen(s) + 1);
	free(s);
}

char **rj_strv(struct rj *j, const char *member, bool required)
{
	json_t *list = json_object_get(j->object, member);
	size_t n = json_array_size(list);
	char **v;

	if (!list && !required)
		return NULL;
	if (!json_is_array(list)) {
		rj_fail(j, member, "missing, or not a list");
		return NULL;
	}
	v = calloc(n + 1, sizeof(*v));
	if (!v) {
		rj_fail(j, member, NULL);
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		v[i] = get_string(json_array_get(list, i));
		if (!v[i]) {
			rj_fail(j, member, "has what is not a string");
			break;
		}
	}
	return v;
}

void rj_put_u64(json_t *o, const char *member, uint64_t v)
{
	json_object_set_new(o, member, json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX)));
}

void rj_put_bool(json_t *o, const char *member, bool v)
{
	json_object_set_new(o, member, json_boolean(v));
}

json_t *rj_string(const char *s)
{
	static const char digits[] = "0123456789abcdef";
	json_t *v = json_string(s), *o;
	size_t n = strlen(s);
	char *hex;

	if (v)
		return v;
	hex = malloc(2 * n + 1);
	o = hex ? json_object() : NULL;
	for (size_t i = 0; hex && i < n; i++) {
		hex[2 * i] = digits[(unsigned char)s[i] >> 4];
		hex[2 * i + 1] = digits[(unsigned char)s[i] & 15];
	}
	if (o)
		json_object_set_new(o, "hex", json_stringn(hex, 2 * n));
	free(hex);
	return o;
}

void rj_put_str(json_t *o, const char *member, const char *s)
{
	if (s)
		json_object_set_new(o, member, rj_string(s));
}

void rj_put_strv(json_t *o, const char *member, char *const *v)
{
	json_t *list = v ? json_array() : NULL;

	if (!v)
		return;
	for (; *v; v++)
		json_array_append_new(list, rj_string(*v));
	json_object_set_new(o, member, list);
}

int rj_dump(json_t *o, char **ret, struct sm_error *err)
{
	char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL, *whole;
	size_t len = text ? strlen(text) : 0;

	json_decref(o);
	whole = text ? realloc(text, len + 2) : NULL;
	if (!whole) {
		free(text);
		return error_sys(err, ENOMEM, "write a record");
	}
	memcpy(whole + len, "\n", 2);
	*ret = whole;
	return 0;
}
