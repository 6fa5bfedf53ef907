/* SPDX-License-Identifier: Apache-2.0 */
/* Collected output against the whole of it: beginning and end are kept, whatever the sizes of the pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "lib/collect.h"

static void check(const struct sm_output *o, const char *all, size_t total, size_t max)
{
	size_t head = max - max / 2, kept = MIN(total, max);

	assert_int_equal(o->total, total);
	assert_int_equal(o->length, kept);
	assert_int_equal(o->truncated, total > max);
	assert_int_equal(o->head, total > max ? head : total);
	assert_int_equal(o->data[kept], 0);
	assert_memory_equal(o->data, all, o->head);
	if (o->truncated)
		assert_memory_equal(o->data + head, all + total - (kept - head), kept - head);
}

/* All totals around the limits, in pieces of every size up to beyond them. */
static void beginning_and_end_are_kept(void **state)
{
	static const size_t limits[] = {1, 2, 3, 10, 11, 4096, 9001};
	char all[30000];

	for (size_t i = 0; i < sizeof(all); i++)
		all[i] = (char)(1 + (i * 2654435761u >> 9) % 255);
	for (unsigned l = 0; l < ARRAY_SIZE(limits); l++) {
		size_t max = limits[l], step = max > 100 ? max / 3 : 1;

		for (size_t total = 0; total <= MIN(3 * max + 2, sizeof(all)); total += step)
			for (size_t piece = 1; piece <= max + 2; piece += MAX(step, (size_t)1)) {
				struct collect c = {.max = max};
				struct sm_output o;

				for (size_t at = 0; at < total; at += piece)
					collect_put(&c, all + at, MIN(piece, total - at));
				assert_int_equal(collect_finish(&c, &o), 0);
				check(&o, all, total, max);
				free((char *)(uintptr_t)o.data);
				collect_done(&c);
			}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(beginning_and_end_are_kept)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
