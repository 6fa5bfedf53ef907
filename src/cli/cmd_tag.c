/* SPDX-License-Identifier: Apache-2.0 */
/* tag: one more name for an image. */
#include "base/util.h"
#include "cli/cli.h"

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	struct sm_error err = {0};

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_image_tag(cli->client, operands[0], operands[1], &err) < 0)
		return cli_no_image(cli, operands[0], false, &err);
	return 0;
}

const struct verb verb_tag = {
	.name = "tag",
	.operands = "IMAGE NAME[:TAG]",
	.summary = "Give an image one more name",
	.min_operands = 2,
	.max_operands = 2,
	.completes = OPERAND_IMAGE,
	.group = GROUP_IMAGES,
	.run = verb,
};
