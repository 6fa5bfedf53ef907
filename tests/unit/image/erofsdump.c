/* SPDX-License-Identifier: Apache-2.0 */
/*
 * erofsdump FILE: checks an EROFS file and prints a line for each entry, as tests/e2e/image-fidelity prints a
 * directory: path (escaped), type and mode, ids, mtime, links, size or device, digest or target, attributes.
 */
#include <ctype.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"
#include "erofs_check.h"

struct attributes {
	char *v[256];
	size_t n;
};

static void put_escaped(FILE *f, const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		fprintf(f, isalnum(b[i]) || strchr("/._-+", b[i]) ? "%c" : "%%%02x", b[i]);
}

static void add_attribute(void *arg, const struct check_xattr *x)
{
	struct attributes *a = arg;
	size_t size;
	FILE *f;

	if (a->n == ARRAY_SIZE(a->v))
		return;
	f = open_memstream(&a->v[a->n++], &size);
	put_escaped(f, x->name, strlen(x->name));
	fputc('=', f);
	for (size_t i = 0; i < x->value_len; i++)
		fprintf(f, "%02x", x->value[i]);
	fclose(f);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_content(struct check *c, const struct check_inode *inode)
{
	uint8_t block[4096], digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *h = EVP_MD_CTX_new();

	if (S_ISLNK(inode->mode)) {
		size_t n = MIN(inode->size, sizeof(block));

		if (check_read(c, inode, 0, block, n) == 0)
			put_escaped(stdout, block, n);
	} else if (S_ISREG(inode->mode)) {
		EVP_DigestInit_ex(h, EVP_sha256(), NULL);
		for (uint64_t at = 0; at < inode->size; at += sizeof(block)) {
			size_t n = MIN(inode->size - at, sizeof(block));

			if (check_read(c, inode, at, block, n) < 0)
				break;
			EVP_DigestUpdate(h, block, n);
		}
		EVP_DigestFinal_ex(h, digest, NULL);
		for (int i = 0; i < 32; i++)
			printf("%02x", digest[i]);
	} else {
		putchar('-');
	}
	EVP_MD_CTX_free(h);
}

static void visit(struct check *c, const char *path, size_t len, const struct check_inode *inode)
{
	struct attributes a = {0};
	uint32_t major = inode->rdev >> 8 & 0xfff, minor = (inode->rdev & 0xff) | (inode->rdev >> 12 & 0xfff00);

	put_escaped(stdout, "/", 1);
	put_escaped(stdout, path, len);
	printf(" %06o %u:%u %lld.%09u %u ", inode->mode, inode->uid, inode->gid, (long long)inode->mtime,
	       inode->mtime_nsec, inode->nlink);
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		printf("%u,%u ", major, minor);
	else
		printf("%llu ", S_ISDIR(inode->mode) ? 0ULL : (unsigned long long)inode->size);
	put_content(c, inode);
	check_xattrs(c, inode, add_attribute, &a);
	qsort(a.v, a.n, sizeof(*a.v), compare);
	for (size_t i = 0; i < a.n; i++) {
		printf(" %s", a.v[i]);
		free(a.v[i]);
	}
	putchar('\n');
}

int main(int argc, char **argv)
{
	struct check c = {.visit = visit};
	int fd = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "usage: erofsdump FILE\n");
		return 2;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror(argv[1]);
		return 1;
	}
	c.data = p;
	c.size = (uint64_t)st.st_size;
	if (erofs_check(&c) < 0 || c.error[0]) {
		fprintf(stderr, "erofsdump: %s: %s\n", argv[1], c.error);
		return 1;
	}
	return 0;
}
