/* SPDX-License-Identifier: Apache-2.0 */
/* The tar reader: numbers, pax records, sparse maps, and archives that lie. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/util.h"
#include "image/tar.h"
#include "image/tarhdr.h"
#include "tarmake.h"

static int64_t number(const char *field, size_t len)
{
	int64_t v = 0;

	return tar_number((const uint8_t *)field, len, &v) < 0 ? INT64_MIN : v;
}

static void test_numbers(void **state)
{
	assert_int_equal(number("0000644", 8), 0644);
	assert_int_equal(number("    644 ", 8), 0644);
	assert_int_equal(number("644\0\0\0\0\0", 8), 0644);
	assert_int_equal(number("\0\0\0\0\0\0\0\0", 8), 0);
	assert_int_equal(number("77777777777 ", 12), 077777777777);
	assert_int_equal(number("-1      ", 8), INT64_MIN);
	assert_int_equal(number("00000x0\0", 8), INT64_MIN);
	assert_int_equal(number("0000008\0", 8), INT64_MIN);
	/* base-256: 8 GiB, -1, and more than fits */
	assert_true(number("\x80\0\0\0\0\0\0\x02\0\0\0\0", 12) == 8LL << 30);
	assert_int_equal(number("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12), -1);
	assert_int_equal(number("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", 12), -2);
	assert_int_equal(number("\x80\x01\0\0\0\0\0\0\0\0\0\0", 12), INT64_MIN);
	assert_true(number("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12) == INT64_MAX);
	assert_int_equal(number("\x80\0\0\0\x80\0\0\0\0\0\0\0", 12), INT64_MIN);
}

static int parse(struct pax *x, const char *records)
{
	*x = (struct pax){0};
	return pax_parse(x, (const uint8_t *)records, strlen(records), NULL);
}

static void test_pax(void **state)
{
	static const char *const bad[] = {
		"5 a=b\n",	 "x a=b\n",	"99 a=b\n",	   "6 =bb\n",
		"6 abc\n",	 "3 \n",	"6 a=b",	   "18446744073709551622 a=b\n",
		"12 size=-10\n", "11 uid=1x\n", "14 mtime=1..5\n", "11 mtime=.\n",
		"0 a=b\n"};
	struct pax x;

	assert_int_equal(parse(&x, "12 path=a/b\n20 mtime=-1.25000000\n19 size=10737418240\n"),
			 -EBADMSG); /* the second is 21 long */
	pax_done(&x);
	assert_int_equal(parse(&x, "12 path=a/b\n15 mtime=-1.25\n20 size=10737418240\n"), 0);
	assert_true(x.has_path && x.has_mtime && x.has_size);
	assert_int_equal(x.path.len, 3);
	assert_int_equal(x.mtime, -2);
	assert_int_equal(x.mtime_nsec, 750000000);
	assert_true(x.size == 10737418240ULL);
	pax_done(&x);
	assert_int_equal(parse(&x, "26 mtime=1.0000000019999\n"), -EBADMSG);
	pax_done(&x);
	assert_int_equal(parse(&x, "25 mtime=1.0000000019999\n"), 0);
	assert_int_equal(x.mtime_nsec, 1);
	pax_done(&x);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse(&x, bad[i]) != -EBADMSG)
			fail_msg("accepted: %s", bad[i]);
		pax_done(&x);
	}
	/* xattr names may hold what they like up to the first '=', values anything, also newlines */
	assert_int_equal(parse(&x, "26 SCHILY.xattr.user.a=\n=\n"), 0);
	assert_int_equal(x.num_xattrs, 1);
	assert_int_equal(x.xattrs[0].value.len, 2);
	pax_done(&x);
}

static void test_sparse_maps(void **state)
{
	static const struct {
		struct tar_extent v[3];
		uint64_t size, stored;
		bool good;
	} cases[] = {
		{{{0, 10}, {20, 10}, {100, 0}}, 100, 20, true},
		{{{0, 10}, {5, 10}, {100, 0}}, 100, 20, false},		   /* overlap */
		{{{20, 10}, {0, 10}, {100, 0}}, 100, 20, false},	   /* order */
		{{{0, 10}, {95, 10}, {200, 0}}, 100, 20, false},	   /* past the end */
		{{{0, 10}, {20, 10}, {100, 0}}, 100, 30, false},	   /* stored bytes */
		{{{0, 10}, {UINT64_MAX - 4, 10}, {0, 0}}, 100, 20, false}, /* wraps */
		{{{0, UINT64_MAX}, {0, 0}, {0, 0}}, INT64_MAX, 0, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct tar_map m = {0};

		for (int k = 0; k < 3; k++)
			assert_int_equal(tar_map_add(&m, cases[i].v[k].offset, cases[i].v[k].len, NULL), 0);
		if ((tar_map_check(&m, cases[i].size, cases[i].stored, NULL) == 0) != cases[i].good)
			fail_msg("map %zu", i);
		tar_map_done(&m);
	}
}

/* Reads all of an archive: the number of entries, or the error. `names` gathers "name:size;". */
static int read_all(const struct tarmake *m, size_t step, struct buf *names)
{
	struct tm_source source = {m->out.data, m->out.len, step};
	struct tar_input input = {.read = tm_read, .arg = &source};
	const struct tar_entry *e;
	struct tar *t;
	int n = 0, r;

	assert_int_equal(tar_open(&input, 1 << 24, &t), 0);
	while ((r = tar_next(t, &e, NULL)) == 1) {
		buf_printf(names, "%.*s:%llu;", (int)e->path.len, (const char *)e->path.p, (unsigned long long)e->size);
		n++;
	}
	if (r == 0)
		r = tar_drain(t, NULL);
	tar_close(t);
	return r < 0 ? r : n;
}

static void expect(struct tarmake *m, int want, const char *names)
{
	for (size_t step = 0; step < 2000; step += 333) { /* however the bytes arrive */
		struct buf got = {0};

		assert_int_equal(read_all(m, step, &got), want);
		buf_put_u8(&got, 0);
		if (names)
			assert_string_equal((char *)got.data, names);
		buf_done(&got);
	}
	buf_done(&m->out);
}

static void test_names(void **state)
{
	struct tarmake m = {0};
	char longname[301];

	memset(longname, 'L', 300);
	longname[300] = 0;
	tm_file(&m, "plain", "x");
	tm_file(&m, "name", "y"); /* ustar prefix */
	m.header = m.out.len - 1024;
	tm_patch(&m, 345, "pre/fix", 7);
	tm_header(&m, "././@LongLink", 'L', 301, NULL);
	tm_data(&m, longname, 301);
	tm_file(&m, "short", "");
	tm_pax(&m, "path", "\xff\xfe pax", 6);
	tm_file(&m, "other", "zz");
	tm_header(&m, "global", 'g', 16, NULL); /* not applied */
	tm_data(&m, "16 path=ignored\n", 16);
	tm_file(&m, "last", "");
	tm_end(&m);
	{
		char want[400];

		snprintf(want, sizeof(want), "plain:1;pre/fix/name:1;%s:0;\xff\xfe pax:2;last:0;", longname);
		expect(&m, 5, want);
	}
}

static void test_ends(void **state)
{
	struct tarmake m = {0};

	expect(&m, 0, ""); /* no bytes at all */
	tm_file(&m, "a", "x");
	expect(&m, 1, "a:1;"); /* no end marker */
	tm_file(&m, "a", "x");
	tm_end(&m);
	buf_put(&m.out, "garbage after the end", 21);
	expect(&m, 1, "a:1;");
	tm_file(&m, "a", "x");
	buf_put_zero(&m.out, 512);
	expect(&m, 1, "a:1;"); /* half a marker */
	tm_file(&m, "a", "x");
	m.out.len -= 511; /* the last padding left out */
	expect(&m, 1, "a:1;");
}

static void test_broken(void **state)
{
	struct tarmake m = {0};

	tm_file(&m, "a", "0123456789");
	m.out.len = 512 + 5; /* cut off in the data */
	expect(&m, -EBADMSG, NULL);
	tm_file(&m, "a", "x");
	m.out.len = 300; /* in the header */
	expect(&m, -EBADMSG, NULL);
	tm_file(&m, "a", "x");
	m.out.data[0] ^= 1; /* checksum */
	expect(&m, -EBADMSG, NULL);
	tm_file(&m, "a", "x");
	buf_put_zero(&m.out, 512);
	tm_file(&m, "b", "x"); /* a lone zero block */
	expect(&m, -EBADMSG, NULL);
	tm_header(&m, "a", '0', 0, NULL);
	tm_patch(&m, 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12); /* size -1 */
	expect(&m, -EBADMSG, NULL);
	tm_header(&m, "a", '0', 0, NULL);
	tm_patch(&m, 108, "\x80\0\0\1\0\0\0\0", 8); /* uid 2^32 */
	expect(&m, -EBADMSG, NULL);
	tm_header(&m, "a", 'Z', 0, NULL);
	expect(&m, -EOPNOTSUPP, NULL);
	tm_header(&m, "x", 'x', 100ULL << 20, NULL); /* an extended header of 100 MiB */
	expect(&m, -E2BIG, NULL);
	tm_header(&m, "a", '0', 17 << 20, NULL); /* past max_bytes */
	buf_put_zero(&m.out, 17 << 20);
	{
		struct buf got = {0};

		assert_int_equal(read_all(&m, 0, &got), -EFBIG);
		buf_done(&got);
		buf_done(&m.out);
	}
	tm_pax(&m, "GNU.sparse.map", "0,5,3,5", 7); /* overlapping map */
	tm_file(&m, "a", "0123456789");
	expect(&m, -EBADMSG, NULL);
}

static void test_random_damage(void **state)
{
	const char *scale = getenv("SM_SCALE");
	int times = scale && atoi(scale) > 1 ? 20000 : 4000;
	struct tarmake m = {0};
	unsigned seed = 1;

	tm_pax(&m, "SCHILY.xattr.user.x", "value", 5);
	tm_file(&m, "first", "data data data");
	tm_header(&m, "link", '2', 0, "target");
	tm_header(&m, "sparse", 'S', 10, NULL);
	tm_patch(&m, 386,
		 "00000000100\0"
		 "00000000012\0",
		 24);
	tm_patch(&m, 483, "00000001000\0", 12);
	tm_data(&m, "0123456789", 10);
	tm_end(&m);
	/* Under sanitizers: nothing is read out of bounds, nothing leaks. (A fuzz target does the same with an aim.) */
	for (int i = 0; i < times; i++) {
		struct tarmake copy = {0};
		struct buf names = {0};

		buf_put(&copy.out, m.out.data, m.out.len);
		for (int k = 0; k < 4; k++)
			copy.out.data[(unsigned)rand_r(&seed) % copy.out.len] = (uint8_t)rand_r(&seed);
		for (copy.header = 0; copy.header + 512 <= copy.out.len; copy.header += 512)
			if (memcmp(copy.out.data + copy.header + 257, "ustar", 5) == 0)
				tm_checksum(&copy);
		read_all(&copy, (size_t)i % 700, &names);
		buf_done(&names);
		buf_done(&copy.out);
	}
	buf_done(&m.out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),	      cmocka_unit_test(test_pax),  cmocka_unit_test(test_sparse_maps),
		cmocka_unit_test(test_names),	      cmocka_unit_test(test_ends), cmocka_unit_test(test_broken),
		cmocka_unit_test(test_random_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
