/* SPDX-License-Identifier: Apache-2.0 */
/* Names and how paths are resolved: lengths, bytes, dots, slashes, links, descriptors of directories. */
#include "conf.h"

#include <limits.h>
#include <sys/syscall.h>

static int make(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);

	return fd < 0 ? fd : close(fd);
}

static void lengths(void)
{
	char name[300], other[300];

	for (size_t len = 1; len <= 255; len++) {
		memset(name, 'a' + (int)(len % 26), len);
		name[len] = 0;
		works(make(name), "create %zu", len);
		is_true(exists(name), "found %zu", len);
		strcpy(other, name);
		other[0] = 'Z';
		if (len % 16 == 15) {
			works(rename(name, other), "rename %zu", len);
			works(rename(other, name), "rename back %zu", len);
		}
		works(unlink(name), "unlink %zu", len);
	}
	memset(name, 'x', 256);
	name[256] = 0;
	fails(make(name), ENAMETOOLONG, "create 256");
	fails(mkdir(name, 0755), ENAMETOOLONG, "mkdir 256");
	fails(symlink("t", name), ENAMETOOLONG, "symlink 256");
	fails(mkfifo(name, 0644), ENAMETOOLONG, "mkfifo 256");
	fails(access(name, F_OK), ENAMETOOLONG, "access 256");
	fails(unlink(name), ENAMETOOLONG, "unlink 256");
	fails(rmdir(name), ENAMETOOLONG, "rmdir 256");
	fails(open(name, O_RDONLY), ENAMETOOLONG, "open 256");
	put_file("f", "x", 0644);
	fails(link("f", name), ENAMETOOLONG, "link 256");
	fails(rename("f", name), ENAMETOOLONG, "rename to 256");
	fails(rename(name, "f"), ENAMETOOLONG, "rename from 256");
	fails(truncate(name, 0), ENAMETOOLONG, "truncate 256");
	fails(chmod(name, 0644), ENAMETOOLONG, "chmod 256");
	is_true(text_is("f", "x"), "file is unharmed");
}

static void every_byte(void)
{
	char name[8] = "a?b";

	for (int b = 1; b < 256; b++) {
		if (b == '/')
			continue;
		name[1] = (char)b;
		if (!works(make(name), "create byte %d", b))
			continue;
		is_true(exists(name), "found byte %d", b);
	}
	for (int b = 1; b < 256; b++) {
		name[1] = (char)b;
		if (b != '/')
			works(unlink(name), "unlink byte %d", b);
	}
	name[0] = 0;
	for (int b = 1; b < 256; b++) { /* alone, too */
		char one[2] = {(char)b, 0};

		if (b != '/' && b != '.')
			is_true(make(one) == 0 && unlink(one) == 0, "single byte %d", b);
	}
	works(make("Case"), "create Case");
	works(make("case"), "create case beside Case");
	works(make("caf\xc3\xa9"), "create precomposed");
	works(make("cafe\xcc\x81"), "create decomposed beside it");
	works(make("..."), "create three dots");
	works(make("..a"), "create two dots and a letter");
	works(make(".hidden"), "create hidden");
	works(make(" "), "create blank");
	works(make("-rf"), "create dash");
}

static void dots(void)
{
	struct stat here, there;

	works(mkdir("d", 0755), "mkdir");
	works(mkdir("d/e", 0755), "mkdir below");
	here = stat_of("d");
	there = stat_of("d/.");
	is_true(here.st_ino == there.st_ino, "dot is the directory");
	there = stat_of("d/e/..");
	is_true(here.st_ino == there.st_ino, "dotdot is the parent");
	there = stat_of("d/e/../../d/./e/..");
	is_true(here.st_ino == there.st_ino, "many dots");
	there = stat_of("d//e///..//");
	is_true(here.st_ino == there.st_ino, "many slashes");
	fails(mkdir("d/.", 0755), EEXIST, "mkdir dot");
	fails(mkdir("d/..", 0755), EEXIST, "mkdir dotdot");
	fails(rmdir("d/."), EINVAL, "rmdir dot");
	fails(rmdir("d/e/.."), ENOTEMPTY, "rmdir dotdot");
	fails_either(unlink("d/."), EISDIR, EPERM, "unlink dot");
	fails(rename("d/.", "x"), EBUSY, "rename dot");
	fails(rename("d/e/..", "x"), EBUSY, "rename dotdot");
	fails(rename("d/e", "d/."), EBUSY, "rename to dot");
	fails(link("d/.", "x"), EPERM, "link dot");
	fails(open("d/nothing/..", O_RDONLY), ENOENT, "dotdot of nothing");
	put_file("f", "", 0644);
	fails(open("f/..", O_RDONLY), ENOTDIR, "dotdot of a file");
	fails(open("f/.", O_RDONLY), ENOTDIR, "dot of a file");
}

static void trailing_slashes(void)
{
	struct stat st;

	put_file("f", "", 0644);
	works(mkdir("d/", 0755), "mkdir");
	works(symlink("d", "ld"), "symlink to directory");
	works(symlink("f", "lf"), "symlink to file");
	works(symlink("none", "ln"), "symlink to nothing");
	fails(open("f/", O_RDONLY), ENOTDIR, "open file");
	fails(lstat("f/", &st), ENOTDIR, "lstat file");
	fails(unlink("f/"), ENOTDIR, "unlink file");
	fails(rename("f/", "g"), ENOTDIR, "rename from file");
	fails(rename("f", "g/"), ENOTDIR, "rename to");
	fails(truncate("f/", 0), ENOTDIR, "truncate file");
	fails(open("new/", O_WRONLY | O_CREAT, 0644), EISDIR, "create file");
	fails(mknod("new/", S_IFREG | 0644, 0), ENOENT, "mknod file");
	fails(symlink("x", "new/"), ENOENT, "symlink");
	fails(link("f", "new/"), ENOENT, "link");
	fails(link("f/", "new"), ENOTDIR, "link from");
	works(lstat("ld/", &st), "lstat link to directory");
	is_true(S_ISDIR(st.st_mode), "is followed");
	fails(lstat("lf/", &st), ENOTDIR, "lstat link to file");
	fails(lstat("ln/", &st), ENOENT, "lstat link to nothing");
	fails(unlink("ld/"), ENOTDIR, "unlink link to directory");
	fails(rmdir("ld/"), ENOTDIR, "rmdir link to directory");
	works(rename("d/", "e/"), "rename directory");
	works(rmdir("e/"), "rmdir");
}

static void missing(void)
{
	struct stat st;

	put_file("f", "", 0644);
	fails(open("none", O_RDONLY), ENOENT, "open");
	fails(open("none/x", O_RDONLY), ENOENT, "open below");
	fails(open("none/x", O_WRONLY | O_CREAT, 0644), ENOENT, "create below");
	fails(open("f/x", O_RDONLY), ENOTDIR, "open below a file");
	fails(open("f/x", O_WRONLY | O_CREAT, 0644), ENOTDIR, "create below a file");
	fails(lstat("none", &st), ENOENT, "lstat");
	fails(lstat("f/x", &st), ENOTDIR, "lstat below a file");
	fails(mkdir("none/x", 0755), ENOENT, "mkdir below");
	fails(mkdir("f/x", 0755), ENOTDIR, "mkdir below a file");
	fails(rmdir("none"), ENOENT, "rmdir");
	fails(rmdir("f"), ENOTDIR, "rmdir file");
	fails(rmdir("f/x"), ENOTDIR, "rmdir below a file");
	fails(unlink("none"), ENOENT, "unlink");
	fails(unlink("f/x"), ENOTDIR, "unlink below a file");
	fails(rename("none", "x"), ENOENT, "rename");
	fails(rename("f", "none/x"), ENOENT, "rename below");
	fails(rename("f", "f/x"), ENOTDIR, "rename below a file");
	fails(link("none", "x"), ENOENT, "link");
	fails(link("f", "none/x"), ENOENT, "link below");
	fails(symlink("t", "none/x"), ENOENT, "symlink below");
	fails(symlink("t", "f/x"), ENOTDIR, "symlink below a file");
	fails(readlink("none", (char[8]){0}, 8), ENOENT, "readlink");
	fails(readlink("f", (char[8]){0}, 8), EINVAL, "readlink of a file");
	fails(chmod("none", 0644), ENOENT, "chmod");
	fails(chown("none", 0, 0), ENOENT, "chown");
	fails(truncate("none", 0), ENOENT, "truncate");
	fails(utimensat(AT_FDCWD, "none", NULL, 0), ENOENT, "utimens");
	fails(access("none", F_OK), ENOENT, "access");
	fails(chdir("none"), ENOENT, "chdir");
	fails(chdir("f"), ENOTDIR, "chdir to a file");
	fails(open("", O_RDONLY), ENOENT, "open empty");
	fails(lstat("", &st), ENOENT, "lstat empty");
	fails(mkdir("", 0755), ENOENT, "mkdir empty");
	fails(unlink(""), ENOENT, "unlink empty");
	fails(rmdir(""), ENOENT, "rmdir empty");
	fails(rename("f", ""), ENOENT, "rename to empty");
	fails(rename("", "f"), ENOENT, "rename from empty");
	fails(link("f", ""), ENOENT, "link empty");
	fails(symlink("t", ""), ENOENT, "symlink empty name");
	fails(symlink("", "l"), ENOENT, "symlink empty target");
	fails(syscall(SYS_openat, AT_FDCWD, (char *)1, O_RDONLY, 0), EFAULT, "open bad address");
	fails(syscall(SYS_mkdirat, AT_FDCWD, (char *)1, 0755), EFAULT, "mkdir bad address");
	fails(syscall(SYS_unlinkat, AT_FDCWD, (char *)1, 0), EFAULT, "unlink bad address");
}

static void link_loops(void)
{
	char a[16], b[16];
	struct stat st;

	works(symlink("self", "self"), "symlink to itself");
	works(symlink("two", "one"), "first of two");
	works(symlink("one", "two"), "second of two");
	fails(open("self", O_RDONLY), ELOOP, "open self");
	fails(open("one", O_RDONLY), ELOOP, "open one");
	fails(stat("self", &st), ELOOP, "stat self");
	fails(open("self/x", O_RDONLY), ELOOP, "open below self");
	fails(mkdir("self/x", 0755), ELOOP, "mkdir below self");
	fails(unlink("self/x"), ELOOP, "unlink below self");
	fails(chdir("one"), ELOOP, "chdir");
	fails(truncate("one", 0), ELOOP, "truncate");
	fails(open("self", O_WRONLY | O_CREAT, 0644), ELOOP, "create self");
	works(lstat("self", &st), "lstat self");
	put_file("l0", "end", 0644);
	for (int i = 1; i <= 45; i++) {
		snprintf(a, sizeof(a), "l%d", i - 1);
		snprintf(b, sizeof(b), "l%d", i);
		works(symlink(a, b), "chain link %d", i);
	}
	for (int i = 1; i <= 45; i++) {
		snprintf(b, sizeof(b), "l%d", i);
		if (i <= 40)
			is_true(text_is(b, "end"), "chain of %d is followed", i);
		else
			fails(open(b, O_RDONLY), ELOOP, "chain of %d is too long", i);
	}
}

static void long_paths(void)
{
	char part[128], *path = malloc(PATH_MAX * 2), back[PATH_MAX * 2];
	int depth = 0;

	memset(part, 'd', 100);
	part[100] = 0;
	for (; depth < 45; depth++) { /* deeper than one path can say */
		if (!is_true(mkdir(part, 0755) == 0 && chdir(part) == 0, "mkdir and enter level %d", depth))
			break;
	}
	works(make("leaf"), "create at the bottom");
	is_true(exists("leaf"), "found at the bottom");
	fails(getcwd(back, 1000) ? 0 : -1, ERANGE, "getcwd into too little");
	is_true(syscall(SYS_getcwd, back, sizeof(back)) > 4096 || errno == ENAMETOOLONG, "getcwd of a long path");
	works(unlink("leaf"), "unlink at the bottom");
	for (; depth > 0; depth--)
		is_true(chdir("..") == 0 && rmdir(part) == 0, "leave and rmdir level %d", depth - 1);
	memset(path, '/', PATH_MAX * 2);
	memcpy(path, "./", 2);
	path[PATH_MAX - 1] = 0;
	works(access(path, F_OK), "4095 bytes");
	path[PATH_MAX - 1] = '/';
	path[PATH_MAX] = 0;
	fails(access(path, F_OK), ENAMETOOLONG, "4096 bytes");
	fails(mkdir(path, 0755), ENAMETOOLONG, "mkdir of 4096 bytes");
	free(path);
}

static void by_descriptor(void)
{
	struct stat st, same;
	int d, f;

	works(mkdir("d", 0755), "mkdir");
	put_file("file", "x", 0644);
	d = open("d", O_RDONLY | O_DIRECTORY);
	f = open("file", O_RDONLY);
	works(d, "open directory");
	works(mkdirat(d, "e", 0755), "mkdirat");
	works(close(openat(d, "e/g", O_WRONLY | O_CREAT, 0644)), "openat");
	works(fstatat(d, "e/g", &st, 0), "fstatat");
	works(fstatat(d, "", &st, AT_EMPTY_PATH), "fstatat empty path");
	same = stat_of("d");
	is_true(st.st_ino == same.st_ino, "is the directory itself");
	works(rename("d", "moved"), "rename the open directory");
	works(fstatat(d, "e/g", &st, 0), "fstatat after rename");
	works(symlinkat("e/g", d, "l"), "symlinkat");
	is_eq(readlinkat(d, "l", (char[8]){0}, 8), 3, "readlinkat");
	works(linkat(d, "e/g", d, "h", 0), "linkat");
	works(linkat(d, "l", d, "hl", 0), "linkat of a link");
	works(fstatat(d, "hl", &st, AT_SYMLINK_NOFOLLOW), "fstatat of it");
	is_true(S_ISLNK(st.st_mode), "is a link itself");
	works(linkat(d, "l", d, "hf", AT_SYMLINK_FOLLOW), "linkat following");
	works(fstatat(d, "hf", &st, AT_SYMLINK_NOFOLLOW), "fstatat of that");
	is_true(S_ISREG(st.st_mode), "is a file");
	works(renameat(d, "h", AT_FDCWD, "out"), "renameat");
	works(unlinkat(d, "hl", 0), "unlinkat");
	fails(unlinkat(d, "e", 0), EISDIR, "unlinkat of a directory");
	fails(unlinkat(d, "e", AT_REMOVEDIR), ENOTEMPTY, "unlinkat of a full directory");
	fails(unlinkat(d, "l", AT_REMOVEDIR), ENOTDIR, "unlinkat of a link as a directory");
	fails(openat(f, "x", O_RDONLY), ENOTDIR, "openat below a file");
	fails(mkdirat(f, "x", 0755), ENOTDIR, "mkdirat below a file");
	fails(openat(999, "x", O_RDONLY), EBADF, "openat of no descriptor");
	fails(fchdir(f), ENOTDIR, "fchdir to a file");
	works(fchdir(d), "fchdir");
	is_true(exists("e/g"), "we are there");
	works(chdir(".."), "chdir up");
	works(unlinkat(d, "e/g", 0), "unlinkat below");
	works(unlinkat(d, "e", AT_REMOVEDIR), "rmdir by unlinkat");
	close(d);
	close(f);
}

GROUPS(names) = {
	{"length", lengths, 0},		{"bytes", every_byte, 0}, {"dots", dots, 0},
	{"slash", trailing_slashes, 0}, {"missing", missing, 0},  {"loop", link_loops, 0},
	{"depth", long_paths, 0},	{"at", by_descriptor, 0}, END_OF_GROUPS,
};
