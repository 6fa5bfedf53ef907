/* SPDX-License-Identifier: Apache-2.0 */
/* ps: lists VMs. */
#include <errno.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/filter.h"
#include "cli/mounts.h"
#include "cli/ports.h"
#include "cli/template.h"

struct ps_values {
	bool all, quiet, no_trunc;
	const char *format;
	struct opt_list filters;
};

#define V(m) offsetof(struct ps_values, m)
static const struct opt options[] = {
	{'a', "all", OPT_FLAG, V(all), NULL, "also those that have ended or are suspended"},
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only ids"},
	{0, "no-trunc", OPT_FLAG, V(no_trunc), NULL, "cut nothing to fit the terminal"},
	{'f', "filter", OPT_LIST, V(filters), "KEY=VALUE",
	 "label=NAME[=VALUE], name=REGEX, id=PART, status=STATE, ancestor=IMAGE, volume=NAME"},
	{0, "format", OPT_TEXT, V(format), "table|json|TEMPLATE", "how to print; '{{.ID}} {{.Name}}': these fields",
	 .choices = "table|json", .open = true},
};
#undef V

static const struct table_column columns[] = {
	{"ID", TABLE_LEFT, 0},	     {"NAME", TABLE_LEFT, 12},	 {"IMAGE", TABLE_LEFT, 12},
	{"COMMAND", TABLE_LEFT, 10}, {"CREATED", TABLE_LEFT, 0}, {"STATUS", TABLE_LEFT, 0},
};

/* "running 5m", "not answering", "exited (0) 3m ago", "exited (137, oom) 2h ago". */
static void status_text(const struct sm_vm_info *vm, int64_t now, char *text, size_t size)
{
	enum sm_reason reason = vm->outcome.reason;
	char age[16];

	if (vm->state == SM_VM_EXITED) {
		bool plain = reason == SM_REASON_EXITED || reason == SM_REASON_SIGNALLED || reason == SM_REASON_NONE;

		snprintf(text, size, "exited (%d%s%s) %s ago", vm->outcome.status, plain ? "" : ", ",
			 plain ? "" : sm_reason_name(reason), text_age(vm->finished_ns, now, age));
	} else if (vm->hung) {
		snprintf(text, size, "not answering");
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
	json_bool(j, "hung", vm->hung);
	json_unsigned(j, "memory", vm->memory);
	json_unsigned(j, "disk", vm->disk_size);
	json_unsigned(j, "cpus", vm->cpus);
	if (vm->cpu_limit)
		json_unsigned(j, "cpu_limit", vm->cpu_limit);
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

/* -------------------------------------------------------------------------------------------- filters */

/* Labels by the library, names by their expressions. */
static bool looked_at(const void *item, const char *wanted)
{
	return true;
}

static bool is_image(const void *item, const char *wanted)
{
	const struct sm_vm_info *vm = item;

	return filter_is_image(vm->image, wanted) || (strlen(wanted) >= 4 && str_starts(vm->image_id, wanted));
}

/* docker's word for a state that we call otherwise. */
static bool is_state(const void *item, const char *wanted)
{
	const struct sm_vm_info *vm = item;

	return streq(sm_vm_state_name(vm->state), wanted) || (streq(wanted, "created") && vm->state == SM_VM_STARTING);
}

/* Those of --filter name=, each compiled once. */
struct names {
	regex_t *v;
	size_t n;
};

static void names_done(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		regfree(&names->v[i]);
	free(names->v);
}

/* 0, or an exit status after having said which is none. To names_done either way. */
static int names_compile(struct cli *cli, const struct opt_list *given, struct names *names)
{
	names->v = calloc(given->n + 1, sizeof(*names->v));
	for (size_t i = 0; names->v && i < given->n; i++) {
		const char *text = filter_value(given->v[i], "name");

		if (!text)
			continue;
		if (regcomp(&names->v[names->n], text, REG_EXTENDED | REG_NOSUB) != 0)
			return cli_usage(cli, NULL, "'%s' is no regular expression", text);
		names->n++;
	}
	return names->v ? 0 : cli_usage(cli, NULL, "%s", strerror(ENOMEM));
}

/* A name may begin with a slash, as docker has it. */
static bool name_fits(const struct names *names, const char *name)
{
	char slashed[128];

	snprintf(slashed, sizeof(slashed), "/%s", name);
	for (size_t i = 0; i < names->n; i++)
		if (regexec(&names->v[i], name, 0, NULL, 0) == 0 || regexec(&names->v[i], slashed, 0, NULL, 0) == 0)
			return true;
	return names->n == 0;
}

static bool is_state_name(const char *text)
{
	for (int s = SM_VM_STARTING; s <= SM_VM_SUSPENDED; s++)
		if (streq(sm_vm_state_name((enum sm_vm_state)s), text))
			return true;
	/* The others are docker's: no VM is in one. */
	return streq(text, "created") || streq(text, "dead") || streq(text, "removing") || streq(text, "restarting");
}

static int check_states(struct cli *cli, const struct opt_list *given)
{
	for (size_t i = 0; i < given->n; i++) {
		const char *state = filter_value(given->v[i], "status");

		if (state && !is_state_name(state))
			return cli_usage(cli, "starting, running, paused, stopping, exited, suspended",
					 "no such state: '%s'", state);
	}
	return 0;
}

static bool id_begins(const void *item, const char *wanted)
{
	const struct sm_vm_info *vm = item;

	return str_starts(vm->id, wanted);
}

/* By name, or by where it is mounted, as docker has it. */
static bool has_volume(const void *item, const char *wanted)
{
	const struct sm_vm_info *vm = item;

	for (size_t i = 0; i < vm->num_mounts; i++)
		if ((vm->mounts[i].volume && !vm->mounts[i].copy && streq(vm->mounts[i].volume, wanted)) ||
		    streq(vm->mounts[i].target, wanted) || streq(vm->mounts[i].source, wanted))
			return true;
	return false;
}

static const struct filter filters[] = {
	{"label", looked_at, .all = true},
	{"name", looked_at},
	{"id", id_begins},
	{"status", is_state},
	{"ancestor", is_image},
	{"volume", has_volume},
};

/* The others are freed. */
static size_t apply_filters(struct sm_vm_info **list, size_t n, const struct opt_list *wanted,
			    const struct names *names)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (name_fits(names, list[i]->name) && filters_pass(filters, ARRAY_SIZE(filters), wanted, list[i]))
			list[kept++] = list[i];
		else
			sm_vm_info_free(list[i]);
	}
	return kept;
}

/* ------------------------------------------------------------------------------------------ templates */

static void put_list(struct buf *b, const char *const *v)
{
	for (size_t i = 0; v && v[i]; i++)
		buf_printf(b, "%s%s", i ? "," : "", v[i]);
}

static void put_ports(struct buf *b, const struct sm_vm_info *vm)
{
	char host[CLI_PORT_TEXT], guest[CLI_PORT_TEXT];

	for (size_t i = 0; vm->state != SM_VM_EXITED && i < vm->num_ports; i++) {
		const struct sm_port *p = &vm->ports[i];

		cli_port_text(p, false, host);
		cli_port_guest_text(p, guest);
		buf_printf(b, "%s%s%s%s", i ? ", " : "", host, p->reverse ? "<-" : "->", guest);
	}
}

static void put_mounts(struct buf *b, const struct sm_vm_info *vm)
{
	for (size_t i = 0; i < vm->num_mounts; i++)
		buf_printf(b, "%s%s", i ? "," : "", vm->mounts[i].volume ? vm->mounts[i].volume : vm->mounts[i].source);
}

static void get_field(const void *row, const char *name, struct template_value *v)
{
	const struct sm_vm_info *vm = row;
	struct buf *b = &v->text;
	char text[64], age[16];

	if (streq(name, "ID")) {
		buf_printf(b, "%s", vm->id);
	} else if (streq(name, "Name") || streq(name, "Names")) {
		buf_printf(b, "%s", vm->name);
	} else if (streq(name, "Image")) {
		buf_printf(b, "%s", vm->image);
	} else if (streq(name, "Command")) {
		_free_ char *line = cli_command_line(vm->argv);

		buf_printf(b, "\"%s\"", line ? line : "");
	} else if (streq(name, "Status")) {
		status_text(vm, text_now(), text, sizeof(text));
		buf_printf(b, "%s", text);
	} else if (streq(name, "State")) {
		buf_printf(b, "%s", sm_vm_state_name(vm->state));
	} else if (streq(name, "CreatedAt")) {
		text_put_time(b, vm->created_ns);
	} else if (streq(name, "RunningFor")) {
		buf_printf(b, "%s ago", text_age(vm->created_ns, text_now(), age));
	} else if (streq(name, "Ports")) {
		put_ports(b, vm);
	} else if (streq(name, "Mounts")) {
		put_mounts(b, vm);
	} else {
		put_list(b, vm->labels);
		v->list = vm->labels;
		v->is_list = v->map = true;
	}
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"ID", NULL},
			{"Name", NULL},
			{"Names", NULL},
			{"Image", NULL},
			{"Command", NULL},
			{"CreatedAt", "CREATED AT"},
			{"RunningFor", "CREATED"},
			{"State", NULL},
			{"Status", NULL},
			{"Ports", NULL},
			{"Labels", NULL},
			{"Mounts", NULL},
			{NULL, NULL},
		},
	.get = get_field,
};

static bool wants_all(const struct ps_values *v)
{
	bool all = v->all;

	for (size_t i = 0; i < v->filters.n; i++)
		all |= filter_value(v->filters.v[i], "status") != NULL;
	return all;
}

static int print(struct cli *cli, const struct ps_values *v, struct sm_vm_info **list, size_t n)
{
	if (v->format && (streq(v->format, "json")))
		return print_json(cli, list, n);
	if (v->format && template_is(v->format))
		return template_print(cli, v->format, &fields, (const void *const *)list, n);
	if (!v->quiet)
		print_table(list, n, v->no_trunc);
	for (size_t i = 0; v->quiet && i < n; i++)
		puts(list[i]->id);
	return 0;
}

/* By their labels the library finds them. */
static int find(struct cli *cli, const struct ps_values *v, struct sm_vm_info ***ret, size_t *ret_count,
		struct sm_error *err)
{
	struct sm_vm_find_options o = SM_VM_FIND_OPTIONS_INIT;
	const char **labels = calloc(v->filters.n + 1, sizeof(*labels));
	size_t n = 0;
	int r;

	for (size_t i = 0; labels && i < v->filters.n; i++)
		if (filter_value(v->filters.v[i], "label"))
			labels[n++] = filter_value(v->filters.v[i], "label");
	o.all = wants_all(v);
	o.labels = labels;
	r = labels ? sm_vm_find(cli->client, &o, ret, ret_count, err) : error_sys(err, ENOMEM, "ps");
	free(labels);
	return r;
}

static int list_vms(struct cli *cli, const struct ps_values *v, const struct names *names)
{
	struct sm_vm_info **list = NULL;
	struct sm_error err = {0};
	size_t n = 0;
	int status;

	if (v->format && !streq(v->format, "table") && !streq(v->format, "json") && !template_is(v->format))
		return cli_usage(cli, "table, json or a template as '{{.ID}} {{.Name}}'", "--format cannot be '%s'",
				 v->format);
	if (!cli_client(cli))
		return CLI_FAILED;
	if (find(cli, v, &list, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	n = apply_filters(list, n, &v->filters, names);
	status = print(cli, v, list, n);
	sm_vm_list_free(list, n);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct ps_values *v = values;
	struct names names = {0};
	int status = filters_check(cli, filters, ARRAY_SIZE(filters), &v->filters,
				   "label=, name=, id=, status=, ancestor=, volume=");

	if (status == 0)
		status = check_states(cli, &v->filters);
	if (status == 0)
		status = names_compile(cli, &v->filters, &names);
	if (status == 0)
		status = list_vms(cli, v, &names);
	names_done(&names);
	return status;
}

static const char *const examples[] = {"ps -a", "all VMs", "ps --format json | jq '.[].name'", "for programs", NULL};

const struct verb verb_ps = {
	.name = "ps",
	.operands = "",
	.summary = "List VMs",
	.details =
		"Fields of a template: .ID .Name .Names .Image .Command .Status .State .CreatedAt .RunningFor "
		".Ports .Labels .Mounts, and '{{.Label \"NAME\"}}', '{{json .}}'; 'table {{.ID}}\\t{{.Name}}' prints "
		"columns. "
		"Filters: those of one key are alternatives, but for label; status shows VMs that have ended, too.",
	.examples = examples,
	VERB_OPTS(options, struct ps_values),
	.group = GROUP_VMS,
	.run = verb,
};
