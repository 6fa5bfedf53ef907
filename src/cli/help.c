/* SPDX-License-Identifier: Apache-2.0 */
/* --help, made from the verbs' tables. */
#include "cli/cli.h"

#include <string.h>

#include "base/util.h"

#define HELP_COLUMN 28
#define HELP_WIDTH 80

void cli_put_wrapped(FILE *f, const char *text, size_t indent, size_t at, size_t width)
{
	while (*text) {
		size_t len = strcspn(text, " \n");

		if (at > indent && at + 1 + len > width) {
			fprintf(f, "\n%*s", (int)indent, "");
			at = indent;
		} else if (at > indent) {
			fputc(' ', f);
			at++;
		}
		fprintf(f, "%.*s", (int)len, text);
		at += len;
		text += len;
		if (*text == '\n') {
			fprintf(f, "\n%*s", (int)indent, "");
			at = indent;
		}
		if (*text)
			text++;
	}
	fputc('\n', f);
}

static void put_option(FILE *f, const struct opt *o)
{
	char left[80];
	int n;

	if (!o->help)
		return;
	n = snprintf(left, sizeof(left), "  %c%c%c --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
		     o->letter ? ',' : ' ', o->name, o->arg ? " " : "", o->arg ? o->arg : "");
	if (n >= HELP_COLUMN) {
		fprintf(f, "%s\n%*s", left, HELP_COLUMN, "");
	} else {
		fprintf(f, "%-*s", HELP_COLUMN, left);
	}
	cli_put_wrapped(f, o->help, HELP_COLUMN, HELP_COLUMN, HELP_WIDTH);
}

void cli_help(FILE *f, const struct verb *v)
{
	bool options = false;

	for (size_t i = 0; i < v->num_opts; i++)
		options |= v->opts[i].help != NULL;
	fprintf(f, "Usage: supermachine %s%s%s%s\n\n", v->name, options ? " [OPTIONS]" : "", v->operands[0] ? " " : "",
		v->operands);
	fprintf(f, "%s.\n", v->summary);
	if (v->details) {
		fputc('\n', f);
		cli_put_wrapped(f, v->details, 0, 0, HELP_WIDTH);
	}
	if (options)
		fputs("\nOptions:\n", f);
	for (size_t i = 0; i < v->num_opts; i++)
		put_option(f, &v->opts[i]);
	if (v->examples)
		fputs("\nExamples:\n", f);
	for (const char *const *e = v->examples; e && e[0]; e += 2)
		fprintf(f, "  # %s\n  supermachine %s\n", e[1], e[0]);
}

void cli_help_family(FILE *f, const char *word)
{
	fprintf(f, "Usage: supermachine %s VERB ...\n\nVerbs for %s:\n", word, cli_family(word));
	for (const struct verb *const *v = cli_verbs(); *v; v++)
		if (str_starts((*v)->name, word) && (*v)->name[strlen(word)] == ' ')
			fprintf(f, "  %-16s %s\n", (*v)->name, (*v)->summary);
	fprintf(f, "\nMore about one: supermachine %s VERB --help\n", word);
}

void cli_help_all(FILE *f)
{
	static const struct {
		enum verb_group group;
		const char *title;
	} groups[] = {
		{GROUP_RUN, "Run a command"}, {GROUP_VMS, "VMs"}, {GROUP_IMAGES, "Images"}, {GROUP_HOST, "This host"}};

	fputs("Usage: supermachine [OPTIONS] VERB ...\n\n"
	      "Runs OCI images as hardware-isolated microVMs.\n",
	      f);
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		fprintf(f, "\n%s:\n", groups[g].title);
		for (const struct verb *const *v = cli_verbs(); *v; v++)
			if ((*v)->group == groups[g].group)
				fprintf(f, "  %-16s %s\n", (*v)->name, (*v)->summary);
	}
	fputs("\nOptions:\n", f);
	for (size_t i = 0; i < cli_num_global_opts; i++)
		put_option(f, &cli_global_opts[i]);
	fputs("\nMore about a verb: supermachine VERB --help\n"
	      "Try it:            supermachine run IMAGE echo hello\n",
	      f);
}
