/* SPDX-License-Identifier: Apache-2.0 */
/* pull: fetches an image from its registry into the store. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

struct pull_values {
	const char *platform;
	bool quiet;
};

#define V(m) offsetof(struct pull_values, m)
static const struct opt options[] = {
	{'q', "quiet", OPT_FLAG, V(quiet), NULL, "print only the id"},
	{0, "platform", OPT_TEXT, V(platform), "OS/ARCH", "which of an index (default: this host's)"},
	{0, "disable-content-trust", OPT_IGNORED, 0, NULL, NULL},
};
#undef V

/* The id of what the store calls so now; "" if there is none. */
static void present_id(struct cli *cli, const char *ref, char out[static 65])
{
	struct sm_image *image = NULL;

	out[0] = '\0';
	if (sm_image_open(cli->client, ref, &image, NULL) == 0)
		snprintf(out, 65, "%s", sm_image_info(image)->id);
	sm_image_close(image);
}

static void report(const char *ref, const struct sm_image_info *info, bool same)
{
	char size[16];

	if (!same)
		fputs("Pulled ", stdout);
	text_put(stdout, ref);
	if (same)
		fputs(" is up to date", stdout);
	printf(" (%.12s, %u layer%s, %s)\n", info->id, info->layers, info->layers == 1 ? "" : "s",
	       format_size(info->allocated_size, size));
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct pull_values *v = values;
	struct sm_pull_options o = SM_PULL_OPTIONS_INIT;
	const struct sm_image_info *info;
	struct sm_image *image = NULL;
	struct sm_error err = {0};
	char before[65];
	int r;

	if (!cli_client(cli))
		return CLI_FAILED;
	present_id(cli, operands[0], before);
	o.platform = v->platform;
	if (!v->quiet)
		o.progress = cli_progress(cli);
	r = sm_image_pull(cli->client, operands[0], &o, &image, &err);
	cli_progress_clear(cli);
	if (r < 0)
		return cli_fail(cli, &err, NULL);
	info = sm_image_info(image);
	if (v->quiet)
		printf("%.12s\n", info->id);
	else
		report(operands[0], info, streq(info->id, before));
	sm_image_close(image);
	return 0;
}

static const char *const examples[] = {"pull debian:12", "from docker's default registry",
				       "pull registry.example:5000/team/app", "from another one; see login", NULL};

const struct verb verb_pull = {
	.name = "pull",
	.operands = "NAME[:TAG][@DIGEST]",
	.summary = "Fetch an image from its registry",
	.details =
		"Only what the store lacks is fetched. run pulls by itself what is missing, see run --pull.\n"
		"A registry is spoken to by https, one on this host by http too. Its certificate is held against the "
		"host's authorities and /etc/docker/certs.d/HOST/ca.crt.",
	.examples = examples,
	VERB_OPTS(options, struct pull_values),
	.min_operands = 1,
	.max_operands = 1,
	.completes = OPERAND_IMAGE,
	.group = GROUP_IMAGES,
	.run = verb,
};
