/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: tables that fit the terminal, ages, names from outside made harmless, signal names. */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

/* Writes s with control characters and bytes that are no UTF-8 as \xNN: names in images may hold terminal escapes. */
void text_put(FILE *f, const char *s);
/* The same into a string to free; NULL without memory. */
char *text_clean(const char *s);
/* Columns that a clean string takes, counting code points. */
size_t text_width(const char *s);

/* "12s", "5m", "3h", "4d", "2y" between two calendar times; "-" when `then` is 0 (unknown). */
char *text_age(int64_t then_ns, int64_t now_ns, char buf[static 16]);
int64_t text_now(void);
/* A point in time: a duration ("10m": before now), a date in UTC ("2026-01-31" "T12:00:00" "Z", the latter two may be
 * left out), or seconds since 1970. 0 or -EINVAL. */
int text_time(const char *s, int64_t now_ns, int64_t *ret_ns);
/* "2026-01-31 12:00:00 +0000 UTC", as docker's tables have it. */
void text_put_time(struct buf *b, int64_t ns);
/* "1.25s", "350ms". */
char *text_duration(uint64_t ns, char buf[static 16]);

/* "SIGTERM", "term" or "15" to 15; -EINVAL. */
int text_signal(const char *s);

#define TABLE_MAX_COLUMNS 10

enum table_align { TABLE_LEFT, TABLE_RIGHT };

struct table_column {
	const char *title;
	enum table_align align;
	size_t shrink; /* may be cut down to this width where the table is too wide; 0: never cut */
};

struct table {
	const struct table_column *columns;
	size_t num_columns;
	char **cells; /* row by row */
	size_t num_cells;
	int error; /* sticky -ENOMEM */
};

/* Cells are added left to right, row after row; strings are copied and cleaned. */
void table_init(struct table *t, const struct table_column *columns, size_t count);
void table_add(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Prints titles and rows, cutting columns that may be cut until a row fits into width (0: no limit). 0 or -errno. */
int table_print(const struct table *t, FILE *f, size_t width);
void table_done(struct table *t);

#endif
