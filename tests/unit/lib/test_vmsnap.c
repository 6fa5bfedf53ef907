/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of VMs on disk: their description, and what is believed of their files. No VM runs here. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "lib/vmsnap.h"

static struct vmsnap sample(char **layers)
{
	return (struct vmsnap){.vm = "0123456789ab",
			       .image = "box",
			       .image_id = "abc",
			       .memory = 256 * MIB,
			       .cpus = 2,
			       .window = GIB,
			       .booted = true,
			       .created_ns = 5,
			       .pause_ns = 6,
			       .memory_bytes = 7,
			       .state_file = "s",
			       .memory_file = "m",
			       .state_sum = "0123456789abcdef",
			       .memory_sum = "fedcba9876543210",
			       .layers = layers};
}

static void description_round_trip(void **state)
{
	char *layers[] = {"one", "two", NULL}, *text = NULL;
	struct vmsnap m = sample(layers), got;

	assert_int_equal(vmsnap_format(&m, &text, NULL), 0);
	assert_int_equal(vmsnap_parse(text, strlen(text), &got, NULL), 0);
	assert_string_equal(got.vm, m.vm);
	assert_string_equal(got.image, "box");
	assert_true(got.memory == m.memory && got.cpus == 2 && got.window == GIB && got.booted && got.created_ns == 5);
	assert_true(got.pause_ns == 6 && got.memory_bytes == 7);
	assert_string_equal(got.memory_file, "m");
	assert_string_equal(got.state_sum, m.state_sum);
	assert_string_equal(got.memory_sum, m.memory_sum);
	assert_string_equal(got.layers[1], "two");
	assert_null(got.layers[2]);
	vmsnap_done(&got);
	/* Cut anywhere it is no description. */
	for (size_t len = 0; len + 2 < strlen(text); len++)
		assert_true(vmsnap_parse(text, len, &got, NULL) < 0);
	free(text);
}

static void bad_descriptions(void **state)
{
	static const char *const good = "{\"version\":1,\"kind\":\"vm\",\"vm\":\"0123456789ab\",\"image\":\"box\","
					"\"image_id\":\"abc\",\"memory\":256,\"cpus\":2}";
	static const char *const cases[][2] = {
		{"\"version\":1", "\"version\":2"},
		{"\"kind\":\"vm\"", "\"kind\":\"base\""},
		{"\"vm\":\"0123456789ab\"", "\"vm\":\"../x\""},
		{"\"cpus\":2", "\"cpus\":0"},
		{"\"memory\":256", "\"memory\":-1"},
		{"\"image_id\":\"abc\"", "\"image_id\":3"},
	};
	struct vmsnap got;
	char bad[1024];

	assert_int_equal(vmsnap_parse(good, strlen(good), &got, NULL), 0);
	vmsnap_done(&got);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sm_error err = {0};
		const char *at = strstr(good, cases[i][0]);

		assert_non_null(at);
		snprintf(bad, sizeof(bad), "%.*s%s%s", (int)(at - good), good, cases[i][1], at + strlen(cases[i][0]));
		assert_int_equal(vmsnap_parse(bad, strlen(bad), &got, &err), -EBADMSG);
		assert_non_null(strstr(err.message, "metadata.json"));
	}
}

static void names(void **state)
{
	assert_true(vmsnap_name_valid("warm") && vmsnap_name_valid("basement") && vmsnap_name_valid("a.b-c_1"));
	assert_false(vmsnap_name_valid("base-0123") || vmsnap_name_valid("failed-x") || vmsnap_name_valid("lock"));
	assert_false(vmsnap_name_valid(".new-1") || vmsnap_name_valid("") || vmsnap_name_valid("a/b"));
}

static void put(int dir, const char *name, const char *text)
{
	assert_int_equal(write_file_atomic_at(dir, name, text, strlen(text), 0600), 0);
}

/* A layer may get more names; nothing else may happen to a file. */
static void files_are_checked(void **state)
{
	char home[] = "/tmp/test-vmsnap.XXXXXX", layer[128], *layers[] = {layer, NULL};
	struct vmsnap m = sample(layers);
	struct sm_error err = {0};
	uint64_t size = 0;
	int dir;

	m.state_sum[0] = m.memory_sum[0] = '\0'; /* as those of the first version are */
	assert_non_null(mkdtemp(home));
	dir = open(home, O_RDONLY | O_DIRECTORY);
	put(dir, "state", "state");
	put(dir, "memory", "memory");
	put(dir, "layer.0", "layer");
	assert_int_equal(snapshot_identity(dir, "state", false, m.state_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "memory", false, m.memory_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "layer.0", true, layer, &size), 0);
	assert_int_equal(linkat(dir, "layer.0", dir, "another", 0), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, &size, &err), 0);
	assert_true(size > 0);
	put(dir, "memory", "MEMORY");
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "snapshot x: its file memory is not the one"));
	assert_int_equal(snapshot_identity(dir, "memory", false, m.memory_file, &size), 0);
	assert_int_equal(unlinkat(dir, "layer.0", 0), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "layer.0 is missing"));
	close(dir);
	remove_tree_at(AT_FDCWD, home);
}

#define PAGES 1000

/* A byte here and there, holes between. */
static void put_memory(int dir, const char *name, bool holes)
{
	static char page[4096];
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < PAGES && !holes; i++)
		assert_int_equal(pwrite(fd, page, sizeof(page), (off_t)i * 4096), 4096);
	assert_int_equal(ftruncate(fd, PAGES * 4096), 0);
	for (unsigned i = 3; i < PAGES; i += 300)
		assert_int_equal(pwrite(fd, "memory", 6, (off_t)i * 4096 + i), 6);
	close(fd);
}

static void flip(int dir, const char *name, off_t at)
{
	int fd = openat(dir, name, O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static int truncateat_end(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDWR), r = ftruncate(fd, (PAGES - 1) * 4096);

	close(fd);
	return r;
}

static void sums(void **state)
{
	static const off_t places[] = {0, 3 * 4096 + 3, PAGES * 4096 - 1};
	char home[] = "/tmp/test-vmsnap.XXXXXX", a[MEMSUM_DIGITS + 1], b[MEMSUM_DIGITS + 1];
	int dir;

	assert_non_null(mkdtemp(home));
	dir = open(home, O_RDONLY | O_DIRECTORY);
	put_memory(dir, "a", false);
	put_memory(dir, "b", true);
	assert_int_equal(memsum_file(dir, "a", a), 0);
	assert_int_equal(memsum_file(dir, "b", b), 0);
	assert_string_equal(a, b);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		flip(dir, "b", places[i]);
		assert_int_equal(memsum_file(dir, "b", b), 0);
		assert_string_not_equal(a, b);
		flip(dir, "b", places[i]);
		assert_int_equal(memsum_file(dir, "b", b), 0);
		assert_string_equal(a, b);
	}
	assert_int_equal(truncateat_end(dir, "b"), 0);
	assert_int_equal(memsum_file(dir, "b", b), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(memsum_file(dir, "none", b), -ENOENT);
	close(dir);
	remove_tree_at(AT_FDCWD, home);
}

/* A file that is another one is read once, and believed if it says the same. */
static void other_files_are_verified(void **state)
{
	char home[] = "/tmp/test-vmsnap.XXXXXX";
	struct vmsnap m = sample(NULL);
	struct sm_error err = {0};
	uint64_t size = 0;
	int dir;

	assert_non_null(mkdtemp(home));
	dir = open(home, O_RDONLY | O_DIRECTORY);
	put(dir, "state", "state");
	put_memory(dir, "memory", true);
	assert_int_equal(snapshot_identity(dir, "state", false, m.state_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "memory", false, m.memory_file, &size), 0);
	assert_int_equal(memsum_file(dir, "state", m.state_sum), 0);
	assert_int_equal(memsum_file(dir, "memory", m.memory_sum), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), 0);
	assert_int_equal(faccessat(dir, "verified.memory", F_OK, 0), -1); /* it was not read */
	/* A copy. */
	assert_int_equal(unlinkat(dir, "memory", 0), 0);
	put_memory(dir, "memory", false);
	put(dir, "state", "state");
	assert_int_equal(vmsnap_check(dir, "x", &m, false, NULL, &err), -EBADMSG);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), 0);
	assert_int_equal(faccessat(dir, "verified.memory", F_OK, 0), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, false, &size, &err), 0); /* nor is it again */
	/* One bit of it. */
	flip(dir, "memory", 303 * 4096 + 305);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "snapshot x: its file memory is damaged: its checksum is "));
	flip(dir, "memory", 303 * 4096 + 305);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), 0);
	put(dir, "state", "State");
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "its file state is damaged"));
	close(dir);
	remove_tree_at(AT_FDCWD, home);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(description_round_trip),
		cmocka_unit_test(bad_descriptions),
		cmocka_unit_test(names),
		cmocka_unit_test(files_are_checked),
		cmocka_unit_test(sums),
		cmocka_unit_test(other_files_are_verified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
