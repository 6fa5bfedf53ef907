/* SPDX-License-Identifier: Apache-2.0 */
/* snapshots, snapshot rm, snapshot prune: what VMs start from. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/filter.h"
#include "cli/template.h"

struct snapshots_values {
	bool quiet;
	const char *format;
	struct opt_list filters;
};

#define V(m) offsetof(struct snapshots_values, m)
static const struct opt options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only names"},
	{'f', "filter", OPT_LIST, V(filters), "KEY=VALUE", "name=PART, kind=vm|diff|base, image=IMAGE"},
	{0, "format", OPT_TEXT, V(format), "table|json|TEMPLATE", "how to print; '{{.Name}} {{.Size}}': these fields",
	 .choices = "table|json", .open = true},
};
#undef V

static const struct table_column columns[] = {
	{"NAME", TABLE_LEFT, 0},  {"KIND", TABLE_LEFT, 0},    {"MEMORY", TABLE_RIGHT, 0}, {"CPUS", TABLE_RIGHT, 0},
	{"SIZE", TABLE_RIGHT, 0}, {"CREATED", TABLE_LEFT, 0}, {"FITS", TABLE_LEFT, 0},	  {"IMAGE", TABLE_LEFT, 8},
};

static const char *kind_name(const struct sm_snapshot_info *s)
{
	return s->kind == SM_SNAPSHOT_VM ? "vm" : "base";
}

/* As the table has it. */
static const char *shown_kind(const struct sm_snapshot_info *s)
{
	return s->parent[0] ? "diff" : kind_name(s);
}

/* -------------------------------------------------------------------------------------------- filters */

static bool name_has(const void *item, const char *wanted)
{
	return strstr(((const struct sm_snapshot_info *)item)->name, wanted) != NULL;
}

static bool is_kind(const void *item, const char *wanted)
{
	return streq(shown_kind(item), wanted);
}

static bool is_image(const void *item, const char *wanted)
{
	return filter_is_image(((const struct sm_snapshot_info *)item)->image, wanted);
}

static const struct filter filters[] = {{"name", name_has}, {"kind", is_kind}, {"image", is_image}};

static int check_filters(struct cli *cli, const struct opt_list *given)
{
	int status = filters_check(cli, filters, ARRAY_SIZE(filters), given, "name=, kind=, image=");

	for (size_t i = 0; status == 0 && i < given->n; i++) {
		const char *kind = filter_value(given->v[i], "kind");

		if (kind && !streq(kind, "vm") && !streq(kind, "diff") && !streq(kind, "base"))
			status = cli_usage(cli, "vm, diff or base", "no such kind of snapshot: '%s'", kind);
	}
	return status;
}

/* Moves those that are wanted to the front. */
static size_t apply_filters(struct sm_snapshot_info **list, size_t n, const struct opt_list *wanted)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct sm_snapshot_info *s = list[i];

		if (!filters_pass(filters, ARRAY_SIZE(filters), wanted, s))
			continue;
		list[i] = list[kept];
		list[kept++] = s;
	}
	return kept;
}

/* ------------------------------------------------------------------------------------------- printing */

static void print_table(struct sm_snapshot_info **list, size_t count)
{
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < count; i++) {
		const struct sm_snapshot_info *s = list[i];
		char memory[16], size[16], created[16];

		table_add(&t, "%s", s->name);
		table_add(&t, "%s", shown_kind(s));
		table_add(&t, "%s", format_size(s->memory, memory));
		table_add(&t, "%u", s->cpus);
		table_add(&t, "%s", format_size(s->allocated_size, size));
		table_add(&t, s->created_ns ? "%s ago" : "%s", text_age(s->created_ns, text_now(), created));
		table_add(&t, "%s", s->fits ? "yes" : "no");
		table_add(&t, "%s", s->image[0] ? s->image : "-");
	}
	table_print(&t, stdout, cli_width(stdout));
	table_done(&t);
}

static int print_json(struct cli *cli, struct sm_snapshot_info **list, size_t count)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < count; i++) {
		json_open(&j, NULL, '{');
		json_text(&j, "name", list[i]->name);
		json_text(&j, "kind", kind_name(list[i]));
		json_unsigned(&j, "memory", list[i]->memory);
		json_unsigned(&j, "cpus", list[i]->cpus);
		json_unsigned(&j, "size", list[i]->allocated_size);
		json_time(&j, "created", list[i]->created_ns);
		json_time(&j, "used", list[i]->used_ns);
		json_text(&j, "kernel", list[i]->kernel);
		json_text(&j, "image", list[i]->image);
		json_text(&j, "parent", list[i]->parent);
		json_bool(&j, "fits", list[i]->fits);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static void get_field(const void *row, const char *name, struct template_value *v)
{
	const struct sm_snapshot_info *s = row;
	struct buf *b = &v->text;
	char text[16];

	if (streq(name, "Name") || streq(name, "ID")) {
		buf_printf(b, "%s", s->name);
	} else if (streq(name, "Kind")) {
		buf_printf(b, "%s", shown_kind(s));
	} else if (streq(name, "Memory")) {
		buf_printf(b, "%s", format_size(s->memory, text));
	} else if (streq(name, "CPUs")) {
		buf_printf(b, "%u", s->cpus);
		v->raw = true;
	} else if (streq(name, "Size")) {
		buf_printf(b, "%s", format_size(s->allocated_size, text));
	} else if (streq(name, "CreatedSince")) {
		buf_printf(b, s->created_ns ? "%s ago" : "%s", text_age(s->created_ns, text_now(), text));
	} else if (streq(name, "Fits")) {
		buf_printf(b, "%s", s->fits ? "true" : "false");
		v->raw = true;
	} else if (streq(name, "Image")) {
		buf_printf(b, "%s", s->image);
	} else {
		buf_printf(b, "%s", s->parent);
	}
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"Name", NULL},
			{"ID", NULL},
			{"Kind", NULL},
			{"Memory", NULL},
			{"CPUs", "CPUS"},
			{"Size", NULL},
			{"CreatedSince", "CREATED"},
			{"Fits", NULL},
			{"Image", NULL},
			{"Parent", NULL},
			{NULL, NULL},
		},
	.get = get_field,
};

static int list_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct snapshots_values *v = values;
	struct sm_snapshot_info **list = NULL;
	struct sm_error err = {0};
	size_t n = 0, shown;
	int status = check_filters(cli, &v->filters);

	if (status)
		return status;
	if (v->format && !streq(v->format, "table") && !streq(v->format, "json") && !template_is(v->format))
		return cli_usage(cli, "table, json or a template as '{{.Name}} {{.Size}}'", "--format cannot be '%s'",
				 v->format);
	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_snapshot_list(cli->client, &list, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	shown = apply_filters(list, n, &v->filters);
	if (v->format && streq(v->format, "json"))
		status = print_json(cli, list, shown);
	else if (v->format && template_is(v->format))
		status = template_print(cli, v->format, &fields, (const void *const *)list, shown);
	else if (!v->quiet)
		print_table(list, shown);
	for (size_t i = 0; v->quiet && !v->format && i < shown; i++)
		puts(list[i]->name);
	sm_snapshot_list_free(list, n);
	return status;
}

const struct verb verb_snapshots = {
	.name = "snapshots",
	.operands = "",
	.summary = "List snapshots",
	.details = "A base is a booted guest without an image. The first run with so much memory and so many CPUs "
		   "makes it, later ones start from it, whatever their image; one that no longer fits is made anew. "
		   "At most 8 are kept. A vm was saved by supermachine snapshot; restore goes on from it. A diff needs "
		   "another one beneath it, which inspect and --format json name. FITS: a run may still start from it. "
		   "Fields of a template: .Name .Kind .Memory .CPUs .Size .CreatedSince .Fits .Image .Parent.",
	VERB_OPTS(options, struct snapshots_values),
	.group = GROUP_IMAGES,
	.run = list_verb,
};

/* ------------------------------------------------------------------------------------------------------ rm */

struct rm_values {
	bool force;
};

static const struct opt rm_options[] = {
	{'f', "force", OPT_FLAG, offsetof(struct rm_values, force), NULL, "no error when there is none"},
};

static int rm_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct rm_values *v = values;
	int status = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	for (; *operands; operands++) {
		struct sm_error err = {0};

		if (sm_snapshot_remove(cli->client, *operands, &err) >= 0)
			puts(*operands);
		else if (!v->force || err.kind != SM_ERROR_NOT_FOUND)
			status = cli_fail(cli, &err, "supermachine snapshots lists them");
	}
	return status;
}

const struct verb verb_snapshot_rm = {
	.name = "snapshot rm",
	.operands = "SNAPSHOT...",
	.summary = "Remove snapshots",
	.details = "By name, a base also by the beginning of its key. VMs that run are not disturbed; a base is made "
		   "again when it is needed. One with diffs (snapshot --diff) stays until these are removed.",
	VERB_OPTS(rm_options, struct rm_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_SNAPSHOT,
	.group = GROUP_IMAGES,
	.run = rm_verb,
};

/* --------------------------------------------------------------------------------------------------- prune */

struct prune_values {
	bool all;
};

static const struct opt prune_options[] = {
	{'a', "all", OPT_FLAG, offsetof(struct prune_values, all), NULL, "all bases, also those that fit"},
	{'f', "force", OPT_IGNORED, 0, NULL, NULL},
};

static int prune_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct prune_values *v = values;

	return cli_prune(cli, sm_snapshot_prune, v->all, "snapshot");
}

const struct verb verb_snapshot_prune = {
	.name = "snapshot prune",
	.operands = "",
	.summary = "Remove bases from which no VM can start any more",
	VERB_OPTS(prune_options, struct prune_values),
	.group = GROUP_IMAGES,
	.run = prune_verb,
};
