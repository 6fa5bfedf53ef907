/* SPDX-License-Identifier: Apache-2.0 */
/* version. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/template.h"

struct version_values {
	const char *format;
};

static const struct opt options[] = {
	{0, "format", OPT_TEXT, offsetof(struct version_values, format), "text|json|TEMPLATE", "how to print",
	 .choices = "text|json", .open = true},
};

/* docker's client and server are one here. */
static void get_field(const void *row, const char *name, struct template_value *v)
{
	buf_printf(&v->text, "%s", sm_version());
}

static const struct template_fields fields = {
	.names =
		(const struct template_name[]){
			{"Version", NULL}, {"Client.Version", NULL}, {"Server.Version", NULL}, {NULL, NULL}},
	.get = get_field,
};

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct version_values *v = values;
	const void *row = "";
	struct json j = {0};

	if (v->format && template_is(v->format))
		return template_print(cli, v->format, &fields, &row, 1);
	if (v->format && !streq(v->format, "text") && !streq(v->format, "json"))
		return cli_usage(cli, "text, json or a template as '{{.Version}}'", "--format cannot be '%s'",
				 v->format);
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
