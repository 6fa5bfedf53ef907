/* SPDX-License-Identifier: Apache-2.0 */
/* resume: lets suspended VMs go on. */
#include "base/util.h"
#include "cli/cli.h"

static int resume_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_error err = {0};

	if (sm_vm_resume(vm, &err) < 0 || sm_vm_wait_started(vm, 0, NULL, &err) < 0)
		return cli_fail(cli, &err, NULL);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return cli_each_vm(cli, operands, resume_one, NULL);
}

const struct verb verb_resume = {
	.name = "resume",
	.operands = "VM...",
	.summary = "Let suspended VMs go on where they were",
	.details = "With their processes, disk, name and ports, and the right time.",
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
