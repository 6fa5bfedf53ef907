/* SPDX-License-Identifier: Apache-2.0 */
/* Tables that fit the terminal. See text.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/text.h"

#define GAP 2

void table_init(struct table *t, const struct table_column *columns, size_t count)
{
	*t = (struct table){.columns = columns, .num_columns = MIN(count, (size_t)TABLE_MAX_COLUMNS)};
}

void table_add(struct table *t, const char *fmt, ...)
{
	_free_ char *raw = NULL;
	char **cells, *clean;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&raw, fmt, ap);
	va_end(ap);
	if (n < 0)
		raw = NULL;
	clean = raw ? text_clean(raw) : NULL;
	cells = clean ? realloc(t->cells, (t->num_cells + 1) * sizeof(*cells)) : NULL;
	if (!cells) {
		free(clean);
		t->error = -ENOMEM;
		return;
	}
	t->cells = cells;
	t->cells[t->num_cells++] = clean;
}

/* Takes from the widest column that may be cut, a column at a time: long names lose, short ones stay whole. */
static void fit(const struct table *t, size_t *widths, size_t limit)
{
	for (;;) {
		size_t total = GAP * (t->num_columns - 1), widest = t->num_columns;

		for (size_t c = 0; c < t->num_columns; c++) {
			total += widths[c];
			if (t->columns[c].shrink && widths[c] > t->columns[c].shrink &&
			    (widest == t->num_columns || widths[c] > widths[widest]))
				widest = c;
		}
		if (total <= limit || widest == t->num_columns)
			return;
		widths[widest]--;
	}
}

static void put_cell(FILE *f, const char *s, size_t width, enum table_align align, bool last)
{
	size_t have = text_width(s), shown = MIN(have, width), bytes = 0;
	bool cut = have > width;

	if (align == TABLE_RIGHT)
		fprintf(f, "%*s", (int)(width - shown), "");
	for (size_t points = 0; s[bytes]; bytes++) {
		points += ((unsigned char)s[bytes] >> 6) != 2;
		if (points > (cut ? shown - 1 : shown))
			break;
	}
	fprintf(f, "%.*s%s", (int)bytes, s, cut ? "~" : "");
	if (!last)
		fprintf(f, "%*s", (int)(GAP + (align == TABLE_LEFT ? width - shown : 0)), "");
}

int table_print(const struct table *t, FILE *f, size_t width)
{
	size_t widths[TABLE_MAX_COLUMNS], rows = t->num_cells / t->num_columns;

	if (t->error)
		return t->error;
	for (size_t c = 0; c < t->num_columns; c++) {
		widths[c] = strlen(t->columns[c].title);
		for (size_t r = 0; r < rows; r++)
			widths[c] = MAX(widths[c], text_width(t->cells[r * t->num_columns + c]));
	}
	if (width)
		fit(t, widths, width);
	for (size_t r = 0; r <= rows; r++) {
		for (size_t c = 0; c < t->num_columns; c++)
			put_cell(f, r ? t->cells[(r - 1) * t->num_columns + c] : t->columns[c].title, widths[c],
				 t->columns[c].align, c + 1 == t->num_columns);
		fputc('\n', f);
	}
	return ferror(f) ? -EIO : 0;
}

void table_done(struct table *t)
{
	for (size_t i = 0; i < t->num_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	t->cells = NULL;
	t->num_cells = 0;
}
