/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration with one more layer and what else is to be different. See amend.h. */
#include "oci/amend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "oci/instruct.h"
#include "oci/json.h"

/* NULL: no memory, or no UTF-8. */
static json_t *list_of(char *const *v)
{
	json_t *list = json_array();

	for (; list && *v; v++)
		if (json_array_append_new(list, json_string(*v)) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* An empty list is none. */
static int set_list(json_t *config, const char *key, char *const *v)
{
	if (!v)
		return 0;
	json_object_del(config, key);
	return *v ? oci_set(config, key, list_of(v)) : 0;
}

static int set_text(json_t *object, const char *key, const char *text)
{
	return text ? oci_set(object, key, json_string(text)) : 0;
}

static int set_labels(json_t *config, char *const *labels)
{
	json_t *o = labels && *labels ? oci_object(config, "Labels") : NULL;
	int r = labels && *labels && !o ? -ENOMEM : 0;

	for (; r == 0 && labels && *labels; labels++) {
		const char *equals = strchr(*labels, '=');
		char *name = strndup(*labels, equals ? (size_t)(equals - *labels) : strlen(*labels));

		r = name ? oci_set(o, name, json_string(equals ? equals + 1 : "")) : -ENOMEM;
		free(name);
	}
	return r;
}

static int set_process(json_t *config, const struct oci_amend *a)
{
	int r = set_list(config, "Entrypoint", a->entrypoint);

	if (r == 0)
		r = set_list(config, "Cmd", a->cmd);
	if (r == 0)
		r = set_list(config, "Env", a->env);
	if (r == 0)
		r = set_text(config, "User", a->user);
	if (r == 0)
		r = set_text(config, "WorkingDir", a->cwd);
	if (r == 0)
		r = set_text(config, "StopSignal", a->stop_signal);
	return r < 0 ? r : set_labels(config, a->labels);
}

static void time_text(int64_t ns, char ret[static 48])
{
	time_t s = (time_t)(ns / 1000000000);
	char day[32] = "1970-01-01T00:00:00";
	struct tm tm;

	if (gmtime_r(&s, &tm))
		strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret, 48, "%s.%09lldZ", day, (long long)(ns % 1000000000));
}

static int add_history(json_t *doc, const struct oci_amend *a, const char *created)
{
	json_t *list = json_object_get(doc, "history"), *item = json_object();
	int r = set_text(item, "created", created);

	if (r == 0)
		r = set_text(item, "created_by", a->created_by);
	if (r == 0)
		r = set_text(item, "author", a->author);
	if (r == 0)
		r = set_text(item, "comment", a->message);
	if (r == 0 && !a->diff_id)
		r = oci_set(item, "empty_layer", json_true());
	if (r == 0 && !json_is_array(list)) {
		list = json_array();
		r = oci_set(doc, "history", list);
	}
	if (r < 0) {
		json_decref(item);
		return r;
	}
	return json_array_append_new(list, item) < 0 ? -ENOMEM : 0;
}

static int add_layer(json_t *doc, const char *diff_id)
{
	json_t *rootfs = oci_object(doc, "rootfs"), *ids = json_object_get(rootfs, "diff_ids");
	int r = rootfs ? set_text(rootfs, "type", "layers") : -ENOMEM;

	if (r == 0 && !json_is_array(ids)) {
		ids = json_array();
		r = oci_set(rootfs, "diff_ids", ids);
	}
	return r < 0 ? r : json_array_append_new(ids, json_string(diff_id)) < 0 ? -ENOMEM : 0;
}

static int amend(json_t *doc, const struct oci_amend *a, struct sm_error *err)
{
	/* What old Dockers noted of the container that an image was made of. */
	static const char *const stale[] = {"container", "container_config", "id", "parent", "parent_id", "comment"};
	json_t *config = oci_object(doc, "config");
	char created[48];
	int r = config ? set_process(config, a) : -ENOMEM;

	for (size_t i = 0; i < ARRAY_SIZE(stale); i++)
		json_object_del(doc, stale[i]);
	if (r < 0)
		return error_set(err, SM_ERROR_UNSUPPORTED, EILSEQ,
				 "a command, variable or label is not UTF-8, which an image's must be");
	for (const char *const *c = a->changes; c && *c; c++) {
		r = oci_instruct(config, *c, err);
		if (r < 0)
			return r;
	}
	time_text(a->created_ns, created);
	r = set_text(doc, "created", created);
	if (r == 0)
		r = set_text(doc, "author", a->author);
	if (r == 0)
		r = add_history(doc, a, created);
	if (r == 0 && a->diff_id)
		r = add_layer(doc, a->diff_id);
	return r < 0 ? error_set(err, SM_ERROR_INVALID, EINVAL, "author and message must be UTF-8") : 0;
}

int oci_amend(const char *config_json, const struct oci_amend *a, char **ret, struct sm_error *err)
{
	json_t *doc;
	int r = json_read(config_json, strlen(config_json), "the image's configuration", &doc, err);

	if (r < 0)
		return r;
	r = json_is_object(doc) ? amend(doc, a, err)
				: error_set(err, SM_ERROR_CORRUPT, EBADMSG, "the image's configuration is no object");
	*ret = r == 0 ? json_dumps(doc, JSON_COMPACT) : NULL;
	json_decref(doc);
	return r == 0 && !*ret ? error_sys(err, ENOMEM, "configuration") : r;
}

int oci_amend_check(const char *const *changes, struct sm_error *err)
{
	json_t *config = json_object();
	int r = config ? 0 : error_sys(err, ENOMEM, "configuration");

	for (; r == 0 && changes && *changes; changes++)
		r = oci_instruct(config, *changes, err);
	json_decref(config);
	return r;
}
