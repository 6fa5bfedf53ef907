/* SPDX-License-Identifier: Apache-2.0 */
/* --format templates: what a row makes of them. See template.h. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/template_parse.h"

#define MAX_STEPS 1000000u /* ranges in ranges may ask for any number of them */
#define MAX_WIDTH 1000u

/* A list's item, or the variable for its key. */
struct item {
	const char *text;
	size_t len;
	char number[24];
};

struct run {
	const void *row; /* NULL: the titles */
	const struct template_fields *fields;
	const struct item *item; /* what "." is; NULL: the row */
	struct item vars[TEMPLATE_MAX_VARS];
	unsigned steps;
	char *what;
};

static int wrong(struct run *x, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int wrong(struct run *x, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(x->what, TEMPLATE_WHAT, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ----------------------------------------------------------------------------------------------- values */

static void put_json_list(struct buf *b, const char *const *list, bool map)
{
	buf_put_u8(b, map ? '{' : '[');
	for (const char *const *l = list; l && *l; l++) {
		const char *equals = map ? strchr(*l, '=') : NULL;
		_free_ char *key = map ? strndup(*l, equals ? (size_t)(equals - *l) : strlen(*l)) : NULL;

		if (l != list)
			buf_put_u8(b, ',');
		if (key) {
			buf_put_json(b, key);
			buf_put_u8(b, ':');
		}
		buf_put_json(b, !map ? *l : equals ? equals + 1 : "");
	}
	buf_put_u8(b, map ? '}' : ']');
}

void template_put_list(struct template_value *v, const char *const *list, bool map)
{
	v->list = list;
	v->is_list = v->deep = true;
	v->map = map;
	buf_printf(&v->text, map ? "map[" : "[");
	for (const char *const *l = list; l && *l; l++) {
		size_t key = map ? strcspn(*l, "=") : strlen(*l);

		buf_printf(&v->text, "%s%.*s", l == list ? "" : " ", (int)key, *l);
		if (map)
			buf_printf(&v->text, ":%s", (*l)[key] ? *l + key + 1 : "");
	}
	buf_put_u8(&v->text, ']');
}

static const char *look_up(const struct template_value *v, const char *key)
{
	unsigned long at = strtoul(key, NULL, 10);

	for (const char *const *l = v->list; l && *l; l++) {
		size_t len = strcspn(*l, "=");

		if (!v->map && !at--)
			return *l;
		if (v->map && len == strlen(key) && strncmp(*l, key, len) == 0)
			return (*l)[len] ? *l + len + 1 : "";
	}
	return "";
}

static size_t count(const struct template_value *v)
{
	size_t n = 0;

	while (v->list && v->list[n])
		n++;
	return n;
}

/* "" as well where memory has run out, which the buffer keeps. */
static const char *text_of(struct template_value *v)
{
	if (buf_put_u8(&v->text, 0) < 0)
		return "";
	v->text.len--;
	return (const char *)v->text.data;
}

static void put_json(struct buf *b, struct template_value *v)
{
	const char *text = text_of(v);

	if (v->deep && v->is_list)
		put_json_list(b, v->list, v->map);
	else if (v->raw)
		buf_printf(b, "%s", text);
	else if (!v->text.error)
		buf_put_json(b, text);
}

/* As an image may have it: nothing that drives a terminal. */
static void put_clean(struct buf *b, const char *text, size_t len)
{
	_free_ char *own = NULL, *clean = NULL;

	if (!isatty(STDOUT_FILENO)) {
		buf_put(b, text, len);
		return;
	}
	own = strndup(text, len);
	clean = own ? text_clean(own) : NULL;
	buf_printf(b, "%s", clean ? clean : "");
}

static bool is_true(struct template_value *v)
{
	const char *text = text_of(v);

	if (v->is_list)
		return count(v) > 0;
	return *text && !(v->raw && (streq(text, "0") || streq(text, "false")));
}

static void put_bool(struct template_value *v, bool b)
{
	v->raw = true;
	buf_printf(&v->text, b ? "true" : "false");
}

/* Those whose names begin with the first `skip` bytes of `from` as an object; objects in it as such. Returns the first
 * name behind them. */
static const struct template_name *put_object(struct buf *b, const void *row, const struct template_fields *f,
					      const struct template_name *from, size_t skip)
{
	const struct template_name *n = from;
	const char *before = "{";

	while (n->name && strncmp(n->name, from->name, skip) == 0) {
		const char *own = n->name + skip;
		size_t len = strcspn(own, ".");
		_free_ char *key = strndup(own, len);
		struct template_value v = {0};

		buf_printf(b, "%s", before);
		before = ",";
		buf_put_json(b, key ? key : "");
		buf_put_u8(b, ':');
		if (own[len]) {
			n = put_object(b, row, f, n, skip + len + 1);
			continue;
		}
		f->get(row, n->name, &v);
		put_json(b, &v);
		buf_done(&v.text);
		n++;
	}
	buf_put_u8(b, '}');
	return n;
}

/* name: "" for all of them. */
static void put_group(struct buf *b, const void *row, const struct template_fields *f, const char *name)
{
	const struct template_name *n = f->names;
	size_t len = strlen(name);

	while (len && (strncmp(n->name, name, len) != 0 || n->name[len] != '.'))
		n++;
	put_object(b, row, f, n, len ? len + 1 : 0);
}

static void put_title(struct buf *b, const char *name, const struct template_fields *f)
{
	const struct template_name *n = template_find(f, name);
	const char *dot = strrchr(name, '.');

	if (n && n->title) {
		buf_printf(b, "%s", n->title);
		return;
	}
	for (const char *s = dot ? dot + 1 : name; *s; s++)
		buf_put_u8(b, (uint8_t)toupper((unsigned char)*s));
}

/* ----------------------------------------------------------------------------------------------- printf */

struct spec {
	bool left, zero;
	unsigned width, most; /* most: of a text, UINT_MAX: all of it */
};

static unsigned take_number(const char **s)
{
	unsigned n = 0;

	for (; isdigit((unsigned char)**s); ++*s)
		n = MIN(n * 10 + (unsigned)(**s - '0'), MAX_WIDTH);
	return n;
}

static void put_padded(struct buf *b, const struct spec *spec, const char *text, size_t len)
{
	_free_ char *own = strndup(text, len);
	size_t width = own ? text_width(own) : len, pad = spec->width > width ? spec->width - width : 0;

	for (size_t i = 0; i < pad && !spec->left; i++)
		buf_put_u8(b, spec->zero ? '0' : ' ');
	buf_put(b, text, len);
	for (size_t i = 0; i < pad && spec->left; i++)
		buf_put_u8(b, ' ');
}

/* s: behind the "%". *n: of the argument that is next. */
static int put_verb(struct run *x, const char **s, struct template_value *args, unsigned num, unsigned *n,
		    struct buf *b)
{
	struct spec spec = {.most = UINT32_MAX};
	struct template_value *v;
	const char *text;

	for (; **s == '-' || **s == '0'; ++*s)
		*(**s == '-' ? &spec.left : &spec.zero) = true;
	spec.width = take_number(s);
	if (**s == '.') {
		++*s;
		spec.most = take_number(s);
	}
	if (**s == '%') {
		buf_put_u8(b, '%');
		return 0;
	}
	if (!**s || !strchr("svdqt", **s))
		return wrong(x, "printf: %%%.1s is none of %%s %%v %%d %%q %%t %%%%", *s);
	if (*n >= num)
		return wrong(x, "printf: %%%c has no argument", **s);
	v = &args[(*n)++];
	text = text_of(v);
	if (**s == 'd' && x->row && (!*text || strspn(text, "0123456789-") != strlen(text)))
		return wrong(x, "printf: %%d of '%.40s', which is no number", text);
	if (**s == 'q') {
		_cleanup_(buf_done) struct buf quoted = {0};

		buf_put_json(&quoted, text);
		put_padded(b, &spec, (const char *)quoted.data, quoted.len);
	} else {
		put_padded(b, &spec, text, MIN(strlen(text), (size_t)spec.most));
	}
	return 0;
}

static int print_format(struct run *x, struct template_value *args, unsigned num, struct buf *b)
{
	unsigned n = 1;
	int r = 0;

	for (const char *s = text_of(&args[0]); r == 0 && *s; s++) {
		if (*s != '%') {
			buf_put_u8(b, (uint8_t)*s);
			continue;
		}
		s++;
		r = put_verb(x, &s, args, num, &n, b);
	}
	return r < 0 || n == num ? r : wrong(x, "printf: more arguments than its format has");
}

/* -------------------------------------------------------------------------------------------- functions */

static int eval(struct run *x, const struct expr *e, bool json, struct template_value *v);

static int list_function(struct run *x, const struct expr *e, struct template_value *a, struct template_value *v)
{
	const char *name = e->args[0]->text ? e->args[0]->text : "", *with = text_of(&a[1]), *found;

	if (!a[0].is_list)
		return wrong(x, "field .%.60s is no list", name);
	if (e->f == F_INDEX) {
		found = look_up(&a[0], with);
		put_clean(&v->text, found, strlen(found));
	}
	for (const char *const *l = a[0].list; e->f == F_JOIN && l && *l; l++) {
		buf_printf(&v->text, "%s", l == a[0].list ? "" : with);
		put_clean(&v->text, *l, strlen(*l));
	}
	return 0;
}

static void change_letters(const struct template_value *a, bool upper, struct template_value *v)
{
	for (size_t i = 0; i < a->text.len; i++)
		buf_put_u8(&v->text, (uint8_t)(upper ? toupper(a->text.data[i]) : tolower(a->text.data[i])));
}

static bool is_equal(struct template_value *a, unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		if (streq(text_of(&a[0]), text_of(&a[i])))
			return true;
	return false;
}

static void print_all(const struct template_value *a, unsigned n, bool line, struct template_value *v)
{
	for (unsigned i = 0; i < n; i++) {
		if (i && line)
			buf_put_u8(&v->text, ' ');
		buf_put(&v->text, a[i].text.data, a[i].text.len);
	}
	if (line)
		buf_put_u8(&v->text, '\n');
}

static int call(struct run *x, const struct expr *e, struct template_value *a, struct template_value *v)
{
	unsigned n = e->num_args;
	uint64_t most;

	switch (e->f) {
	case F_JSON:
		put_json(&v->text, &a[0]);
		return 0;
	case F_INDEX:
	case F_JOIN:
		return list_function(x, e, a, v);
	case F_UPPER:
	case F_LOWER:
		change_letters(&a[0], e->f == F_UPPER, v);
		return 0;
	case F_LEN:
		v->raw = true;
		buf_printf(&v->text, "%zu", a[0].is_list ? count(&a[0]) : a[0].text.len);
		return 0;
	case F_PRINT:
	case F_PRINTLN:
		print_all(a, n, e->f == F_PRINTLN, v);
		return 0;
	case F_PRINTF:
		return print_format(x, a, n, &v->text);
	case F_TRUNCATE:
		if (parse_u64(text_of(&a[1]), 0, INT32_MAX, &most) < 0)
			return wrong(x, "truncate: '%.40s' is no length", text_of(&a[1]));
		buf_put(&v->text, a[0].text.data, MIN(a[0].text.len, (size_t)most));
		return 0;
	case F_EQ:
	case F_NE:
		put_bool(v, is_equal(a, n) == (e->f == F_EQ));
		return 0;
	case F_NOT:
		put_bool(v, !is_true(&a[0]));
		return 0;
	default:
		return wrong(x, "no such function");
	}
}

/* "and", "or": the first that decides, or the last. */
static int choose(struct run *x, const struct expr *e, struct template_value *v)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < e->num_args; i++) {
		buf_done(&v->text);
		*v = (struct template_value){0};
		r = eval(x, e->args[i], false, v);
		if (r == 0 && is_true(v) == (e->f == F_OR))
			break;
	}
	return r;
}

static int eval_call(struct run *x, const struct expr *e, struct template_value *v)
{
	struct template_value args[TEMPLATE_MAX_ARGS] = {0};
	int r = 0;

	if (e->f == F_AND || e->f == F_OR)
		return choose(x, e, v);
	for (unsigned i = 0; r == 0 && i < e->num_args; i++)
		r = eval(x, e->args[i], e->f == F_JSON, &args[i]);
	if (r == 0 && !x->row && e->f != F_PRINTF && e->f != F_PRINT && e->f != F_PRINTLN)
		buf_put(&v->text, args[0].text.data, args[0].text.len); /* a title as it is */
	else if (r == 0)
		r = call(x, e, args, v);
	for (unsigned i = 0; i < e->num_args; i++) {
		if (args[i].text.error)
			v->text.error = args[i].text.error;
		buf_done(&args[i].text);
	}
	return r;
}

static void eval_field(struct run *x, const char *name, bool json, struct template_value *v)
{
	struct buf plain;

	if (!x->row) {
		put_title(&v->text, name, x->fields);
		return;
	}
	if (!template_find(x->fields, name)) {
		v->raw = true;
		put_group(&v->text, x->row, x->fields, name);
		return;
	}
	x->fields->get(x->row, name, v);
	if (json)
		return;
	plain = v->text;
	v->text = (struct buf){.error = plain.error};
	put_clean(&v->text, (const char *)plain.data, plain.len);
	buf_done(&plain);
}

static int eval(struct run *x, const struct expr *e, bool json, struct template_value *v)
{
	const struct item *item = e->kind == EXPR_VAR ? &x->vars[e->var] : x->item;

	if (++x->steps > MAX_STEPS)
		return wrong(x, "it takes more than %u steps", MAX_STEPS);
	switch (e->kind) {
	case EXPR_FIELD:
		eval_field(x, e->text, json, v);
		break;
	case EXPR_ROOT:
		eval_field(x, "", json, v);
		break;
	case EXPR_DOT:
	case EXPR_VAR:
		if (item && item->text)
			put_clean(&v->text, item->text, item->len);
		break;
	case EXPR_NUMBER:
		v->raw = true;
		buf_printf(&v->text, "%s", e->text);
		break;
	case EXPR_TEXT:
		buf_printf(&v->text, "%s", e->text);
		break;
	default:
		return eval_call(x, e, v);
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------------ nodes */

static int run_nodes(struct run *x, const struct node *n, struct buf *ret);

static int run_items(struct run *x, const struct node *n, const struct template_value *v, struct buf *ret)
{
	const struct item *before = x->item;
	size_t at = 0;
	int r = 0;

	for (const char *const *l = v->list; r == 0 && l && *l; l++, at++) {
		size_t key = v->map ? strcspn(*l, "=") : 0;
		const char *text = !v->map ? *l : (*l)[key] ? *l + key + 1 : "";
		struct item item = {.text = text, .len = strlen(text)}, name = {.text = *l, .len = key};

		if (!v->map) {
			name.len = (size_t)snprintf(name.number, sizeof(name.number), "%zu", at);
			name.text = NULL;
		}
		if (++x->steps > MAX_STEPS)
			r = wrong(x, "it takes more than %u steps", MAX_STEPS);
		if (n->value >= 0)
			x->vars[n->value] = item;
		if (n->key >= 0) {
			x->vars[n->key] = name;
			if (!name.text)
				x->vars[n->key].text = x->vars[n->key].number;
		}
		x->item = &item;
		r = r < 0 ? r : run_nodes(x, n->body, ret);
		x->item = before;
	}
	return r;
}

static int run_range(struct run *x, const struct node *n, struct buf *ret)
{
	struct template_value v = {0};
	int r = eval(x, n->expr, true, &v);

	if (r == 0 && !x->row)
		buf_put(ret, v.text.data, v.text.len);
	else if (r == 0 && !v.is_list)
		r = wrong(x, "field .%.60s is no list", n->expr->text ? n->expr->text : "");
	else if (r == 0)
		r = v.list && *v.list ? run_items(x, n, &v, ret) : run_nodes(x, n->other, ret);
	buf_done(&v.text);
	return r;
}

static int run_expr(struct run *x, const struct node *n, struct buf *ret)
{
	struct template_value v = {0};
	int r = eval(x, n->expr, false, &v);

	if (r == 0 && n->kind == NODE_IF)
		r = run_nodes(x, !x->row || is_true(&v) ? n->body : n->other, ret);
	else if (r == 0)
		buf_put(ret, v.text.data, v.text.len);
	if (r == 0)
		r = v.text.error;
	buf_done(&v.text);
	return r;
}

static int run_nodes(struct run *x, const struct node *n, struct buf *ret)
{
	int r = 0;

	for (; n && r == 0; n = n->next) {
		if (n->kind == NODE_TEXT)
			buf_printf(ret, "%s", n->text);
		else
			r = n->kind == NODE_RANGE ? run_range(x, n, ret) : run_expr(x, n, ret);
	}
	return r < 0 ? r : ret->error;
}

int template_expand(const char *format, const void *row, const struct template_fields *fields, struct buf *ret,
		    char what[static TEMPLATE_WHAT])
{
	struct run x = {.row = row, .fields = fields, .what = what};
	struct node *nodes = NULL;
	int r;

	r = template_parse(format, fields, &nodes, what);
	if (r == 0)
		r = run_nodes(&x, nodes, ret);
	template_free(nodes);
	return r;
}
