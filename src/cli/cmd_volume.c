/* SPDX-License-Identifier: Apache-2.0 */
/* volume create, ls, inspect, rm, prune: disks that outlive VMs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/filter.h"
#include "cli/template.h"

/* --------------------------------------------------------------------------------------------------- create */

struct create_values {
	uint64_t size;
	const char *driver, *name;
	struct opt_list labels;
};

#define V(m) offsetof(struct create_values, m)
static const struct opt create_options[] = {
	{0, "size", OPT_SIZE, V(size), "SIZE", "most that it holds (default 10G, sparse)", 16 * MIB},
	{0, "label", OPT_LIST, V(labels), "NAME=VALUE", "note on the volume"},
	{0, "name", OPT_TEXT, V(name), "NAME", NULL},
	{'d', "driver", OPT_TEXT, V(driver), "local", NULL, .choices = "local"},
	{'o', "opt", OPT_REFUSED, 0, NULL, NULL, .choices = "a volume is a file of this host; its size: --size"},
};
#undef V

/* As with docker, one that is there is as good as made. */
static int create_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct create_values *v = values;
	struct sm_volume_options o = SM_VOLUME_OPTIONS_INIT;
	struct sm_error err = {0};
	char *name = NULL;

	if (!cli_client(cli))
		return CLI_FAILED;
	o.name = operands[0] ? operands[0] : v->name;
	o.disk_size = v->size;
	o.labels = v->labels.v;
	if (sm_volume_create(cli->client, &o, &name, &err) < 0 && err.kind != SM_ERROR_EXISTS)
		return cli_fail(cli, &err, NULL);
	puts(name ? name : o.name);
	sm_free(name);
	return 0;
}

const struct verb verb_volume_create = {
	.name = "volume create",
	.operands = "[NAME]",
	.summary = "Make a volume",
	.details = "A volume is a disk of its own, an ext4 file system in a sparse file of this host. A VM that is "
		   "started with -v NAME:DST has it in DST; it stays when the VM goes. One VM at a time has a volume, "
		   "or several with -v NAME:DST:ro. run makes one that is missing; this is for one of another size, or "
		   "with labels. Without NAME it is given one.",
	VERB_OPTS(create_options, struct create_values),
	.max_operands = 1,
	.group = GROUP_IMAGES,
	.run = create_verb,
};

/* ------------------------------------------------------------------------------------------------------- ls */

struct ls_values {
	bool quiet;
	const char *format;
	struct opt_list filters;
};

#define V(m) offsetof(struct ls_values, m)
static const struct opt ls_options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only names"},
	{'f', "filter", OPT_LIST, V(filters), "KEY=VALUE", "name=PART, label=NAME[=VALUE], dangling=true|false"},
	{0, "format", OPT_TEXT, V(format), "table|json|TEMPLATE", "how to print; '{{.Name}} {{.Size}}': these fields",
	 .choices = "table|json", .open = true},
};
#undef V

static const struct table_column columns[] = {
	{"NAME", TABLE_LEFT, 0},    {"SIZE", TABLE_RIGHT, 0}, {"USED", TABLE_RIGHT, 0},
	{"CREATED", TABLE_LEFT, 0}, {"VM", TABLE_LEFT, 12},
};

static bool name_has(const void *item, const char *wanted)
{
	return strstr(((const struct sm_volume_info *)item)->name, wanted) != NULL;
}

static bool has_label(const void *item, const char *wanted)
{
	return filter_has_label(((const struct sm_volume_info *)item)->labels, wanted);
}

static bool is_dangling(const void *item, const char *wanted)
{
	bool dangling = !((const struct sm_volume_info *)item)->vms[0];

	return dangling == filter_is_true(wanted);
}

static const struct filter filters[] = {
	{"name", name_has},
	{"label", has_label, .all = true},
	{"dangling", is_dangling, .truth = true},
};

static void print_table(struct sm_volume_info **list, size_t n)
{
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < n; i++) {
		const struct sm_volume_info *v = list[i];
		char size[16], used[16], created[16];

		table_add(&t, "%s", v->name);
		table_add(&t, "%s", format_size(v->size, size));
		table_add(&t, "%s", format_size(v->allocated_size, used));
		table_add(&t, "%s ago", text_age(v->created_ns, text_now(), created));
		table_add(&t, "%s%s", v->vms[0] ? v->vms[0] : "-", v->vms[0] && v->vms[1] ? ", ..." : "");
	}
	table_print(&t, stdout, cli_width(stdout));
	table_done(&t);
}

static int print_json(struct cli *cli, struct sm_volume_info **list, size_t n)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < n; i++) {
		json_open(&j, NULL, '{');
		json_text(&j, "name", list[i]->name);
		json_text(&j, "path", list[i]->path);
		json_unsigned(&j, "size", list[i]->size);
		json_unsigned(&j, "used", list[i]->allocated_size);
		json_time(&j, "created", list[i]->created_ns);
		json_bool(&j, "anonymous", list[i]->anonymous);
		json_texts(&j, "labels", list[i]->labels);
		json_texts(&j, "vms", list[i]->vms);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static void get_field(const void *row, const char *name, struct template_value *ret)
{
	const struct sm_volume_info *v = row;
	struct buf *b = &ret->text;
	char size[16];

	if (streq(name, "Name")) {
		buf_printf(b, "%s", v->name);
	} else if (streq(name, "Driver")) {
		buf_printf(b, "local");
	} else if (streq(name, "Scope")) {
		buf_printf(b, "local");
	} else if (streq(name, "Mountpoint")) {
		buf_printf(b, "%s", v->path);
	} else if (streq(name, "Size")) {
		buf_printf(b, "%s", format_size(v->allocated_size, size));
	} else if (streq(name, "VMs")) {
		template_put_list(ret, v->vms, false);
	} else {
		for (const char *const *l = v->labels; l && *l; l++)
			buf_printf(b, "%s%s", l == v->labels ? "" : ",", *l);
		ret->list = v->labels;
		ret->is_list = ret->map = true;
	}
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"Name", NULL},
			{"Driver", NULL},
			{"Scope", NULL},
			{"Mountpoint", NULL},
			{"Size", NULL},
			{"Labels", NULL},
			{"VMs", "VMS"},
			{NULL, NULL},
		},
	.get = get_field,
};

static int print(struct cli *cli, const struct ls_values *v, struct sm_volume_info **list, size_t n)
{
	if (v->format && streq(v->format, "json"))
		return print_json(cli, list, n);
	if (v->format && template_is(v->format))
		return template_print(cli, v->format, &fields, (const void *const *)list, n);
	if (!v->quiet)
		print_table(list, n);
	for (size_t i = 0; v->quiet && i < n; i++)
		puts(list[i]->name);
	return 0;
}

static int ls_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct ls_values *v = values;
	struct sm_volume_info **list = NULL, **shown;
	struct sm_error err = {0};
	size_t n = 0, num_shown = 0;
	int status = filters_check(cli, filters, ARRAY_SIZE(filters), &v->filters, "name, label, dangling");

	if (status)
		return status;
	if (v->format && !template_is(v->format) && !streq(v->format, "json") && !streq(v->format, "table"))
		return cli_usage(cli, "table, json, or fields such as '{{.Name}}'", "--format cannot be '%s'",
				 v->format);
	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_volume_list(cli->client, &list, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	shown = calloc(n + 1, sizeof(*shown));
	for (size_t i = 0; shown && i < n; i++)
		if (filters_pass(filters, ARRAY_SIZE(filters), &v->filters, list[i]))
			shown[num_shown++] = list[i];
	status = shown ? print(cli, v, shown, num_shown) : cli_usage(cli, NULL, "no memory");
	free(shown);
	sm_volume_list_free(list, n);
	return status;
}

const struct verb verb_volume_ls = {
	.name = "volume ls",
	.operands = "",
	.summary = "List volumes",
	.details =
		"USED: what its file takes on this host's disk. VM: whose it is, also of one that has ended. Fields of "
		"a template: .Name .Driver .Scope .Mountpoint .Size .Labels .VMs.",
	VERB_OPTS(ls_options, struct ls_values),
	.group = GROUP_IMAGES,
	.run = ls_verb,
};

/* -------------------------------------------------------------------------------------------------- inspect */

static int inspect_verb(struct cli *cli, const void *values, char **operands, int count)
{
	int status = 0, printed = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	fputs("[", stdout);
	for (; *operands; operands++) {
		struct sm_error err = {0};
		char *text = NULL;

		if (sm_volume_inspect(cli->client, *operands, &text, &err) < 0) {
			status = cli_fail(cli, &err, "supermachine volume ls lists them");
			continue;
		}
		printf("%s\n%s", printed++ ? "," : "", text);
		sm_free(text);
	}
	puts("]");
	return status;
}

const struct verb verb_volume_inspect = {
	.name = "volume inspect",
	.operands = "VOLUME...",
	.summary = "Print all there is to know about volumes, as JSON",
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VOLUME,
	.group = GROUP_IMAGES,
	.run = inspect_verb,
};

/* ------------------------------------------------------------------------------------------------------- rm */

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

		if (sm_volume_remove(cli->client, *operands, &err) >= 0)
			puts(*operands);
		else if (err.kind == SM_ERROR_BUSY)
			status = cli_fail(cli, &err, "remove that first: supermachine rm");
		else if (!v->force || err.kind != SM_ERROR_NOT_FOUND)
			status = cli_fail(cli, &err, "supermachine volume ls lists them");
	}
	return status;
}

const struct verb verb_volume_rm = {
	.name = "volume rm",
	.operands = "VOLUME...",
	.summary = "Remove volumes and what is in them",
	.details = "Not one that a VM has, even if that has ended.",
	VERB_OPTS(rm_options, struct rm_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VOLUME,
	.group = GROUP_IMAGES,
	.run = rm_verb,
};

/* ---------------------------------------------------------------------------------------------------- prune */

struct prune_values {
	bool all;
};

static const struct opt prune_options[] = {
	{'a', "all", OPT_FLAG, offsetof(struct prune_values, all), NULL, "also those that were given a name"},
	{'f', "force", OPT_IGNORED, 0, NULL, NULL},
};

static int prune_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct prune_values *v = values;

	return cli_prune(cli, sm_volume_prune, v->all, "volume");
}

const struct verb verb_volume_prune = {
	.name = "volume prune",
	.operands = "",
	.summary = "Remove volumes without a name that no VM has",
	VERB_OPTS(prune_options, struct prune_values),
	.group = GROUP_IMAGES,
	.run = prune_verb,
};
