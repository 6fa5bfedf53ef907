/* SPDX-License-Identifier: Apache-2.0 */
/* --format templates. See template.h. */
#include "cli/template.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cli/cli.h"

#define TABLE "table "
#define MAX_TOKENS 6
#define GAP 3 /* between columns, as docker has it */
#define LABEL "Label"
#define LABELS "Labels"

bool template_is(const char *format)
{
	return strstr(format, "{{") != NULL;
}

/* --------------------------------------------------------------------------------------------- parsing */

enum token_kind { TOKEN_FIELD, TOKEN_WORD, TOKEN_TEXT, TOKEN_PIPE };
struct token {
	enum token_kind kind;
	char text[128]; /* a field's without the dot: "" for all of them */
};

enum function { F_TEXT, F_JSON, F_INDEX, F_JOIN, F_UPPER, F_LOWER, F_LEN, F_PRINTLN, F_RANGE, F_LITERAL, F_UNKNOWN };

struct action {
	enum function f;
	char name[128]; /* of the field; "": all */
	char arg[128];
};

static enum function function_of(const char *word)
{
	static const char *const words[] = {
		[F_JSON] = "json",   [F_INDEX] = "index", [F_JOIN] = "join",	   [F_UPPER] = "upper",
		[F_LOWER] = "lower", [F_LEN] = "len",	  [F_PRINTLN] = "println", [F_RANGE] = "range",
	};

	for (unsigned i = F_JSON; i < ARRAY_SIZE(words); i++)
		if (streq(words[i], word))
			return (enum function)i;
	return F_UNKNOWN;
}

/* s: behind the quote. Returns what is behind the other one; NULL: there is none, or it is too long. */
static const char *take_text(const char *s, char *out, size_t size)
{
	size_t n = 0;

	for (; *s && *s != '"'; s++) {
		char c = *s;

		if (c == '\\' && s[1]) {
			c = *++s;
			c = c == 't' ? '\t' : c == 'n' ? '\n' : c;
		}
		if (n + 1 >= size)
			return NULL;
		out[n++] = c;
	}
	out[n] = '\0';
	return *s ? s + 1 : NULL;
}

/* *s: behind "{{"; on success behind "}}". The number of tokens, or -EINVAL. */
static int take_tokens(const char **s, struct token *t)
{
	const char *p = *s;
	int n = 0;

	for (;; n++) {
		size_t len;

		p += strspn(p, " \t");
		if (str_starts(p, "}}")) {
			*s = p + 2;
			return n;
		}
		if (!*p || n == MAX_TOKENS)
			return -EINVAL;
		t[n].kind = *p == '"' ? TOKEN_TEXT : *p == '|' ? TOKEN_PIPE : *p == '.' ? TOKEN_FIELD : TOKEN_WORD;
		if (*p == '"') {
			p = take_text(p + 1, t[n].text, sizeof(t[n].text));
			if (!p)
				return -EINVAL;
			continue;
		}
		p += *p == '.' || *p == '|';
		len = t[n].kind == TOKEN_PIPE ? 0 : strcspn(p, " \t}|\"");
		if (len >= sizeof(t[n].text) || (!len && t[n].kind == TOKEN_WORD))
			return -EINVAL;
		snprintf(t[n].text, sizeof(t[n].text), "%.*s", (int)len, p);
		p += len;
	}
}

static bool is_operand(const struct token *t)
{
	return t->kind == TOKEN_TEXT ||
	       (t->kind == TOKEN_WORD && t->text[0] && strspn(t->text, "0123456789") == strlen(t->text));
}

/* What the tokens say; false: nothing that is known. */
static bool understand(const struct token *t, int n, struct action *ret)
{
	*ret = (struct action){.f = F_TEXT};
	if (n == 1 && t->kind == TOKEN_TEXT) {
		ret->f = F_LITERAL;
		strcpy(ret->arg, t->text);
		return true;
	}
	if (n >= 2 && t[0].kind == TOKEN_WORD && t[1].kind == TOKEN_FIELD) {
		bool more = n == 3 && is_operand(&t[2]);

		ret->f = function_of(t[0].text);
		strcpy(ret->name, t[1].text);
		if (more)
			strcpy(ret->arg, t[2].text);
		return (ret->f == F_INDEX || ret->f == F_JOIN) ? more : ret->f != F_UNKNOWN && n == 2;
	}
	if (n < 1 || t->kind != TOKEN_FIELD)
		return false;
	strcpy(ret->name, t->text);
	if (n == 2 && streq(t->text, LABEL) && t[1].kind == TOKEN_TEXT) {
		ret->f = F_INDEX;
		strcpy(ret->name, LABELS);
		strcpy(ret->arg, t[1].text);
		return true;
	}
	if (n == 3 && t[1].kind == TOKEN_PIPE && t[2].kind == TOKEN_WORD) {
		ret->f = function_of(t[2].text);
		return ret->f != F_INDEX && ret->f != F_JOIN && ret->f != F_RANGE && ret->f != F_UNKNOWN;
	}
	return n == 1;
}

static const struct template_name *find_name(const struct template_fields *f, const char *name)
{
	for (const struct template_name *n = f->names; n->name; n++)
		if (streq(n->name, name))
			return n;
	return NULL;
}

/* "State", where there is "State.Status". */
static bool is_group(const struct template_fields *f, const char *name)
{
	size_t len = strlen(name);

	for (const struct template_name *n = f->names; n->name; n++)
		if (strncmp(n->name, name, len) == 0 && n->name[len] == '.')
			return true;
	return false;
}

/* s: behind "{{". Returns what is behind "}}"; NULL with what is wrong. */
static const char *parse_action(const char *s, const struct template_fields *f, struct action *ret, char *what)
{
	struct token t[MAX_TOKENS];
	const char *begin = s, *end = strstr(s, "}}");
	int n;

	if (!end) {
		snprintf(what, TEMPLATE_WHAT, "'{{' without '}}'");
		return NULL;
	}
	n = take_tokens(&s, t);
	if (n < 0 || !understand(t, n, ret) ||
	    (!ret->name[0] && !find_name(f, "") && ret->f != F_JSON && ret->f != F_LITERAL)) {
		snprintf(what, TEMPLATE_WHAT,
			 "{{%.*s}}: only fields are known, as in {{.ID}}, and json, index, join, upper, lower, len of "
			 "one",
			 (int)MIN((size_t)(end - begin), 40u), begin);
		return NULL;
	}
	if (ret->name[0] && !find_name(f, ret->name) && !(ret->f == F_JSON && is_group(f, ret->name))) {
		snprintf(what, TEMPLATE_WHAT, "there is no field .%.60s", ret->name);
		return NULL;
	}
	return s;
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

static void put_json(struct buf *b, struct template_value *v)
{
	buf_put_u8(&v->text, 0);
	if (v->deep && v->is_list)
		put_json_list(b, v->list, v->map);
	else if (v->raw)
		buf_printf(b, "%s", (const char *)v->text.data);
	else if (!v->text.error)
		buf_put_json(b, (const char *)v->text.data);
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

static void put_list(struct buf *b, const struct action *a, const struct template_value *v)
{
	if (a->f == F_INDEX)
		buf_printf(b, "%s", look_up(v, a->arg));
	for (const char *const *l = v->list; a->f == F_JOIN && l && *l; l++)
		buf_printf(b, "%s%s", l == v->list ? "" : a->arg, *l);
}

static void put_length(struct buf *b, const struct template_value *v)
{
	size_t n = 0;

	while (v->list && v->list[n])
		n++;
	buf_printf(b, "%zu", v->is_list ? n : v->text.len);
}

/* As an image may have it: nothing that drives a terminal. */
static void put_text(struct buf *b, struct template_value *v)
{
	_free_ char *clean = NULL;

	if (!isatty(STDOUT_FILENO)) {
		buf_put(b, v->text.data, v->text.len);
		return;
	}
	buf_put_u8(&v->text, 0);
	clean = v->text.error ? NULL : text_clean((const char *)v->text.data);
	buf_printf(b, "%s", clean ? clean : "");
}

static int put_value(struct buf *b, const struct action *a, const void *row, const struct template_fields *f,
		     char *what)
{
	struct template_value v = {0};
	int r = 0;

	f->get(row, a->name, &v);
	for (size_t i = 0; i < v.text.len && (a->f == F_UPPER || a->f == F_LOWER); i++)
		v.text.data[i] = (uint8_t)(a->f == F_UPPER ? toupper(v.text.data[i]) : tolower(v.text.data[i]));
	if ((a->f == F_INDEX || a->f == F_JOIN) && !v.is_list) {
		snprintf(what, TEMPLATE_WHAT, "field .%.60s is no list", a->name);
		r = -EINVAL;
	} else if (a->f == F_INDEX || a->f == F_JOIN) {
		put_list(b, a, &v);
	} else if (a->f == F_JSON) {
		put_json(b, &v);
	} else if (a->f == F_LEN) {
		put_length(b, &v);
	} else {
		put_text(b, &v);
	}
	if (a->f == F_PRINTLN)
		buf_put_u8(b, '\n');
	if (v.text.error)
		b->error = v.text.error;
	buf_done(&v.text);
	return r;
}

static void put_title(struct buf *b, const struct action *a, const struct template_fields *f)
{
	const struct template_name *n = find_name(f, a->name);
	const char *dot = strrchr(a->name, '.');

	if (n && n->title) {
		buf_printf(b, "%s", n->title);
		return;
	}
	for (const char *s = dot ? dot + 1 : a->name; *s; s++)
		buf_put_u8(b, (uint8_t)toupper((unsigned char)*s));
}

static int put_action(struct buf *b, const struct action *a, const void *row, const struct template_fields *f,
		      char *what)
{
	if (a->f == F_LITERAL)
		buf_printf(b, "%s", a->arg);
	else if (!row)
		put_title(b, a, f);
	else if (!find_name(f, a->name))
		put_group(b, row, f, a->name);
	else
		return put_value(b, a, row, f, what);
	return 0;
}

/* ------------------------------------------------------------------------------------------------ lines */

/* {{range .NAME}}: "." in its body is one of the list. */
static void get_item(const void *row, const char *name, struct template_value *v)
{
	buf_printf(&v->text, "%s", (const char *)row);
}

static const struct template_fields item_fields = {
	.names = (const struct template_name[]){{"", NULL}, {NULL, NULL}},
	.get = get_item,
};

/* Where the body that begins here ends; *ret_next: what is behind "{{end}}". NULL: nowhere. */
static const char *find_end(const char *body, const char **ret_next)
{
	for (const char *p = body; (p = strstr(p, "{{")); p += 2) {
		const char *s = p + 2 + strspn(p + 2, " ");

		if (str_starts(s, "end") && str_starts(s + 3 + strspn(s + 3, " "), "}}")) {
			*ret_next = strstr(s, "}}") + 2;
			return p;
		}
	}
	return NULL;
}

static int expand_to(const char *format, const char *end, const void *row, const struct template_fields *fields,
		     struct buf *ret, char *what);

static int each_item(const char *body, const char *end, const struct template_value *v, struct buf *ret, char *what)
{
	int r = 0;

	for (const char *const *l = v->list; r == 0 && l && *l; l++) {
		const char *equals = v->map ? strchr(*l, '=') : NULL;

		r = expand_to(body, end, !v->map ? *l : equals ? equals + 1 : "", &item_fields, ret, what);
	}
	return r;
}

/* *format: behind the action, then behind its end. */
static int put_range(const char **format, const char *name, const void *row, const struct template_fields *fields,
		     struct buf *ret, char *what)
{
	_cleanup_(buf_done) struct buf none = {0};
	const char *body = *format, *end = find_end(body, format);
	struct action title = {.f = F_TEXT};
	struct template_value v = {0};
	int r;

	if (!end) {
		snprintf(what, TEMPLATE_WHAT, "'{{range .%.60s}}' without '{{end}}'", name);
		return -EINVAL;
	}
	r = expand_to(body, end, "", &item_fields, &none, what); /* a mistake shows also where the list is empty */
	if (r < 0)
		return r;
	if (!row) {
		snprintf(title.name, sizeof(title.name), "%s", name);
		put_title(ret, &title, fields);
		return 0;
	}
	fields->get(row, name, &v);
	if (!v.is_list) {
		snprintf(what, TEMPLATE_WHAT, "field .%.60s is no list", name);
		r = -EINVAL;
	} else {
		r = each_item(body, end, &v, ret, what);
	}
	buf_done(&v.text);
	return r;
}

static int expand_to(const char *format, const char *end, const void *row, const struct template_fields *fields,
		     struct buf *ret, char *what)
{
	int r = 0;

	while (r == 0 && format < end) {
		if (str_starts(format, "{{")) {
			struct action a;

			format = parse_action(format + 2, fields, &a, what);
			if (!format)
				return -EINVAL;
			r = a.f == F_RANGE ? put_range(&format, a.name, row, fields, ret, what)
					   : put_action(ret, &a, row, fields, what);
		} else if (format[0] == '\\' && (format[1] == 't' || format[1] == 'n')) {
			buf_put_u8(ret, format[1] == 't' ? '\t' : '\n');
			format += 2;
		} else {
			buf_put_u8(ret, (uint8_t)*format++);
		}
	}
	return r < 0 ? r : ret->error;
}

int template_expand(const char *format, const void *row, const struct template_fields *fields, struct buf *ret,
		    char what[static TEMPLATE_WHAT])
{
	if (str_starts(format, TABLE))
		format += strlen(TABLE);
	return expand_to(format, format + strlen(format), row, fields, ret, what);
}

/* --------------------------------------------------------------------------------------------- printing */

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
