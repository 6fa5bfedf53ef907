/* SPDX-License-Identifier: Apache-2.0 */
/* -v SRC:DST[:OPTIONS] as docker spells it, and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/mounts.h"

static int parse(const char *text, struct cli_mounts *m)
{
	struct cli cli = {0};
	const char *v[] = {text, NULL};
	struct opt_list list = {v, 1}, none = {0};

	return cli_mounts_parse(&cli, &list, &none, &none, m);
}

static int parse_mount(const char *text, struct cli_mounts *m)
{
	struct cli cli = {0};
	const char *v[] = {text, NULL}, *t[] = {"/t", NULL};
	struct opt_list list = {v, 1}, tmpfs = {t, 1}, none = {0};

	return cli_mounts_parse(&cli, &none, &list, &tmpfs, m);
}

static void test_volumes(void **state)
{
	struct cli_mounts m;

	assert_int_equal(parse("cache:/b", &m), 0);
	assert_null(m.v[0].source);
	assert_string_equal(m.v[0].volume, "cache");
	assert_string_equal(m.v[0].target, "/b");
	cli_mounts_free(&m);
	assert_int_equal(parse("/only", &m), 0);
	assert_string_equal(m.v[0].volume, "");
	assert_string_equal(m.v[0].target, "/only");
	cli_mounts_free(&m);
	assert_int_equal(parse("cache:/b:ro,nocopy", &m), 0);
	assert_true(m.v[0].read_only && m.v[0].no_copy);
	cli_mounts_free(&m);
	assert_int_equal(parse("a/b:/b", &m), 0);
	assert_string_equal(m.v[0].source, "a/b");
	cli_mounts_free(&m);
}

static void test_mount(void **state)
{
	struct cli_mounts m;

	assert_int_equal(parse_mount("type=bind,source=/a,target=/b,readonly", &m), 0);
	assert_string_equal(m.v[0].source, "/a");
	assert_string_equal(m.v[0].target, "/b");
	assert_true(m.v[0].read_only && !m.v[0].create && m.n == 1);
	cli_mounts_free(&m);
	assert_int_equal(parse_mount("type=bind,src=/a,dst=/b,cow,cache=none", &m), 0);
	assert_true(m.v[0].cow);
	cli_mounts_free(&m);
	assert_int_equal(parse_mount("source=v,destination=/b,volume-nocopy=true,ro=false", &m), 0);
	assert_string_equal(m.v[0].volume, "v");
	assert_true(m.v[0].no_copy && !m.v[0].read_only);
	cli_mounts_free(&m);
	assert_int_equal(parse_mount("type=tmpfs,target=/b,tmpfs-size=1m,tmpfs-mode=1770", &m), 0);
	assert_int_equal(m.n, 0);
	assert_int_equal(m.num_tmpfs, 2);
	assert_string_equal(m.tmpfs[0], "/t");
	assert_string_equal(m.tmpfs[1], "/b:exec,size=1m,mode=1770");
	cli_mounts_free(&m);
}

static void test_good(void **state)
{
	struct cli_mounts m;

	assert_int_equal(parse("./a:/b", &m), 0);
	assert_int_equal(m.n, 1);
	assert_string_equal(m.v[0].source, "./a");
	assert_string_equal(m.v[0].target, "/b");
	assert_true(m.v[0].create && !m.v[0].read_only && !m.v[0].cow);
	assert_int_equal(m.v[0].cache, SM_FS_CACHE_AUTO);
	assert_int_equal(m.v[0].ids, SM_FS_IDS_CALLER);
	cli_mounts_free(&m);
	assert_int_equal(parse("/a:/b:ro,cache=none,ids=same,links=deny", &m), 0);
	assert_true(m.v[0].read_only);
	assert_int_equal(m.v[0].cache, SM_FS_CACHE_NONE);
	assert_int_equal(m.v[0].ids, SM_FS_IDS_SAME);
	assert_int_equal(m.v[0].symlinks, SM_FS_SYMLINKS_DENY);
	cli_mounts_free(&m);
	assert_int_equal(parse("/a:/b:links=follow", &m), 0);
	assert_int_equal(m.v[0].symlinks, SM_FS_SYMLINKS_FOLLOW);
	cli_mounts_free(&m);
	assert_int_equal(parse("/a:/b:ids=none,xattrs=mapped,direct,dax", &m), 0);
	assert_int_equal(m.v[0].xattrs, SM_FS_XATTRS_MAPPED);
	assert_true(m.v[0].direct && m.v[0].dax);
	assert_int_equal(m.v[0].ids, SM_FS_IDS_NONE);
	cli_mounts_free(&m);
	assert_int_equal(parse("/a:/b:ids=u:0:1000:1,g:0:1000:1,b:7:7:1,ro", &m), 0);
	assert_int_equal(m.v[0].ids, SM_FS_IDS_RANGES);
	assert_string_equal(m.v[0].id_ranges, "u:0:1000:1,g:0:1000:1,b:7:7:1");
	assert_true(m.v[0].read_only);
	cli_mounts_free(&m);
	assert_int_equal(parse("/a:/b:cow,cache=always", &m), 0);
	assert_true(m.v[0].cow);
	assert_int_equal(m.v[0].cache, SM_FS_CACHE_ALWAYS);
	cli_mounts_free(&m);
	assert_int_equal(parse("/a:/b:rw,z,cached", &m), 0); /* docker's, without effect */
	assert_false(m.v[0].read_only);
	cli_mounts_free(&m);
}

static void test_bad(void **state)
{
	static const char *const bad[] = {"",
					  "cache",
					  "cache:/b:cow",
					  "cache:b",
					  ":/b",
					  "/a:",
					  "/a:b",
					  "/a:/b:",
					  "/a:/b:rx",
					  "/a:/b:ro,",
					  "/a:/b:ro:x",
					  "/a:/b:ro,cow",
					  "/a:/b:cache=now",
					  "/a:/b:ids=",
					  "/a:/b:xattrs=same",
					  "/a:/b:ids=ranges",
					  "/a:/b:u:0:0:1",
					  "/a:/b:ids=same,u:0:0:1,x"};
	static const char *const bad_mounts[] = {"",
						 "type=bind",
						 "type=bind,target=/b",
						 "type=bind,source=/a,target=b",
						 "type=npipe,source=/a,target=/b",
						 "type=tmpfs,source=x,target=/b",
						 "type=volume,target=/b,tmpfs-size=1",
						 "target=/b,colour=red",
						 "target=/b,volume-driver=nfs",
						 "target"};
	int kept = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	dup2(null, 2); /* the errors are told */
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct cli_mounts m;
		int r = parse(bad[i], &m);

		cli_mounts_free(&m);
		if (r == 0) {
			dup2(kept, 2);
			fail_msg("accepted: '%s'", bad[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_mounts); i++) {
		struct cli_mounts m;
		int r = parse_mount(bad_mounts[i], &m);

		cli_mounts_free(&m);
		if (r == 0) {
			dup2(kept, 2);
			fail_msg("accepted: '%s'", bad_mounts[i]);
		}
	}
	dup2(kept, 2);
	close(kept);
	close(null);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_volumes),
					   cmocka_unit_test(test_mount), cmocka_unit_test(test_bad)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
