/* SPDX-License-Identifier: Apache-2.0 */
/* help [VERB]. */
#include "base/util.h"
#include "cli/cli.h"

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct verb *v;
	int words;

	if (!count) {
		cli_help_all(stdout);
		return 0;
	}
	v = cli_match_verb(operands, count, &words);
	if (!v && count == 1 && cli_family(operands[0])) {
		cli_help_family(stdout, operands[0]);
		return 0;
	}
	if (!v)
		return cli_usage(cli, "all verbs: supermachine help", "no such verb: %s", operands[0]);
	cli_help(stdout, v);
	return 0;
}

const struct verb verb_help = {
	.name = "help",
	.operands = "[VERB]",
	.summary = "Explain a verb",
	.max_operands = 2,
	.completes = OPERAND_VERB,
	.group = GROUP_HOST,
	.run = verb,
};
