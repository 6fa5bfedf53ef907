/* SPDX-License-Identifier: Apache-2.0 */
/*
 * treelist: prints the file system at / as tests/e2e/image-fidelity prints a directory, a line an entry. Runs inside a
 * microVM, as root and statically linked, since the image has nothing of its own. What is mounted over the image
 * (/proc, /dev, ...) is looked under: the tree is a clone of the root mount alone.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/util.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#define BLOCK (1u << 20)

static _Noreturn void die(const char *what, const char *path)
{
	fprintf(stderr, "treelist: %s: %s: %s\n", path, what, strerror(errno));
	exit(1);
}

static void put_escaped(FILE *f, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)p[i];

		fprintf(f, isalnum(c) || (c && strchr("/._-+", c)) ? "%c" : "%%%02x", c);
	}
}

/* The digest, by reading, of what path names. */
static void put_digest(const char *path)
{
	static uint8_t block[BLOCK];
	uint8_t digest[SHA256_DIGEST_LENGTH];
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	SHA256_CTX h;
	ssize_t n;

	if (fd < 0)
		die("open", path);
	SHA256_Init(&h);
	while ((n = read(fd, block, sizeof(block))) > 0)
		SHA256_Update(&h, block, (size_t)n);
	if (n < 0)
		die("read", path);
	close(fd);
	SHA256_Final(digest, &h);
	for (size_t i = 0; i < sizeof(digest); i++)
		printf("%02x", digest[i]);
}

static void put_content(const char *path, mode_t mode)
{
	char target[4096 + 1];
	ssize_t n;

	if (S_ISREG(mode)) {
		put_digest(path);
	} else if (S_ISLNK(mode)) {
		n = readlink(path, target, sizeof(target));
		if (n < 0)
			die("readlink", path);
		put_escaped(stdout, target, (size_t)n);
	} else {
		putchar('-');
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *attribute(const char *path, const char *name)
{
	static uint8_t value[65536];
	ssize_t n = lgetxattr(path, name, value, sizeof(value));
	char *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (n < 0)
		die(name, path);
	put_escaped(f, name, strlen(name));
	fputc('=', f);
	for (ssize_t i = 0; i < n; i++)
		fprintf(f, "%02x", value[i]);
	fclose(f);
	return text;
}

static void put_attributes(const char *path)
{
	static char names[65536];
	char *list[256];
	size_t n = 0;
	ssize_t len = llistxattr(path, names, sizeof(names));

	if (len < 0)
		die("llistxattr", path);
	for (char *p = names; p < names + len && n < ARRAY_SIZE(list); p += strlen(p) + 1)
		list[n++] = attribute(path, p);
	qsort(list, n, sizeof(*list), by_text);
	for (size_t i = 0; i < n; i++) {
		printf(" %s", list[i]);
		free(list[i]);
	}
}

/* name: in the current directory; path: the same from the root, for the line. */
static void put_line(const char *name, const char *path, const struct stat *st)
{
	put_escaped(stdout, path, strlen(path));
	printf(" %06o %u:%u %lld.%09ld %lu ", st->st_mode, st->st_uid, st->st_gid, (long long)st->st_mtim.tv_sec,
	       st->st_mtim.tv_nsec, (unsigned long)st->st_nlink);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		printf("%u,%u ", major(st->st_rdev), minor(st->st_rdev));
	else
		printf("%lld ", S_ISDIR(st->st_mode) ? 0LL : (long long)st->st_size);
	put_content(name, st->st_mode);
	put_attributes(name);
	putchar('\n');
}

/* Everything below the current directory, whose path is dir ("" for the root). Depth is by chdir: a path may be longer
 * than PATH_MAX. */
static void walk(const char *dir)
{
	DIR *d = opendir(".");
	struct dirent *e;

	if (!d)
		die("opendir", dir);
	while ((errno = 0, e = readdir(d))) {
		struct stat st;
		char *path;

		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		if (asprintf(&path, "%s/%s", dir, e->d_name) < 0 || lstat(e->d_name, &st) < 0)
			die("lstat", e->d_name);
		put_line(e->d_name, path, &st);
		if (S_ISDIR(st.st_mode)) {
			if (chdir(e->d_name) < 0)
				die("chdir", path);
			walk(path);
			if (fchdir(dirfd(d)) < 0)
				die("fchdir", dir);
		}
		free(path);
	}
	if (errno)
		die("readdir", dir);
	closedir(d);
}

int main(void)
{
	int root = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | O_CLOEXEC);
	struct stat st;

	if (root < 0 || fchdir(root) < 0 || lstat(".", &st) < 0)
		die("open_tree", "/");
	put_line(".", "/", &st);
	walk("");
	return fflush(stdout) || ferror(stdout);
}
