/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --format '{{.ID}} {{json .Names}}': the part of docker's templates that names fields and looks into them, and no
 *more:
 *
 *	{{.NAME}} {{.A.B}} {{"text"}} {{json .NAME}} {{json .}} {{index .NAME "key"}} {{index .NAME 0}} {{join .NAME ",
 *"}}
 *	{{upper .NAME}} {{lower .NAME}} {{len .NAME}} {{println .NAME}} {{.Label "key"}} {{.NAME | json}} {{json .A}}
 *	{{range .NAME}}... {{.}} ...{{end}}, one in the other not
 *
 * "\t" and "\n" outside of braces, and "table " before all for columns with titles, which tabs part.
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
 * One row's line, without the newline; with row NULL the titles. 0; -EINVAL with what is wrong in `what` (a field that
 * is not there, anything else between braces).
 */
#define TEMPLATE_WHAT 160
int template_expand(const char *format, const void *row, const struct template_fields *fields, struct buf *ret,
		    char what[static TEMPLATE_WHAT]);

struct cli;
/* Prints a line for each row. Returns the exit status after having told a mistake, also where there is no row. */
int template_print(struct cli *cli, const char *format, const struct template_fields *fields, const void *const *rows,
		   size_t count);

#endif
