/* SPDX-License-Identifier: Apache-2.0 */
/* The memory backend behind the /dev/fuse door: the host's own kernel is the client. Needs root and /dev/fuse, else it
 * is a skip. */
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
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fuse/dev_fuse.h"
#include "base/fileio.h"
#include "fuse/memory.h"
#include "fuse/posix.h"
#include "ways.h"

enum kind { MEMORY, POSIX_CALLER, POSIX_SAME, POSIX_TINY };

struct fixture {
	char dir[64], source[64];
	enum kind kind;
	struct sm_fs_backend *be;
	struct fuse_dev *dev;
};

static int make_backend(struct fixture *f, struct sm_error *err)
{
	struct fuse_posix_options o = {.valid_ns = 1000000000};

	if (f->kind == MEMORY)
		return fuse_memory_new(&(struct fuse_memory_options){.max_bytes = 64 << 20}, &f->be);
	strcpy(f->source, "/tmp/sm-test-source.XXXXXX");
	if (!mkdtemp(f->source))
		return -1;
	o.ids = f->kind == POSIX_SAME ? FUSE_POSIX_SAME : FUSE_POSIX_CALLER;
	if (f->kind == POSIX_TINY) {
		o.max_fds = 1;
		o.valid_ns = 0;
	}
	return fuse_posix_new(f->source, &o, &f->be, err);
}

static int setup_kind(void **state, enum kind kind)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct fuse_dev_options o = {.threads = way_threads()};
	struct sm_error err = {0};

	strcpy(f->dir, "/tmp/sm-test-mount.XXXXXX");
	f->kind = kind;
	*state = f;
	if (!mkdtemp(f->dir) || make_backend(f, &err) < 0) {
		fprintf(stderr, "backend: %s\n", err.message);
		return -1;
	}
	if (fuse_dev_mount(f->be, f->dir, &o, &f->dev, &err) < 0) {
		fprintf(stderr, "mount: %s\n", err.message);
		return -1;
	}
	return chdir(f->dir);
}

static int setup_memory(void **state)
{
	return setup_kind(state, MEMORY);
}

static int setup_caller(void **state)
{
	return setup_kind(state, POSIX_CALLER);
}

static int setup_same(void **state)
{
	return setup_kind(state, POSIX_SAME);
}

static int setup_tiny(void **state)
{
	return setup_kind(state, POSIX_TINY);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r = chdir("/") | !way_was_taken(f->dev);

	fuse_dev_unmount(f->dev);
	if (f->kind == MEMORY) {
		fuse_memory_free(f->be);
	} else {
		struct fuse_posix_stats st;

		fuse_posix_get_stats(f->be, &st);
		r |= st.open_files != 0 || st.nodes != 1; /* nothing but the root is left */
		fuse_posix_free(f->be);
		r |= remove_tree_at(AT_FDCWD, f->source);
	}
	r |= rmdir(f->dir);
	free(f);
	return r;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(close(fd), 0);
}

static void test_files_hold_what_was_written_with_holes(void **state)
{
	char buf[8192] = {0};
	struct stat st;
	int fd = open("f", O_RDWR | O_CREAT | O_EXCL, 0600);
	uint8_t *map;

	assert_int_equal(pwrite(fd, "start", 5, 0), 5);
	assert_int_equal(pwrite(fd, "end", 3, 10 << 20), 3);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, (10 << 20) + 3);
	assert_int_equal(st.st_blocks, 16); /* two pages, the rest is a hole */
	assert_int_equal(pread(fd, buf, 8192, 4096), 8192);
	for (int i = 0; i < 8192; i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(lseek(fd, 1, SEEK_HOLE), 4096);
	assert_int_equal(lseek(fd, 4096, SEEK_DATA), 10 << 20);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_memory_equal(map, "start", 5);
	map[0] = 'S';
	assert_int_equal(msync(map, 4096, MS_SYNC), 0);
	munmap(map, 4096);
	assert_int_equal(ftruncate(fd, 3), 0);
	assert_int_equal(ftruncate(fd, 5), 0);
	assert_int_equal(pread(fd, buf, 10, 0), 5);
	assert_memory_equal(buf, "Sta\0\0", 5); /* what was cut off does not come back */
	close(fd);
}

static void test_names_links_and_renames_behave_as_on_a_disk(void **state)
{
	struct stat st, before;
	char target[16];

	write_file("a", "A");
	write_file("b", "B");
	assert_int_equal(link("a", "a2"), 0);
	assert_int_equal(stat("a", &st), 0);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(stat("b", &before), 0);
	assert_int_equal(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE), 0);
	assert_int_equal(stat("a", &st), 0);
	assert_true(st.st_ino == before.st_ino);
	assert_int_equal(rename("a", "b"), 0); /* replaces the other name of a2 */
	assert_int_equal(stat("a2", &st), 0);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(mkdir("d", 0755), 0);
	assert_int_equal(mkdir("d/e", 0755), 0);
	assert_int_equal(rename("d", "d/e/f"), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(rename("b", "d"), -1);
	assert_int_equal(errno, EISDIR);
	assert_int_equal(rmdir("d"), -1);
	assert_int_equal(errno, ENOTEMPTY);
	assert_int_equal(stat("d", &st), 0);
	assert_int_equal(st.st_nlink, 3);
	assert_int_equal(symlink("../x/y", "l"), 0);
	assert_int_equal(readlink("l", target, sizeof(target)), 6);
	assert_int_equal(unlink("d"), -1);
	assert_int_equal(errno, EISDIR);
}

static void test_an_unlinked_file_lives_while_it_is_open(void **state)
{
	struct stat st;
	char buf[8];
	int fd;

	write_file("f", "data");
	fd = open("f", O_RDWR);
	assert_int_equal(unlink("f"), 0);
	assert_int_equal(access("f", F_OK), -1);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 0);
	assert_int_equal(read(fd, buf, 8), 4);
	close(fd);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	assert_true(fd >= 0 || errno == EOPNOTSUPP); /* kernels before 6.1 */
	close(fd);
}

static void test_extended_attributes(void **state)
{
	char buf[64];

	write_file("f", "x");
	assert_int_equal(setxattr("f", "user.a", "value", 5, XATTR_CREATE), 0);
	assert_int_equal(setxattr("f", "user.a", "value", 5, XATTR_CREATE), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(setxattr("f", "user.empty", "", 0, 0), 0);
	assert_int_equal(getxattr("f", "user.a", buf, sizeof(buf)), 5);
	assert_int_equal(getxattr("f", "user.a", buf, 3), -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(getxattr("f", "user.empty", buf, sizeof(buf)), 0);
	assert_int_equal(listxattr("f", buf, sizeof(buf)), 18);
	assert_int_equal(removexattr("f", "user.a"), 0);
	assert_int_equal(getxattr("f", "user.a", buf, sizeof(buf)), -1);
	assert_int_equal(errno, ENODATA);
}

static void test_a_big_directory_lists_every_name_once(void **state)
{
	enum { COUNT = 3000 };
	uint8_t seen[COUNT] = {0};
	char name[32];
	struct dirent *de;
	DIR *d;
	int left = COUNT;

	assert_int_equal(mkdir("big", 0755), 0);
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "big/%d", i);
		write_file(name, "");
	}
	d = opendir("big");
	while ((de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		assert_int_equal(seen[atoi(de->d_name)]++, 0);
		left--;
		snprintf(name, sizeof(name), "big/%s", de->d_name);
		assert_int_equal(unlink(name), 0); /* removing while listing skips nothing */
	}
	assert_int_equal(left, 0);
	closedir(d);
	assert_int_equal(rmdir("big"), 0);
}

static void test_a_full_file_system_says_so(void **state)
{
	static char block[1 << 20];
	ssize_t n = 0;
	int fd = open("full", O_WRONLY | O_CREAT, 0600);

	memset(block, 1, sizeof(block));
	for (int i = 0; i < 100 && n >= 0; i++)
		n = write(fd, block, sizeof(block));
	assert_int_equal(n, -1);
	assert_int_equal(errno, ENOSPC);
	close(fd);
	assert_int_equal(unlink("full"), 0);
	write_file("after", "there is room again");
}

static void test_owners_and_modes_are_what_was_set(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	char host[160];

	write_file("f", "x");
	assert_int_equal(chown("f", 1234, 5678), 0);
	assert_int_equal(chmod("f", 04751), 0);
	assert_int_equal(stat("f", &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 5678);
	assert_int_equal(st.st_mode, S_IFREG | 04751);
	assert_int_equal(mkdir("d", 0700), 0);
	assert_int_equal(chown("d", 7, 8), 0);
	assert_int_equal(chmod("d", 02755), 0);
	write_file("d/inherits", "y");
	assert_int_equal(stat("d/inherits", &st), 0);
	assert_int_equal(st.st_gid, 8);
	assert_int_equal(mknod("dev", S_IFCHR | 0640, makedev(1, 3)), 0);
	assert_int_equal(stat("dev", &st), 0);
	assert_int_equal(st.st_mode, S_IFCHR | 0640);
	assert_int_equal(st.st_rdev, makedev(1, 3));
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(stat("fifo", &st), 0);
	assert_true(S_ISFIFO(st.st_mode));
	if (f->kind != POSIX_CALLER)
		return;
	/* On the host all of it is the server's user's: no device, no setuid file, no stranger's file. */
	snprintf(host, sizeof(host), "%s/dev", f->source);
	assert_int_equal(stat(host, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	snprintf(host, sizeof(host), "%s/f", f->source);
	assert_int_equal(stat(host, &st), 0);
	assert_int_equal(st.st_uid, 0);
	assert_int_equal(st.st_mode, S_IFREG | 0751);
	assert_true(listxattr("f", NULL, 0) == 0); /* how it is kept is not to be seen */
}

static void test_renamed_directories_are_found_again(void **state)
{
	char path[64];
	int fd;

	assert_int_equal(mkdir("a", 0755), 0);
	assert_int_equal(mkdir("a/b", 0755), 0);
	for (int i = 0; i < 40; i++) { /* more nodes than the small budget has descriptors */
		snprintf(path, sizeof(path), "a/b/%d", i);
		write_file(path, "content");
	}
	fd = open("a/b/7", O_RDWR);
	assert_int_equal(rename("a", "c"), 0);
	for (int i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "c/b/%d", i);
		assert_int_equal(truncate(path, 3), 0);
		assert_int_equal(access(path, R_OK), 0);
	}
	assert_int_equal(ftruncate(fd, 1), 0);
	close(fd);
	assert_int_equal(access("a/b/0", F_OK), -1);
}

static void test_a_link_out_of_the_tree_opens_nothing_of_the_host(void **state)
{
	struct fixture *f = *state;
	char host[160];
	struct stat st;

	if (f->kind == MEMORY)
		return;
	/* Made on the host, as an attacker or an honest user would. The peer's kernel resolves it in its own tree
	 * (here: the host's). */
	snprintf(host, sizeof(host), "%s/link", f->source);
	assert_int_equal(symlink("/etc/passwd", host), 0);
	assert_int_equal(lstat("link", &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	snprintf(host, sizeof(host), "%s/fifo", f->source);
	assert_int_equal(mkfifo(host, 0600), 0);
	assert_int_equal(lstat("fifo", &st), 0); /* shown; opening it is the peer's kernel's business, not ours */
}

#define ALL(test)                                                                                                      \
	cmocka_unit_test_setup_teardown(test, setup_memory, teardown),                                                 \
		cmocka_unit_test_setup_teardown(test, setup_caller, teardown),                                         \
		cmocka_unit_test_setup_teardown(test, setup_same, teardown),                                           \
		cmocka_unit_test_setup_teardown(test, setup_tiny, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ALL(test_files_hold_what_was_written_with_holes),
		ALL(test_names_links_and_renames_behave_as_on_a_disk),
		ALL(test_an_unlinked_file_lives_while_it_is_open),
		ALL(test_extended_attributes),
		ALL(test_a_big_directory_lists_every_name_once),
		cmocka_unit_test_setup_teardown(test_a_full_file_system_says_so, setup_memory, teardown),
		ALL(test_owners_and_modes_are_what_was_set),
		ALL(test_renamed_directories_are_found_again),
		ALL(test_a_link_out_of_the_tree_opens_nothing_of_the_host),
	};

	return run_both_ways(tests);
}
