/* SPDX-License-Identifier: Apache-2.0 */
/* unpause: lets paused VMs go on. */
#include "base/util.h"
#include "cli/cli.h"

static int unpause_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_error err = {0};

	return sm_vm_unpause(vm, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return cli_each_vm(cli, operands, unpause_one, NULL);
}

const struct verb verb_unpause = {
	.name = "unpause",
	.operands = "VM...",
	.summary = "Let paused VMs go on",
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
