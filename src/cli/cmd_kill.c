/* SPDX-License-Identifier: Apache-2.0 */
/* kill: a signal to the command of VMs. */
#include <signal.h>

#include "base/util.h"
#include "cli/cli.h"

struct kill_values {
	const char *signal;
};

static const struct opt options[] = {
	{'s', "signal", OPT_TEXT, offsetof(struct kill_values, signal), "SIGNAL",
	 "which, by name or number (default KILL, which ends the whole VM)"},
};

static int kill_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_error err = {0};

	return sm_vm_kill(vm, *(const int *)arg, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct kill_values *v = values;
	int sig = v->signal ? text_signal(v->signal) : SIGKILL;

	if (sig < 0)
		return cli_usage(cli, NULL, "no such signal: %s", v->signal);
	return cli_each_vm(cli, operands, kill_one, &sig);
}

const struct verb verb_kill = {
	.name = "kill",
	.operands = "VM...",
	.summary = "Send a signal to the command of VMs",
	VERB_OPTS(options, struct kill_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
