/* SPDX-License-Identifier: Apache-2.0 */
/* stats: what running VMs use. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/template.h"

#define INTERVAL_US 1000000

struct stats_values {
	bool no_stream;
	const char *format;
};

#define V(m) offsetof(struct stats_values, m)
static const struct opt options[] = {
	{0, "no-stream", OPT_FLAG, V(no_stream), NULL, "print once, and end"},
	{0, "no-trunc", OPT_IGNORED, 0, NULL, NULL},
	{'a', "all", OPT_IGNORED, 0, NULL, NULL},
	{0, "format", OPT_TEXT, V(format), "table|json|TEMPLATE",
	 "how to print; json: one array each time; '{{.Name}} {{.CPUPerc}}': these fields", .choices = "table|json",
	 .open = true},
};
#undef V

static const struct table_column columns[] = {
	{"ID", TABLE_LEFT, 0},	   {"NAME", TABLE_LEFT, 12},  {"CPU %", TABLE_RIGHT, 0}, {"MEM USAGE", TABLE_RIGHT, 0},
	{"LIMIT", TABLE_RIGHT, 0}, {"MEM %", TABLE_RIGHT, 0}, {"DISK", TABLE_RIGHT, 0},	 {"PIDS", TABLE_RIGHT, 0},
};

/* A VM and its last two samples; ok: the newer one is there. */
struct row {
	char id[16], name[64];
	struct sm_vm_stats before, now;
	char *counters; /* of the monitor, for JSON; else NULL */
	bool ok, first;
};

struct rows {
	struct row *v;
	size_t n;
	bool sampled;
};

static struct row *row_of(struct rows *rows, const struct sm_vm_info *info)
{
	struct row *v;

	for (size_t i = 0; i < rows->n; i++)
		if (streq(rows->v[i].id, info->id))
			return &rows->v[i];
	v = realloc(rows->v, (rows->n + 1) * sizeof(*v));
	if (!v)
		return NULL;
	rows->v = v;
	v += rows->n++;
	*v = (struct row){.first = true};
	snprintf(v->id, sizeof(v->id), "%s", info->id);
	snprintf(v->name, sizeof(v->name), "%s", info->name);
	return v;
}

static void sample(struct cli *cli, struct rows *rows, const struct sm_vm_info *info, bool counters)
{
	struct sm_vm_stats s = {.size = sizeof(s)};
	struct row *row = row_of(rows, info);
	struct sm_vm *vm;

	if (!row)
		return;
	/* One that stands still would not answer. */
	row->ok = info->state == SM_VM_RUNNING && sm_vm_open(cli->client, info->id, &vm, NULL) == 0;
	if (!row->ok)
		return;
	row->ok = sm_vm_get_stats(vm, &s, NULL) == 0;
	sm_free(row->counters);
	row->counters = NULL;
	if (row->ok && counters)
		sm_vm_get_counters(vm, &row->counters, NULL);
	sm_vm_close(vm);
	if (!row->ok)
		return;
	row->before = row->first ? s : row->now;
	row->first = false;
	row->now = s;
}

/* Told of whatever its state is. One that goes later than the first look, or hangs, has dashes. */
static int sample_named(struct cli *cli, struct rows *rows, const char *ref, bool first, bool counters)
{
	struct sm_vm *vm = first ? cli_open_vm(cli, ref) : NULL;
	struct sm_vm_info *info = NULL;
	struct sm_error err = {0};
	int r = 0;

	if (first && !vm)
		return CLI_FAILED;
	if (first || sm_vm_open(cli->client, ref, &vm, NULL) == 0)
		r = sm_vm_query(vm, &info, &err);
	sm_vm_close(vm);
	if (first && r < 0)
		return cli_fail(cli, &err, NULL);
	if (info)
		sample(cli, rows, info, counters);
	sm_vm_info_free(info);
	return 0;
}

static int sample_running(struct cli *cli, struct rows *rows, bool counters)
{
	struct sm_vm_info **list = NULL;
	struct sm_error err = {0};
	size_t n = 0;

	if (sm_vm_list(cli->client, false, &list, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	for (size_t i = 0; i < n; i++)
		if (!list[i]->hung) /* which has been said */
			sample(cli, rows, list[i], counters);
	sm_vm_list_free(list, n);
	return 0;
}

static int sample_all(struct cli *cli, struct rows *rows, char **operands, int count, bool counters)
{
	bool first = !rows->sampled;
	int status = 0;

	rows->sampled = true;
	for (size_t i = 0; i < rows->n; i++)
		rows->v[i].ok = false;
	if (count == 0)
		return sample_running(cli, rows, counters);
	for (int i = 0; status == 0 && i < count; i++)
		status = sample_named(cli, rows, operands[i], first, counters);
	return status;
}

/* Of one CPU, between the two samples. */
static double cpu_percent(const struct row *r)
{
	uint64_t busy = r->now.cpu_user_ns + r->now.cpu_system_ns,
		 then = r->before.cpu_user_ns + r->before.cpu_system_ns;
	uint64_t span = r->now.uptime_ns - MIN(r->before.uptime_ns, r->now.uptime_ns);

	return span ? 100.0 * (double)(busy - MIN(then, busy)) / (double)span : 0;
}

static double memory_percent(const struct row *r)
{
	return r->now.memory_total ? 100.0 * (double)r->now.memory_used / (double)r->now.memory_total : 0;
}

static void print_table(const struct rows *rows)
{
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < rows->n; i++) {
		const struct row *r = &rows->v[i];
		char size[16];

		table_add(&t, "%s", r->id);
		table_add(&t, "%s", r->name[0] ? r->name : "-");
		if (!r->ok) {
			for (size_t c = 2; c < ARRAY_SIZE(columns); c++)
				table_add(&t, "-");
			continue;
		}
		table_add(&t, "%.1f", cpu_percent(r));
		table_add(&t, "%s", format_size(r->now.memory_used, size));
		table_add(&t, "%s", format_size(r->now.memory_total, size));
		table_add(&t, "%.1f", memory_percent(r));
		table_add(&t, "%s", format_size(r->now.disk_used, size));
		table_add(&t, "%llu", (unsigned long long)r->now.processes);
	}
	table_print(&t, stdout, cli_width(stdout));
	table_done(&t);
}

static int print_json(struct cli *cli, const struct rows *rows)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < rows->n; i++) {
		const struct row *r = &rows->v[i];

		json_open(&j, NULL, '{');
		json_text(&j, "id", r->id);
		json_text(&j, "name", r->name);
		json_bool(&j, "answers", r->ok);
		if (r->ok) {
			json_unsigned(&j, "cpu_ns", r->now.cpu_user_ns + r->now.cpu_system_ns);
			json_unsigned(&j, "cpu_permille", (uint64_t)(10 * cpu_percent(r)));
			json_unsigned(&j, "uptime_ns", r->now.uptime_ns);
			json_unsigned(&j, "memory_used", r->now.memory_used);
			json_unsigned(&j, "memory_cached", r->now.memory_cached);
			json_unsigned(&j, "memory_total", r->now.memory_total);
			json_unsigned(&j, "disk_used", r->now.disk_used);
			json_unsigned(&j, "disk_total", r->now.disk_total);
			json_unsigned(&j, "processes", r->now.processes);
			json_unsigned(&j, "oom_kills", r->now.oom_kills);
			if (r->counters)
				json_raw(&j, "monitor", r->counters);
		}
		json_close(&j, '}');
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

/* Of one that does not answer as docker has it. */
static void get_field(const void *item, const char *name, struct template_value *v)
{
	const struct row *r = item;
	struct buf *b = &v->text;
	char used[16], total[16];

	if (streq(name, "ID") || streq(name, "Container"))
		buf_printf(b, "%s", r->id);
	else if (streq(name, "Name"))
		buf_printf(b, "%s", r->name);
	else if (!r->ok)
		buf_printf(b, "--");
	else if (streq(name, "CPUPerc"))
		buf_printf(b, "%.2f%%", cpu_percent(r));
	else if (streq(name, "MemPerc"))
		buf_printf(b, "%.2f%%", memory_percent(r));
	else if (streq(name, "MemUsage"))
		buf_printf(b, "%s / %s", format_size(r->now.memory_used, used),
			   format_size(r->now.memory_total, total));
	else if (streq(name, "DiskUsage"))
		buf_printf(b, "%s / %s", format_size(r->now.disk_used, used), format_size(r->now.disk_total, total));
	else
		buf_printf(b, "%llu", (unsigned long long)r->now.processes);
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"Container", NULL},
			{"ID", NULL},
			{"Name", NULL},
			{"CPUPerc", "CPU %"},
			{"MemUsage", "MEM USAGE / LIMIT"},
			{"MemPerc", "MEM %"},
			{"DiskUsage", "DISK USAGE / LIMIT"},
			{"PIDs", "PIDS"},
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

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct stats_values *v = values;
	bool json = v->format && streq(v->format, "json"), screen = !json && !v->no_stream && isatty(STDOUT_FILENO);
	struct rows rows = {0};
	int status;

	if (v->format && !json && !streq(v->format, "table") && !template_is(v->format))
		return cli_usage(cli, "table, json or a template as '{{.Name}} {{.CPUPerc}}'",
				 "--format cannot be '%s'", v->format);
	if (!cli_client(cli))
		return CLI_FAILED;
	/* What a CPU did shows between two looks only. */
	status = sample_all(cli, &rows, operands, count, false);
	while (status == 0) {
		usleep(INTERVAL_US);
		status = sample_all(cli, &rows, operands, count, json);
		if (status)
			break;
		if (screen)
			fputs("\033[H\033[J", stdout);
		if (json)
			status = print_json(cli, &rows);
		else if (v->format && template_is(v->format))
			status = print_template(cli, v->format, &rows);
		else
			print_table(&rows);
		if (fflush(stdout) != 0 || v->no_stream)
			break;
	}
	while (rows.n)
		sm_free(rows.v[--rows.n].counters);
	free(rows.v);
	return status;
}

static const char *const examples[] = {"stats --no-stream", "once", "stats --no-stream --format json web",
				       "for programs", NULL};

const struct verb verb_stats = {
	.name = "stats",
	.operands = "[VM...]",
	.summary = "Show what running VMs use, each second",
	.details =
		"By the word of each guest: CPU % of one CPU since the line before, memory that is not to be had for "
		"programs, blocks taken on its writable layer, processes. A VM that does not answer has dashes. Fields "
		"of a "
		"template: .ID .Name .CPUPerc .MemUsage .MemPerc .DiskUsage .PIDs.",
	.examples = examples,
	VERB_OPTS(options, struct stats_values),
	.min_operands = 0,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
