/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer. See json.h. */
#include "cli/json.h"

#include <string.h>
#include <time.h>

/* What stands before a value: comma, line break, indentation, key. */
static void lead(struct json *j, const char *key)
{
	if (j->more)
		buf_put_u8(&j->out, ',');
	if (j->depth && !j->compact)
		buf_printf(&j->out, "\n%*s", (int)(2 * j->depth), "");
	j->more = true;
	if (key)
		buf_printf(&j->out, "\"%s\": ", key);
}

void json_open(struct json *j, const char *key, char bracket)
{
	lead(j, key);
	buf_put_u8(&j->out, (uint8_t)bracket);
	j->depth++;
	j->more = false;
}

void json_close(struct json *j, char bracket)
{
	j->depth--;
	if (j->more && !j->compact)
		buf_printf(&j->out, "\n%*s", (int)(2 * j->depth), "");
	buf_put_u8(&j->out, (uint8_t)bracket);
	j->more = true;
	if (!j->depth)
		buf_put_u8(&j->out, '\n');
}

void json_text(struct json *j, const char *key, const char *value)
{
	lead(j, key);
	if (value)
		buf_put_json(&j->out, value);
	else
		buf_printf(&j->out, "null");
}

void json_pair(struct json *j, const char *key, const char *value)
{
	lead(j, NULL);
	buf_put_json(&j->out, key);
	buf_printf(&j->out, ": ");
	buf_put_json(&j->out, value);
}

void json_number(struct json *j, const char *key, int64_t value)
{
	lead(j, key);
	buf_printf(&j->out, "%lld", (long long)value);
}

void json_unsigned(struct json *j, const char *key, uint64_t value)
{
	lead(j, key);
	buf_printf(&j->out, "%llu", (unsigned long long)value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	lead(j, key);
	buf_printf(&j->out, value ? "true" : "false");
}

void json_texts(struct json *j, const char *key, const char *const *values)
{
	json_open(j, key, '[');
	for (; values && *values; values++)
		json_text(j, NULL, *values);
	json_close(j, ']');
}

void json_time(struct json *j, const char *key, int64_t ns)
{
	time_t seconds = (time_t)(ns / 1000000000LL);
	char text[32];
	struct tm tm;

	if (!ns || !gmtime_r(&seconds, &tm)) {
		json_text(j, key, NULL);
		return;
	}
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_text(j, key, text);
}

void json_raw(struct json *j, const char *key, const char *text)
{
	size_t len = strlen(text);

	while (len && strchr(" \n\r\t", text[len - 1]))
		len--;
	lead(j, key);
	buf_put(&j->out, text, len);
}

void json_done(struct json *j)
{
	buf_done(&j->out);
}
