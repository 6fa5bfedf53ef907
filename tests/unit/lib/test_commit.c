/* SPDX-License-Identifier: Apache-2.0 */
/* Changes as the layer of an image: what is in the tar, what is left out, what is refused. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/tar.h"
#include "lib/copy.h"

static char top[64];
static char *points[] = {(char *)"/mnt/a/b", (char *)"/old/in", NULL};

static int setup(void **state)
{
	strcpy(top, "/tmp/test-commit.XXXXXX");
	return !mkdtemp(top) || chdir(top) < 0;
}

static int teardown(void **state)
{
	return chdir("/") < 0 || remove_tree_at(AT_FDCWD, top) < 0;
}

static void put(const char *path, const char *text)
{
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

static int to_layer(void *arg, const void *p, size_t len)
{
	return layer_tar_feed(arg, p, len, NULL);
}

static ssize_t read_tar(void *arg, void *p, size_t len, struct sm_error *err)
{
	return read(*(int *)arg, p, len);
}

/* "TYPE PATH[>LINK] " of each entry, in the order of the tar; TYPE as tar.h counts. */
static char *entries(int fd)
{
	struct tar_input input = {read_tar, &fd};
	const struct tar_entry *e;
	struct buf b = {0};
	struct tar *t;

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(tar_open(&input, 1 << 20, &t), 0);
	while (tar_next(t, &e, NULL) > 0) {
		buf_printf(&b, "%d %.*s", e->type, (int)e->path.len, (const char *)e->path.p);
		if (e->link.len)
			buf_printf(&b, ">%.*s", (int)e->link.len, (const char *)e->link.p);
		for (size_t i = 0; i < e->num_xattrs; i++)
			buf_printf(&b, "@%.*s", (int)e->xattrs[i].name.len, (const char *)e->xattrs[i].name.p);
		buf_put_u8(&b, '\n');
	}
	tar_close(t);
	buf_put_u8(&b, 0);
	assert_int_equal(b.error, 0);
	return (char *)b.data;
}

static void expect(const char *list, const char *line, bool there)
{
	_free_ char *whole = NULL, *all = NULL;

	assert_true(asprintf(&whole, "\n%s\n", line) > 0 && asprintf(&all, "\n%s", list) > 0);
	if (!strstr(all, whole) == there)
		fail_msg("%s: %s in\n%s", line, there ? "not" : "unwanted", list);
}

static void layer_of_an_overlay(void **state)
{
	static const char *const dirs[] = {"lower",	"lower/kept", "lower/d",   "lower/r",
					   "upper",	"upper/kept", "upper/mnt", "upper/mnt/a",
					   "upper/old", "upper/s",    "upper/new", "upper/was"};
	static const char *const skip[] = {"/s", NULL};
	struct copy_changes c = {.skip = skip, .whole = true};
	struct copy_out out = {.write = to_layer};
	_fd_ int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	_free_ char *list = NULL;
	struct layer_tar *l;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		assert_int_equal(mkdir(dirs[i], 0755), 0);
	put("lower/gone", "x");
	put("lower/d/x", "x");
	put("lower/was", "a file");
	put("upper/d", "in place of a directory");
	put("upper/new/f", "new");
	put("upper/s/secret", "left out");
	assert_int_equal(link("upper/new/f", "upper/also"), 0);
	assert_int_equal(symlink("no/where", "upper/link"), 0);
	assert_int_equal(mkfifo("upper/fifo", 0600), 0);
	assert_int_equal(mknod("upper/gone", S_IFCHR | 0600, 0), 0);
	assert_int_equal(mknod("upper/never", S_IFCHR | 0600, 0), 0); /* nothing is below it */
	bool attributes = setxattr("upper/new", "user.note", "y", 1, 0) == 0;
	bool opaque = mkdir("upper/r", 0755) == 0 && setxattr("upper/r", "trusted.overlay.opaque", "y", 1, 0) == 0;
	c.upper = open("upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	c.lower = open("lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(layer_tar_new(fd, 1 << 20, points, &l), 0);
	out.arg = l;
	assert_int_equal(copy_pack_changes(&c, &out, NULL), 0);
	assert_int_equal(copy_put_end(&out), 0);
	assert_true(layer_tar_ended(l));
	assert_int_equal(layer_tar_finish(l, NULL), 0);
	assert_int_equal(layer_tar_written(l), lseek(fd, 0, SEEK_END));
	list = entries(fd);

	expect(list, "5 ./", true);
	expect(list, "5 ./kept/", true); /* it says what it is now */
	expect(list, "0 ./.wh.gone", true);
	expect(list, "0 ./.wh.never", false);
	expect(list, "0 ./d", true); /* a file over a directory needs no more */
	expect(list, "0 ./.wh.d", false);
	expect(list, "5 ./was/", true);
	expect(list, "0 ./was/.wh..wh..opq", true);
	expect(list, attributes ? "5 ./new/@user.note" : "5 ./new/", true);
	expect(list, "2 ./link>no/where", true);
	expect(list, "6 ./fifo", true);
	assert_true(!!strstr(list, "1 ./also>./new/f\n") != !!strstr(list, "1 ./new/f>./also\n"));
	if (opaque) {
		expect(list, "5 ./r/", true);
		expect(list, "0 ./r/.wh..wh..opq", true);
	}
	/* Only there on the way to what is mounted, or left out. */
	assert_null(strstr(list, "mnt"));
	assert_null(strstr(list, "old"));
	assert_null(strstr(list, "secret"));
	layer_tar_free(l);
	copy_out_done(&out);
	close(c.upper);
	close(c.lower);
}

/* What a guest may send. */
static int send_one(enum copy_kind kind, const char *name, uint64_t size, uint64_t max)
{
	struct copy_entry root = {.kind = COPY_DIR, .mode = 0755, .name = "", .link = ""};
	struct copy_entry e = {.kind = kind, .name = name, .link = "", .size = size};
	_fd_ int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct copy_out out = {.write = to_layer};
	struct layer_tar *l;
	int r;

	assert_int_equal(layer_tar_new(fd, max, NULL, &l), 0);
	out.arg = l;
	r = copy_put_entry(&out, &root);
	if (r == 0)
		r = copy_put_entry(&out, &e);
	if (r == 0)
		r = copy_put_up(&out);
	if (r == 0)
		r = copy_put_end(&out);
	if (r == 0)
		r = layer_tar_finish(l, NULL);
	layer_tar_free(l);
	copy_out_done(&out);
	return r;
}

static void hostile_changes(void **state)
{
	assert_int_equal(send_one(COPY_FILE, "f", 5000, 1 << 20), 0);
	assert_int_equal(send_one(COPY_GONE, "f", 0, 1 << 20), 0);
	assert_int_equal(send_one(COPY_FILE, ".wh.f", 0, 1 << 20), -EOPNOTSUPP);
	assert_int_equal(send_one(COPY_GONE, ".wh.f", 0, 1 << 20), -EOPNOTSUPP);
	assert_int_equal(send_one(COPY_SOCKET, "f", 0, 1 << 20), -EPROTO);
	assert_int_equal(send_one(COPY_FILE, "f", INT64_MAX, 1 << 20), -EFBIG); /* all hole */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(layer_of_an_overlay, setup, teardown),
		cmocka_unit_test(hostile_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
