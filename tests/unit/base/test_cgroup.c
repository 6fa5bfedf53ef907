/* SPDX-License-Identifier: Apache-2.0 */
/* Where a process's cgroup is, from texts that others may have had a hand in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cgroup.h"
#include "base/util.h"

#define V2(root, at) "30 23 0:26 " root " " at " rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1 "31 23 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
#define PROC "22 1 0:5 / /proc rw,relatime shared:1 master:2 - proc proc rw\n"

static void path_is_found(void **state)
{
	static const struct {
		const char *self, *mounts, *path;
	} cases[] = {
		{"0::/\n", V2("/", "/sys/fs/cgroup"), "/sys/fs/cgroup"},
		{"0::/user.slice/a.scope\n", PROC V2("/", "/sys/fs/cgroup"), "/sys/fs/cgroup/user.slice/a.scope"},
		{"0::/a", PROC V1 V2("/", "/sys/fs/cgroup/unified"), "/sys/fs/cgroup/unified/a"},
		{"12:pids:/x\n1:name=systemd:/y\n0::/z\n", V2("/", "/c"), "/c/z"},
		/* what a mount shows may be a part of the tree, and another one may show more */
		{"0::/docker/a/b\n", V2("/docker/a", "/c"), "/c/b"},
		{"0::/docker/a\n", V2("/docker/a", "/c"), "/c"},
		{"0::/docker/ab\n", V2("/docker/a", "/c") V2("/", "/d"), "/d/docker/ab"},
		/* the names are anybody's choice */
		{"0::/a b\\040c\n", V2("/", "/my\\040cgroups\\134x"), "/my cgroups\\x/a b\\040c"},
		{"0::/a..b/..c\n", V2("/", "/c"), "/c/a..b/..c"},
		{"3:x\\n0:::/no\n0::/yes\n", V2("/", "/c"), "/c/yes"},
		{"0::/a\n0::/b\n", V2("/", "/c"), "/c/a"},
		{"0::/a\n", "junk\n\n - \n - cgroup2\n1 2 3\n" V2("/", "/c"), "/c/a"},
		{"0::/a\n", "1 2 0:1 / /cgroup2 rw - ext4 cgroup2 rw\n" V2("/", "/c"), "/c/a"},
		{"0::/a\n", "1 2 0:1 / /c rw shared:1 master:2 - cgroup2 - rw", "/c/a"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char path[PATH_MAX] = "";

		assert_int_equal(cgroup_path(cases[i].self, cases[i].mounts, path), 0);
		assert_string_equal(path, cases[i].path);
	}
}

static void no_path_is_said(void **state)
{
	static const struct {
		const char *self, *mounts;
		int r;
	} cases[] = {
		{"", V2("/", "/c"), -ENOENT},
		{"4:cpu:/a\n", V2("/", "/c"), -ENOENT},
		{"0:/a\n", V2("/", "/c"), -ENOENT},
		{"0::a\n", V2("/", "/c"), -ENOENT},
		{"10::/a\n", V2("/", "/c"), -ENOENT},
		{"0::/a\n", "", -ENOENT},
		{"0::/a\n", V1 PROC, -ENOENT},
		{"0::/a\n", "1 2 0:1 / /c rw shared:1 cgroup2 cgroup2 rw\n", -ENOENT},
		{"0::/a\n", V2("relative", "/c"), -ENOENT},
		{"0::/a\n", V2("/", "relative"), -ENOENT},
		{"0::/a\n", V2("/", "/c\\000d"), -ENOENT},
		{"0::/a\n", V2("/b", "/c"), -EXDEV},
		{"0::/..\n", V2("/", "/c"), -EXDEV},
		{"0::/../other/x\n", V2("/", "/c"), -EXDEV},
		{"0::/a/../../etc\n", V2("/", "/c"), -EXDEV},
		{"0::/a/..\n", V2("/", "/c"), -EXDEV},
	};
	char path[PATH_MAX], *text;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(cgroup_path(cases[i].self, cases[i].mounts, path), cases[i].r);
	/* the longest that fits, and one more */
	text = malloc(PATH_MAX + 16);
	assert_non_null(text);
	for (int more = 0; more < 2; more++) {
		size_t len = PATH_MAX - 1 - strlen("/c") + (size_t)more;

		memset(text, 'a', PATH_MAX + 16);
		memcpy(text, "0::/", 4);
		text[3 + len] = '\0';
		assert_int_equal(cgroup_path(text, V2("/", "/c"), path), more ? -ENAMETOOLONG : 0);
	}
	memset(text, 'a', PATH_MAX + 8);
	memcpy(text, "0::/", 4);
	text[PATH_MAX + 8] = '\0';
	assert_int_equal(cgroup_path(text, V2("/", "/c"), path), -ENAMETOOLONG);
	free(text);
}

/* Every beginning of good texts, and each with a byte changed: an answer, and nothing read that is not there. */
static void damaged_texts(void **state)
{
	static const char self[] = "12:pids:/x\n0::/docker/a/b\n", mounts[] = PROC V2("/docker/a", "/my\\040c") V1;
	char path[PATH_MAX];

	for (size_t i = 0; i < sizeof(self); i++) {
		char *part = strndup(self, i);

		(void)!cgroup_path(part, mounts, path);
		free(part);
	}
	for (size_t i = 0; i + 1 < sizeof(mounts); i++) {
		static const char put[] = " \n-\\/\x01";
		char *part = strndup(mounts, i);

		(void)!cgroup_path(self, part, path);
		free(part);
		for (size_t j = 0; j + 1 < sizeof(put); j++) {
			part = strdup(mounts);
			part[i] = put[j];
			(void)!cgroup_path(self, part, path);
			free(part);
		}
	}
}

static void only_a_cgroup_is_opened(void **state)
{
	assert_int_equal(cgroup_open("/proc"), -ENOTDIR);
	assert_int_equal(cgroup_open("/tmp"), -ENOTDIR);
	assert_int_equal(cgroup_open("/proc/self/cgroup"), -ENOTDIR);
	assert_int_equal(cgroup_open("/no/such"), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(path_is_found),
		cmocka_unit_test(no_path_is_said),
		cmocka_unit_test(damaged_texts),
		cmocka_unit_test(only_a_cgroup_is_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
