/* SPDX-License-Identifier: Apache-2.0 */
/* images: lists the store. */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/filter.h"
#include "cli/template.h"

struct images_values {
	bool quiet, no_trunc;
	const char *format;
	struct opt_list filters;
};

#define V(m) offsetof(struct images_values, m)
static const struct opt options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only ids"},
	{0, "no-trunc", OPT_FLAG, V(no_trunc), NULL, "whole ids and digests; cut nothing to fit the terminal"},
	{'a', "all", OPT_IGNORED, 0, NULL, NULL},
	{'f', "filter", OPT_LIST, V(filters), "KEY=VALUE",
	 "reference=PATTERN, label=NAME[=VALUE], dangling=true|false"},
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

/* A line of the table: an image by one of its names. */
struct image_row {
	const struct sm_image_info *info;
	const char *ref; /* NULL: it has no name */
	bool whole;
};

struct rows {
	struct image_row *v;
	size_t n;
};

/* -------------------------------------------------------------------------------------------- filters */

/* With the tag, or all of a repository, as docker has it: '*' is within a part of the name. */
static bool is_reference(const void *item, const char *wanted)
{
	const struct image_row *row = item;
	_free_ char *name = NULL;
	const char *tag;
	int len;

	if (!row->ref)
		return false;
	if (fnmatch(wanted, row->ref, FNM_PATHNAME) == 0)
		return true;
	split_name(row->ref, &len, &tag);
	name = strndup(row->ref, (size_t)len);
	return name && fnmatch(wanted, name, FNM_PATHNAME) == 0;
}

static bool has_label(const void *item, const char *wanted)
{
	return filter_has_label(((const struct image_row *)item)->info->labels, wanted);
}

static bool is_dangling(const void *item, const char *wanted)
{
	return !((const struct image_row *)item)->ref == filter_is_true(wanted);
}

static const struct filter filters[] = {
	{"reference", is_reference},
	{"label", has_label, .all = true},
	{"dangling", is_dangling, .truth = true},
};

static void add_if_wanted(struct rows *rows, const struct images_values *v, const char *operand,
			  const struct image_row *row)
{
	if ((!operand || is_reference(row, operand)) && filters_pass(filters, ARRAY_SIZE(filters), &v->filters, row))
		rows->v[rows->n++] = *row;
}

/* The names of one image follow each other. rows->v: to free. */
static int find_rows(const struct images_values *v, const char *operand, struct sm_image **images, size_t count,
		     struct rows *rows)
{
	size_t most = count;

	for (size_t i = 0; i < count; i++)
		for (const char *const *name = sm_image_info(images[i])->names; name && *name; name++)
			most++;
	rows->v = calloc(most + 1, sizeof(*rows->v));
	for (size_t i = 0; rows->v && i < count; i++) {
		const struct sm_image_info *info = sm_image_info(images[i]);
		const char *const *name = info->names;

		if (!name || !*name)
			add_if_wanted(rows, v, operand, &(struct image_row){info, NULL, v->no_trunc});
		for (; name && *name; name++)
			add_if_wanted(rows, v, operand, &(struct image_row){info, *name, v->no_trunc});
	}
	return rows->v ? 0 : -ENOMEM;
}

/* From the row `at` on: how many are of the same image. */
static size_t same_image(const struct rows *rows, size_t at)
{
	size_t n = 1;

	while (at + n < rows->n && rows->v[at + n].info == rows->v[at].info)
		n++;
	return n;
}

/* ------------------------------------------------------------------------------------------- printing */

static void add_row(struct table *t, const struct image_row *row)
{
	const struct sm_image_info *info = row->info;
	const char *tag = "<none>", *name = "<none>", *digest = info->digest;
	char age[16], size[16], shared[16];
	int name_len = 6;

	if (row->ref) {
		name = row->ref;
		split_name(row->ref, &name_len, &tag);
	}
	if (!row->whole && str_starts(digest, "sha256:"))
		digest += 7;
	table_add(t, "%.*s", name_len, name);
	table_add(t, "%s", tag);
	table_add(t, "%.*s", row->whole ? 64 : 12, info->id);
	table_add(t, "%.*s", row->whole ? 71 : 12, digest);
	table_add(t, info->created_ns ? "%s ago" : "%s", text_age(info->created_ns, text_now(), age));
	table_add(t, "%s", format_size(info->allocated_size, size));
	table_add(t, "%s", format_size(info->shared_size, shared));
}

static void put_json(struct json *j, const struct image_row *rows, size_t n)
{
	const struct sm_image_info *info = rows->info;

	json_open(j, NULL, '{');
	json_text(j, "id", info->id);
	json_text(j, "digest", info->digest);
	json_open(j, "names", '[');
	for (size_t i = 0; i < n && rows[i].ref; i++)
		json_text(j, NULL, rows[i].ref);
	json_close(j, ']');
	json_text(j, "os", info->os);
	json_text(j, "architecture", info->architecture);
	json_time(j, "created", info->created_ns);
	json_unsigned(j, "size", info->allocated_size);
	json_unsigned(j, "shared", info->shared_size);
	json_unsigned(j, "layers", info->layers);
	json_close(j, '}');
}

static int print_json(struct cli *cli, const struct rows *rows)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0, n; i < rows->n; i += n) {
		n = same_image(rows, i);
		put_json(&j, &rows->v[i], n);
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static void print_ids(const struct rows *rows)
{
	for (size_t i = 0; i < rows->n; i += same_image(rows, i))
		printf("%.*s\n", rows->v[i].whole ? 64 : 12, rows->v[i].info->id);
}

static void print_table(const struct rows *rows, bool whole)
{
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < rows->n; i++)
		add_row(&t, &rows->v[i]);
	table_print(&t, stdout, whole ? 0 : cli_width(stdout));
	table_done(&t);
}

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

static int print_template(struct cli *cli, const char *format, const struct rows *rows)
{
	const void **lines = calloc(rows->n + 1, sizeof(*lines));
	int status;

	for (size_t i = 0; lines && i < rows->n; i++)
		lines[i] = &rows->v[i];
	status = lines ? template_print(cli, format, &fields, lines, rows->n)
		       : cli_usage(cli, NULL, "%s", strerror(ENOMEM));
	free(lines);
	return status;
}

static int print(struct cli *cli, const struct images_values *v, const struct rows *rows)
{
	if (v->format && streq(v->format, "json"))
		return print_json(cli, rows);
	if (v->format && template_is(v->format))
		return print_template(cli, v->format, rows);
	if (v->quiet && !v->format)
		print_ids(rows);
	else if (!v->quiet)
		print_table(rows, v->no_trunc);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct images_values *v = values;
	struct sm_image **images = NULL;
	struct sm_error err = {0};
	struct rows rows = {0};
	size_t n = 0;
	int status = filters_check(cli, filters, ARRAY_SIZE(filters), &v->filters, "reference=, label=, dangling=");

	if (status)
		return status;
	if (v->format && !streq(v->format, "table") && !streq(v->format, "json") && !template_is(v->format))
		return cli_usage(cli, "table, json or a template as '{{.Repository}}:{{.Tag}}'",
				 "--format cannot be '%s'", v->format);
	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_image_list(cli->client, &images, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	status = find_rows(v, operands[0], images, n, &rows) == 0 ? print(cli, v, &rows)
								  : cli_usage(cli, NULL, "%s", strerror(ENOMEM));
	free(rows.v);
	sm_image_list_free(images, n);
	return status;
}

const struct verb verb_images = {
	.name = "images",
	.operands = "[NAME[:TAG]]",
	.summary = "List images",
	.details = "All, or those of a name, where '*' and '?' stand for others, but for '/'. SIZE is what the image "
		   "takes on disk, SHARED the part of it that other images use too. Fields of a "
		   "template: .ID .Repository .Tag .Digest .CreatedSince .CreatedAt .Size .SharedSize .Labels.",
	VERB_OPTS(options, struct images_values),
	.max_operands = 1,
	.completes = OPERAND_IMAGE,
	.group = GROUP_IMAGES,
	.run = verb,
};
