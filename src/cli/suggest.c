/* SPDX-License-Identifier: Apache-2.0 */
/* Suggestions for mistyped words: the optimal string alignment distance. */
#include "cli/suggest.h"

#include <string.h>

#include "base/util.h"

#define MAX_WORD 63

unsigned edit_distance(const char *a, const char *b)
{
	size_t na = MIN(strlen(a), MAX_WORD), nb = MIN(strlen(b), MAX_WORD);
	unsigned d[MAX_WORD + 1][MAX_WORD + 1];

	for (size_t i = 0; i <= na; i++)
		d[i][0] = (unsigned)i;
	for (size_t j = 0; j <= nb; j++)
		d[0][j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		for (size_t j = 1; j <= nb; j++) {
			unsigned v = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			v = MIN(v, d[i - 1][j] + 1);
			v = MIN(v, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				v = MIN(v, d[i - 2][j - 2] + 1);
			d[i][j] = v;
		}
	}
	return d[na][nb];
}

const char *suggest(const char *word, const char *const *words, size_t count)
{
	unsigned best = UINT32_MAX, limit = (unsigned)(strlen(word) + 2) / 3;
	const char *ret = NULL;

	for (size_t i = 0; i < count; i++) {
		unsigned d;

		if (!words[i])
			continue;
		d = edit_distance(word, words[i]);
		/* A prefix that was cut short ("compl") is meant too, but less surely than a slip. */
		if (d > limit && strlen(word) >= 3 && str_starts(words[i], word))
			d = limit;
		if (d <= limit && d < best) {
			best = d;
			ret = words[i];
		}
	}
	return ret;
}
