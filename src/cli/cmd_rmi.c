/* SPDX-License-Identifier: Apache-2.0 */
/* rmi: takes names off images; an image without a name is gone. */
#include <errno.h>

#include "base/util.h"
#include "cli/cli.h"

struct rmi_values {
	bool force;
};

static const struct opt options[] = {
	{'f', "force", OPT_FLAG, offsetof(struct rmi_values, force), NULL,
	 "also when a VM has it; no error when there is none"},
};

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct rmi_values *v = values;
	int status = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	for (; *operands; operands++) {
		struct sm_error err = {0};
		int r = sm_image_remove(cli->client, *operands, v->force, &err);

		if (r >= 0)
			puts(*operands);
		else if (r == -EBUSY)
			status = cli_fail(cli, &err, "remove the VM (supermachine ps -a), or use rmi -f");
		else if (!v->force || err.kind != SM_ERROR_NOT_FOUND)
			status = cli_no_image(cli, *operands, false, &err);
	}
	return status;
}

const struct verb verb_rmi = {
	.name = "rmi",
	.operands = "IMAGE...",
	.summary = "Remove images",
	.details = "By name takes that name away, by id all names; an image without a name left is removed. The space "
		   "comes "
		   "back with supermachine prune.",
	VERB_OPTS(options, struct rmi_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_IMAGE,
	.group = GROUP_IMAGES,
	.run = verb,
};
