/* SPDX-License-Identifier: Apache-2.0 */
/* pause: VMs that are to stand still. */
#include "base/util.h"
#include "cli/cli.h"

static int pause_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_error err = {0};

	return sm_vm_pause(vm, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return cli_each_vm(cli, operands, pause_one, NULL);
}

const struct verb verb_pause = {
	.name = "pause",
	.operands = "VM...",
	.summary = "Have VMs stand still",
	.details =
		"No process in a paused VM runs and no time passes for it; its memory stays where it is. A VM that is "
		"stopped goes on first. Limits on its time are put off by as long as it was paused.",
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
