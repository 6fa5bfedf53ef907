/* SPDX-License-Identifier: Apache-2.0 */
/* --format templates: the lines of all rows, in columns where they are to be. See template.h. */
#include "cli/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"

#define TABLE "table "
#define GAP 3 /* between columns, as docker has it */

bool template_is(const char *format)
{
	return strstr(format, "{{") != NULL;
}

/* The widest cell of each column; tabs part them. */
static void measure(char *const *lines, size_t count, size_t *widths)
{
	for (size_t i = 0; i < count; i++) {
		char *cell = lines[i];

		for (size_t c = 0; cell && c < TABLE_MAX_COLUMNS; c++) {
			char *tab = strchr(cell, '\t');

			if (tab)
				*tab = '\0';
			widths[c] = MAX(widths[c], text_width(cell));
			if (tab)
				*tab = '\t';
			cell = tab ? tab + 1 : NULL;
		}
	}
}

static void print_columns(char *const *lines, size_t count)
{
	size_t widths[TABLE_MAX_COLUMNS] = {0};

	measure(lines, count, widths);
	for (size_t i = 0; i < count; i++) {
		char *cell = lines[i], *tab;

		for (size_t c = 0; (tab = strchr(cell, '\t')) && c < TABLE_MAX_COLUMNS; c++) {
			*tab = '\0';
			printf("%s%*s", cell, (int)(widths[c] + GAP - text_width(cell)), "");
			cell = tab + 1;
		}
		puts(cell);
	}
}

static char *expand(const char *format, const void *row, const struct template_fields *fields, char *what, int *ret)
{
	struct buf b = {0};

	*ret = template_expand(format, row, fields, &b, what);
	buf_put_u8(&b, 0);
	if (*ret == 0 && b.error)
		*ret = b.error;
	if (*ret < 0)
		buf_done(&b);
	return (char *)b.data;
}

int template_print(struct cli *cli, const char *format, const struct template_fields *fields, const void *const *rows,
		   size_t count)
{
	char **lines = calloc(count + 1, sizeof(*lines)), what[TEMPLATE_WHAT] = "";
	bool table = str_starts(format, TABLE);
	size_t n = 0;
	int r = lines ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i <= count; i++) {
		lines[n] = expand(format, i ? rows[i - 1] : NULL, fields, what, &r);
		n += r == 0;
	}
	if (r == 0 && table)
		print_columns(lines, n);
	for (size_t i = 1; r == 0 && !table && i < n; i++)
		puts(lines[i]);
	while (n)
		free(lines[--n]);
	free(lines);
	return r == -EINVAL ? cli_usage(cli, "fields: see --help", "--format: %s", what)
	       : r < 0	    ? cli_usage(cli, NULL, "%s", strerror(-r))
			    : 0;
}
