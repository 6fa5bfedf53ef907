/* SPDX-License-Identifier: Apache-2.0 */
/* The option parser. See opts.h. */
#include "cli/opts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/util.h"
#include "cli/suggest.h"

struct parser {
	const struct opt *opts;
	size_t count;
	void *values;
	struct opts_error *error;
};

const struct opt *opts_find(const struct opt *opts, size_t count, const char *name, size_t len)
{
	for (size_t i = 0; i < count; i++)
		if (strlen(opts[i].name) == len && memcmp(opts[i].name, name, len) == 0)
			return &opts[i];
	return NULL;
}

static const struct opt *find_letter(const struct parser *p, char letter)
{
	for (size_t i = 0; i < p->count; i++)
		if (p->opts[i].letter == letter)
			return &p->opts[i];
	return NULL;
}

PRINTF_LIKE(2, 3) static int wrong(struct parser *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->error->what, sizeof(p->error->what), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static bool takes_value(const struct opt *o)
{
	return o->type != OPT_FLAG && o->type != OPT_IGNORED;
}

static int list_add(struct opt_list *list, const char *value)
{
	const char **v = realloc(list->v, (list->n + 2) * sizeof(*v));

	if (!v)
		return -ENOMEM;
	list->v = v;
	v[list->n++] = value;
	v[list->n] = NULL;
	return 0;
}

char **opt_list_copy(const struct opt_list *list)
{
	char **copy = calloc(list->n + 1, sizeof(*copy));

	for (size_t i = 0; copy && i < list->n; i++) {
		copy[i] = strdup(list->v[i]);
		if (!copy[i]) {
			opt_list_copy_free(copy);
			return NULL;
		}
	}
	return copy;
}

void opt_list_copy_free(char **copy)
{
	for (char **p = copy; p && *p; p++)
		free(*p);
	free(copy);
}

static bool is_choice(const char *choices, const char *value)
{
	size_t len = strlen(value);

	for (const char *c = choices; *c;) {
		size_t n = strcspn(c, "|");

		if (n == len && memcmp(c, value, len) == 0)
			return true;
		c += n + (c[n] == '|');
	}
	return false;
}

/* Digits, and up to three behind a point: more of them would not be what was asked for. */
static int parse_thousandths(const char *text, uint64_t *ret)
{
	size_t whole = strspn(text, "0123456789"), part = 0;
	uint64_t v = 0;

	if (text[whole] == '.')
		part = strspn(text + whole + 1, "0123456789");
	if (whole + part == 0 || whole > 9 || part > 3 || text[whole + (text[whole] == '.') + part])
		return -EINVAL;
	for (size_t i = 0; i < whole; i++)
		v = v * 10 + (uint64_t)(text[i] - '0');
	for (size_t i = 0; i < 3; i++)
		v = v * 10 + (i < part ? (uint64_t)(text[whole + 1 + i] - '0') : 0);
	*ret = v;
	return 0;
}

static int set_decimal(struct parser *p, const struct opt *o, const char *value, uint64_t *at)
{
	uint64_t v;

	if (parse_thousandths(value, &v) < 0 || v < o->min || v > o->max)
		return wrong(p, "--%s wants a number from %g to %g, with three decimals at most, not '%s'", o->name,
			     (double)o->min / 1e3, (double)o->max / 1e3, value);
	*at = v;
	return 0;
}

static int set_scaled(struct parser *p, const struct opt *o, const char *value, uint64_t *at)
{
	uint64_t v;
	int r;

	if (o->type == OPT_NUMBER) {
		if (parse_u64(value, o->min, o->max ? o->max : UINT64_MAX, at) == 0)
			return 0;
		if (o->max)
			return wrong(p, "--%s wants a number from %llu to %llu, not '%s'", o->name,
				     (unsigned long long)o->min, (unsigned long long)o->max, value);
		return wrong(p, "--%s wants a number of at least %llu, not '%s'", o->name, (unsigned long long)o->min,
			     value);
	}
	r = o->type == OPT_SIZE ? parse_size(value, &v) : parse_duration(value, &v);
	if (r < 0)
		return wrong(p, "--%s wants a %s, not '%s'", o->name,
			     o->type == OPT_SIZE ? "size such as 512M or 2G" : "time such as 500ms, 30s or 5m", value);
	if (v < o->min || (o->max && v > o->max)) {
		char size[16];

		return wrong(p, "--%s %s is too %s: the %s is %s", o->name, value, v < o->min ? "small" : "large",
			     v < o->min ? "least" : "most", format_size(v < o->min ? o->min : o->max, size));
	}
	*at = v;
	return 0;
}

static int set_flag(struct parser *p, const struct opt *o, const char *value)
{
	bool on = true;

	if (value && (streq(value, "false") || streq(value, "0")))
		on = false;
	else if (value && !streq(value, "true") && !streq(value, "1"))
		return wrong(p, "--%s is true or false, not '%s'", o->name, value);
	if (o->type == OPT_FLAG)
		*(bool *)((char *)p->values + o->offset) = on != (o->min == 1);
	return 0;
}

static int set_value(struct parser *p, const struct opt *o, const char *value)
{
	void *at = (char *)p->values + o->offset;

	switch (o->type) {
	case OPT_FLAG:
	case OPT_IGNORED:
		return set_flag(p, o, value);
	case OPT_TEXT:
		if (o->choices && !o->open && !is_choice(o->choices, value))
			return wrong(p, "--%s wants one of %s, not '%s'", o->name, o->choices, value);
		*(const char **)at = value;
		return 0;
	case OPT_LIST:
		return list_add(at, value);
	case OPT_DECIMAL:
		return set_decimal(p, o, value, at);
	default:
		return set_scaled(p, o, value, at);
	}
}

static int unknown(struct parser *p, const char *name, size_t len)
{
	const char *best = NULL, **names = calloc(p->count + 1, sizeof(*names));
	char word[64];

	snprintf(word, sizeof(word), "%.*s", (int)MIN(len, sizeof(word) - 1), name);
	for (size_t i = 0; names && i < p->count; i++)
		names[i] = p->opts[i].help ? p->opts[i].name : NULL; /* not what would be refused or ignored */
	if (names)
		best = suggest(word, names, p->count);
	free(names);
	if (best)
		snprintf(p->error->hint, sizeof(p->error->hint), "did you mean --%s?", best);
	return wrong(p, "unknown option --%s", word);
}

static int refused(struct parser *p, const struct opt *o)
{
	return wrong(p, "--%s makes no sense here: %s", o->name, o->choices);
}

/* argv[*at] is "--name[=value]". */
static int parse_long(struct parser *p, int argc, char **argv, int *at)
{
	const char *name = argv[*at] + 2, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct opt *o = opts_find(p->opts, p->count, name, len);

	if (!o && len == 4 && memcmp(name, "help", 4) == 0)
		return 1;
	if (!o)
		return unknown(p, name, len);
	if (o->type == OPT_REFUSED)
		return refused(p, o);
	if (eq || !takes_value(o))
		return set_value(p, o, eq ? eq + 1 : NULL);
	if (*at + 1 >= argc)
		return wrong(p, "--%s needs a value: --%s %s", o->name, o->name, o->arg);
	return set_value(p, o, argv[++*at]);
}

/* argv[*at] is "-abc": flags, of which the last may take a value, right there or in the next argument. */
static int parse_short(struct parser *p, int argc, char **argv, int *at)
{
	for (const char *s = argv[*at] + 1; *s; s++) {
		const struct opt *o = find_letter(p, *s);
		int r;

		if (!o && *s == 'h')
			return 1;
		if (!o)
			return wrong(p, "unknown option -%c", *s);
		if (o->type == OPT_REFUSED)
			return refused(p, o);
		if (takes_value(o)) {
			if (s[1])
				return set_value(p, o, s[1] == '=' ? s + 2 : s + 1);
			if (*at + 1 >= argc)
				return wrong(p, "-%c needs a value: -%c %s", o->letter, o->letter, o->arg);
			return set_value(p, o, argv[++*at]);
		}
		r = set_value(p, o, NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

int opts_parse(const struct opt *opts, size_t count, bool command, int argc, char **argv, void *values, char **operands,
	       int *ret_count, struct opts_error *error)
{
	struct parser p = {.opts = opts, .count = count, .values = values, .error = error};
	bool done = false;
	int n = 0;

	error->what[0] = error->hint[0] = '\0';
	for (int i = 0; i < argc; i++) {
		int r;

		if (!done && streq(argv[i], "--")) {
			done = true;
			continue;
		}
		if (done || argv[i][0] != '-' || !argv[i][1]) {
			operands[n++] = argv[i];
			done |= command;
			continue;
		}
		r = argv[i][1] == '-' ? parse_long(&p, argc, argv, &i) : parse_short(&p, argc, argv, &i);
		if (r)
			return r;
	}
	operands[n] = NULL;
	*ret_count = n;
	return 0;
}

void opts_done(const struct opt *opts, size_t count, void *values)
{
	for (size_t i = 0; i < count; i++) {
		if (opts[i].type == OPT_LIST) {
			struct opt_list *list = (struct opt_list *)((char *)values + opts[i].offset);

			free(list->v);
			*list = (struct opt_list){NULL, 0};
		}
	}
}
