/* SPDX-License-Identifier: Apache-2.0 */
/* wait: until VMs have ended. */
#include <errno.h>

#include "base/util.h"
#include "cli/cli.h"

struct wait_values {
	uint64_t timeout;
};

static const struct opt options[] = {
	{0, "timeout", OPT_DURATION, offsetof(struct wait_values, timeout), "TIME",
	 "give up after so long: status 124"},
};

static int wait_one(struct cli *cli, struct sm_vm *vm, uint64_t timeout)
{
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct sm_error err = {0};
	int r = sm_vm_wait(vm, timeout, &outcome, &err);

	if (r < 0) {
		cli_fail(cli, &err, NULL);
		return r == -ETIMEDOUT ? 124 : CLI_FAILED;
	}
	printf("%d\n", outcome.status);
	fflush(stdout);
	return 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct wait_values *v = values;
	int status = 0;

	for (; *operands; operands++) {
		struct sm_vm *vm = cli_open_vm(cli, *operands);
		int s = vm ? wait_one(cli, vm, v->timeout) : CLI_FAILED;

		if (s)
			status = s;
		sm_vm_close(vm);
	}
	return status;
}

const struct verb verb_wait = {
	.name = "wait",
	.operands = "VM...",
	.summary = "Wait until VMs have ended, print their exit statuses",
	VERB_OPTS(options, struct wait_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
