/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded parsing and checked access. See json.h. */
#include "oci/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

/* Depth and number of values are counted in the text, so that the limits hold before the parser allocates. */
static int check_bounds(const char *text, size_t len, const char *what, struct sm_error *err)
{
	unsigned depth = 0, values = 1;
	bool quoted = false;

	if (len > JSON_MAX_BYTES)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s is over %u bytes", what, JSON_MAX_BYTES);
	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
			continue;
		}
		if (c == '"')
			quoted = true;
		else if (c == '{' || c == '[')
			depth++, values++;
		else if ((c == '}' || c == ']') && depth)
			depth--;
		else if (c == ',')
			values++;
		if (depth > JSON_MAX_DEPTH)
			return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s nests deeper than %u levels", what,
					 JSON_MAX_DEPTH);
		if (values > JSON_MAX_VALUES)
			return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s has more than %u values", what,
					 JSON_MAX_VALUES);
	}
	return 0;
}

int json_read(const char *text, size_t len, const char *what, json_t **ret, struct sm_error *err)
{
	json_error_t why;
	int r = check_bounds(text, len, what, err);

	if (r < 0)
		return r;
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (*ret)
		return 0;
	/* The text of `why` quotes the document: printable by jansson's rule, but its end is often a long line. */
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not valid JSON (line %d, column %d)", what, why.line,
			 why.column);
}

int json_wrong(const char *what, const char *key, const char *expected, struct sm_error *err)
{
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: '%s' is not %s", what, key, expected);
}

/* The member, NULL where absent or null. */
static int get(json_t *obj, const char *key, bool required, const char *what, json_t **ret, struct sm_error *err)
{
	json_t *v = json_object_get(obj, key);

	*ret = json_is_null(v) ? NULL : v;
	if (!*ret && required)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: '%s' is missing", what, key);
	return 0;
}

int json_get_string(json_t *obj, const char *key, bool required, const char *what, const char **ret,
		    struct sm_error *err)
{
	json_t *v;
	int r = get(obj, key, required, what, &v, err);

	if (r < 0)
		return r;
	if (v && !json_is_string(v))
		return json_wrong(what, key, "a string", err);
	*ret = json_string_value(v);
	return 0;
}

int json_get_object(json_t *obj, const char *key, bool required, const char *what, json_t **ret, struct sm_error *err)
{
	json_t *v;
	int r = get(obj, key, required, what, &v, err);

	if (r < 0)
		return r;
	if (v && !json_is_object(v))
		return json_wrong(what, key, "an object", err);
	*ret = v;
	return 0;
}

int json_get_array(json_t *obj, const char *key, bool required, const char *what, json_t **ret, struct sm_error *err)
{
	json_t *v;
	int r = get(obj, key, required, what, &v, err);

	if (r < 0)
		return r;
	if (v && !json_is_array(v))
		return json_wrong(what, key, "an array", err);
	*ret = v;
	return 0;
}

int json_get_u64(json_t *obj, const char *key, bool required, uint64_t max, const char *what, uint64_t *ret,
		 struct sm_error *err)
{
	json_t *v;
	int r = get(obj, key, required, what, &v, err);

	if (r < 0 || !v)
		return r;
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return json_wrong(what, key, "an integer of 0 or more", err);
	if ((uint64_t)json_integer_value(v) > max)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s: '%s' is over %llu", what, key,
				 (unsigned long long)max);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

int json_copy_string(json_t *obj, const char *key, const char *what, char **ret, struct sm_error *err)
{
	const char *s;
	int r = json_get_string(obj, key, false, what, &s, err);

	if (r < 0 || !s || !*s)
		return r;
	*ret = strdup(s);
	return *ret ? 0 : error_sys(err, ENOMEM, "%s", what);
}

int json_copy_strings(json_t *array, const char *key, const char *what, char ***ret, struct sm_error *err)
{
	size_t n = json_array_size(array);
	char **list;

	if (!array) {
		*ret = NULL;
		return 0;
	}
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return error_sys(err, ENOMEM, "%s", what);
	for (size_t i = 0; i < n; i++) {
		const char *s = json_string_value(json_array_get(array, i));

		list[i] = s ? strdup(s) : NULL;
		if (list[i])
			continue;
		strings_free(list);
		return s ? error_sys(err, ENOMEM, "%s", what) : json_wrong(what, key, "an array of strings", err);
	}
	*ret = list;
	return 0;
}

void strings_free(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

const char *show(const char *s, char buf[static SHOW_SIZE])
{
	size_t n = 0;

	for (; s[n] && n < SHOW_SIZE - 4; n++)
		buf[n] = s[n] >= 0x20 && s[n] < 0x7f ? s[n] : '?';
	strcpy(buf + n, s[n] ? "..." : "");
	return buf;
}
