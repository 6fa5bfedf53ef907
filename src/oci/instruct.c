/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions of a Dockerfile that change a configuration. See instruct.h. */
#include "oci/instruct.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/json.h"

#define MAX_WORDS 1024u
#define MAX_LINE 65536u

struct words {
	char *text; /* what they point into */
	char **v;
	unsigned num;
};

static void words_done(struct words *w)
{
	free(w->text);
	free(w->v);
}

/* The end of a word that begins at in, written to *out without its quotes and backslashes. NULL: a quote is left open.
 */
static const char *take_word(const char *in, char **out)
{
	char quote = 0;

	for (; *in && (quote || !isspace((unsigned char)*in)); in++) {
		if (quote && *in == quote) {
			quote = 0;
		} else if (!quote && (*in == '"' || *in == '\'')) {
			quote = *in;
		} else {
			if (*in == '\\' && quote != '\'' && in[1])
				in++;
			*(*out)++ = *in;
		}
	}
	*(*out)++ = '\0';
	return quote ? NULL : in;
}

/* -EINVAL: a quote is left open, or there is none at all. */
static int split(const char *text, struct words *ret)
{
	char *out;

	ret->text = out = malloc(strlen(text) + 2);
	ret->v = calloc(MAX_WORDS + 1, sizeof(*ret->v));
	if (!out || !ret->v)
		return -ENOMEM;
	for (;;) {
		while (isspace((unsigned char)*text))
			text++;
		if (!*text)
			break;
		if (ret->num == MAX_WORDS)
			return -E2BIG;
		ret->v[ret->num++] = out;
		text = take_word(text, &out);
		if (!text)
			return -EINVAL;
	}
	return ret->num ? 0 : -EINVAL;
}

int oci_set(json_t *object, const char *key, json_t *value)
{
	return value && json_object_set_new(object, key, value) == 0 ? 0 : -ENOMEM;
}

json_t *oci_object(json_t *object, const char *key)
{
	json_t *v = json_object_get(object, key);

	if (json_is_object(v))
		return v;
	v = json_object();
	return oci_set(object, key, v) == 0 ? v : NULL;
}

int oci_set_env(json_t *config, const char *pair)
{
	size_t name = strcspn(pair, "=") + 1, i;
	json_t *list = json_object_get(config, "Env"), *item, *value = json_string(pair);

	if (!value)
		return -EINVAL; /* no UTF-8 */
	if (!json_is_array(list)) {
		list = json_array();
		if (oci_set(config, "Env", list) < 0) {
			json_decref(value);
			return -ENOMEM;
		}
	}
	json_array_foreach(list, i, item)
	{
		if (json_is_string(item) && strncmp(json_string_value(item), pair, name) == 0)
			return json_array_set_new(list, i, value) < 0 ? -ENOMEM : 0;
	}
	return json_array_append_new(list, value) < 0 ? -ENOMEM : 0;
}

/* ["a","b"] as it is; else for a shell. */
static int set_command(json_t *config, const char *key, const char *rest)
{
	json_t *list = *rest == '[' ? json_loads(rest, 0, NULL) : NULL, *item;
	size_t i;

	if (*rest == '[' && !json_is_array(list)) {
		json_decref(list);
		return -EINVAL;
	}
	json_array_foreach(list, i, item)
	{
		if (!json_is_string(item)) {
			json_decref(list);
			return -EINVAL;
		}
	}
	return oci_set(config, key, list ? list : json_pack("[s,s,s]", "/bin/sh", "-c", rest));
}

static int set_cmd(json_t *config, const char *rest)
{
	return set_command(config, "Cmd", rest);
}

/* Its arguments were another program's. */
static int set_entrypoint(json_t *config, const char *rest)
{
	int r = set_command(config, "Entrypoint", rest);

	if (r == 0)
		json_object_del(config, "Cmd");
	return r;
}

/* "A=B C=D", or as of old "A all the rest". */
static int each_pair(json_t *config, const char *rest, int (*set)(json_t *config, const char *pair))
{
	_cleanup_(words_done) struct words w = {0};
	size_t first = strcspn(rest, " \t=");
	_free_ char *pair = NULL;
	int r = split(rest, &w);

	if (r == 0 && rest[first] != '=') {
		const char *value = rest + first + strspn(rest + first, " \t");

		if (!*value)
			return -EINVAL;
		if (asprintf(&pair, "%.*s=%s", (int)first, rest, value) < 0)
			return -ENOMEM;
		return set(config, pair);
	}
	for (unsigned i = 0; r == 0 && i < w.num; i++)
		r = !strchr(w.v[i], '=') || w.v[i][0] == '=' ? -EINVAL : set(config, w.v[i]);
	return r;
}

static int set_env(json_t *config, const char *rest)
{
	return each_pair(config, rest, oci_set_env);
}

static int set_one_label(json_t *config, const char *pair)
{
	json_t *labels = oci_object(config, "Labels");
	const char *equals = strchr(pair, '=');
	_free_ char *name = strndup(pair, (size_t)(equals - pair));

	return labels && name ? oci_set(labels, name, json_string(equals + 1)) : -ENOMEM;
}

static int set_label(json_t *config, const char *rest)
{
	return each_pair(config, rest, set_one_label);
}

static int set_keys(json_t *config, const char *key, char **names)
{
	json_t *o = oci_object(config, key);
	int r = o ? 0 : -ENOMEM;

	for (; r == 0 && *names; names++)
		r = oci_set(o, *names, json_object());
	return r;
}

/* "80 443/tcp 5000-5010/udp" */
static int set_expose(json_t *config, const char *rest)
{
	_cleanup_(words_done) struct words w = {0};
	int r = split(rest, &w);

	for (unsigned i = 0; r == 0 && i < w.num; i++) {
		unsigned first, last;
		char protocol[8] = "tcp", *name[2] = {0}, text[32];
		int used = 0;

		if (sscanf(w.v[i], "%5u%n", &first, &used) != 1)
			return -EINVAL;
		last = first;
		if (w.v[i][used] == '-') {
			int more = 0;

			if (sscanf(w.v[i] + used, "-%5u%n", &last, &more) != 1)
				return -EINVAL;
			used += more;
		}
		if (w.v[i][used] == '/' && snprintf(protocol, sizeof(protocol), "%s", w.v[i] + used + 1) >= 8)
			return -EINVAL;
		if ((w.v[i][used] && w.v[i][used] != '/') || !first || last < first || last > 65535 ||
		    !(streq(protocol, "tcp") || streq(protocol, "udp") || streq(protocol, "sctp")))
			return -EINVAL;
		for (unsigned port = first; r == 0 && port <= last; port++) {
			snprintf(text, sizeof(text), "%u/%s", port, protocol);
			name[0] = text;
			r = set_keys(config, "ExposedPorts", name);
		}
	}
	return r;
}

/* ["/a","/b"], or words. */
static int set_volume(json_t *config, const char *rest)
{
	_cleanup_(words_done) struct words w = {0};
	json_t *list = *rest == '[' ? json_loads(rest, 0, NULL) : NULL, *item;
	size_t i;
	int r = 0;

	if (*rest != '[') {
		r = split(rest, &w);
		return r < 0 ? r : set_keys(config, "Volumes", w.v);
	}
	if (!json_is_array(list))
		r = -EINVAL;
	json_array_foreach(list, i, item)
	{
		char *name[2] = {(char *)json_string_value(item), NULL};

		if (r == 0)
			r = name[0] && *name[0] ? set_keys(config, "Volumes", name) : -EINVAL;
	}
	json_decref(list);
	return r;
}

static int set_word(json_t *config, const char *key, const char *rest)
{
	_cleanup_(words_done) struct words w = {0};
	int r = split(rest, &w);

	if (r == 0 && w.num != 1)
		r = -EINVAL;
	return r < 0 ? r : oci_set(config, key, json_string(w.v[0]));
}

static int set_user(json_t *config, const char *rest)
{
	return set_word(config, "User", rest);
}

static int set_stop_signal(json_t *config, const char *rest)
{
	return set_word(config, "StopSignal", rest);
}

/* A relative one goes on from the one before. */
static int set_workdir(json_t *config, const char *rest)
{
	_cleanup_(words_done) struct words w = {0};
	const char *before = json_string_value(json_object_get(config, "WorkingDir"));
	_free_ char *path = NULL;
	int r = split(rest, &w);

	if (r == 0 && w.num != 1)
		r = -EINVAL;
	if (r == 0 && w.v[0][0] != '/' &&
	    asprintf(&path, "%s/%s", before && !streq(before, "/") ? before : "", w.v[0]) < 0) {
		path = NULL;
		r = -ENOMEM;
	}
	return r < 0 ? r : oci_set(config, "WorkingDir", json_string(path ? path : w.v[0]));
}

int oci_instruct(json_t *config, const char *line, struct sm_error *err)
{
	static const struct {
		const char *name;
		int (*set)(json_t *config, const char *rest);
	} known[] = {
		{"CMD", set_cmd},	{"ENTRYPOINT", set_entrypoint}, {"ENV", set_env},
		{"EXPOSE", set_expose}, {"LABEL", set_label},		{"STOPSIGNAL", set_stop_signal},
		{"USER", set_user},	{"VOLUME", set_volume},		{"WORKDIR", set_workdir},
	};
	size_t skip = strspn(line, " \t"), len = strcspn(line + skip, " \t");
	const char *name = line + skip, *rest = name + len + strspn(name + len, " \t");
	char shown[SHOW_SIZE];
	int r = -ENOENT;

	if (strlen(line) > MAX_LINE)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "an instruction of over %u bytes", MAX_LINE);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strlen(known[i].name) == len && strncasecmp(known[i].name, name, len) == 0)
			r = *rest ? known[i].set(config, rest) : -EINVAL;
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_INVALID, EINVAL,
				 "change '%s' is none of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, "
				 "VOLUME, WORKDIR",
				 show(line, shown));
	if (r == -ENOMEM)
		return error_sys(err, ENOMEM, "change '%s'", show(line, shown));
	return r < 0 ? error_set(err, SM_ERROR_INVALID, EINVAL, "change '%s' is not as a Dockerfile has it",
				 show(line, shown))
		     : 0;
}
