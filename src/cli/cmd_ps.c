/* SPDX-License-Identifier: Apache-2.0 */
/* ps: lists VMs. */
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/ports.h"

struct ps_values {
	bool all, quiet, no_trunc;
	const char *format;
};

#define V(m) offsetof(struct ps_values, m)
static const struct opt options[] = {
	{'a', "all", OPT_FLAG, V(all), NULL, "also those that have ended"},
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only ids"},
	{0, "no-trunc", OPT_FLAG, V(no_trunc), NULL, "cut nothing to fit the terminal"},
	{0, "format", OPT_TEXT, V(format), "table|json", "how to print", .choices = "table|json"},
};
#undef V

static const struct table_column columns[] = {
	{"ID", TABLE_LEFT, 0},	     {"NAME", TABLE_LEFT, 12},	 {"IMAGE", TABLE_LEFT, 12},
	{"COMMAND", TABLE_LEFT, 10}, {"CREATED", TABLE_LEFT, 0}, {"STATUS", TABLE_LEFT, 0},
};

/* "running 5m", "exited (0) 3m ago", "exited (137, oom) 2h ago". */
static void status_text(const struct sm_vm_info *vm, int64_t now, char *text, size_t size)
{
	enum sm_reason reason = vm->outcome.reason;
	char age[16];

	if (vm->state == SM_VM_EXITED) {
		bool plain = reason == SM_REASON_EXITED || reason == SM_REASON_SIGNALLED || reason == SM_REASON_NONE;

		snprintf(text, size, "exited (%d%s%s) %s ago", vm->outcome.status, plain ? "" : ", ",
			 plain ? "" : sm_reason_name(reason), text_age(vm->finished_ns, now, age));
	} else if (vm->state == SM_VM_RUNNING && vm->started_ns) {
		snprintf(text, size, "running %s", text_age(vm->started_ns, now, age));
	} else {
		snprintf(text, size, "%s", sm_vm_state_name(vm->state));
	}
}

static void put_json(struct json *j, const struct sm_vm_info *vm)
{
	json_open(j, NULL, '{');
	json_text(j, "id", vm->id);
	json_text(j, "name", vm->name);
	json_text(j, "image", vm->image);
	json_text(j, "image_id", vm->image_id);
	json_texts(j, "command", vm->argv);
	json_texts(j, "labels", vm->labels);
	json_text(j, "state", sm_vm_state_name(vm->state));
	json_unsigned(j, "memory", vm->memory);
	json_unsigned(j, "disk", vm->disk_size);
	json_unsigned(j, "cpus", vm->cpus);
	json_time(j, "created", vm->created_ns);
	json_time(j, "started", vm->started_ns);
	json_time(j, "finished", vm->finished_ns);
	json_number(j, "keeper_pid", vm->keeper_pid);
	json_number(j, "monitor_pid", vm->monitor_pid);
	json_bool(j, "in_machine", vm->in_machine);
	cli_mounts_json(j, vm->mounts, vm->num_mounts);
	cli_ports_json(j, vm->ports, vm->num_ports);
	if (vm->state == SM_VM_EXITED) {
		json_open(j, "outcome", '{');
		cli_outcome_json(j, &vm->outcome);
		json_close(j, '}');
	}
	json_close(j, '}');
}

static int print_json(struct cli *cli, struct sm_vm_info **list, size_t count)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < count; i++)
		put_json(&j, list[i]);
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static void print_table(struct sm_vm_info **list, size_t count, bool whole)
{
	int64_t now = text_now();
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < count; i++) {
		const struct sm_vm_info *vm = list[i];
		_free_ char *command = cli_command_line(vm->argv);
		char status[64], age[16];

		status_text(vm, now, status, sizeof(status));
		table_add(&t, "%s", vm->id);
		table_add(&t, "%s", vm->name[0] ? vm->name : "-");
		table_add(&t, "%s", vm->image);
		table_add(&t, "%s", command ? command : "");
		table_add(&t, "%s ago", text_age(vm->created_ns, now, age));
		table_add(&t, "%s", status);
	}
	table_print(&t, stdout, whole ? 0 : cli_width(stdout));
	table_done(&t);
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct ps_values *v = values;
	struct sm_vm_info **list = NULL;
	struct sm_error err = {0};
	size_t n = 0;
	int status = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_vm_list(cli->client, v->all, &list, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (v->format && streq(v->format, "json"))
		status = print_json(cli, list, n);
	else if (!v->quiet)
		print_table(list, n, v->no_trunc);
	for (size_t i = 0; v->quiet && !v->format && i < n; i++)
		puts(list[i]->id);
	sm_vm_list_free(list, n);
	return status;
}

static const char *const examples[] = {"ps -a", "all VMs", "ps --format json | jq '.[].name'", "for programs", NULL};

const struct verb verb_ps = {
	.name = "ps",
	.operands = "",
	.summary = "List VMs",
	.examples = examples,
	VERB_OPTS(options, struct ps_values),
	.group = GROUP_VMS,
	.run = verb,
};
