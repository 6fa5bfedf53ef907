/* SPDX-License-Identifier: Apache-2.0 */
/* References: what docker accepts and refuses, and the normal form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "oci/oci.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void check(const char *s, const char *name, const char *tag, const char *digest)
{
	struct oci_ref ref;
	struct sm_error err = {0};

	if (oci_ref_parse(s, &ref, &err) < 0)
		fail_msg("%s: %s", s, err.message);
	assert_string_equal(ref.name, name);
	if (tag)
		assert_string_equal(ref.tag, tag);
	else
		assert_null(ref.tag);
	if (digest)
		assert_string_equal(ref.digest, digest);
	else
		assert_null(ref.digest);
	oci_ref_done(&ref);
}

static void test_normal_form(void **state)
{
	check("debian-demo", "debian-demo", "latest", NULL);
	check("debian:12", "debian", "12", NULL);
	check("library/debian", "debian", "latest", NULL);
	check("docker.io/library/debian:12", "debian", "12", NULL);
	check("index.docker.io/library/debian", "debian", "latest", NULL);
	check("docker.io/debian@sha256:" HEX64, "debian", NULL, "sha256:" HEX64);
	check("docker.io/u/x", "u/x", "latest", NULL);
	check("docker.io/library/u/x", "library/u/x", "latest", NULL);
	check("docker.io/library/library", "library", "latest", NULL);
	check("docker.io/docker.io/x", "docker.io/docker.io/x", "latest", NULL);
	check("docker.io/localhost/x", "docker.io/localhost/x", "latest", NULL);
	check("docker.io", "docker.io", "latest", NULL);
	check("host:5000/library/x", "host:5000/library/x", "latest", NULL);
	check("localhost/x", "localhost/x", "latest", NULL);
	check("host:5000/a/b", "host:5000/a/b", "latest", NULL);
	check("host:5000/a/b:t_A-1.", "host:5000/a/b", "t_A-1.", NULL);
	check("[::1]:5000/a", "[::1]:5000/a", "latest", NULL);
	check("HOST.example/a", "HOST.example/a", "latest", NULL);
	check("a__b/c--d/e.f_g", "a__b/c--d/e.f_g", "latest", NULL);
	check("a@sha256:" HEX64, "a", NULL, "sha256:" HEX64);
	check("a:t@sha256:" HEX64, "a", "t", "sha256:" HEX64);
	check("a@sha512:" HEX64 HEX64, "a", NULL, "sha512:" HEX64 HEX64);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		"@",
		"a:",
		":t",
		"a@",
		"/a",
		"a/",
		"a//b",
		"Debian",
		"a/B",
		"a b",
		"a\n",
		"a\x1b[2J",
		"a:t t",
		"-a",
		"a-",
		"a..b",
		"a___b",
		"_a",
		"a:-t",
		"a:.t",
		"a:b:c",
		"a@sha256:12",
		"a@md5:" HEX64,
		"a@sha256:" HEX64 "0",
		"a@sha256:" HEX64 "@b",
		"a@sha256:ABCDEF" HEX64,
		HEX64,
		"registry.example/",
		"registry.example/library/",
		"docker.io/",
		"docker.io/library/",
		"docker.io/" HEX64,
		"library/" HEX64,
		"../a",
		"a/../b",
		"./a",
		"host:/a",
		"host:port/a",
		"host:123456/a",
		"[::1/a",
		"[xyz]/a",
		"[::1]x/a",
		"-host.x/a",
		"a:t/b:",
		"\xc3\xa9",
	};
	char longest[400];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct oci_ref ref;
		struct sm_error err = {0};

		if (oci_ref_parse(bad[i], &ref, &err) != -EINVAL)
			fail_msg("'%s' was accepted", bad[i]);
		assert_int_equal(err.kind, SM_ERROR_INVALID);
		assert_null(strpbrk(err.message, "\n\x1b"));
	}
	memset(longest, 'a', sizeof(longest));
	longest[255] = 0;
	check(longest, longest, "latest", NULL);
	longest[255] = 'a';
	longest[256] = 0;
	assert_int_equal(oci_ref_parse(longest, &(struct oci_ref){0}, NULL), -EINVAL);
	longest[1] = ':';
	longest[2 + 128] = 0;
	check(longest, "a", longest + 2, NULL);
	longest[2 + 128] = 'a';
	longest[2 + 129] = 0;
	assert_int_equal(oci_ref_parse(longest, &(struct oci_ref){0}, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_normal_form), cmocka_unit_test(test_refused)};

	return cmocka_run_group_tests_name("oci-ref", tests, NULL, NULL);
}
