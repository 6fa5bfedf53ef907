/* SPDX-License-Identifier: Apache-2.0 */
/* Files of the host as a layer: what is in the tar, what the sum of them depends on, what is refused, being cancelled.
 */
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

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/tar.h"
#include "lib/hostlayer.h"

static char top[64];
static const struct image_progress quiet;

static void put(const char *path, const char *text)
{
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

static int setup(void **state)
{
	strcpy(top, "/tmp/test-build.XXXXXX");
	if (!mkdtemp(top) || chdir(top) < 0 || mkdir("d", 0750) < 0 || mkdir("d/sub", 0755) < 0)
		return -1;
	for (int i = 0; i < 200; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d/sub/%d", (i * 37) % 200);
		put(name, "x");
	}
	put("d/a", "contents");
	put("f", "file");
	return link("d/a", "d/sub/b") < 0 || symlink("nowhere", "d/link") < 0 || symlink("d", "to-d") < 0 ||
	       mkfifo("pipe", 0600) < 0 || chmod("d/a", 04751) < 0;
}

static int teardown(void **state)
{
	return chdir("/") < 0 || remove_tree_at(AT_FDCWD, top) < 0;
}

static ssize_t read_tar(void *arg, void *p, size_t len, struct sm_error *err)
{
	return read(*(int *)arg, p, len);
}

/* "TYPE MODE UID:GID PATH[>LINK]" of each entry, in the order of the tar; TYPE as tar.h counts. */
static char *entries(int fd)
{
	struct tar_input input = {read_tar, &fd};
	const struct tar_entry *e;
	struct buf b = {0};
	struct tar *t;

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(tar_open(&input, 1 << 20, &t), 0);
	while (tar_next(t, &e, NULL) > 0) {
		buf_printf(&b, "%d %o %llu:%llu %.*s", e->type, e->mode, (unsigned long long)e->uid,
			   (unsigned long long)e->gid, (int)e->path.len, (const char *)e->path.p);
		if (e->link.len)
			buf_printf(&b, ">%.*s", (int)e->link.len, (const char *)e->link.p);
		buf_put_u8(&b, '\n');
	}
	tar_close(t);
	buf_put_u8(&b, 0);
	assert_int_equal(b.error, 0);
	return (char *)b.data;
}

/* Over an image in which nothing is. */
static char *layer(const struct sm_image_file *files, size_t count)
{
	_fd_ int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	_cleanup_(buf_done) struct buf sums = {0};
	struct image_info nothing = {0};
	struct image_tree *tree;
	struct sm_error err = {0};

	assert_int_equal(image_tree_open(NULL, &nothing, &tree, NULL), 0);
	if (host_layer_read(files, count, &quiet, &sums, tree, fd, &err) < 0)
		fail_msg("%s", err.message);
	image_tree_close(tree);
	return entries(fd);
}

static void expect(const char *list, const char *line)
{
	_free_ char *whole = NULL, *all = NULL;

	assert_true(asprintf(&whole, "\n%s\n", line) > 0 && asprintf(&all, "\n%s", list) > 0);
	if (!strstr(all, whole))
		fail_msg("%s: not in\n%s", line, list);
}

static void what_is_in_it(void **state)
{
	struct sm_image_file files[] = {
		{.size = sizeof(files[0]), .source = "to-d", .target = "//srv//x/"},
		{.size = sizeof(files[0]), .source = "f", .target = "/etc/", .owner = "5"},
		{.size = sizeof(files[0]), .source = "f", .target = "/name", .owner = "5:6", .mode = 0604},
		{.size = sizeof(files[0]), .source = "d/sub/", .target = "/", .mode = 0640},
	};
	_free_ char *list = layer(files, ARRAY_SIZE(files));
	char *at;

	expect(list, "5 750 0:0 srv//x/");
	expect(list, "0 4751 0:0 srv//x/a");
	expect(list, "1 4751 0:0 srv//x/sub/b>srv//x/a");
	expect(list, "2 777 0:0 srv//x/link>nowhere");
	expect(list, "0 644 5:5 etc/f");
	expect(list, "0 604 5:6 name");
	expect(list, "0 640 0:0 ./7");
	/* Sorted, wherever they lie on the disk; the root of the image is left as it is. */
	at = strstr(list, " ./0\n");
	assert_non_null(at);
	assert_true(strstr(list, " ./1\n") > at && strstr(list, " ./10\n") > strstr(list, " ./1\n"));
	assert_null(strstr(list, " ./\n"));
}

static void sum_of(const char *source, const char *owner, uint32_t mode, uint8_t ret[static 32])
{
	struct sm_image_file f = {.size = sizeof(f), .source = source, .target = "/t", .owner = owner, .mode = mode};
	_cleanup_(buf_done) struct buf sums = {0};

	assert_int_equal(host_layer_read(&f, 1, &quiet, &sums, NULL, -1, NULL), 0);
	assert_int_equal(sums.len, 32);
	memcpy(ret, sums.data, 32);
}

static void expect_other(const uint8_t *sum, const char *source, const char *owner, uint32_t mode, bool other)
{
	uint8_t now[32];

	sum_of(source, owner, mode, now);
	if ((memcmp(sum, now, 32) != 0) != other)
		fail_msg("%s %s %o: %s", source, owner ? owner : "-", mode, other ? "the same" : "another");
}

static void what_it_depends_on(void **state)
{
	const struct timespec times[2] = {{1, 0}, {1, 5}};
	uint8_t sum[32];

	sum_of("d", NULL, 0, sum);
	expect_other(sum, "d", NULL, 0, false);
	expect_other(sum, "./to-d", NULL, 0, false);
	expect_other(sum, "d/.", "0:0", 0, false);
	expect_other(sum, "d", "0:1", 0, true);
	expect_other(sum, "d", NULL, 0600, true);
	expect_other(sum, "d/sub", NULL, 0, true);
	sum_of("f", NULL, 0, sum);
	assert_int_equal(chmod("f", 0600), 0);
	expect_other(sum, "f", NULL, 0, true);
	sum_of("f", NULL, 0, sum);
	assert_int_equal(utimensat(AT_FDCWD, "f", times, 0), 0);
	expect_other(sum, "f", NULL, 0, true);
	sum_of("f", NULL, 0, sum);
	assert_int_equal(truncate("f", 3), 0);
	assert_int_equal(utimensat(AT_FDCWD, "f", times, 0), 0);
	expect_other(sum, "f", NULL, 0, true);
	sum_of("f", NULL, 0, sum);
	assert_int_equal(rename("f", "g"), 0);
	expect_other(sum, "g", NULL, 0, true);
	assert_int_equal(rename("g", "f"), 0);
	expect_other(sum, "f", NULL, 0, false);
	/* A hole is as good as zeros. */
	assert_int_equal(truncate("f", 300000), 0);
	assert_int_equal(utimensat(AT_FDCWD, "f", times, 0), 0);
	sum_of("f", NULL, 0, sum);
	{
		_fd_ int fd = open("f", O_WRONLY | O_CLOEXEC);
		static const char zeros[200000];

		assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 4096), sizeof(zeros));
	}
	assert_int_equal(utimensat(AT_FDCWD, "f", times, 0), 0);
	expect_other(sum, "f", NULL, 0, false);
}

static void expect_refused(struct sm_image_file f, int code, const char *why)
{
	_cleanup_(buf_done) struct buf sums = {0};
	struct sm_error err = {0};
	int r;

	f.size = sizeof(f);
	r = host_layer_check(&f, 1, &err);
	if (r == 0)
		r = host_layer_read(&f, 1, &quiet, &sums, NULL, -1, &err);
	if (r != -code || !strstr(err.message, why))
		fail_msg("%d %s, not %d %s", r, err.message, -code, why);
}

static void what_is_refused(void **state)
{
	expect_refused((struct sm_image_file){.target = "/x"}, EINVAL, "without a source");
	expect_refused((struct sm_image_file){.source = "f"}, EINVAL, "absolute path");
	expect_refused((struct sm_image_file){.source = "f", .target = "x"}, EINVAL, "absolute path");
	expect_refused((struct sm_image_file){.source = "f", .target = "/a/../b"}, EINVAL, "without \"..\"");
	expect_refused((struct sm_image_file){.source = "f", .target = "/.."}, EINVAL, "without \"..\"");
	expect_refused((struct sm_image_file){.source = "f", .target = "/x", .owner = "root"}, EINVAL, "owner 'root'");
	expect_refused((struct sm_image_file){.source = "f", .target = "/x", .owner = "1:"}, EINVAL, "owner '1:'");
	expect_refused((struct sm_image_file){.source = "f", .target = "/x", .owner = "-1"}, EINVAL, "owner '-1'");
	expect_refused((struct sm_image_file){.source = "f", .target = "/x", .owner = "4294967295"}, EINVAL, "owner");
	expect_refused((struct sm_image_file){.source = "f", .target = "/x", .mode = S_IFREG | 0644}, EINVAL, "mode");
	expect_refused((struct sm_image_file){.source = "pipe", .target = "/x"}, EINVAL, "neither a file");
	expect_refused((struct sm_image_file){.source = "none", .target = "/x"}, ENOENT, "none: No such file");
	expect_refused((struct sm_image_file){.source = "f", .target = "/.wh.x"}, EOPNOTSUPP, ".wh.");
	assert_int_equal(host_layer_check(NULL, 1, NULL), -EINVAL);
	assert_int_equal(host_layer_check(NULL, 0, NULL), 0);
}

static int stop_later(void *arg, const char *stage, uint64_t done, uint64_t total)
{
	assert_string_equal(stage, "files");
	return --*(int *)arg == 0;
}

static void cancelled(void **state)
{
	struct sm_image_file f = {.size = sizeof(f), .source = "big", .target = "/t"};
	_free_ char *text = calloc(1, 1000001);

	memset(text, 'x', 1000000);
	put("big", text);
	for (int at = 1; at < 4; at++) {
		_cleanup_(buf_done) struct buf sums = {0};
		int left = at;
		struct image_progress p = {.update = stop_later, .arg = &left};
		struct sm_error err = {0};

		assert_int_equal(host_layer_read(&f, 1, &p, &sums, NULL, -1, &err), -ECANCELED);
		assert_int_equal(err.kind, SM_ERROR_CANCELLED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_in_it, setup, teardown),
		cmocka_unit_test_setup_teardown(what_it_depends_on, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
