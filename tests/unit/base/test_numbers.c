/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of parse_size, parse_duration, parse_u64, format_size, random_hex. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/util.h"

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t v;
	} cases[] = {
		{"0", 0, 0},
		{"512", 0, 512},
		{"64K", 0, 65536},
		{"1g", 0, GIB},
		{"1.5GiB", 0, GIB * 3 / 2},
		{"10mb", 0, 10 * MIB},
		{"", -EINVAL, 0},
		{"x", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1 G", -EINVAL, 0},
		{"1.G", -EINVAL, 0},
		{"1gg", -EINVAL, 0},
		{"18446744073709551616", -ERANGE, 0},
		{"99999999999T", -ERANGE, 0},
		{"2t", 0, 2048 * GIB},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;

		assert_int_equal(parse_size(cases[i].text, &v), cases[i].r);
		assert_true(v == cases[i].v);
	}
}

static void test_durations(void **state)
{
	uint64_t v;

	assert_int_equal(parse_duration("90", &v), 0);
	assert_true(v == 90000000000ULL);
	assert_int_equal(parse_duration("500ms", &v), 0);
	assert_true(v == 500000000ULL);
	assert_int_equal(parse_duration("1.5h", &v), 0);
	assert_true(v == 5400000000000ULL);
	assert_int_equal(parse_duration("3 s", &v), -EINVAL);
	assert_int_equal(parse_duration("9999999d", &v), -ERANGE);
}

static void test_u64(void **state)
{
	uint64_t v;

	assert_int_equal(parse_u64("16", 1, 16, &v), 0);
	assert_int_equal(parse_u64("17", 1, 16, &v), -ERANGE);
	assert_int_equal(parse_u64("1.0", 1, 16, &v), -EINVAL);
	assert_int_equal(parse_u64("1k", 1, 9999, &v), -EINVAL);
}

static void test_format_size(void **state)
{
	char b[16];

	assert_string_equal(format_size(0, b), "0 B");
	assert_string_equal(format_size(1023, b), "1023 B");
	assert_string_equal(format_size(12 * MIB + 300 * KIB, b), "12.3 MiB");
	assert_string_equal(format_size(512 * MIB, b), "512 MiB");
	assert_string_equal(format_size(UINT64_MAX, b), "16.0 EiB");
}

static void test_random_hex_differs(void **state)
{
	char a[81], b[81];

	assert_int_equal(random_hex(a, 40), 0);
	assert_int_equal(random_hex(b, 40), 0);
	assert_int_equal(strlen(a), 80);
	assert_int_equal(strspn(a, "0123456789abcdef"), 80);
	assert_string_not_equal(a, b);
}

static void test_range_inside_never_overflows(void **state)
{
	assert_true(range_inside(0, 10, 10));
	assert_true(range_inside(10, 0, 10));
	assert_false(range_inside(1, 10, 10));
	assert_false(range_inside(UINT64_MAX, 2, 10));
	assert_false(range_inside(2, UINT64_MAX, 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_u64),
		cmocka_unit_test(test_format_size),
		cmocka_unit_test(test_random_hex_differs),
		cmocka_unit_test(test_range_inside_never_overflows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
