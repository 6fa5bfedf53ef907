/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what this host lacks, and the line that fixes it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"

#define TEXT_COLUMN 18

struct doctor_values {
	const char *format;
};

static const struct opt options[] = {
	{0, "format", OPT_TEXT, offsetof(struct doctor_values, format), "text|json", "how to print",
	 .choices = "text|json"},
};

static int print_json(struct cli *cli, const struct sm_finding *f, size_t count)
{
	struct json j = {0};

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < count; i++) {
		json_open(&j, NULL, '{');
		json_text(&j, "id", f[i].id);
		json_bool(&j, "ok", f[i].ok);
		json_bool(&j, "required", f[i].required);
		json_text(&j, "message", f[i].message);
		json_text(&j, "fix", f[i].fix);
		json_close(&j, '}');
	}
	json_close(&j, ']');
	return cli_print_json(cli, &j);
}

static void put_text(const char *text, size_t width)
{
	char *clean = text_clean(text);

	cli_put_wrapped(stdout, clean ? clean : "", TEXT_COLUMN, TEXT_COLUMN, width);
	free(clean);
}

static void print_text(const struct sm_finding *f, size_t count)
{
	const char *no_color = getenv("NO_COLOR");
	size_t width = isatty(STDOUT_FILENO) ? cli_width(stdout) : SIZE_MAX;
	bool color = isatty(STDOUT_FILENO) && !(no_color && *no_color);

	for (size_t i = 0; i < count; i++) {
		const char *mark = f[i].ok ? "ok" : f[i].required ? "MISSING" : "note";
		const char *paint = f[i].ok ? "\033[32m" : f[i].required ? "\033[31m" : "\033[33m";

		printf("%s%-8s%s %-8s ", color ? paint : "", mark, color ? "\033[0m" : "", f[i].id);
		put_text(f[i].message, width);
		if (!f[i].ok && f[i].fix && f[i].fix[0])
			printf("         fix:     %s\n", f[i].fix);
	}
}

static int verb(struct cli *cli, const void *values, char **operands, int count)
{
	const struct doctor_values *v = values;
	struct sm_finding *findings = NULL;
	struct sm_error err = {0};
	size_t n = 0, missing = 0;
	int status = 0;

	if (!cli_client(cli))
		return CLI_FAILED;
	if (sm_doctor(cli->client, &findings, &n, &err) < 0)
		return cli_fail(cli, &err, NULL);
	for (size_t i = 0; i < n; i++)
		missing += findings[i].required && !findings[i].ok;
	if (v->format && streq(v->format, "json"))
		status = print_json(cli, findings, n);
	else
		print_text(findings, n);
	sm_doctor_free(findings, n);
	return status ? status : missing ? 1 : 0;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.operands = "",
	.summary = "Tell what this host lacks, and the line that fixes it",
	.details = "Exit status 1 when something is missing without which no VM can run.",
	VERB_OPTS(options, struct doctor_values),
	.group = GROUP_HOST,
	.run = verb,
};
