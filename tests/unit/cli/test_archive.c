/* SPDX-License-Identifier: Apache-2.0 */
/* Telling image layouts and archives apart, also when they are nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "cli/archive.h"

static int enter(void **state)
{
	static char dir[] = "/tmp/sm-cli-archive-XXXXXX";

	*state = mkdtemp(dir);
	return !*state || chdir(dir) < 0;
}

static int leave(void **state)
{
	return chdir("/") < 0 || remove_tree_at(AT_FDCWD, *state) < 0;
}

static void member(FILE *f, const char *name, const char *size, size_t blocks)
{
	char h[512] = {0};

	snprintf(h, 100, "%s", name);
	memcpy(h + 124, size, MIN(strlen(size), (size_t)12));
	fwrite(h, 1, sizeof(h), f);
	memset(h, 'x', sizeof(h));
	while (blocks--)
		fwrite(h, 1, sizeof(h), f);
}

static void assert_source(const char *path, const char *want)
{
	struct sm_error err = {0};
	char *source = NULL;

	assert_int_equal(archive_source(path, &source, &err), 0);
	assert_string_equal(source, want);
	free(source);
}

static void directories(void **state)
{
	mkdir("layout", 0700);
	close(open("layout/oci-layout", O_CREAT | O_WRONLY, 0600));
	mkdir("other", 0700);
	assert_source("layout", "oci:layout");
	assert_source("other", "dir:other");
}

static void archives(void **state)
{
	FILE *f = fopen("oci.tar", "w");

	member(f, "blobs/sha256/00", "00000001001", 2);
	member(f, "oci-layout", "00000000036", 1);
	member(f, "", "", 1);
	fclose(f);
	assert_source("oci.tar", "oci-archive:oci.tar");

	f = fopen("both.tar", "w");
	member(f, "./oci-layout", "00000000036", 1);
	member(f, "./manifest.json", "00000000010", 1);
	fclose(f);
	assert_source("both.tar", "docker-archive:both.tar");
}

static void nonsense_is_left_to_the_loader(void **state)
{
	static const char *const sizes[] = {"zzzz", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "77777777777",
					    "\x80\x7f"};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		FILE *f = fopen("odd.tar", "w");

		member(f, "x", sizes[i], 1);
		member(f, "oci-layout", "1", 1);
		fclose(f);
		assert_source("odd.tar", "docker-archive:odd.tar");
	}
	close(open("empty", O_CREAT | O_WRONLY, 0600));
	assert_source("empty", "docker-archive:empty");
}

static void nothing_there(void **state)
{
	struct sm_error err = {0};
	char *source = NULL;

	assert_int_equal(archive_source("absent", &source, &err), -ENOENT);
	assert_int_equal(err.kind, SM_ERROR_NOT_FOUND);
	assert_true(archive_has_prefix("oci:x") && archive_has_prefix("-") && archive_has_prefix("docker-archive:f"));
	assert_false(archive_has_prefix("ocix"));
	assert_false(archive_has_prefix("--"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(directories),
		cmocka_unit_test(archives),
		cmocka_unit_test(nonsense_is_left_to_the_loader),
		cmocka_unit_test(nothing_there),
	};

	return cmocka_run_group_tests(tests, enter, leave);
}
