/* SPDX-License-Identifier: Apache-2.0 */
/* exec ls, exec kill, exec attach: commands that exec -d has left running. (exec logs is beside logs.) */
#include <errno.h>
#include <signal.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/attach.h"

int cli_exec_number(struct cli *cli, const char *text, uint32_t *ret)
{
	uint64_t n;

	if (parse_u64(text, 1, UINT32_MAX, &n) < 0)
		return cli_usage(cli, "supermachine exec ls VM lists them", "not the number of a command: %s", text);
	*ret = (uint32_t)n;
	return 0;
}

/* -------------------------------------------------------------------------------------------------------- ls */

struct ls_values {
	bool quiet;
	const char *format;
};

#define V(m) offsetof(struct ls_values, m)
static const struct opt ls_options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "only numbers"},
	{0, "format", OPT_TEXT, V(format), "table|json", "how to print", .choices = "table|json"},
};
#undef V

static const struct table_column columns[] = {
	{"NUMBER", TABLE_RIGHT, 0}, {"PID", TABLE_RIGHT, 0},	 {"STARTED", TABLE_LEFT, 0},
	{"STATUS", TABLE_LEFT, 14}, {"COMMAND", TABLE_LEFT, 16},
};

static void print_table(struct sm_exec_info **list, size_t count)
{
	int64_t now = text_now();
	struct table t;

	table_init(&t, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < count; i++) {
		const struct sm_exec_info *e = list[i];
		_free_ char *command = cli_command_line(e->argv);
		char age[16];

		table_add(&t, "%u", e->number);
		table_add(&t, "%u", e->pid);
		table_add(&t, "%s ago", text_age(e->started_ns, now, age));
		if (e->running)
			table_add(&t, "running");
		else if (e->outcome.reason == SM_REASON_EXITED || e->outcome.reason == SM_REASON_SIGNALLED)
			table_add(&t, "exited (%d)", e->outcome.status);
		else
			table_add(&t, "%s (%d)", sm_reason_name(e->outcome.reason), e->outcome.status);
		table_add(&t, "%s", command ? command : "");
	}
	table_print(&t, stdout, cli_width(stdout));
	table_done(&t);
}

static int print_json(struct cli *cli, struct sm_exec_info **list, size_t count)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < count; i++) {
		const struct sm_exec_info *e = list[i];

		json_open(&j, NULL, '{');
		json_unsigned(&j, "number", e->number);
		json_texts(&j, "command", e->argv);
		json_text(&j, "user", e->user);
		json_unsigned(&j, "pid", e->pid);
		json_bool(&j, "running", e->running);
		json_bool(&j, "tty", e->tty);
		json_bool(&j, "stdin_open", e->stdin_open);
		json_time(&j, "started", e->started_ns);
		json_time(&j, "finished", e->finished_ns);
		if (!e->running) {
			json_open(&j, "outcome", '{');
			cli_outcome_json(&j, &e->outcome);
			json_close(&j, '}');
		}
		json_close(&j, '}');
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static int ls_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct ls_values *v = values;
	struct sm_exec_info **list = NULL;
	struct sm_error err = {0};
	struct sm_vm *vm;
	int status = 0;
	size_t n = 0;

	vm = cli_open_vm(cli, operands[0]);
	if (!vm)
		return CLI_FAILED;
	if (sm_vm_exec_list(vm, &list, &n, &err) < 0)
		status = cli_fail(cli, &err, NULL);
	else if (v->format && streq(v->format, "json"))
		status = print_json(cli, list, n);
	else if (!v->quiet)
		print_table(list, n);
	for (size_t i = 0; v->quiet && !v->format && i < n; i++)
		printf("%u\n", list[i]->number);
	sm_exec_list_free(list, n);
	sm_vm_close(vm);
	return status;
}

const struct verb verb_exec_ls = {
	.name = "exec ls",
	.operands = "VM",
	.summary = "List detached commands",
	.details = "Those that run, and the last 64 that have ended. Numbers count from 1 in each run of the VM.",
	VERB_OPTS(ls_options, struct ls_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = ls_verb,
};

/* ------------------------------------------------------------------------------------------------------ kill */

struct kill_values {
	const char *signal;
};

static const struct opt kill_options[] = {
	{'s', "signal", OPT_TEXT, offsetof(struct kill_values, signal), "SIGNAL",
	 "which, by name or number (default KILL)"},
};

static int kill_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct kill_values *v = values;
	int sig = v->signal ? text_signal(v->signal) : SIGKILL, status = 0;
	struct sm_vm *vm;

	if (sig < 0)
		return cli_usage(cli, NULL, "no such signal: %s", v->signal);
	vm = cli_open_vm(cli, operands[0]);
	for (char **text = operands + 1; vm && *text; text++) {
		struct sm_error err = {0};
		uint32_t number = 0;
		int s = cli_exec_number(cli, *text, &number);

		if (!s && sm_vm_exec_kill(vm, number, sig, &err) < 0)
			s = cli_fail(cli, &err,
				     err.kind == SM_ERROR_NOT_FOUND ? "supermachine exec ls lists them" : NULL);
		if (s)
			status = s;
		else
			puts(*text);
	}
	sm_vm_close(vm);
	return vm ? status : CLI_FAILED;
}

const struct verb verb_exec_kill = {
	.name = "exec kill",
	.operands = "VM NUMBER...",
	.summary = "Send a signal to detached commands",
	VERB_OPTS(kill_options, struct kill_values),
	.min_operands = 2,
	.max_operands = -1,
	.completes = OPERAND_EXEC,
	.group = GROUP_VMS,
	.run = kill_verb,
};

/* ---------------------------------------------------------------------------------------------------- attach */

struct attach_values {
	bool no_stdin;
};

static const struct opt attach_options[] = {
	{0, "no-stdin", OPT_FLAG, offsetof(struct attach_values, no_stdin), NULL, "only watch: pass no input on"},
};

/* Whether it has a terminal and input; false after having said that there is none. */
static bool find_exec(struct cli *cli, struct sm_vm *vm, uint32_t number, bool *ret_tty, bool *ret_stdin)
{
	struct sm_exec_info **list = NULL;
	struct sm_error err = {0};
	bool found = false;
	size_t n = 0;

	if (sm_vm_exec_list(vm, &list, &n, &err) < 0) {
		cli_fail(cli, &err, NULL);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		if (list[i]->number != number)
			continue;
		found = true;
		*ret_tty = list[i]->tty;
		*ret_stdin = list[i]->stdin_open;
	}
	sm_exec_list_free(list, n);
	if (!found)
		cli_usage(cli, "supermachine exec ls lists them", "there is no detached command %u", number);
	return found;
}

static int attach(struct cli *cli, struct session *s, struct sm_vm *vm, uint32_t number, bool interactive)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	bool tty = false, has_stdin = false;
	struct sm_exec *exec = NULL;
	struct sm_error err = {0};
	int r;

	if (!find_exec(cli, vm, number, &tty, &has_stdin))
		return CLI_FAILED;
	r = session_streams(s, interactive && has_stdin, tty, true, &o, &err);
	if (r >= 0)
		r = sm_vm_exec_attach(vm, number, &o, &exec, &err);
	return r < 0 ? cli_fail(cli, &err, NULL) : attach_wait(cli, s, exec, 0, 0);
}

static int attach_verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct attach_values *v = values;
	struct sm_error err = {0};
	struct session session;
	struct sm_vm *vm;
	uint32_t number = 0;
	int status = cli_exec_number(cli, operands[1], &number);

	if (status)
		return status;
	if (session_begin(&session, cli, &err) < 0)
		return cli_fail(cli, &err, NULL);
	vm = cli_open_vm(cli, operands[0]);
	status = vm ? attach(cli, &session, vm, number, !v->no_stdin) : CLI_FAILED;
	session_end(&session);
	sm_vm_close(vm);
	return status;
}

const struct verb verb_exec_attach = {
	.name = "exec attach",
	.operands = "VM NUMBER",
	.summary = "Join a detached command",
	.details =
		"Its output from now on (exec logs has what came before), and its input if it was left with -i, which "
		"stays open for the next. In a terminal ctrl-p ctrl-q lets go of it again. Exit status as for run.",
	VERB_OPTS(attach_options, struct attach_values),
	.min_operands = 2,
	.max_operands = 2,
	.completes = OPERAND_EXEC,
	.group = GROUP_VMS,
	.run = attach_verb,
};
