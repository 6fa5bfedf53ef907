/* SPDX-License-Identifier: Apache-2.0 */
/* prune: gives back the space that nothing needs any more. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

struct prune_values {
	bool all;
	const char *format;
};

#define V(m) offsetof(struct prune_values, m)
static const struct opt options[] = {
	{'a', "all", OPT_FLAG, V(all), NULL, "also images without a name that no VM has, and base snapshots in use"},
	{'f', "force", OPT_IGNORED, 0, NULL, NULL},
	{0, "format", OPT_TEXT, V(format), "text|json", "how to print", .choices = "text|json"},
};
#undef V

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct prune_values *v = values;
	struct sm_prune_result result = {0};
	struct sm_error err = {0};
	unsigned snapshots = 0;
	struct json j = {0};
	uint64_t bytes = 0;
	char size[16];

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_image_prune(cli->client, v->all, &result, &err) < 0 ||
	    sm_snapshot_prune(cli->client, v->all, &snapshots, &bytes, &err) < 0)
		return cli_fail(cli, &err, NULL);
	result.bytes += bytes;
	if (!v->format || streq(v->format, "text")) {
		printf("Removed %u image%s, %u file%s, %u leftover%s, %u snapshot%s: %s freed\n", result.images,
		       result.images == 1 ? "" : "s", result.blobs, result.blobs == 1 ? "" : "s", result.temporaries,
		       result.temporaries == 1 ? "" : "s", snapshots, snapshots == 1 ? "" : "s",
		       format_size(result.bytes, size));
		return 0;
	}
	json_open(&j, NULL, '{');
	json_unsigned(&j, "images", result.images);
	json_unsigned(&j, "blobs", result.blobs);
	json_unsigned(&j, "temporaries", result.temporaries);
	json_unsigned(&j, "snapshots", snapshots);
	json_unsigned(&j, "bytes", result.bytes);
	json_close(&j, '}');
	return cli_print_json(cli, &j);
}

const struct verb verb_prune = {
	.name = "prune",
	.operands = "",
	.summary = "Remove layers, snapshots and leftovers that nothing needs",
	VERB_OPTS(options, struct prune_values),
	.group = GROUP_IMAGES,
	.run = verb,
};
