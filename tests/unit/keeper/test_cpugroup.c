/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's share of the CPUs: a group where one can be had, a refusal that says why where not, and what is cleared up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/cpugroup.h"

#define ID "0123456789ab"

static void expect_limit(const struct cpu_group *g, const char *want)
{
	_free_ char *text = NULL;

	assert_int_equal(read_file_at(g->fd, "cpu.max", 64, &text, NULL), 0);
	assert_string_equal(text, want);
}

/* Which of the two depends on where this runs. */
static void made_or_refused(void **state)
{
	struct cpu_group g = {.fd = -1};
	struct sm_error err = {0};
	char dir[] = "/tmp/test-cpugroup.XXXXXX";
	_fd_ int dirfd = -1;

	if (cpu_group_make(&g, ID, 250, false, &err) < 0) {
		assert_int_equal(err.kind, SM_ERROR_UNSUPPORTED);
		assert_int_equal(err.code, EOPNOTSUPP);
		assert_non_null(strstr(err.message, "a share of 0.25 CPUs needs a cgroup"));
		assert_int_equal(g.fd, -1);
		assert_true(cpu_group_remove(&g));
		print_message("refused here: %s\n", err.message);
		return;
	}
	assert_non_null(mkdtemp(dir));
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	expect_limit(&g, "25000 100000\n");
	assert_int_equal(cpu_group_limit(&g, 0), 0);
	expect_limit(&g, "max 100000\n");
	assert_int_equal(cpu_group_limit(&g, 16000), 0);
	expect_limit(&g, "1600000 100000\n");
	assert_int_equal(cpu_group_limit(&g, 10), 0);
	expect_limit(&g, "1000 100000\n");
	/* as of a keeper that was killed */
	assert_int_equal(cpu_group_note(&g, dirfd), 0);
	cpu_group_sweep(dirfd, "ffffffffffff");
	assert_true(access(g.path, F_OK) == 0);
	assert_int_equal(cpu_group_note(&g, dirfd), 0);
	cpu_group_sweep(dirfd, ID);
	assert_true(access(g.path, F_OK) < 0);
	assert_true(cpu_group_remove(&g));
	assert_int_equal(rmdir(dir), 0);
}

/* The file that names a group can name anything: directories that are none stay. */
static void hostile_notes(void **state)
{
	char dir[] = "/tmp/test-cpugroup.XXXXXX", innocent[64], text[128];
	_fd_ int dirfd = -1;
	const char *const cases[] = {"",  "/", "x", "supermachine-" ID, "/tmp", innocent, "/proc/supermachine-" ID,
				     text};

	assert_non_null(mkdtemp(dir));
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(innocent, sizeof(innocent), "%s/supermachine-" ID, dir);
	snprintf(text, sizeof(text), "%s/.//supermachine-" ID, dir);
	assert_int_equal(mkdir(innocent, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(write_file_atomic_at(dirfd, "cgroup", cases[i], strlen(cases[i]), 0600), 0);
		cpu_group_sweep(dirfd, ID);
		assert_true(faccessat(dirfd, "cgroup", F_OK, 0) < 0);
		assert_int_equal(access(innocent, F_OK), 0);
	}
	cpu_group_sweep(dirfd, ID);
	assert_int_equal(rmdir(innocent), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(made_or_refused),
		cmocka_unit_test(hostile_notes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
