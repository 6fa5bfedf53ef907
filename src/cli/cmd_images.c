/* SPDX-License-Identifier: Apache-2.0 */
/* images: lists the store. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

struct images_values {
	bool quiet, no_trunc;
	const char *format;
};

#define V(m) offsetof(struct images_values, m)
static const struct opt options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only ids"},
	{0, "no-trunc", OPT_FLAG, V(no_trunc), NULL, "whole ids and digests; cut nothing to fit the terminal"},
	{'a', "all", OPT_IGNORED, 0, NULL, NULL},
	{0, "format", OPT_TEXT, V(format), "table|json", "how to print", .choices = "table|json"},
};
#undef V

static const struct table_column columns[] = {
	{"NAME", TABLE_LEFT, 10},   {"TAG", TABLE_LEFT, 6},   {"ID", TABLE_LEFT, 0},	  {"DIGEST", TABLE_LEFT, 0},
	{"CREATED", TABLE_LEFT, 0}, {"SIZE", TABLE_RIGHT, 0}, {"SHARED", TABLE_RIGHT, 0},
};

/* Splits "host:5000/name:tag" at the tag's colon; "name@digest" has no tag. */
static void split_name(const char *ref, int *name_len, const char **tag)
{
	const char *slash = strrchr(ref, '/'), *colon = strchr(slash ? slash : ref, ':');

	if (strchr(ref, '@')) {
		*name_len = (int)strcspn(ref, "@");
		*tag = "<none>";
		return;
	}
	*name_len = colon ? (int)(colon - ref) : (int)strlen(ref);
	*tag = colon ? colon + 1 : "";
}

static void add_row(struct table *t, const struct sm_image_info *info, const char *ref, bool whole)
{
	const char *tag = "<none>", *name = "<none>", *digest = info->digest;
	char age[16], size[16], shared[16];
	int name_len = 6;

	if (ref) {
		name = ref;
		split_name(ref, &name_len, &tag);
	}
	if (!whole && str_starts(digest, "sha256:"))
		digest += 7;
	table_add(t, "%.*s", name_len, name);
	table_add(t, "%s", tag);
	table_add(t, "%.*s", whole ? 64 : 12, info->id);
	table_add(t, "%.*s", whole ? 71 : 12, digest);
	table_add(t, info->created_ns ? "%s ago" : "%s", text_age(info->created_ns, text_now(), age));
	table_add(t, "%s", format_size(info->allocated_size, size));
	table_add(t, "%s", format_size(info->shared_size, shared));
}

static int print_json(struct cli *cli, struct sm_image **images, size_t count)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < count; i++) {
		const struct sm_image_info *info = sm_image_info(images[i]);

		json_open(&j, NULL, '{');
		json_text(&j, "id", info->id);
		json_text(&j, "digest", info->digest);
		json_texts(&j, "names", info->names);
		json_text(&j, "os", info->os);
		json_text(&j, "architecture", info->architecture);
		json_time(&j, "created", info->created_ns);
		json_unsigned(&j, "size", info->allocated_size);
		json_unsigned(&j, "shared", info->shared_size);
		json_unsigned(&j, "layers", info->layers);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static void print_table(struct sm_image **images, size_t count, bool whole)
{
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < count; i++) {
		const struct sm_image_info *info = sm_image_info(images[i]);

		for (const char *const *n = info->names; n && *n; n++)
			add_row(&t, info, *n, whole);
		if (!info->names || !info->names[0])
			add_row(&t, info, NULL, whole);
	}
	table_print(&t, stdout, whole ? 0 : cli_width(stdout));
	table_done(&t);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct images_values *v = values;
	struct sm_image **images = NULL;
	struct sm_error err = {0};
	size_t n = 0;
	int status = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_image_list(cli->client, &images, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (v->format && streq(v->format, "json"))
		status = print_json(cli, images, n);
	else if (!v->quiet)
		print_table(images, n, v->no_trunc);
	for (size_t i = 0; v->quiet && !v->format && i < n; i++)
		printf("%.*s\n", v->no_trunc ? 64 : 12, sm_image_info(images[i])->id);
	sm_image_list_free(images, n);
	return status;
}

const struct verb verb_images = {
	.name = "images",
	.operands = "",
	.summary = "List images",
	.details = "SIZE is what the image takes on disk, SHARED the part of it that other images use too.",
	VERB_OPTS(options, struct images_values),
	.group = GROUP_IMAGES,
	.run = verb,
};
