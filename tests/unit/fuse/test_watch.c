/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coherence: what the host changes behind a mount is seen through it at once, although everything may be cached for
 * half a minute and longer. Each case makes the kernel cache something, changes it from outside of the mount, and waits
 * for the new view. Needs root and /dev/fuse, else it is a skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/dev_fuse.h"
#include "fuse/posix.h"
#include "ways.h"

#define PATIENCE_NS (10ULL * 1000000000ULL) /* a busy host; still well below what is cached for 30 s */
#define BURST 20000

struct fixture {
	char dir[64], source[64];
	struct sm_fs_backend *be;
	struct fuse_dev *dev;
	int host, view; /* directories */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct fuse_posix_options o = {.valid_ns = 1000000000};
	struct fuse_dev_options d = {.session.watch = true, .threads = way_threads()};
	struct sm_error err = {0};

	if (!f)
		return -1;
	strcpy(f->dir, "/tmp/sm-test-mount.XXXXXX");
	strcpy(f->source, "/tmp/sm-test-source.XXXXXX");
	*state = f;
	if (!mkdtemp(f->dir) || !mkdtemp(f->source) || fuse_posix_new(f->source, &o, &f->be, &err) < 0 ||
	    fuse_dev_mount(f->be, f->dir, &d, &f->dev, &err) < 0) {
		fprintf(stderr, "mount: %s\n", err.message);
		return -1;
	}
	f->host = open(f->source, O_PATH | O_DIRECTORY);
	f->view = open(f->dir, O_PATH | O_DIRECTORY);
	return f->host < 0 || f->view < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r;

	close(f->host);
	close(f->view);
	r = !way_was_taken(f->dev);
	fuse_dev_unmount(f->dev);
	fuse_posix_free(f->be);
	r |= remove_tree_at(AT_FDCWD, f->source) | rmdir(f->dir);
	free(f);
	return r;
}

static void put(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* What a path looks like from here, as text: its contents, its target, its names, or the error. */
static void look(int dir, const char *name, char *out, size_t size)
{
	char text[256] = "";
	struct stat st;
	int fd;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		snprintf(out, size, "error %d", errno);
		return;
	}
	if (S_ISLNK(st.st_mode)) {
		if (readlinkat(dir, name, text, sizeof(text) - 1) < 0)
			snprintf(text, sizeof(text), "error %d", errno);
	} else if (S_ISDIR(st.st_mode)) {
		DIR *d = fdopendir(openat(dir, name, O_RDONLY | O_DIRECTORY));
		unsigned names = 0;

		while (d && readdir(d))
			names++;
		if (d)
			closedir(d);
		snprintf(text, sizeof(text), "%u names", names);
	} else {
		fd = openat(dir, name, O_RDONLY);
		if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
			snprintf(text, sizeof(text), "error %d", errno);
		if (fd >= 0)
			close(fd);
	}
	snprintf(out, size, "%o %u %lld %s", st.st_mode, S_ISDIR(st.st_mode) ? 0 : (unsigned)st.st_nlink,
		 S_ISDIR(st.st_mode) ? 0LL : (long long)st.st_size, text);
}

/* Until the view is what the host has. */
static void expect_same(struct fixture *f, const char *name)
{
	uint64_t end = time_now_ns() + PATIENCE_NS;
	char want[512], got[512];

	look(f->host, name, want, sizeof(want));
	do {
		look(f->view, name, got, sizeof(got));
		if (streq(got, want))
			return;
		usleep(2000);
	} while (time_now_ns() < end);
	fail_msg("%s: the mount shows '%s', the host has '%s'", name, got, want);
}

static void do_create(int h)
{
	put(h, "absent", "here now");
}

static void do_write(int h)
{
	put(h, "file", "other text, longer");
}

static void do_write_same_size(int h)
{
	int fd = openat(h, "file", O_WRONLY);

	assert_int_equal(pwrite(fd, "X", 1, 0), 1);
	close(fd);
}

static void do_truncate(int h)
{
	int fd = openat(h, "file", O_WRONLY);

	assert_int_equal(ftruncate(fd, 2), 0);
	close(fd);
}

static void do_rename_over(int h)
{
	put(h, "new", "renamed over");
	assert_int_equal(renameat(h, "new", h, "file"), 0);
}

static void do_unlink(int h)
{
	assert_int_equal(unlinkat(h, "file", 0), 0);
}

static void do_chmod(int h)
{
	assert_int_equal(fchmodat(h, "file", 0600, 0), 0);
}

static void do_link(int h)
{
	assert_int_equal(linkat(h, "file", h, "second", 0), 0);
}

static void do_replace_link(int h)
{
	assert_int_equal(symlinkat("elsewhere", h, "l2"), 0);
	assert_int_equal(renameat(h, "l2", h, "link"), 0);
}

static void do_replace_directory(int h)
{
	assert_int_equal(mkdirat(h, "dir2", 0700), 0);
	put(h, "dir2/inner", "another");
	put(h, "dir2/more", "");
	assert_int_equal(renameat2(h, "dir2", h, "dir", RENAME_EXCHANGE), 0);
}

static void do_fill_directory(int h)
{
	put(h, "dir/one", "1");
	put(h, "dir/two", "2");
}

static void do_file_to_directory(int h)
{
	assert_int_equal(unlinkat(h, "file", 0), 0);
	assert_int_equal(mkdirat(h, "file", 0755), 0);
}

static const struct {
	const char *name;
	void (*change)(int host);
} cases[] = {
	{"create", do_create},
	{"write", do_write},
	{"write of the same size", do_write_same_size},
	{"truncate", do_truncate},
	{"rename over", do_rename_over},
	{"unlink", do_unlink},
	{"chmod", do_chmod},
	{"a second name", do_link},
	{"symbolic link replaced", do_replace_link},
	{"directory replaced", do_replace_directory},
	{"directory filled", do_fill_directory},
	{"file becomes a directory", do_file_to_directory},
};

static const char *const watched[] = {".", "file", "absent", "second", "dir", "dir/inner", "dir/one", "link"};

static void test_every_change_of_the_host_is_seen(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(mkdirat(f->host, "case", 0755), 0);
		int host = openat(f->host, "case", O_PATH | O_DIRECTORY), view;
		struct fixture sub = *f;

		put(host, "file", "some text");
		assert_int_equal(mkdirat(host, "dir", 0755), 0);
		put(host, "dir/inner", "inner text");
		assert_int_equal(symlinkat("file", host, "link"), 0);
		expect_same(f, "case");
		view = openat(f->view, "case", O_PATH | O_DIRECTORY);
		assert_true(view >= 0);
		sub.host = host;
		sub.view = view;
		for (int round = 0; round < 2; round++) /* the second finds all of it cached */
			for (size_t k = 0; k < ARRAY_SIZE(watched); k++)
				expect_same(&sub, watched[k]);
		cases[i].change(host);
		for (size_t k = 0; k < ARRAY_SIZE(watched); k++)
			expect_same(&sub, watched[k]);
		close(host);
		close(view);
		assert_int_equal(remove_tree_at(f->host, "case"), 0);
		expect_same(f, "case");
	}
}

/* What the peer wrote itself, or failed to make, does not hide what the host does to owner and mode right after. */
static void test_own_doing_hides_no_change_of_the_host(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	int fd;

	put(f->view, "mine", "text");
	assert_int_equal(mkdirat(f->view, "dir", 0755), 0);
	assert_int_equal(fstatat(f->view, "mine", &st, 0), 0);
	assert_int_equal(fstatat(f->view, "dir", &st, 0), 0);
	usleep(300000); /* the events of all this have come by now */
	fd = openat(f->view, "mine", O_WRONLY);
	assert_int_equal(pwrite(fd, "T", 1, 0), 1);
	assert_int_equal(fchmodat(f->host, "mine", 0640, 0), 0);
	close(fd);
	expect_same(f, "mine");
	assert_int_equal(linkat(f->view, "mine", f->view, "dir/nowhere/x", 0), -1);
	put(f->host, "dir/there", "");
	assert_int_equal(mkdirat(f->view, "dir/there", 0755), -1);
	assert_int_equal(fchmodat(f->host, "dir", 0700, 0), 0);
	expect_same(f, "dir");
}

static uint64_t requests(struct fixture *f)
{
	struct fuse_session_stats st;

	fuse_dev_get_stats(f->dev, &st);
	return st.requests;
}

static void test_what_nobody_changes_is_asked_for_once(void **state)
{
	struct fixture *f = *state;
	uint64_t before;
	struct stat st;

	put(f->host, "file", "text");
	assert_int_equal(fstatat(f->view, "absent", &st, 0), -1);
	assert_int_equal(fstatat(f->view, "file", &st, 0), 0);
	usleep(1500000); /* longer than the backend's own answers are valid, as that about the root was */
	assert_int_equal(fstat(f->view, &st), 0);
	before = requests(f);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(fstatat(f->view, "file", &st, 0), 0);
		assert_int_equal(fstatat(f->view, "absent", &st, 0), -1);
	}
	assert_int_equal(requests(f), before);
}

static void test_own_changes_stay_cached(void **state)
{
	struct fixture *f = *state;
	uint64_t before;
	struct stat st;
	char name[16];

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "own%d", i);
		put(f->view, name, "mine");
		assert_int_equal(fstatat(f->view, name, &st, 0), 0);
	}
	assert_int_equal(renameat(f->view, "own0", f->view, "moved"), 0);
	assert_int_equal(fstatat(f->view, "moved", &st, 0), 0);
	usleep(1500000); /* the events of all this have come by now */
	for (int i = 1; i < 50; i++) {
		snprintf(name, sizeof(name), "own%d", i);
		assert_int_equal(fstatat(f->view, name, &st, 0), 0);
	}
	before = requests(f);
	for (int i = 1; i < 50; i++) {
		snprintf(name, sizeof(name), "own%d", i);
		assert_int_equal(fstatat(f->view, name, &st, 0), 0);
	}
	assert_int_equal(requests(f), before);
	assert_int_equal(fstatat(f->view, "own0", &st, 0), -1);
	/* and they are watched like any other: the moved one, too */
	put(f->host, "moved", "by the host");
	expect_same(f, "moved");
	assert_int_equal(unlinkat(f->host, "moved", 0), 0);
	expect_same(f, "moved");
}

/* More events than the kernel queues: everything is taken for changed. */
static void test_a_burst_of_changes_leaves_nothing_stale(void **state)
{
	struct fixture *f = *state;
	char name[16];

	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		put(f->host, name, "before");
		expect_same(f, name);
	}
	for (int i = 0; i < BURST; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		put(f->host, name, "after the burst");
	}
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		expect_same(f, name);
	}
	expect_same(f, ".");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_change_of_the_host_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_doing_hides_no_change_of_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_nobody_changes_is_asked_for_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_changes_stay_cached, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_burst_of_changes_leaves_nothing_stale, setup, teardown),
	};

	return run_both_ways(tests);
}
