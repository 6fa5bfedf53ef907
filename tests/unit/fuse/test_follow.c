/* SPDX-License-Identifier: Apache-2.0 */
/* Symbolic links that the posix backend follows, on mounts through /dev/fuse, with room for descriptors and with none.
 * Needs root and /dev/fuse, else it is a skip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "fuse/dev_fuse.h"
#include "fuse/posix.h"

#define STRANGER 23456

struct fixture {
	char base[64], source[80], dir[80];
	struct sm_fs_backend *be;
	struct fuse_dev *dev;
	int host; /* the source, as the host sees it */
};

static void put_at(int dir, const char *path, const char *text)
{
	int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void expect(const char *path, const char *text)
{
	char buf[64] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	assert_true(read(fd, buf, sizeof(buf) - 1) >= 0);
	close(fd);
	assert_string_equal(buf, text);
}

static void refused(const char *path, int err)
{
	int fd = open(path, O_RDONLY);

	if (fd >= 0 || errno != err)
		fail_msg("%s: %s instead of %s", path, fd >= 0 ? "opened" : strerror(errno), strerror(err));
}

static int setup_with(void **state, const struct fuse_posix_options *o)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sm_error err = {0};

	strcpy(f->base, "/tmp/sm-test-follow.XXXXXX");
	*state = f;
	if (!mkdtemp(f->base) || chmod(f->base, 0755) < 0)
		return -1;
	snprintf(f->source, sizeof(f->source), "%s/source", f->base);
	snprintf(f->dir, sizeof(f->dir), "%s/mnt", f->base);
	if (mkdir(f->source, 0755) < 0 || mkdir(f->dir, 0755) < 0)
		return -1;
	f->host = open(f->source, O_RDONLY | O_DIRECTORY);
	if (fuse_posix_new(f->source, o, &f->be, &err) < 0 || fuse_dev_mount(f->be, f->dir, NULL, &f->dev, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return -1;
	}
	return chdir(f->dir);
}

static int setup(void **state)
{
	return setup_with(state, &(struct fuse_posix_options){.symlinks = FUSE_POSIX_FOLLOW,
							      .ids = FUSE_POSIX_SAME,
							      .valid_ns = 86400000000000});
}

static int setup_tiny(void **state)
{
	return setup_with(state, &(struct fuse_posix_options){.symlinks = FUSE_POSIX_FOLLOW, .max_fds = 1});
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct fuse_posix_stats st;
	int r = chdir("/");

	fuse_dev_unmount(f->dev);
	fuse_posix_get_stats(f->be, &st);
	r |= st.open_files != 0 || st.nodes != 1; /* nothing but the root is left */
	fuse_posix_free(f->be);
	close(f->host);
	r |= remove_tree_at(AT_FDCWD, f->base);
	free(f);
	return r;
}

/* secret (beside the source), f, d/f, d/e/f, and links of every kind. */
static void make_tree(struct fixture *f)
{
	char secret[96];

	snprintf(secret, sizeof(secret), "%s/secret", f->base);
	put_at(AT_FDCWD, secret, "SECRET");
	assert_int_equal(mkdirat(f->host, "d", 0755) | mkdirat(f->host, "d/e", 0755), 0);
	put_at(f->host, "f", "root");
	put_at(f->host, "d/f", "d");
	put_at(f->host, "d/e/f", "e");
	assert_int_equal(symlinkat("/d/f", f->host, "absolute"), 0);
	assert_int_equal(symlinkat("../f", f->host, "d/up"), 0);
	assert_int_equal(symlinkat("../../../../../f", f->host, "d/e/above"), 0);
	assert_int_equal(symlinkat("../secret", f->host, "out"), 0);
	assert_int_equal(symlinkat(secret, f->host, "far"), 0);
	assert_int_equal(symlinkat("d/../d/./e", f->host, "dir"), 0);
	assert_int_equal(symlinkat("/dir/above", f->host, "chain"), 0);
	assert_int_equal(symlinkat("loop", f->host, "loop"), 0);
	assert_int_equal(symlinkat("b", f->host, "a"), 0);
	assert_int_equal(symlinkat("a", f->host, "b"), 0);
	assert_int_equal(symlinkat("f/x", f->host, "through-a-file"), 0);
	assert_int_equal(symlinkat("..", f->host, "d/parent"), 0);
	assert_int_equal(symlinkat("/", f->host, "root"), 0);
}

static void test_links_lead_where_they_lead_beneath_the_root(void **state)
{
	struct stat st, target;
	char buf[16];

	make_tree(*state);
	expect("absolute", "d");
	expect("d/up", "root");
	expect("d/e/above", "root");
	expect("dir/f", "e");
	expect("chain", "root");
	expect("dir/above", "root");
	expect("root/f", "root");
	expect("root/root/d/parent/d/parent/dir/f", "e");
	assert_int_equal(lstat("absolute", &st), 0);
	assert_int_equal(stat("d/f", &target), 0);
	assert_true(S_ISREG(st.st_mode) && st.st_ino == target.st_ino);
	assert_int_equal(lstat("dir", &st), 0);
	assert_int_equal(stat("d/e", &target), 0);
	assert_true(S_ISDIR(st.st_mode) && st.st_ino == target.st_ino);
	assert_int_equal(readlink("absolute", buf, sizeof(buf)), -1);
	assert_int_equal(errno, EINVAL);
}

static void test_links_that_lead_nowhere_say_why_and_can_be_removed(void **state)
{
	static const struct {
		const char *name;
		int err;
	} links[] = {{"out", ENOENT}, {"far", ENOENT}, {"loop", ELOOP}, {"a", ELOOP}, {"through-a-file", ENOTDIR}};
	struct stat st;
	char buf[64];

	make_tree(*state);
	for (unsigned i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		refused(links[i].name, links[i].err);
		assert_int_equal(open(links[i].name, O_RDONLY | O_NOFOLLOW), -1);
		assert_int_equal(errno, ELOOP);
		assert_int_equal(readlink(links[i].name, buf, sizeof(buf)), -1);
		assert_int_equal(errno, links[i].err);
		assert_int_equal(lstat(links[i].name, &st), 0);
		assert_true(S_ISLNK(st.st_mode));
		assert_int_equal(rename(links[i].name, "moved"), 0);
		assert_int_equal(unlink("moved"), 0);
		assert_int_equal(lstat(links[i].name, &st), -1);
		assert_int_equal(errno, ENOENT);
	}
}

static void test_removing_and_renaming_is_of_the_link(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	make_tree(f);
	assert_int_equal(unlink("absolute"), 0);
	expect("d/f", "d");
	assert_int_equal(rename("dir", "dir2"), 0);
	expect("dir2/f", "e");
	assert_int_equal(fstatat(f->host, "dir2", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(rmdir("dir2"), 0);
	expect("d/e/f", "e");
	assert_int_equal(fstatat(f->host, "dir2", &st, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(rmdir("d"), -1); /* a directory is as it ever was */
	assert_int_equal(errno, ENOTEMPTY);
	assert_int_equal(rmdir("f"), -1);
	assert_int_equal(errno, ENOTDIR);
}

static void test_changes_are_seen_by_every_path_at_once(void **state)
{
	char text[16], path[128];

	make_tree(*state);
	refused("d/e/new", ENOENT);
	refused("dir/new", ENOENT);
	put_at(AT_FDCWD, "dir/new", "new");
	expect("d/e/new", "new");
	expect("root/dir/new", "new");
	assert_int_equal(unlink("d/e/new"), 0);
	refused("dir/new", ENOENT);
	for (int i = 0; i < 50; i++) { /* replaced by rename: the link's name leads to the new file */
		snprintf(text, sizeof(text), "%d", i);
		put_at(AT_FDCWD, "tmp", text);
		assert_int_equal(rename("tmp", "d/f"), 0);
		expect("absolute", text);
		put_at(AT_FDCWD, "absolute", "again");
		expect("d/f", "again");
	}
	assert_int_equal(mkdir("dir/m", 0755), 0);
	assert_int_equal(chdir("d/e/m"), 0);
	assert_int_equal(symlink("../../../d", "back"), 0); /* made by the peer */
	expect("back/f", "again");
	expect("../f", "e");
	assert_non_null(getcwd(path, sizeof(path)));
	assert_non_null(strstr(path, "/mnt/d/e/m"));
}

static void test_a_directory_stays_where_it_is_while_links_lead_to_it(void **state)
{
	char link[32], path[128] = "";
	int fd;

	make_tree(*state);
	fd = open("d/e", O_RDONLY | O_DIRECTORY);
	for (int i = 0; i < 20; i++) {
		expect("dir/f", "e");
		expect("d/parent/dir/f", "e");
		expect("d/e/f", "e");
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	assert_true(readlink(link, path, sizeof(path) - 1) > 0);
	assert_non_null(strstr(path, "/mnt/d/e"));
	assert_null(strstr(path, "deleted"));
	close(fd);
}

static void test_listings_name_no_link_that_is_followed(void **state)
{
	unsigned names = 0;
	struct dirent *de;
	DIR *d;

	make_tree(*state);
	d = opendir(".");
	while ((de = readdir(d))) {
		names++;
		if (strcmp(de->d_name, "dir") == 0 || strcmp(de->d_name, "absolute") == 0)
			assert_int_not_equal(de->d_type, DT_LNK);
	}
	closedir(d);
	assert_int_equal(names, 14);
}

static int as_stranger(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (setgid(STRANGER) < 0 || setuid(STRANGER) < 0)
			_exit(99);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int try_link(void)
{
	return open("absolute", O_RDONLY) >= 0 ? 0 : errno;
}

static int try_remove(void)
{
	struct stat st;

	return lstat("open/mine", &st) == 0 && S_ISLNK(st.st_mode) && unlink("open/mine") == 0 ? 0 : errno;
}

static void test_a_link_opens_no_way_that_is_shut(void **state)
{
	struct fixture *f = *state;

	make_tree(f);
	assert_int_equal(as_stranger(try_link), 0);
	assert_int_equal(chmod("d", 0700), 0);
	assert_int_equal(as_stranger(try_link), EACCES);
	expect("absolute", "d"); /* root may */
	assert_int_equal(chmod("d", 0710), 0);
	assert_int_equal(as_stranger(try_link), EACCES);
	assert_int_equal(mkdir("open", 0755), 0);
	assert_int_equal(symlink("/d/f", "open/mine"), 0);
	assert_int_equal(chown("open", STRANGER, STRANGER), 0);
	assert_int_equal(as_stranger(try_remove), 0); /* it is a link to who may not follow it */
	assert_int_equal(chown("d", 0, STRANGER), 0);
	assert_int_equal(as_stranger(try_link), 0);
}

static void test_magic_links_lead_nowhere(void **state)
{
	struct fixture *f = *state;
	char proc[96];

	make_tree(f);
	assert_int_equal(mkdirat(f->host, "proc", 0755), 0);
	snprintf(proc, sizeof(proc), "%s/proc", f->source);
	assert_int_equal(mount("proc", proc, "proc", 0, NULL), 0);
	assert_int_equal(symlinkat("proc/self/root/etc/passwd", f->host, "magic"), 0);
	assert_int_equal(symlinkat("proc/self/cwd", f->host, "cwd"), 0);
	assert_int_equal(symlinkat("proc/version", f->host, "plain"), 0);
	refused("magic", ELOOP);
	refused("cwd", ELOOP);
	assert_int_equal(access("plain", R_OK), 0); /* a file system within the tree is part of it */
	assert_int_equal(umount2(proc, MNT_DETACH), 0);
}

#define BOTH(test)                                                                                                     \
	cmocka_unit_test_setup_teardown(test, setup, teardown),                                                        \
		cmocka_unit_test_setup_teardown(test, setup_tiny, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_links_lead_where_they_lead_beneath_the_root),
		BOTH(test_links_that_lead_nowhere_say_why_and_can_be_removed),
		BOTH(test_removing_and_renaming_is_of_the_link),
		BOTH(test_changes_are_seen_by_every_path_at_once),
		BOTH(test_a_directory_stays_where_it_is_while_links_lead_to_it),
		BOTH(test_listings_name_no_link_that_is_followed),
		BOTH(test_a_link_opens_no_way_that_is_shut),
		BOTH(test_magic_links_lead_nowhere),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "skipped: mounting needs root and /dev/fuse\n");
		return 77;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		fprintf(stderr, "skipped: no mount namespace of its own\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
