/* SPDX-License-Identifier: Apache-2.0 */
/* logs: what a VM's command has printed. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

struct logs_values {
	bool follow, timestamps, console;
	const char *tail, *since;
};

#define V(m) offsetof(struct logs_values, m)
static const struct opt options[] = {
	{'f', "follow", OPT_FLAG, V(follow), NULL, "go on until the VM ends"},
	{'n', "tail", OPT_TEXT, V(tail), "N", "only the last N lines (\"all\" is the default)"},
	{0, "since", OPT_TEXT, V(since), "TIME",
	 "only from then on: 10m (ago), 2026-01-31T12:00:00Z, or seconds since 1970"},
	{'t', "timestamps", OPT_FLAG, V(timestamps), NULL, "put the time before each line"},
	{0, "console", OPT_FLAG, V(console), NULL, "the guest kernel's messages instead"},
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

static int print_logs(struct cli *cli, const struct logs_values *v, uint64_t tail, int64_t since, struct sm_vm *vm)
{
	struct sm_logs_options o = SM_LOGS_OPTIONS_INIT;
	struct sm_error err = {0};

	o.follow = v->follow;
	o.timestamps = v->timestamps;
	o.tail = tail;
	o.since_ns = since;
	o.stdout_fd = STDOUT_FILENO;
	o.stderr_fd = STDERR_FILENO;
	return sm_vm_logs(vm, &o, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct logs_values *v = values;
	struct sm_vm *vm;
	uint64_t tail = 0;
	int64_t since = 0;
	int status;

	if (v->tail && !streq(v->tail, "all") && parse_u64(v->tail, 1, UINT64_MAX, &tail) < 0)
		return cli_usage(cli, NULL, "--tail wants a number of lines or all, not '%s'", v->tail);
	if (v->since && text_time(v->since, text_now(), &since) < 0)
		return cli_usage(cli, "10m, 2026-01-31T12:00:00Z", "--since wants a time, not '%s'", v->since);
	vm = cli_open_vm(cli, operands[0]);
	if (!vm)
		return CLI_FAILED;
	status = v->console ? print_console(cli, vm) : print_logs(cli, v, tail, since, vm);
	sm_vm_close(vm);
	return status;
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
