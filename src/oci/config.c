/* SPDX-License-Identifier: Apache-2.0 */
/* The image configuration: OCI image-spec config.md, which is also what Docker writes. See doc.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/doc.h"
#include "oci/json.h"

/* Env, Entrypoint, Cmd. An old Docker writes a lone string for a list of one. */
static int copy_list(json_t *obj, const char *key, const char *what, char ***ret, struct sm_error *err)
{
	json_t *v = json_object_get(obj, key), *list = NULL;
	int r;

	if (json_is_string(v)) {
		list = json_array();
		if (!list || json_array_append(list, v) < 0)
			r = error_sys(err, ENOMEM, "%s", what);
		else
			r = json_copy_strings(list, key, what, ret, err);
		json_decref(list);
		return r;
	}
	r = json_get_array(obj, key, false, what, &list, err);
	return r < 0 ? r : json_copy_strings(list, key, what, ret, err);
}

/* ExposedPorts and Volumes: the keys of an object whose values are empty objects; Labels: "key=value". */
static int copy_keys(json_t *obj, const char *key, bool values, const char *what, char ***ret, struct sm_error *err)
{
	json_t *map, *v;
	const char *name;
	char **list;
	size_t n = 0;
	int r = json_get_object(obj, key, false, what, &map, err);

	if (r < 0 || !map)
		return r;
	list = calloc(json_object_size(map) + 1, sizeof(*list));
	if (!list)
		return error_sys(err, ENOMEM, "%s", what);
	json_object_foreach(map, name, v)
	{
		r = 0;
		if (values && !json_is_string(v))
			r = json_wrong(what, key, "an object of strings", err);
		else if (asprintf(&list[n], "%s%s%s", name, values ? "=" : "", values ? json_string_value(v) : "") < 0)
			r = error_sys(err, ENOMEM, "%s", what);
		if (r < 0) {
			list[n] = NULL;
			strings_free(list);
			return r;
		}
		n++;
	}
	*ret = list;
	return 0;
}

int time_parse(const char *s, int64_t *ret)
{
	struct tm tm = {0};
	int used = 0, h = 0, m = 0;
	char sign = 0;

	if (strspn(s, "0123456789") != 4 ||
	    sscanf(s, "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
		   &tm.tm_sec, &used) != 6 ||
	    !used)
		return -EINVAL;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 ||
	    tm.tm_min < 0 || tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60)
		return -EINVAL;
	s += used;
	if (*s == '.') {
		size_t digits = strspn(s + 1, "0123456789");

		if (digits == 0)
			return -EINVAL;
		s += 1 + digits;
	}
	if (streq(s, "Z") || streq(s, "z"))
		sign = '+';
	else if (strlen(s) != 6 || sscanf(s, "%c%2d:%2d", &sign, &h, &m) != 3 || (sign != '+' && sign != '-') ||
		 h < 0 || h > 23 || m < 0 || m > 59)
		return -EINVAL;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*ret = (int64_t)timegm(&tm) - (sign == '-' ? -1 : 1) * (int64_t)(h * 3600 + m * 60);
	return 0;
}

static int parse_created(json_t *doc, const char *what, int64_t *ret, struct sm_error *err)
{
	const char *s;
	int r = json_get_string(doc, "created", false, what, &s, err);

	if (r < 0 || !s || !*s)
		return r;
	if (time_parse(s, ret) < 0)
		return json_wrong(what, "created", "an RFC 3339 time", err);
	/* Reproducible builds write the year 1 for "unknown". */
	*ret = MAX(*ret, 0);
	return 0;
}

static int parse_diff_ids(json_t *doc, const char *what, char ***ret, struct sm_error *err)
{
	json_t *rootfs, *ids;
	char buf[SHOW_SIZE];
	const char *type;
	int r = json_get_object(doc, "rootfs", true, what, &rootfs, err);

	if (r == 0)
		r = json_get_string(rootfs, "type", true, what, &type, err);
	if (r == 0 && !streq(type, "layers"))
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "%s: rootfs is of type '%s', only 'layers' is known", what, show(type, buf));
	if (r == 0)
		r = json_get_array(rootfs, "diff_ids", false, what, &ids, err);
	if (r < 0)
		return r;
	if (!ids) { /* an image without layers, as Go writes it */
		*ret = calloc(1, sizeof(**ret));
		return *ret ? 0 : error_sys(err, ENOMEM, "%s", what);
	}
	r = json_copy_strings(ids, "diff_ids", what, ret, err);
	for (size_t i = 0; r == 0 && (*ret)[i]; i++)
		if (!digest_valid((*ret)[i]) || !str_starts((*ret)[i], "sha256:")) {
			r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: diff_ids[%zu] '%s' is not a sha256 digest",
				      what, i, show((*ret)[i], buf));
			strings_free(*ret);
		}
	return r;
}

static int parse_process(json_t *c, const char *what, struct oci_config *ret, struct sm_error *err)
{
	int r = copy_list(c, "Entrypoint", what, &ret->entrypoint, err);

	if (r == 0)
		r = copy_list(c, "Cmd", what, &ret->cmd, err);
	if (r == 0)
		r = copy_list(c, "Env", what, &ret->env, err);
	if (r == 0)
		r = copy_keys(c, "ExposedPorts", false, what, &ret->exposed_ports, err);
	if (r == 0)
		r = copy_keys(c, "Volumes", false, what, &ret->volumes, err);
	if (r == 0)
		r = copy_keys(c, "Labels", true, what, &ret->labels, err);
	if (r == 0)
		r = json_copy_string(c, "User", what, &ret->user, err);
	if (r == 0)
		r = json_copy_string(c, "WorkingDir", what, &ret->working_dir, err);
	if (r == 0)
		r = json_copy_string(c, "StopSignal", what, &ret->stop_signal, err);
	return r;
}

static int parse_all(json_t *doc, const char *what, struct oci_config *ret, char ***ret_diff_ids, struct sm_error *err)
{
	json_t *process;
	int r;

	if (!json_is_object(doc))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not a JSON object", what);
	r = json_copy_string(doc, "os", what, &ret->os, err);
	if (r == 0)
		r = json_copy_string(doc, "architecture", what, &ret->architecture, err);
	if (r == 0)
		r = json_copy_string(doc, "variant", what, &ret->variant, err);
	if (r == 0)
		r = parse_created(doc, what, &ret->created, err);
	if (r == 0)
		r = json_get_object(doc, "config", false, what, &process, err);
	if (r == 0 && process)
		r = parse_process(process, what, ret, err);
	return r < 0 ? r : parse_diff_ids(doc, what, ret_diff_ids, err);
}

int config_parse(const char *text, size_t len, const char *what, struct oci_config *ret, char ***ret_diff_ids,
		 struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	struct oci_config c = {0};
	int r = json_read(text, len, what, &doc, err);

	if (r == 0)
		r = parse_all(doc, what, &c, ret_diff_ids, err);
	if (r < 0)
		config_done(&c);
	else
		*ret = c;
	return r;
}

void config_done(struct oci_config *c)
{
	free(c->os);
	free(c->architecture);
	free(c->variant);
	strings_free(c->entrypoint);
	strings_free(c->cmd);
	strings_free(c->env);
	strings_free(c->exposed_ports);
	strings_free(c->volumes);
	strings_free(c->labels);
	free(c->user);
	free(c->working_dir);
	free(c->stop_signal);
	*c = (struct oci_config){0};
}
