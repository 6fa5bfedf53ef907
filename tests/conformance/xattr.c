/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes: values of every size, lists, flags, namespaces, what they survive. */
#include "conf.h"

#include <sys/xattr.h>

static char value[70000], back[70000];

static void sizes(void)
{
	static const size_t lengths[] = {0, 1, 10, 100, 255, 256, 1000, 2000, 3000};
	char name[32];

	put_file("f", "x", 0644);
	for (size_t i = 0; i < COUNT(lengths); i++) {
		size_t len = lengths[i];

		snprintf(name, sizeof(name), "user.v%zu", len);
		for (size_t k = 0; k < len; k++)
			value[k] = (char)pattern(k + i);
		works(setxattr("f", name, value, len, 0), "set %zu", len);
		is_eq(getxattr("f", name, NULL, 0), (long long)len, "length %zu", len);
		is_eq(getxattr("f", name, back, sizeof(back)), (long long)len, "get %zu", len);
		same_bytes(back, value, len, "value %zu", len);
		if (len > 1)
			fails(getxattr("f", name, back, len - 1), ERANGE, "too little room for %zu", len);
		works(removexattr("f", name), "remove %zu", len);
		fails(getxattr("f", name, back, sizeof(back)), ENODATA, "get %zu afterwards", len);
	}
	fails(setxattr("f", "user.big", value, 65537, 0), E2BIG, "set 65537");
}

static bool listed(const char *list, ssize_t len, const char *name)
{
	for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1)
		if (strcmp(list + at, name) == 0)
			return true;
	return false;
}

static void lists(void)
{
	char name[32];
	ssize_t n;

	put_file("f", "x", 0644);
	n = listxattr("f", back, sizeof(back));
	is_true(n >= 0 && !listed(back, n, "user.a0"), "none at first");
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "user.a%d", i);
		works(setxattr("f", name, name, strlen(name), 0), "set %d", i);
		n = listxattr("f", back, sizeof(back));
		is_true(listed(back, n, name), "listed %d", i);
		is_eq(listxattr("f", NULL, 0), n, "length of the list with %d", i);
	}
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "user.a%d", i);
		is_true(listed(back, n, name), "still listed %d", i);
		is_true(getxattr("f", name, value, sizeof(value)) == (ssize_t)strlen(name) &&
				memcmp(value, name, strlen(name)) == 0,
			"value %d", i);
	}
	fails(listxattr("f", back, 5), ERANGE, "too little room");
	for (int i = 0; i < 40; i += 2) {
		snprintf(name, sizeof(name), "user.a%d", i);
		works(removexattr("f", name), "remove %d", i);
	}
	n = listxattr("f", back, sizeof(back));
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "user.a%d", i);
		is_true(listed(back, n, name) == (i % 2 == 1), "listed after removal %d", i);
	}
}

static void flags(void)
{
	char long_name[300] = "user.";

	put_file("f", "x", 0644);
	fails(setxattr("f", "user.a", "1", 1, XATTR_REPLACE), ENODATA, "replace what is not there");
	works(setxattr("f", "user.a", "1", 1, XATTR_CREATE), "create");
	fails(setxattr("f", "user.a", "2", 1, XATTR_CREATE), EEXIST, "create what is there");
	works(setxattr("f", "user.a", "22", 2, XATTR_REPLACE), "replace");
	is_eq(getxattr("f", "user.a", back, 8), 2, "length after replace");
	works(setxattr("f", "user.a", "333", 3, 0), "either");
	is_true(getxattr("f", "user.a", back, 8) == 3 && memcmp(back, "333", 3) == 0, "value after either");
	fails(setxattr("f", "user.a", "1", 1, XATTR_CREATE | XATTR_REPLACE | 64), EINVAL, "unknown flag");
	fails(removexattr("f", "user.none"), ENODATA, "remove what is not there");
	fails(setxattr("f", "nonamespace", "1", 1, 0), EOPNOTSUPP, "no namespace");
	fails(setxattr("f", "unknown.a", "1", 1, 0), EOPNOTSUPP, "unknown namespace");
	fails(getxattr("f", "unknown.a", back, 8), EOPNOTSUPP, "get of an unknown namespace");
	fails(setxattr("f", "user.", "1", 1, 0), EINVAL, "empty name in a namespace");
	fails(setxattr("f", "", "1", 1, 0), ERANGE, "empty name");
	memset(long_name + 5, 'n', 250);
	works(setxattr("f", long_name, "1", 1, 0), "name of 255");
	is_eq(getxattr("f", long_name, back, 8), 1, "get by a name of 255");
	memset(long_name + 5, 'n', 251);
	fails(setxattr("f", long_name, "1", 1, 0), ERANGE, "name of 256");
	fails(setxattr("none", "user.a", "1", 1, 0), ENOENT, "file that is not there");
	works(setxattr("f", "user.\xff\xfe odd", "1", 1, 0), "odd bytes in a name");
	is_eq(getxattr("f", "user.\xff\xfe odd", back, 8), 1, "get by odd bytes");
}

static void kinds_of_files(void)
{
	int fd;

	need(mkdir("d", 0755) == 0 && symlink("f", "l") == 0 && mkfifo("p", 0644) == 0, "files");
	put_file("f", "x", 0644);
	works(setxattr("d", "user.a", "dir", 3, 0), "directory");
	is_eq(getxattr("d", "user.a", back, 8), 3, "get of a directory");
	works(setxattr("l", "user.a", "file", 4, 0), "through a link");
	is_eq(getxattr("f", "user.a", back, 8), 4, "is the file's");
	fails(lsetxattr("l", "user.a", "1", 1, 0), EPERM, "on a link");
	fails_either(lgetxattr("l", "user.a", back, 8), ENODATA, EPERM, "get of a link");
	is_true(llistxattr("l", back, sizeof(back)) >= 0, "list of a link");
	fails(setxattr("p", "user.a", "1", 1, 0), EPERM, "on a fifo");
	fd = open("f", O_RDONLY);
	works(fsetxattr(fd, "user.b", "two", 3, 0), "by descriptor");
	is_eq(fgetxattr(fd, "user.b", back, 8), 3, "get by descriptor");
	is_true(flistxattr(fd, back, sizeof(back)) > 0, "list by descriptor");
	works(fremovexattr(fd, "user.b"), "remove by descriptor");
	close(fd);
}

static void what_they_survive(void)
{
	struct stat a, b;

	put_file("f", "x", 0644);
	works(setxattr("f", "user.a", "keep", 4, 0), "set");
	a = stat_of("f");
	nap(20);
	works(setxattr("f", "user.b", "2", 1, 0), "set another");
	b = stat_of("f");
	is_true(ns_of(b.st_ctim) > ns_of(a.st_ctim), "ctime changes");
	is_true(ns_of(b.st_mtim) == ns_of(a.st_mtim), "mtime does not");
	works(rename("f", "g"), "rename");
	is_eq(getxattr("g", "user.a", back, 8), 4, "after rename");
	works(link("g", "h"), "link");
	is_eq(getxattr("h", "user.a", back, 8), 4, "by another name");
	put_file("g", "rewritten", 0644);
	is_eq(getxattr("g", "user.a", back, 8), 4, "after truncation");
	works(chmod("g", 0600), "chmod");
	is_eq(getxattr("g", "user.a", back, 8), 4, "after chmod");
	works(unlink("g"), "unlink");
	put_file("g", "new", 0644);
	fails(getxattr("g", "user.a", back, 8), ENODATA, "a new file has none");
}

static void as_stranger(void *arg)
{
	(void)arg;
	fails(setxattr("f", "user.b", "1", 1, 0), EACCES, "stranger sets");
	is_eq(getxattr("f", "user.a", back, 8), 1, "stranger gets of a readable file");
	fails(getxattr("secret", "user.a", back, 8), EACCES, "stranger gets of a secret");
	fails(setxattr("f", "trusted.a", "1", 1, 0), EPERM, "stranger sets trusted");
	fails(setxattr("sticky", "user.a", "1", 1, 0), EPERM, "stranger sets on a sticky directory");
}

static void namespaces(void)
{
	if (!am_root()) {
		skipped("needs root", "namespaces");
		return;
	}
	put_file("f", "x", 0644);
	put_file("secret", "x", 0600);
	need(mkdir("sticky", 0777) == 0 && chmod("sticky", 01777) == 0, "mkdir");
	need(setxattr("f", "user.a", "1", 1, 0) == 0 && setxattr("secret", "user.a", "1", 1, 0) == 0, "set");
	as_user(2003, 2003, 0, as_stranger, NULL);
	works(setxattr("f", "trusted.a", "t", 1, 0), "trusted");
	is_eq(getxattr("f", "trusted.a", back, 8), 1, "get trusted");
	works(setxattr("f", "security.test", "s", 1, 0), "security");
	is_eq(getxattr("f", "security.test", back, 8), 1, "get security");
}

GROUPS(xattr) = {
	{"xattr", sizes, 0},
	{"xattr-list", lists, 0},
	{"xattr-flag", flags, 0},
	{"xattr-kind", kinds_of_files, 0},
	{"xattr-life", what_they_survive, 0},
	{"xattr-who", namespaces, 0},
	END_OF_GROUPS,
};
