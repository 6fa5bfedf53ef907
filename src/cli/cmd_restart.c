/* SPDX-License-Identifier: Apache-2.0 */
/* restart: stop, then start. */
#include "base/util.h"
#include "cli/stop.h"

static int restart_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_error err = {0};

	if (sm_vm_stop(vm, *(const uint64_t *)arg, &err) < 0 || sm_vm_start_again(vm, true, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (sm_vm_wait_started(vm, 0, &outcome, &err) < 0 && outcome.reason != SM_REASON_EXITED &&
	    outcome.reason != SM_REASON_SIGNALLED)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	uint64_t grace;
	int status = stop_grace(cli, values, &grace);

	return status ? status : cli_each_vm(cli, operands, restart_one, &grace);
}

const struct verb verb_restart = {
	.name = "restart",
	.operands = "VM...",
	.summary = "Stop VMs and start them again",
	VERB_OPTS(stop_opts, struct stop_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
