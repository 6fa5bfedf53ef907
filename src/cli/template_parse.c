/* SPDX-License-Identifier: Apache-2.0 */
/* --format templates: from their text to nodes. By recursive descent, to a bounded depth. See template.h. */
#include "cli/template_parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"

#define TABLE "table "
#define MAX_DEPTH 16
#define SPACE " \t\r\n"
#define LABEL "Label"
#define LABELS "Labels"
#define FUNCTIONS "json index join upper lower len print println printf truncate eq ne and or not"

struct parser {
	const char *begin, *s;
	const struct template_fields *fields;
	char *what;
	unsigned depth, ranges;
	const char *vars[TEMPLATE_MAX_VARS]; /* their names, into the text, behind the "$" */
	size_t var_len[TEMPLATE_MAX_VARS];
	unsigned num_vars;
	bool trim; /* the action before this text said so */
};

static const struct {
	const char *name;
	unsigned min, max;
} functions[F_COUNT] = {
	[F_JSON] = {"json", 1, 1},
	[F_INDEX] = {"index", 2, 2},
	[F_JOIN] = {"join", 2, 2},
	[F_UPPER] = {"upper", 1, 1},
	[F_LOWER] = {"lower", 1, 1},
	[F_LEN] = {"len", 1, 1},
	[F_PRINT] = {"print", 1, TEMPLATE_MAX_ARGS},
	[F_PRINTLN] = {"println", 1, TEMPLATE_MAX_ARGS},
	[F_PRINTF] = {"printf", 1, TEMPLATE_MAX_ARGS},
	[F_TRUNCATE] = {"truncate", 2, 2},
	[F_EQ] = {"eq", 2, TEMPLATE_MAX_ARGS},
	[F_NE] = {"ne", 2, 2},
	[F_AND] = {"and", 1, TEMPLATE_MAX_ARGS},
	[F_OR] = {"or", 1, TEMPLATE_MAX_ARGS},
	[F_NOT] = {"not", 1, 1},
};

static int wrong(struct parser *p, const char *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
static int wrong(struct parser *p, const char *at, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(p->what, TEMPLATE_WHAT, "column %zu: ", (size_t)(at - p->begin) + 1);

	va_start(ap, fmt);
	vsnprintf(p->what + n, TEMPLATE_WHAT - (size_t)n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static void expr_free(struct expr *e)
{
	for (unsigned i = 0; e && i < e->num_args; i++)
		expr_free(e->args[i]);
	if (e)
		free(e->text);
	free(e);
}

void template_free(struct node *n)
{
	while (n) {
		struct node *next = n->next;

		template_free(n->body);
		template_free(n->other);
		expr_free(n->expr);
		free(n->text);
		free(n);
		n = next;
	}
}

const struct template_name *template_find(const struct template_fields *f, const char *name)
{
	for (const struct template_name *n = f->names; n->name; n++)
		if (streq(n->name, name))
			return n;
	return NULL;
}

bool template_is_group(const struct template_fields *f, const char *name)
{
	size_t len = strlen(name);

	for (const struct template_name *n = f->names; n->name; n++)
		if (strncmp(n->name, name, len) == 0 && n->name[len] == '.')
			return true;
	return false;
}

/* ----------------------------------------------------------------------------------------- expressions */

static void skip_space(struct parser *p)
{
	p->s += strspn(p->s, SPACE);
}

/* "}}", or " -}}". */
static bool at_end(const struct parser *p)
{
	return str_starts(p->s, "}}") || str_starts(p->s, "-}}");
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static size_t word_length(const char *s)
{
	size_t n = 0;

	while (is_word(s[n]))
		n++;
	return n;
}

static int expr_new(enum expr_kind kind, const char *text, size_t len, struct expr **ret)
{
	struct expr *e = calloc(1, sizeof(*e));

	if (e && text)
		e->text = strndup(text, len);
	if (!e || (text && !e->text)) {
		free(e);
		return -ENOMEM;
	}
	e->kind = kind;
	*ret = e;
	return 0;
}

static int add_arg(struct parser *p, struct expr *call, struct expr *arg, const char *at)
{
	if (call->num_args == TEMPLATE_MAX_ARGS) {
		expr_free(arg);
		return wrong(p, at, "more than %d arguments", TEMPLATE_MAX_ARGS);
	}
	call->args[call->num_args++] = arg;
	return 0;
}

static int parse_text(struct parser *p, struct expr **ret)
{
	const char *at = p->s, quote = *p->s++;
	_cleanup_(buf_done) struct buf b = {0};

	for (; *p->s && *p->s != quote; p->s++) {
		char c = *p->s;

		if (c == '\\' && quote == '"' && p->s[1]) {
			c = *++p->s;
			c = c == 't' ? '\t' : c == 'n' ? '\n' : c;
		}
		buf_put_u8(&b, (uint8_t)c);
	}
	if (*p->s++ != quote) {
		p->s--;
		return wrong(p, at, "a text without its second %c", quote);
	}
	buf_put_u8(&b, 0);
	return b.error ? b.error : expr_new(EXPR_TEXT, (const char *)b.data, b.len - 1, ret);
}

/* .A.B, also behind a "$": of the row in any case. */
static int parse_field(struct parser *p, bool of_row, struct expr **ret)
{
	const char *at = p->s;
	size_t len = 0;
	int r;

	while (p->s[len] == '.' && is_word(p->s[len + 1]))
		len += 1 + word_length(p->s + len + 1);
	if (!len) {
		p->s += *p->s == '.';
		return expr_new(of_row || !p->ranges ? EXPR_ROOT : EXPR_DOT, NULL, 0, ret);
	}
	p->s += len;
	if (p->ranges && !of_row)
		return wrong(p, at, "inside of range \".\" is one of the list: $%.*s is the row's", (int)MIN(len, 60u),
			     at);
	r = expr_new(EXPR_FIELD, at + 1, len - 1, ret);
	if (r < 0 || template_find(p->fields, (*ret)->text) || template_is_group(p->fields, (*ret)->text) ||
	    (streq((*ret)->text, LABEL) && template_find(p->fields, LABELS)))
		return r;
	expr_free(*ret);
	*ret = NULL;
	return wrong(p, at, "there is no field .%.*s", (int)MIN(len - 1, 60u), at + 1);
}

static int parse_variable(struct parser *p, struct expr **ret)
{
	const char *at = p->s++;
	size_t len = word_length(p->s);
	int r;

	if (!len)
		return parse_field(p, true, ret);
	for (unsigned i = p->num_vars; i--;) {
		if (p->var_len[i] != len || strncmp(p->vars[i], p->s, len) != 0)
			continue;
		p->s += len;
		r = expr_new(EXPR_VAR, NULL, 0, ret);
		if (r == 0)
			(*ret)->var = i;
		return r;
	}
	return wrong(p, at, "there is no variable $%.*s: range makes them", (int)MIN(len, 40u), p->s);
}

static int parse_pipeline(struct parser *p, struct expr **ret);

static int parse_parens(struct parser *p, struct expr **ret)
{
	const char *at = p->s++;
	int r;

	if (++p->depth > MAX_DEPTH)
		return wrong(p, at, "nested deeper than %d", MAX_DEPTH);
	r = parse_pipeline(p, ret);
	p->depth--;
	if (r < 0)
		return r;
	skip_space(p);
	if (*p->s++ == ')')
		return 0;
	expr_free(*ret);
	*ret = NULL;
	return wrong(p, at, "'(' without ')'");
}

static int parse_term(struct parser *p, struct expr **ret)
{
	const char *at = p->s;
	size_t len = word_length(at);

	if (*at == '"' || *at == '`')
		return parse_text(p, ret);
	if (*at == '.')
		return parse_field(p, false, ret);
	if (*at == '$')
		return parse_variable(p, ret);
	if (*at == '(')
		return parse_parens(p, ret);
	if (len && strspn(at, "0123456789") == len) {
		p->s += len;
		return expr_new(EXPR_NUMBER, at, len, ret);
	}
	return wrong(p, at, "%s'%.*s' is no field, text, number or function in this place",
		     *at ? "" : "the end: ", (int)MIN(len ? len : 1, 40u), at);
}

static int parse_function(struct parser *p, struct expr **ret)
{
	size_t len = word_length(p->s);
	int r;

	for (unsigned i = 0; i < F_COUNT; i++) {
		if (strlen(functions[i].name) != len || strncmp(functions[i].name, p->s, len) != 0)
			continue;
		p->s += len;
		r = expr_new(EXPR_CALL, NULL, 0, ret);
		if (r == 0)
			(*ret)->f = (enum template_function)i;
		return r;
	}
	return wrong(p, p->s, "there is no function %.*s, but " FUNCTIONS, (int)MIN(len, 30u), p->s);
}

/* {{.Label "key"}}, docker's way to write {{index .Labels "key"}}: on success *ret is that. */
static int make_label(struct expr **ret)
{
	struct expr *call;
	int r = expr_new(EXPR_CALL, NULL, 0, &call);

	if (r < 0)
		return r;
	free((*ret)->text);
	(*ret)->text = strdup(LABELS);
	call->f = F_INDEX;
	call->args[call->num_args++] = *ret;
	*ret = call;
	return call->args[0]->text ? 0 : -ENOMEM;
}

static int check_call(struct parser *p, const struct expr *e, const char *at)
{
	if (e->num_args < functions[e->f].min || e->num_args > functions[e->f].max)
		return wrong(p, at, "%s with %u argument%s", functions[e->f].name, e->num_args,
			     e->num_args == 1 ? "" : "s");
	for (unsigned i = 0; i < e->num_args; i++) {
		const struct expr *a = e->args[i];

		if (e->f != F_JSON &&
		    (a->kind == EXPR_ROOT || (a->kind == EXPR_FIELD && !template_find(p->fields, a->text))))
			return wrong(p, at, ".%.60s is no value, but many: json has them",
				     a->kind == EXPR_FIELD ? a->text : "");
	}
	return 0;
}

/* Function and arguments, or one term. piped: the value before the "|", the last argument; taken in any case. */
static int parse_command(struct parser *p, struct expr *piped, struct expr **ret)
{
	const char *at;
	struct expr *arg = NULL;
	int r;

	skip_space(p);
	at = p->s;
	r = isalpha((unsigned char)*at) ? parse_function(p, ret)
	    : piped			? wrong(p, at, "behind '|' comes a function: " FUNCTIONS)
					: parse_term(p, ret);
	if (r == 0 && (*ret)->kind == EXPR_FIELD && streq((*ret)->text, LABEL) && !template_find(p->fields, LABEL))
		r = make_label(ret);
	while (r == 0) {
		skip_space(p);
		if (!*p->s || at_end(p) || *p->s == '|' || *p->s == ')')
			break;
		if ((*ret)->kind != EXPR_CALL)
			r = wrong(p, p->s, "a field takes no argument");
		else
			r = parse_term(p, &arg);
		if (r == 0)
			r = add_arg(p, *ret, arg, at);
	}
	if (r == 0 && piped)
		r = add_arg(p, *ret, TAKE_PTR(piped), at);
	if (r == 0 && (*ret)->kind == EXPR_CALL)
		r = check_call(p, *ret, at);
	expr_free(piped);
	if (r < 0) {
		expr_free(*ret);
		*ret = NULL;
	}
	return r;
}

static int parse_pipeline(struct parser *p, struct expr **ret)
{
	int r, n = 0;

	*ret = NULL;
	r = parse_command(p, NULL, ret);
	while (r == 0 && *p->s == '|') {
		struct expr *left = *ret;

		*ret = NULL;
		p->s++;
		/* Each is an argument of the next: as deep as parentheses. */
		if (++n > MAX_DEPTH) {
			expr_free(left);
			return wrong(p, p->s, "nested deeper than %d", MAX_DEPTH);
		}
		r = parse_command(p, left, ret);
	}
	return r;
}

/* ----------------------------------------------------------------------------------------------- nodes */

static int parse_nodes(struct parser *p, struct node **ret, const char **stop);

static int node_new(enum node_kind kind, struct node **ret)
{
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->kind = kind;
	(*ret)->key = (*ret)->value = -1;
	return 0;
}

/* Behind an action. */
static int end_action(struct parser *p, const char *begin)
{
	skip_space(p);
	p->trim = *p->s == '-';
	p->s += p->trim;
	if (!str_starts(p->s, "}}"))
		return *p->s ? wrong(p, p->s, "'%c' in this place", *p->s) : wrong(p, begin, "'{{' without '}}'");
	p->s += 2;
	return 0;
}

static bool take_word(struct parser *p, const char *word)
{
	size_t len = strlen(word);

	if (!str_starts(p->s, word) || is_word(p->s[len]))
		return false;
	p->s += len;
	return true;
}

static int new_variable(struct parser *p, int *ret)
{
	size_t len = *p->s == '$' ? word_length(p->s + 1) : 0;

	if (!len || p->num_vars == TEMPLATE_MAX_VARS)
		return wrong(p, p->s, len ? "too many variables" : "a variable, as $key, has to come here");
	p->vars[p->num_vars] = p->s + 1;
	p->var_len[p->num_vars] = len;
	*ret = (int)p->num_vars++;
	p->s += 1 + len;
	skip_space(p);
	return 0;
}

/* "$value := ", "$key, $value := " or nothing. */
static int parse_variables(struct parser *p, struct node *n)
{
	int r;

	skip_space(p);
	if (*p->s != '$' || !word_length(p->s + 1) || !strpbrk(p->s, ":}") || *strpbrk(p->s, ":}") != ':')
		return 0;
	r = new_variable(p, &n->value);
	if (r == 0 && *p->s == ',') {
		p->s++;
		skip_space(p);
		n->key = n->value;
		r = new_variable(p, &n->value);
	}
	if (r == 0 && !str_starts(p->s, ":="))
		return wrong(p, p->s, "':=' has to come here");
	p->s += r == 0 ? 2 : 0;
	return r;
}

/* {{if}} and {{range}}, behind the word, and {{else if}}, whose {{end}} is the {{if}}'s. */
static int parse_block(struct parser *p, const char *begin, struct node *n)
{
	unsigned vars = p->num_vars;
	const char *stop = NULL;
	int r;

	if (++p->depth > MAX_DEPTH)
		return wrong(p, begin, "nested deeper than %d", MAX_DEPTH);
	r = n->kind == NODE_RANGE ? parse_variables(p, n) : 0;
	if (r == 0)
		r = parse_pipeline(p, &n->expr);
	if (r == 0 && (n->expr->kind == EXPR_ROOT || n->expr->kind == EXPR_DOT) && n->kind == NODE_RANGE)
		r = wrong(p, begin, "range goes over a field that is a list");
	if (r == 0 && n->expr->kind == EXPR_ROOT)
		r = wrong(p, begin, "if takes a field or a function");
	r = r < 0 ? r : end_action(p, begin);
	p->ranges += n->kind == NODE_RANGE;
	r = r < 0 ? r : parse_nodes(p, &n->body, &stop);
	p->ranges -= n->kind == NODE_RANGE;
	p->num_vars = vars;
	if (r == 0 && stop && take_word(p, "else")) {
		skip_space(p);
		if (n->kind == NODE_IF && take_word(p, "if")) {
			r = node_new(NODE_IF, &n->other);
			r = r < 0 ? r : parse_block(p, begin, n->other);
			p->depth--;
			return r;
		}
		r = end_action(p, stop);
		r = r < 0 ? r : parse_nodes(p, &n->other, &stop);
	}
	p->depth--;
	if (r < 0)
		return r;
	if (!stop || !take_word(p, "end"))
		return wrong(p, begin, "'{{%s' without '{{end}}'", n->kind == NODE_IF ? "if" : "range");
	return end_action(p, stop);
}

static int parse_output(struct parser *p, const char *begin, struct node *n)
{
	int r = parse_pipeline(p, &n->expr);
	const struct expr *e = n->expr;

	if (r == 0 && (e->kind == EXPR_ROOT || (e->kind == EXPR_FIELD && !template_find(p->fields, e->text))))
		return wrong(p, begin, ".%.60s is no value, but many: json has them", e->text ? e->text : "");
	return r < 0 ? r : end_action(p, begin);
}

/* p->s: "{{". *stop: it is {{else}} or {{end}}, and p->s is at that word. */
static int parse_action(struct parser *p, struct node **ret, const char **stop)
{
	const char *begin = p->s;
	int r;

	p->s += 2;
	p->s += p->s[0] == '-' && strchr(SPACE, p->s[1]) && p->s[1];
	skip_space(p);
	if (str_starts(p->s, "/*")) {
		const char *end = strstr(p->s, "*/");

		p->s = end ? end + 2 : p->s + strlen(p->s);
		return end_action(p, begin);
	}
	if ((str_starts(p->s, "end") && !is_word(p->s[3])) || (str_starts(p->s, "else") && !is_word(p->s[4]))) {
		*stop = begin;
		return 0;
	}
	r = node_new(take_word(p, "if") ? NODE_IF : take_word(p, "range") ? NODE_RANGE : NODE_OUTPUT, ret);
	if (r < 0)
		return r;
	return (*ret)->kind == NODE_OUTPUT ? parse_output(p, begin, *ret) : parse_block(p, begin, *ret);
}

/* Up to the next action. *ret is NULL where nothing is left. */
static int parse_plain(struct parser *p, struct node **ret)
{
	_cleanup_(buf_done) struct buf b = {0};
	size_t skip = 0;
	int r;

	while (*p->s && !str_starts(p->s, "{{")) {
		bool escape = p->s[0] == '\\' && (p->s[1] == 't' || p->s[1] == 'n');

		buf_put_u8(&b, (uint8_t)(!escape ? p->s[0] : p->s[1] == 't' ? '\t' : '\n'));
		p->s += 1 + escape;
	}
	while (p->trim && skip < b.len && strchr(SPACE, b.data[skip]))
		skip++;
	p->trim = false;
	if (str_starts(p->s, "{{-") && p->s[3] && strchr(SPACE, p->s[3]))
		while (b.len > skip && strchr(SPACE, b.data[b.len - 1]))
			b.len--;
	if (b.error || b.len == skip)
		return b.error;
	r = node_new(NODE_TEXT, ret);
	if (r == 0)
		(*ret)->text = strndup((const char *)b.data + skip, b.len - skip);
	return r < 0 || (*ret)->text ? r : -ENOMEM;
}

/* Up to the end, or *stop. */
static int parse_nodes(struct parser *p, struct node **ret, const char **stop)
{
	int r = 0;

	*stop = NULL;
	while (r == 0 && *p->s && !*stop) {
		r = str_starts(p->s, "{{") ? parse_action(p, ret, stop) : parse_plain(p, ret);
		if (*ret)
			ret = &(*ret)->next;
	}
	return r;
}

int template_parse(const char *format, const struct template_fields *fields, struct node **ret,
		   char what[static TEMPLATE_WHAT])
{
	struct parser p = {.begin = format, .fields = fields, .what = what};
	const char *stop;
	int r;

	*ret = NULL;
	p.s = format + (str_starts(format, TABLE) ? strlen(TABLE) : 0);
	r = parse_nodes(&p, ret, &stop);
	if (r == 0 && stop)
		r = wrong(&p, stop, "'%.4s' belongs to no if or range", p.s);
	if (r < 0) {
		template_free(*ret);
		*ret = NULL;
	}
	return r;
}
