/* SPDX-License-Identifier: Apache-2.0 */
/* bundle: images with all that they take to run, as one directory. */
#include <stdio.h>

#include "base/util.h"
#include "cli/cli.h"

struct bundle_values {
	const char *into;
};

static const struct opt options[] = {
	{0, "into", OPT_TEXT, offsetof(struct bundle_values, into), "DIR",
	 "the directory to make, which is not there, or empty"},
};

static const char *const examples[] = {"bundle --into app debian nginx",
				       "then, wherever app lies: app/supermachine run debian echo hello", NULL};

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct bundle_values *v = values;
	struct sm_bundle_options o = SM_BUNDLE_OPTIONS_INIT;
	struct sm_error err = {0};
	int r;

	if (!v->into)
		return cli_usage(cli, "usage: supermachine bundle --into DIR IMAGE...", "--into DIR says where");
	if (!cli_client(cli))
		return CLI_FAILED;
	o.progress = cli_progress(cli);
	r = sm_bundle(cli->client, (const char *const *)operands, v->into, &o, &err);
	cli_progress_clear(cli);
	if (r == 0)
		return 0;
	return cli_fail(cli, &err, err.kind == SM_ERROR_NOT_FOUND ? "get it first: supermachine pull, or load" : NULL);
}

const struct verb verb_bundle = {
	.name = "bundle",
	.operands = "IMAGE...",
	.summary = "Make a directory that runs images anywhere",
	.details =
		"The directory has the programs with their libraries, a kernel and the images: it may be moved or "
		"copied "
		"(cp -a, tar -S) to where none of that is installed, and DIR/supermachine is the command there, for "
		"these "
		"images. What it makes, VMs and base snapshots, goes to DIR/home, so the directory must be the user's "
		"own. It needs KVM there, or QEMU where there is none.",
	.examples = examples,
	VERB_OPTS(options, struct bundle_values),
	.min_operands = 1,
	.max_operands = -1,
	.completes = OPERAND_IMAGE,
	.group = GROUP_IMAGES,
	.run = verb,
};
