/* SPDX-License-Identifier: Apache-2.0 */
/* Hard links, symbolic links, unlink, rmdir: what they count, keep and refuse. */
#include "conf.h"

#include <limits.h>

static void hard(void)
{
	char name[16];
	struct stat st, before;

	put_file("f", "x", 0644);
	st = stat_of("f");
	is_eq(st.st_nlink, 1, "one at first");
	for (int i = 2; i <= 50; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		works(link("f", name), "make number %d", i);
		is_eq(stat_of("f").st_nlink, i, "count is %d", i);
		is_true(stat_of(name).st_ino == st.st_ino, "number %d is the same file", i);
	}
	works(chmod("l7", 0600), "chmod by one name");
	is_eq(stat_of("l9").st_mode & 07777, 0600, "is seen by another");
	put_file("l3", "longer", 0644);
	is_true(text_is("l44", "longer"), "contents too");
	for (int i = 50; i >= 2; i--) {
		snprintf(name, sizeof(name), "l%d", i);
		works(unlink(name), "remove number %d", i);
		is_eq(stat_of("f").st_nlink, i - 1, "count is %d again", i - 1);
	}
	before = stat_of("f");
	nap(20);
	works(link("f", "g"), "link");
	st = stat_of("f");
	is_true(ns_of(st.st_ctim) > ns_of(before.st_ctim), "ctime changes by link");
	is_true(ns_of(st.st_mtim) == ns_of(before.st_mtim), "mtime does not");
	before = st;
	nap(20);
	works(unlink("g"), "unlink");
	is_true(ns_of(stat_of("f").st_ctim) > ns_of(before.st_ctim), "ctime changes by unlink");
}

static void hard_refused(void)
{
	need(mkdir("d", 0755) == 0, "mkdir");
	put_file("f", "x", 0644);
	put_file("g", "y", 0644);
	fails(link("f", "g"), EEXIST, "onto a file");
	fails(link("f", "d"), EEXIST, "onto a directory");
	fails(link("f", "f"), EEXIST, "onto itself");
	fails(link("d", "e"), EPERM, "of a directory");
	need(symlink("none", "dangling") == 0, "symlink");
	fails(link("f", "dangling"), EEXIST, "onto a dangling link");
	works(link("dangling", "also"), "of a dangling link");
	is_eq(stat_of("also").st_nlink, 2, "counts links of links");
	is_true(S_ISLNK(stat_of("also").st_mode), "it is the link itself");
	is_true(text_is("g", "y"), "g is unharmed");
}

static void symbolic(void)
{
	static const size_t lengths[] = {1, 2, 10, 59, 60, 61, 100, 255, 256, 1000, 4000, 4094, 4095};
	char *target = malloc(5000), *back = malloc(5000);
	struct stat st;

	for (size_t i = 0; i < COUNT(lengths); i++) {
		size_t len = lengths[i];

		memset(target, 't', len);
		target[len] = 0;
		if (!works(symlink(target, "l"), "make %zu", len))
			continue;
		memset(back, 0, 5000);
		is_eq(readlink("l", back, 5000), (long long)len, "read %zu", len);
		is_true(strcmp(back, target) == 0, "same %zu", len);
		st = stat_of("l");
		is_eq(st.st_size, (long long)len, "size %zu", len);
		is_true(S_ISLNK(st.st_mode) && (st.st_mode & 0777) == 0777, "mode %zu", len);
		is_eq(readlink("l", back, 1), 1, "read one byte of %zu", len);
		unlink("l");
	}
	memset(target, 't', 4096);
	target[4096] = 0;
	fails(symlink(target, "l"), ENAMETOOLONG, "4096 is too long");
	fails(readlink("f", back, 0), EINVAL, "read with no room");
	put_file("f", "file", 0644);
	works(symlink("f", "l"), "to a file");
	fails(symlink("f", "l"), EEXIST, "again");
	fails(symlink("x", "f"), EEXIST, "over a file");
	is_true(text_is("l", "file"), "is followed");
	put_file("l", "through", 0644);
	is_true(text_is("f", "through"), "writing goes through");
	works(unlink("l"), "unlink");
	is_true(exists("f"), "removes the link alone");
	works(symlink("\xff\xfe odd \n bytes", "odd"), "odd bytes");
	is_eq(readlink("odd", back, 100), 14, "read odd bytes");
	is_true(memcmp(back, "\xff\xfe odd \n bytes", 14) == 0, "odd bytes are the same");
	works(symlink("/", "root"), "absolute");
	works(stat("root", &st), "stat absolute");
	is_true(st.st_ino == stat_of("/").st_ino, "is the root");
	works(symlink(".", "here"), "to the directory");
	works(symlink("..", "up"), "to the parent");
	is_true(exists("here/here/f"), "through twice");
	is_true(stat_of("up/.").st_ino == stat_of("..").st_ino, "up is the parent");
	free(target), free(back);
}

static void symlink_times(void)
{
	struct timespec ts[2] = {{1000, 1}, {2000, 2}};
	struct stat st;

	put_file("f", "x", 0644);
	works(symlink("f", "l"), "symlink");
	works(utimensat(AT_FDCWD, "l", ts, AT_SYMLINK_NOFOLLOW), "set times");
	st = stat_of("l");
	is_true(ns_of(st.st_mtim) == 2000000000002, "are the link's");
	is_true(stat_of("f").st_mtim.tv_sec > 1000000, "times are not the target's");
	works(utimensat(AT_FDCWD, "l", ts, 0), "set times, following");
	is_true(ns_of(stat_of("f").st_mtim) == 2000000000002, "are the target's");
	if (am_root()) {
		works(lchown("l", 12, 34), "lchown");
		is_true(stat_of("l").st_uid == 12 && stat_of("l").st_gid == 34, "is the link's");
		is_true(stat_of("f").st_uid == 0, "not the target's");
		works(chown("l", 56, 78), "chown");
		is_true(stat_of("f").st_uid == 56 && stat_of("l").st_uid == 12, "is the target's");
	} else {
		skipped("needs root", "lchown of a link");
	}
	fails(fchmodat(AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW), EOPNOTSUPP, "chmod of a link");
}

static void removing(void)
{
	struct stat d1, d2;

	need(mkdir("d", 0755) == 0 && mkdir("d/e", 0755) == 0, "mkdir");
	put_file("d/f", "x", 0644);
	fails(rmdir("d"), ENOTEMPTY, "rmdir of a full directory");
	fails(unlink("d"), EISDIR, "unlink of a directory");
	fails(rmdir("d/f"), ENOTDIR, "rmdir of a file");
	d1 = stat_of("d");
	is_eq(d1.st_nlink, 3, "links with a child");
	nap(20);
	works(unlink("d/f"), "unlink");
	d2 = stat_of("d");
	is_true(ns_of(d2.st_mtim) > ns_of(d1.st_mtim) && ns_of(d2.st_ctim) > ns_of(d1.st_ctim),
		"times of the directory change");
	fails(unlink("d/f"), ENOENT, "unlink again");
	works(rmdir("d/e"), "rmdir of the child");
	is_eq(stat_of("d").st_nlink, 2, "links without it");
	works(rmdir("d"), "rmdir");
	fails(rmdir("d"), ENOENT, "rmdir again");
	is_true(!exists("d"), "is gone");
	works(mkdir("d", 0755), "the name may be used again");
	works(mkfifo("p", 0644), "mkfifo");
	works(unlink("p"), "unlink of a fifo");
	need(symlink("d", "l") == 0, "symlink");
	fails(rmdir("l"), ENOTDIR, "rmdir of a link to a directory");
	works(unlink("l"), "unlink of it");
	is_true(exists("d"), "the directory stays");
}

static void unlinked_open(void)
{
	char buf[8] = "", path[64];
	struct stat st;
	int fd;

	put_file("f", "data", 0644);
	fd = open("f", O_RDWR);
	works(unlink("f"), "unlink");
	fails(open("f", O_RDONLY), ENOENT, "open by name");
	works(fstat(fd, &st), "fstat");
	is_eq(st.st_nlink, 0, "no links");
	is_eq(st.st_size, 4, "size");
	is_eq(read(fd, buf, 8), 4, "read");
	is_eq(write(fd, "more", 4), 4, "write");
	works(ftruncate(fd, 6), "truncate");
	works(fchmod(fd, 0600), "chmod");
	works(futimens(fd, NULL), "utimens");
	fstat(fd, &st);
	is_true(st.st_size == 6 && (st.st_mode & 0777) == 0600, "attributes are its own");
	put_file("f", "other", 0644);
	is_true(pread(fd, buf, 8, 0) == 6 && memcmp(buf, "datamo", 6) == 0, "a new file of that name is another");
	is_true(stat_of("f").st_ino != st.st_ino, "with another inode number");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	works(close(open(path, O_RDWR)), "open again by proc");
	fails(linkat(AT_FDCWD, path, AT_FDCWD, "again", AT_SYMLINK_FOLLOW), ENOENT, "link again");
	close(fd);
}

static void removed_directory(void)
{
	struct stat st;
	int d;

	need(mkdir("d", 0755) == 0, "mkdir");
	d = open("d", O_RDONLY | O_DIRECTORY);
	works(rmdir("d"), "rmdir while open");
	works(fstat(d, &st), "fstat");
	is_eq(st.st_nlink, 0, "no links");
	fails(openat(d, "x", O_WRONLY | O_CREAT, 0644), ENOENT, "create in it");
	fails(mkdirat(d, "x", 0755), ENOENT, "mkdir in it");
	need(mkdir("e", 0755) == 0 && chdir("e") == 0, "enter");
	works(rmdir("../e"), "rmdir of the current directory");
	fails(open("x", O_WRONLY | O_CREAT, 0644), ENOENT, "create here");
	fails(mkdir("x", 0755), ENOENT, "mkdir here");
	fails(getcwd((char[64]){0}, 64) ? 0 : -1, ENOENT, "getcwd");
	works(fchdir(d) == 0 || errno == ENOENT ? 0 : -1, "fchdir to a removed one does not hang");
	close(d);
}

GROUPS(links) = {
	{"link", hard, 0},
	{"link-refused", hard_refused, 0},
	{"symlink", symbolic, 0},
	{"symlink-time", symlink_times, 0},
	{"remove", removing, 0},
	{"unlinked", unlinked_open, 0},
	{"removed-dir", removed_directory, 0},
	END_OF_GROUPS,
};
