/* SPDX-License-Identifier: Apache-2.0 */
/* --filter KEY=VALUE of what lists things, as docker has it. */
#ifndef CLI_FILTER_H
#define CLI_FILTER_H

#include "cli/cli.h"
#include "cli/opts.h"

struct filter {
	const char *key;
	bool (*fits)(const void *item, const char *wanted);
	bool all;   /* every one given with this key has to fit; else any of them */
	bool truth; /* its values are true and false, in docker's spellings */
};

/* The VALUE of "KEY=VALUE", in text; NULL where the key is another. */
const char *filter_value(const char *text, const char *key);
/* 0, or an exit status after having said which filter does not exist; keys: those that do, for people. */
int filters_check(struct cli *cli, const struct filter *filters, size_t n, const struct opt_list *given,
		  const char *keys);
bool filters_pass(const struct filter *filters, size_t n, const struct opt_list *given, const void *item);
/* Of a value that is one (filters_check). */
bool filter_is_true(const char *value);
/* An image as it was asked for; :latest goes without saying in both. */
bool filter_is_image(const char *image, const char *wanted);
/* labels: "NAME=VALUE" and a NULL, or NULL; wanted: one of them, or a NAME alone. */
bool filter_has_label(const char *const *labels, const char *wanted);

#endif
