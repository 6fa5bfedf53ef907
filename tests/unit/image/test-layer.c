/* SPDX-License-Identifier: Apache-2.0 */
/* Layers to a file system: what becomes of entries, whiteouts, links and of what is refused, by the result's tree. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "erofs_check.h"
#include "layers.h"
#include "tarmake.h"

struct built {
	struct check c;
	struct erofs_result result;
	struct sm_error err;
	int fd;
};

static int build(struct built *b, struct tarmake *layers, unsigned n)
{
	int fds[TEST_MAX_LAYERS], r;

	*b = (struct built){.fd = memfd_create("erofs", MFD_CLOEXEC)};
	for (unsigned i = 0; i < n; i++) {
		tm_end(&layers[i]);
		fds[i] = memfd_create("tar", MFD_CLOEXEC);
		assert_int_equal(pwrite_full(fds[i], layers[i].out.data, layers[i].out.len, 0), 0);
		buf_done(&layers[i].out);
	}
	r = layers_build(fds, n, b->fd, &b->result, &b->err);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
	if (r < 0) {
		close(b->fd);
		return r;
	}
	b->c.size = b->result.window_size;
	b->c.data = mmap(NULL, b->c.size, PROT_READ, MAP_SHARED, b->fd, 0);
	assert_ptr_not_equal(b->c.data, MAP_FAILED);
	if (erofs_check(&b->c) < 0)
		fail_msg("%s", b->c.error);
	return 0;
}

static void unbuild(struct built *b)
{
	munmap((void *)(uintptr_t)b->c.data, b->c.size);
	close(b->fd);
}

static void assert_content(struct built *b, const char *path, const char *want)
{
	char text[256] = "";
	struct check_inode i;

	if (!check_lookup(&b->c, path, &i))
		fail_msg("no %s", path);
	assert_int_equal(i.size, strlen(want));
	assert_int_equal(check_read(&b->c, &i, 0, text, i.size), 0);
	assert_string_equal(text, want);
}

static void assert_absent(struct built *b, const char *path)
{
	struct check_inode i;

	if (check_lookup(&b->c, path, &i))
		fail_msg("%s is there", path);
}

static void test_whiteout_order(void **state)
{
	/* A whiteout before or after what its own layer brings: the same. */
	for (int order = 0; order < 2; order++) {
		struct tarmake l[2] = {0};
		struct built b;

		tm_file(&l[0], "d/old", "old");
		tm_file(&l[0], "d/keep", "old");
		tm_file(&l[0], "f", "old");
		if (order) {
			tm_file(&l[1], "d/.wh..wh..opq", "");
			tm_file(&l[1], ".wh.f", "");
		}
		tm_file(&l[1], "d/keep", "new");
		tm_file(&l[1], "f", "new");
		if (!order) {
			tm_file(&l[1], ".wh.f", "");
			tm_file(&l[1], "d/.wh..wh..opq", "");
		}
		assert_int_equal(build(&b, l, 2), 0);
		assert_absent(&b, "d/old");
		assert_content(&b, "d/keep", "new");
		assert_content(&b, "f", "new");
		assert_absent(&b, ".wh.f");
		unbuild(&b);
	}
}

static void test_links_and_duplicates(void **state)
{
	struct tarmake l[2] = {0};
	struct check_inode a, z;
	struct built b;

	tm_file(&l[0], "a", "one");
	tm_header(&l[0], "self", '2', 0, "self");
	tm_header(&l[0], "out", '2', 0, "../../../../d");
	tm_header(&l[0], "d", '5', 0, NULL);
	tm_header(&l[1], "z", '1', 0, "a");
	tm_header(&l[1], "a", '1', 0, "a"); /* itself: nothing */
	tm_file(&l[1], "a", "two");
	tm_file(&l[1], "out/x", "in d");
	assert_int_equal(build(&b, l, 2), 0);
	assert_content(&b, "a", "two");
	assert_content(&b, "z", "one");
	assert_content(&b, "d/x", "in d");
	assert_true(check_lookup(&b.c, "a", &a) && check_lookup(&b.c, "z", &z));
	assert_int_equal(a.nlink, 1);
	assert_int_equal(z.nlink, 1);
	unbuild(&b);
}

static void test_refused(void **state)
{
	static const struct {
		const char *name, *link;
		char type;
		const char *says;
	} cases[] = {
		{"../etc/passwd", NULL, '0', "\"../etc/passwd\": a name with \"..\""},
		{"a/../../b", NULL, '0', "\"..\""},
		{"f/under", NULL, '0', "under something that is not a directory"},
		{"self/x", NULL, '0', "too many symbolic links"},
		{"new", "nothing", '1', "hard link to \"nothing\", which is not there"},
		{"new", "d", '1', "hard link to the directory \"d\""},
		{"new", "../../x", '1', "\"..\""},
		{"new", "", '2', "symbolic link of 0 bytes"},
		{".wh.", NULL, '0', "whiteout of nothing"},
		{"d/.wh...", NULL, '0', "whiteout of nothing"},
		{".wh.x/y", NULL, '0', "inside a whiteout"},
		{"dev", NULL, '3', "0:0 character device"},
		{"./", NULL, '0', "the root of the image"},
		{"bad\001name/../x", NULL, '0', "\"bad\\x01name/../x\""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct tarmake l[2] = {0};
		struct built b;
		int r;

		tm_file(&l[0], "f", "file");
		tm_header(&l[0], "d", '5', 0, NULL);
		tm_header(&l[0], "self", '2', 0, "self");
		tm_header(&l[1], cases[i].name, cases[i].type, 0, cases[i].link);
		r = build(&b, l, 2);
		if (r >= 0)
			fail_msg("case %zu was accepted", i);
		if (!strstr(b.err.message, cases[i].says) || !strstr(b.err.message, "layer 2: entry"))
			fail_msg("case %zu: %s", i, b.err.message);
	}
}

static void test_data_on_a_link(void **state)
{
	struct tarmake l[1] = {0};
	struct built b;

	/* Some archives give hard links the size of their file, without data; directories too. */
	tm_file(&l[0], "a", "one");
	tm_header(&l[0], "b", '1', 3, "a");
	tm_header(&l[0], "d", '5', 4096, NULL);
	tm_file(&l[0], "c", "three");
	assert_int_equal(build(&b, l, 1), 0);
	assert_content(&b, "b", "one");
	assert_content(&b, "c", "three");
	unbuild(&b);
}

static void test_stripped_xattrs(void **state)
{
	struct tarmake l[1] = {0};
	struct check_inode i;
	struct built b;

	tm_pax(&l[0], "SCHILY.xattr.trusted.overlay.opaque", "y", 1);
	tm_file(&l[0], "a", "1");
	tm_pax(&l[0], "SCHILY.xattr.user.overlay.whiteout", "y", 1);
	tm_file(&l[0], "b", "1");
	tm_pax(&l[0], "SCHILY.xattr.system.nfs4_acl", "y", 1);
	tm_file(&l[0], "c", "1");
	tm_pax(&l[0], "SCHILY.xattr.user.kept", "y", 1);
	tm_file(&l[0], "k", "1");
	assert_int_equal(build(&b, l, 1), 0);
	for (const char *name = "abc"; *name; name++) {
		char path[2] = {*name, 0};

		assert_true(check_lookup(&b.c, path, &i));
		assert_int_equal(i.xattr_size, 0);
	}
	assert_true(check_lookup(&b.c, "k", &i));
	assert_true(i.xattr_size > 0);
	unbuild(&b);
}

static void count_xattr(void *arg, const struct check_xattr *x)
{
	unsigned *n = arg;

	*n += x->value_len == 1000 || x->value_len == 60000 || x->value_len == 1;
}

static void test_many_xattrs(void **state)
{
	struct tarmake l[1] = {0};
	struct check_inode i;
	struct buf rec = {0};
	struct built b;
	unsigned n = 0;
	char *value = malloc(60001);

	memset(value, 'v', 60000);
	value[60000] = 0;
	for (int k = 0; k < 255; k++) /* many, some large: beside the inode and in the shared area, across blocks */
		buf_printf(&rec, "%d SCHILY.xattr.user.n%03d=%.*s\n", k % 50 ? 1000 + 29 : 60000 + 30, k,
			   k % 50 ? 1000 : 60000, value);
	tm_header(&l[0], "x", 'x', rec.len, NULL);
	tm_data(&l[0], rec.data, rec.len);
	tm_file(&l[0], "f", "file");
	tm_pax(&l[0], "SCHILY.xattr.user.one", "1", 1);
	tm_header(&l[0], "long", '2', 0, "target");
	assert_int_equal(build(&b, l, 1), 0);
	assert_true(check_lookup(&b.c, "f", &i));
	assert_int_equal(check_xattrs(&b.c, &i, count_xattr, &n), 0);
	assert_int_equal(n, 255);
	assert_content(&b, "f", "file");
	unbuild(&b);
	buf_done(&rec);
	free(value);
}

static void test_sparse_and_large(void **state)
{
	struct tarmake l[1] = {0};
	struct check_inode i;
	struct built b;
	char text[16] = "";

	/* 1 TiB with ten bytes near its end */
	tm_pax(&l[0], "GNU.sparse.size", "1099511627776", 13);
	l[0].out.len = 0;
	tm_header(&l[0], "huge", 'S', 10, NULL);
	tm_patch(&l[0], 386,
		 "\x80\0\0\0\0\0\0\xff\0\0\0\0"
		 "00000000012\0",
		 24); /* at 255 * 4 GiB */
	tm_patch(&l[0], 483, "\x80\0\0\0\0\0\1\0\0\0\0\0", 12);
	tm_data(&l[0], "0123456789", 10);
	tm_header(&l[0], "hole", 'S', 0, NULL);
	tm_patch(&l[0], 483, "\x80\0\0\0\0\0\1\0\0\0\0\0", 12);
	tm_file(&l[0], "after", "after");
	assert_int_equal(build(&b, l, 1), 0);
	assert_true(check_lookup(&b.c, "huge", &i));
	assert_true(i.size == 1ULL << 40);
	assert_int_equal(check_read(&b.c, &i, 255ULL << 32, text, 10), 0);
	assert_string_equal(text, "0123456789");
	assert_int_equal(check_read(&b.c, &i, 1234567890123, text, 10), -1); /* past the end */
	b.c.error[0] = 0;
	assert_int_equal(check_read(&b.c, &i, 1ULL << 35, text, 10), 0);
	assert_int_equal(text[0], 0);
	assert_content(&b, "after", "after");
	assert_true(b.result.window_size < 64 << 20);
	unbuild(&b);
}

static void test_layout(void **state)
{
	struct tarmake l[1] = {0};
	struct check_inode small, big;
	struct built b;
	char *data = calloc(1, 3 << 20);

	memset(data, 'x', (3 << 20) - 1);
	tm_file(&l[0], "small1", "1");
	tm_file(&l[0], "big", data);
	tm_file(&l[0], "small2", "2");
	assert_int_equal(build(&b, l, 1), 0);
	assert_true(check_lookup(&b.c, "big", &big) && check_lookup(&b.c, "small2", &small));
	assert_int_equal((uint64_t)big.u * 4096 % (2 << 20), 0);
	assert_true(small.u < big.u); /* fills the gap before the large file */
	assert_content(&b, "small2", "2");
	unbuild(&b);
	free(data);
}

static void test_million(void **state)
{
	const char *scale = getenv("SM_SCALE");
	unsigned n = scale && atof(scale) > 1 ? 1000000 : 20000;
	struct tarmake l[1] = {0};
	struct built b;
	uint64_t t0;

	for (unsigned i = 0; i < n; i++) {
		char name[64];

		snprintf(name, sizeof(name), "dir%u/sub%u/file%u", i % 50, i / 50 % 100, i);
		tm_file(&l[0], name, i % 2 ? "x" : "");
	}
	t0 = time_now_ns();
	assert_int_equal(build(&b, l, 1), 0);
	print_message("%u entries: %.2f s, metadata %.1f bytes each\n", n, (double)(time_now_ns() - t0) / 1e9,
		      (double)b.result.meta_size / n);
	assert_true(b.result.inodes > n);
	unbuild(&b);
}

static void test_limits(void **state)
{
	struct layer_limits limits = layers_limits;
	struct tarmake m = {0};
	struct tm_source source;
	struct tar_input input = {.read = tm_read, .arg = &source};
	struct layer_stats stats;
	struct sm_error err = {0};
	int blob = memfd_create("b", MFD_CLOEXEC), index = memfd_create("i", MFD_CLOEXEC);

	for (int i = 0; i < 10; i++)
		tm_file(&m, "a/b/c/d", "12345");
	tm_end(&m);
	limits.max_entries = 9;
	source = (struct tm_source){m.out.data, m.out.len, 0};
	assert_int_equal(layer_convert(&input, &limits, blob, index, &stats, &err), -E2BIG);
	limits = layers_limits;
	limits.max_depth = 3;
	source = (struct tm_source){m.out.data, m.out.len, 0};
	assert_int_equal(layer_convert(&input, &limits, blob, index, &stats, &err), -ENAMETOOLONG);
	limits = layers_limits;
	limits.max_bytes = 4096;
	source = (struct tm_source){m.out.data, m.out.len, 0};
	assert_int_equal(layer_convert(&input, &limits, blob, index, &stats, &err), -EFBIG);
	assert_int_equal(err.kind, SM_ERROR_LIMIT);
	buf_done(&m.out);
	close(blob);
	close(index);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whiteout_order),	 cmocka_unit_test(test_links_and_duplicates),
		cmocka_unit_test(test_refused),		 cmocka_unit_test(test_data_on_a_link),
		cmocka_unit_test(test_stripped_xattrs),	 cmocka_unit_test(test_many_xattrs),
		cmocka_unit_test(test_sparse_and_large), cmocka_unit_test(test_layout),
		cmocka_unit_test(test_limits),		 cmocka_unit_test(test_million),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
