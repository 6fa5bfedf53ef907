/* SPDX-License-Identifier: Apache-2.0 */
/* What a template says: text and actions, as template_parse.c finds them and template_eval.c carries them out. */
#ifndef CLI_TEMPLATE_PARSE_H
#define CLI_TEMPLATE_PARSE_H

#include "cli/template.h"

#define TEMPLATE_MAX_ARGS 16
#define TEMPLATE_MAX_VARS 16

enum template_function {
	F_JSON,
	F_INDEX,
	F_JOIN,
	F_UPPER,
	F_LOWER,
	F_LEN,
	F_PRINT,
	F_PRINTLN,
	F_PRINTF,
	F_TRUNCATE,
	F_EQ,
	F_NE,
	F_AND,
	F_OR,
	F_NOT,
	F_COUNT
};

enum expr_kind { EXPR_FIELD, EXPR_DOT, EXPR_ROOT, EXPR_VAR, EXPR_TEXT, EXPR_NUMBER, EXPR_CALL };
struct expr {
	enum expr_kind kind;
	char *text;   /* FIELD: its name; TEXT, NUMBER: itself */
	unsigned var; /* VAR: which */
	enum template_function f;
	struct expr *args[TEMPLATE_MAX_ARGS];
	unsigned num_args;
};

enum node_kind { NODE_TEXT, NODE_OUTPUT, NODE_IF, NODE_RANGE };
struct node {
	enum node_kind kind;
	struct node *next;
	char *text;
	struct expr *expr;	   /* OUTPUT; IF: what decides; RANGE: over which */
	struct node *body, *other; /* IF, RANGE: what is between {{else}} and {{end}} */
	int key, value;		   /* RANGE: variables, -1: none */
};

/* 0; -EINVAL with what is wrong, and where; -ENOMEM. *ret may be NULL: an empty one. */
int template_parse(const char *format, const struct template_fields *fields, struct node **ret,
		   char what[static TEMPLATE_WHAT]);
void template_free(struct node *n);
const struct template_name *template_find(const struct template_fields *f, const char *name);
/* "State", where there is "State.Status". */
bool template_is_group(const struct template_fields *f, const char *name);

#endif
