/* SPDX-License-Identifier: Apache-2.0 */
/* logs, exec logs: what a VM's command, or a detached one in it, has printed. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

struct logs_values {
	bool follow, timestamps, console;
	const char *tail, *since, *until;
};

#define V(m) offsetof(struct logs_values, m)
static const struct opt options[] = {
	{'f', "follow", OPT_FLAG, V(follow), NULL, "go on until it ends"},
	{'n', "tail", OPT_TEXT, V(tail), "N", "only the last N lines (\"all\" is the default)"},
	{0, "since", OPT_TEXT, V(since), "TIME",
	 "only from then on: 10m (ago), 2026-01-31T12:00:00Z, or seconds since 1970"},
	{0, "until", OPT_TEXT, V(until), "TIME", "only what was printed before, in the same words"},
	{'t', "timestamps", OPT_FLAG, V(timestamps), NULL, "put the time before each line"},
	{0, "console", OPT_FLAG, V(console), NULL, "the guest kernel's messages instead"}, /* logs alone: the last */
};
#undef V

static int print_console(struct cli *cli, struct sm_vm *vm)
{
	struct sm_error err = {0};
	char *text = NULL;

	if (sm_vm_console(vm, &text, &err) < 0)
		return cli_fail(cli, &err, NULL);
	fputs(text, stdout);
	sm_free(text);
	return 0;
}

static int time_option(struct cli *cli, const char *name, const char *value, int64_t *ret)
{
	if (!value || text_time(value, text_now(), ret) >= 0)
		return 0;
	return cli_usage(cli, "10m, 2026-01-31T12:00:00Z", "--%s wants a time, not '%s'", name, value);
}

static int parse(struct cli *cli, const struct logs_values *v, struct sm_logs_options *o)
{
	int status = time_option(cli, "since", v->since, &o->since_ns);

	if (!status)
		status = time_option(cli, "until", v->until, &o->until_ns);
	if (!status && v->tail && !streq(v->tail, "all") && parse_u64(v->tail, 0, UINT64_MAX, &o->tail) < 0)
		status = cli_usage(cli, NULL, "--tail wants a number of lines or all, not '%s'", v->tail);
	/* Nothing of what there is: to the library none means all. */
	if (!status && v->tail && !streq(v->tail, "all") && o->tail == 0)
		o->since_ns = MAX(o->since_ns, text_now());
	o->follow = v->follow;
	o->timestamps = v->timestamps;
	o->stdout_fd = STDOUT_FILENO;
	o->stderr_fd = STDERR_FILENO;
	return status;
}

static int print_logs(struct cli *cli, const struct logs_values *v, const char *ref, uint32_t exec)
{
	struct sm_logs_options o = SM_LOGS_OPTIONS_INIT;
	int status = parse(cli, v, &o);
	struct sm_error err = {0};
	struct sm_vm *vm;

	if (status)
		return status;
	vm = cli_open_vm(cli, ref);
	if (!vm)
		return CLI_FAILED;
	o.exec = exec;
	if (v->console)
		status = print_console(cli, vm);
	else if (sm_vm_logs(vm, &o, &err) < 0)
		status = cli_fail(cli, &err, exec ? "supermachine exec ls lists them" : NULL);
	sm_vm_close(vm);
	return status;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return print_logs(cli, values, operands[0], 0);
}

static const char *const examples[] = {"logs -f --tail 20 web", "the last 20 lines and what follows", NULL};

const struct verb verb_logs = {
	.name = "logs",
	.operands = "VM",
	.summary = "Print what a VM's command has printed",
	.details = "Its standard output goes to standard output, its standard error to standard error.",
	.examples = examples,
	VERB_OPTS(options, struct logs_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};

static int exec_verb(struct cli *cli, const void *values, char **operands, int count)
{
	uint32_t number = 0;
	int status = cli_exec_number(cli, operands[1], &number);

	return status ? status : print_logs(cli, values, operands[0], number);
}

static const char *const exec_examples[] = {"exec logs -f web 1", "what the first one prints, until it ends", NULL};

const struct verb verb_exec_logs = {
	.name = "exec logs",
	.operands = "VM NUMBER",
	.summary = "Print what a detached command has printed",
	.details = "The last 1 to 2 MiB of it are kept, also when the VM has ended, until it is started again.",
	.examples = exec_examples,
	.opts = options,
	.num_opts = ARRAY_SIZE(options) - 1,
	.values_size = sizeof(struct logs_values),
	.min_operands = 2,
	.max_operands = 2,
	.completes = OPERAND_EXEC,
	.group = GROUP_VMS,
	.run = exec_verb,
};
