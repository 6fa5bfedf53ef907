/* SPDX-License-Identifier: Apache-2.0 */
/* suspend: VMs that are to go to the disk. */
#include "base/util.h"
#include "cli/cli.h"

static int suspend_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_error err = {0};

	return sm_vm_suspend(vm, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	return cli_each_vm(cli, operands, suspend_one, NULL);
}

static const char *const examples[] = {"suspend web", "web is on the disk, and takes no memory", "exec web uptime",
				       "wakes it", NULL};

const struct verb verb_suspend = {
	.name = "suspend",
	.operands = "VM...",
	.summary = "Put running VMs on the disk, until they are woken",
	.details = "With their processes and memory, as they are; nothing of them stays in memory, and they survive a "
		   "restart "
		   "of the host. resume, start, exec, cp and a connection to one of its ports, which stay open, wake a "
		   "suspended VM; stop ends it for good. Connections that there are and "
		   "commands that were run by exec end. Its volumes stay its own. Only VMs that were "
		   "started with -d, without a mount with the option dax.",
	.examples = examples,
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
