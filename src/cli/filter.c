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

int filters_check(struct cli *cli, const struct filter *filters, size_t n, const struct opt_list *given,
		  const char *keys)
{
	for (size_t i = 0; i < given->n; i++) {
		bool known = false;

		for (size_t k = 0; k < n; k++)
			known |= filter_value(given->v[i], filters[k].key) != NULL;
		if (!known)
			return cli_usage(cli, keys, "no such filter: %s", given->v[i]);
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
