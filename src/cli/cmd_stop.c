/* SPDX-License-Identifier: Apache-2.0 */
/* stop: asks VMs to end, then ends them. */
#include <string.h>

#include "base/util.h"
#include "cli/stop.h"

static const struct opt options[] = {STOP_OPT(0)};

int stop_grace(struct cli *cli, const struct stop_values *v, uint64_t *ret)
{
	*ret = 0;
	if (!v->time)
		return 0;
	if (streq(v->time, "-1")) {
		*ret = UINT64_MAX;
		return 0;
	}
	if (parse_duration(v->time, ret) < 0)
		return cli_usage(cli, NULL, "--time wants a time such as 500ms, 30s or 5m, not '%s'", v->time);
	*ret = MAX(*ret, 1); /* 0 would be the default: at once is meant */
	return 0;
}

static int stop_one(struct cli *cli, struct sm_vm *vm, const void *arg)
{
	struct sm_error err = {0};

	return sm_vm_stop(vm, *(const uint64_t *)arg, &err) < 0 ? cli_fail(cli, &err, NULL) : 0;
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	uint64_t grace;
	int status = stop_grace(cli, values, &grace);

	return status ? status : cli_each_vm(cli, operands, stop_one, &grace);
}

const struct verb verb_stop = {
	.name = "stop",
	.operands = "VM...",
	.summary = "Ask VMs to end, end them when they do not",
	.details = "Sends the image's stop signal (SIGTERM unless it says otherwise) to the command, and ends the VM "
		   "when the "
		   "time is up.",
	VERB_OPTS(options, struct stop_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_VM,
	.group = GROUP_VMS,
	.run = verb,
};
