/* SPDX-License-Identifier: Apache-2.0 */
/* images: lists the store. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/template.h"

struct images_values {
	bool quiet, no_trunc;
	const char *format;
};

#define V(m) offsetof(struct images_values, m)
static const struct opt options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only ids"},
	{0, "no-trunc", OPT_FLAG, V(no_trunc), NULL, "whole ids and digests; cut nothing to fit the terminal"},
	{'a', "all", OPT_IGNORED, 0, NULL, NULL},
	{0, "format", OPT_TEXT, V(format), "table|json|TEMPLATE",
	 "how to print; '{{.Repository}}:{{.Tag}}': these fields", .choices = "table|json", .open = true},
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

/* A line of the table. */
struct image_row {
	const struct sm_image_info *info;
	const char *ref; /* NULL: it has no name */
	bool whole;
};

static void get_field(const void *item, const char *name, struct template_value *v)
{
	const struct image_row *row = item;
	const struct sm_image_info *info = row->info;
	const char *tag = "<none>", *repository = row->ref ? row->ref : "<none>";
	int len = (int)strlen(repository);
	struct buf *b = &v->text;
	char text[16];

	if (row->ref)
		split_name(row->ref, &len, &tag);
	if (streq(name, "ID"))
		buf_printf(b, "%s%.*s", row->whole ? "sha256:" : "", row->whole ? 64 : 12, info->id);
	else if (streq(name, "Repository") || streq(name, "Name"))
		buf_printf(b, "%.*s", len, repository);
	else if (streq(name, "Tag"))
		buf_printf(b, "%s", tag);
	else if (streq(name, "Digest"))
		buf_printf(b, "%s", info->digest);
	else if (streq(name, "CreatedSince"))
		buf_printf(b, info->created_ns ? "%s ago" : "%s", text_age(info->created_ns, text_now(), text));
	else if (streq(name, "CreatedAt"))
		text_put_time(b, info->created_ns);
	else if (streq(name, "Size"))
		buf_printf(b, "%s", format_size(info->allocated_size, text));
	else if (streq(name, "SharedSize"))
		buf_printf(b, "%s", format_size(info->shared_size, text));
	else
		template_put_list(v, info->labels, true);
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"ID", NULL},
			{"Repository", "NAME"},
			{"Name", NULL},
			{"Tag", NULL},
			{"Digest", NULL},
			{"CreatedSince", "CREATED"},
			{"CreatedAt", "CREATED AT"},
			{"Size", NULL},
			{"SharedSize", "SHARED"},
			{"Labels", NULL},
			{NULL, NULL},
		},
	.get = get_field,
};

static int print_template(struct cli *cli, const struct images_values *v, struct sm_image **images, size_t count)
{
	struct image_row *rows;
	const void **lines;
	size_t n = 0, most = 0;
	int status;

	for (size_t i = 0; i < count; i++)
		for (const char *const *name = sm_image_info(images[i])->names; name && *name; name++)
			most++;
	rows = calloc(most + count + 1, sizeof(*rows));
	lines = calloc(most + count + 1, sizeof(*lines));
	for (size_t i = 0; rows && i < count; i++) {
		const struct sm_image_info *info = sm_image_info(images[i]);

		for (const char *const *name = info->names; name && *name; name++)
			rows[n++] = (struct image_row){info, *name, v->no_trunc};
		if (!info->names || !info->names[0])
			rows[n++] = (struct image_row){info, NULL, v->no_trunc};
	}
	for (size_t i = 0; lines && i < n; i++)
		lines[i] = &rows[i];
	status = rows && lines ? template_print(cli, v->format, &fields, lines, n)
			       : cli_usage(cli, NULL, "%s", strerror(ENOMEM));
	free(rows);
	free(lines);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct images_values *v = values;
	struct sm_image **images = NULL;
	struct sm_error err = {0};
	size_t n = 0;
	int status = 0;

	if (v->format && !streq(v->format, "table") && !streq(v->format, "json") && !template_is(v->format))
		return cli_usage(cli, "table, json or a template as '{{.Repository}}:{{.Tag}}'",
				 "--format cannot be '%s'", v->format);
	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_image_list(cli->client, &images, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (v->format && streq(v->format, "json"))
		status = print_json(cli, images, n);
	else if (v->format && template_is(v->format))
		status = print_template(cli, v, images, n);
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
	.details = "SIZE is what the image takes on disk, SHARED the part of it that other images use too. Fields of a "
		   "template: .ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size .SharedSize .Labels.",
	VERB_OPTS(options, struct images_values),
	.group = GROUP_IMAGES,
	.run = verb,
};
