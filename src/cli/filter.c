/* SPDX-License-Identifier: Apache-2.0 */
/* --filter. See filter.h. */
#include "cli/filter.h"

#include <string.h>

#include "base/util.h"

const char *filter_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	return strncmp(text, key, len) == 0 && text[len] == '=' ? text + len + 1 : NULL;
}

static const struct filter *find(const struct filter *filters, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (filter_value(text, filters[i].key))
			return &filters[i];
	return NULL;
}

/* 1, 0, or -1: it is neither. */
static int truth(const char *value)
{
	static const char *const words[2][4] = {{"false", "False", "0", "f"}, {"true", "True", "1", "t"}};

	for (int i = 0; i < 2; i++)
		for (size_t k = 0; k < ARRAY_SIZE(words[i]); k++)
			if (streq(value, words[i][k]))
				return i;
	return -1;
}

bool filter_is_true(const char *value)
{
	return truth(value) > 0;
}

static size_t without_latest(const char *image)
{
	static const char latest[] = ":latest";
	size_t len = strlen(image), more = sizeof(latest) - 1;

	return len > more && streq(image + len - more, latest) ? len - more : len;
}

bool filter_is_image(const char *image, const char *wanted)
{
	size_t len = without_latest(image);

	return len == without_latest(wanted) && strncmp(image, wanted, len) == 0;
}

int filters_check(struct cli *cli, const struct filter *filters, size_t n, const struct opt_list *given,
		  const char *keys)
{
	for (size_t i = 0; i < given->n; i++) {
		const struct filter *f = find(filters, n, given->v[i]);

		if (!f)
			return cli_usage(cli, keys, "no such filter: %.100s", given->v[i]);
		if (f->truth && truth(filter_value(given->v[i], f->key)) < 0)
			return cli_usage(cli, "true or false", "--filter cannot be '%.100s'", given->v[i]);
	}
	return 0;
}

static bool passes_one(const struct filter *f, const struct opt_list *given, const void *item)
{
	size_t asked = 0, fit = 0;

	for (size_t i = 0; i < given->n; i++) {
		const char *value = filter_value(given->v[i], f->key);

		asked += value != NULL;
		fit += value && f->fits(item, value);
	}
	return !asked || (f->all ? fit == asked : fit > 0);
}

bool filters_pass(const struct filter *filters, size_t n, const struct opt_list *given, const void *item)
{
	for (size_t k = 0; k < n; k++)
		if (!passes_one(&filters[k], given, item))
			return false;
	return true;
}

bool filter_has_label(const char *const *labels, const char *wanted)
{
	for (const char *const *l = labels; l && *l; l++)
		if (label_matches(*l, wanted))
			return true;
	return false;
}
