/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --format '{{.ID}} {{json .Names}}': of docker's templates what they are written with.
 *
 *	{{.NAME}} {{.A.B}} {{"text"}} {{json .}} {{index .NAME "key"}} {{join .NAME ", "}} {{.Label "key"}} {{.NAME |
 *json}} json index join upper lower len print println printf truncate eq ne and or not; (...) as an argument
 *	{{if X}}...{{else if Y}}...{{else}}...{{end}}
 *	{{range .NAME}}... {{.}} ...{{else}}...{{end}} {{range $key, $value := .NAME}}...{{end}}; in it $.NAME is the
 *row's
 *	{{- X -}} without the white space around, comments
 *
 * "\t" and "\n" outside of braces, and "table " before all for columns with titles, which tabs part. A title stands for
 * what begins with its field; printf and print put titles together; of if it is the first branch's.
 */
#ifndef CLI_TEMPLATE_H
#define CLI_TEMPLATE_H

#include <stdbool.h>

#include "base/buf.h"

/* A field of one row. Zeroed, to fill in. */
struct template_value {
	struct buf text;	 /* as {{.NAME}} prints it */
	const char *const *list; /* what index, join and len look into; NULL: it is no list, or an empty one */
	bool is_list;
	bool map;  /* the list's items are "KEY=VALUE" */
	bool raw;  /* the text is JSON itself: a number, a boolean */
	bool deep; /* json is the list or map, not the text */
};
struct template_name {
	const char *name;  /* "ID", "State.Status" */
	const char *title; /* over a column; NULL: the name's last part */
};
struct template_fields {
	/* All there are, in the order in which {{json .}} has them, those of one object together; ends with NULL. */
	const struct template_name *names;
	/* Only asked for those. */
	void (*get)(const void *row, const char *name, struct template_value *ret);
};

/* A list or map as Go prints it, "[a b]" and "map[k:v]", and JSON has it. */
void template_put_list(struct template_value *v, const char *const *list, bool map);

/* True if --format's value is a template. */
bool template_is(const char *format);
/*
 * One row's line, without the newline; with row NULL the titles. 0; -EINVAL with what is wrong in `what`, and where.
 */
#define TEMPLATE_WHAT 160
int template_expand(const char *format, const void *row, const struct template_fields *fields, struct buf *ret,
		    char what[static TEMPLATE_WHAT]);

struct cli;
/* Prints a line for each row. Returns the exit status after having told a mistake, also where there is no row. */
int template_print(struct cli *cli, const char *format, const struct template_fields *fields, const void *const *rows,
		   size_t count);

#endif
