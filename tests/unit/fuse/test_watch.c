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
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
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

/* Where the kernel moves the data itself, no length holds. */
static int map_nothing(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, uint64_t length,
		       int protection, struct sm_fs_map *ret)
{
	return -EOPNOTSUPP;
}

static int setup(void **state)
{
	static struct sm_fs_ops ops;
	struct fixture *f = calloc(1, sizeof(*f));
	struct fuse_posix_options o = {.valid_ns = 1000000000};
	struct fuse_dev_options d = {.session.watch = true, .threads = way_threads()};
	struct sm_error err = {0};

	if (!f)
		return -1;
	strcpy(f->dir, "/tmp/sm-test-mount.XXXXXX");
	strcpy(f->source, "/tmp/sm-test-source.XXXXXX");
	*state = f;
	if (!mkdtemp(f->dir) || !mkdtemp(f->source) || fuse_posix_new(f->source, &o, &f->be, &err) < 0)
		return -1;
	ops = *f->be->ops;
	ops.dax_map = map_nothing;
	f->be->ops = &ops;
	if (fuse_dev_mount(f->be, f->dir, &d, &f->dev, &err) < 0) {
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

/* By the directory's times alone such a change is not to be seen, as one within a tick of a clock. */
static void test_a_listing_is_kept_until_the_host_changes_it(void **state)
{
	struct fixture *f = *state;
	struct timespec times[2];
	uint64_t before;
	struct stat st;
	char name[32];

	assert_int_equal(mkdirat(f->host, "dir", 0755), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(fstatat(f->host, "dir", &st, 0), 0);
		times[0] = st.st_atim;
		times[1] = st.st_mtim;
		snprintf(name, sizeof(name), "dir/file-%d", i);
		put(f->host, name, "");
		assert_int_equal(utimensat(f->host, "dir", times, 0), 0);
		expect_same(f, "dir");
	}
	usleep(1500000); /* longer than the backend's own answers are valid */
	expect_same(f, "dir");
	before = requests(f);
	for (int i = 0; i < 100; i++)
		expect_same(f, "dir");
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

/* The whole of it, as one open shows it. */
static size_t read_all(int dir, const char *name, char *out, size_t size)
{
	int fd = openat(dir, name, O_RDONLY);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		fail_msg("open: %s", strerror(errno));
	while ((n = read(fd, out + len, size - len)) > 0)
		len += (size_t)n;
	assert_int_equal(n, 0);
	close(fd);
	return len;
}

/* What the host has written is what the next open shows: all of it, and nothing behind it. Nobody waits for anything.
 */
static void test_an_open_shows_the_length_that_the_file_has(void **state)
{
	static const char *const names[] = {"watched", "one-of-two"}; /* what has two names is not watched */
	struct fixture *f = *state;
	char text[400], got[512];

	for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
		put(f->host, names[k], "text");
		if (k)
			assert_int_equal(linkat(f->host, names[k], f->host, "the-other", 0), 0);
		for (size_t i = 0; i < 400; i++) {
			size_t len = i * 37 % sizeof(text);

			memset(text, 'a' + (int)(i % 26), len);
			text[len] = '\0';
			put(f->host, names[k], text);
			assert_int_equal(read_all(f->view, names[k], got, sizeof(got)), len);
			assert_memory_equal(got, text, len);
		}
	}
}

/* Nor does an open show a file in whose place there is another by now, and what is written to it is not lost. */
static void test_an_open_shows_the_file_that_has_the_name(void **state)
{
	struct fixture *f = *state;
	char text[16], got[64], path[32];
	int fd;

	for (int i = 0; i < 200; i++) {
		size_t len = (size_t)snprintf(text, sizeof(text), "%08d", i); /* all of one length */

		put(f->host, "next", text);
		assert_int_equal(renameat(f->host, "next", f->host, "file"), 0);
		if (i % 4 == 3)
			put(f->view, "file", strcpy(text, "by guest"));
		assert_int_equal(read_all(i % 4 == 3 ? f->host : f->view, "file", got, sizeof(got)), len);
		assert_memory_equal(got, text, len);
	}
	/* What has no name any more can be opened by its descriptor. */
	fd = openat(f->view, "file", O_RDONLY);
	assert_int_equal(unlinkat(f->host, "file", 0), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_int_equal(read_all(AT_FDCWD, path, got, sizeof(got)), 8);
	close(fd);
	expect_same(f, "file");
}

struct growing {
	int fd;
	bool stop; /* atomic */
};

static void *grow(void *arg)
{
	struct growing *g = arg;

	for (int i = 0; i < 50000 && !__atomic_load_n(&g->stop, __ATOMIC_RELAXED); i++)
		assert_int_equal(write(g->fd, "line\n", 5), 5);
	return NULL;
}

/* A log that the host writes to all the time: every open succeeds, and shows what was there by then. */
static void test_a_file_that_grows_can_always_be_opened(void **state)
{
	static char got[300000];
	struct fixture *f = *state;
	struct growing g = {.fd = openat(f->host, "log", O_WRONLY | O_CREAT | O_APPEND, 0644)};
	pthread_t thread;
	struct stat st;

	assert_true(g.fd >= 0);
	assert_int_equal(pthread_create(&thread, NULL, grow, &g), 0);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(fstat(g.fd, &st), 0);
		assert_true(read_all(f->view, "log", got, sizeof(got)) >= (size_t)st.st_size);
	}
	__atomic_store_n(&g.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	close(g.fd);
}

/* A file that is mounted by itself is found by no name: its opens read past the cache until the kernel has heard. */
static void test_a_file_mounted_by_itself_is_no_different(void **state)
{
	struct fixture *f = *state;
	char place[] = "/tmp/sm-test-place.XXXXXX", of[96], got[64];
	int fd = mkstemp(place);

	assert_true(fd >= 0);
	close(fd);
	put(f->host, "one", "text");
	assert_int_equal(linkat(f->host, "one", f->host, "two", 0), 0); /* it is not watched */
	snprintf(of, sizeof(of), "%s/one", f->dir);
	assert_int_equal(mount(of, place, NULL, MS_BIND, NULL), 0);
	for (size_t i = 0; i < 40; i++) {
		const char *text = i % 2 ? "text" : "some more text";

		put(f->host, "one", text);
		assert_int_equal(read_all(AT_FDCWD, place, got, sizeof(got)), strlen(text));
		assert_memory_equal(got, text, strlen(text));
	}
	assert_int_equal(umount(place), 0);
	assert_int_equal(unlink(place), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_change_of_the_host_is_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_doing_hides_no_change_of_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_nobody_changes_is_asked_for_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_listing_is_kept_until_the_host_changes_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_changes_stay_cached, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_burst_of_changes_leaves_nothing_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_open_shows_the_length_that_the_file_has, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_open_shows_the_file_that_has_the_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_file_that_grows_can_always_be_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_file_mounted_by_itself_is_no_different, setup, teardown),
	};

	return run_both_ways(tests);
}
