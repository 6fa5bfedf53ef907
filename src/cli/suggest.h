/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean ...?" */
#ifndef CLI_SUGGEST_H
#define CLI_SUGGEST_H

#include <stddef.h>

/* Insertions, deletions, substitutions and swaps of neighbours that turn a into b. Words over 63 bytes are cut. */
unsigned edit_distance(const char *a, const char *b);

/* The closest of count words, NULL when none is close enough to be meant. NULL entries are skipped. */
const char *suggest(const char *word, const char *const *words, size_t count);

#endif
