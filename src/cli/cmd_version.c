/* SPDX-License-Identifier: Apache-2.0 */
/* version. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

struct version_values {
	const char *format;
};

static const struct opt options[] = {
	{0, "format", OPT_TEXT, offsetof(struct version_values, format), "text|json", "how to print",
	 .choices = "text|json"},
};

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct version_values *v = values;
	struct json j = {0};

	if (!v->format || streq(v->format, "text")) {
		printf("supermachine %s\n", sm_version());
		return 0;
	}
	json_open(&j, NULL, '{');
	json_text(&j, "version", sm_version());
	json_close(&j, '}');
	return cli_print_json(cli, &j);
}

const struct verb verb_version = {
	.name = "version",
	.operands = "",
	.summary = "Print the version",
	VERB_OPTS(options, struct version_values),
	.group = GROUP_HOST,
	.run = verb,
};
