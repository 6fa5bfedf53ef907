/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does with a mapped file, for tests in guests:
 *	mapped cat FILE			its contents through a mapping
 *	mapped sum FILE			looks at all of it through a mapping
 *	mapped write FILE OFFSET TEXT	writes through a shared mapping
 *	mapped direct FILE OUT		writes it to OUT with O_DIRECT, straight from the mapping
 *	mapped deny FILE		what a file on a read-only mount answers: prints one word for each attempt
 *	mapped hold FILE GO		maps it, reads it all, says "ready", and when GO is there: reads it all again,
 *"same" or "other" (zeros, say), or "bus" where that is a SIGBUS
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static sigjmp_buf gone;

static void die(const char *what)
{
	fprintf(stderr, "mapped: %s: %s\n", what, strerror(errno));
	exit(1);
}

static char *map(const char *path, int flags, int prot, size_t *ret_size)
{
	int fd = open(path, flags);
	struct stat st;
	char *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	p = mmap(NULL, (size_t)st.st_size, prot, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("mmap");
	*ret_size = (size_t)st.st_size;
	close(fd);
	return p;
}

static int cat(const char *path)
{
	size_t size;
	const char *p = map(path, O_RDONLY, PROT_READ, &size);

	return fwrite(p, 1, size, stdout) == size && fflush(stdout) == 0 ? 0 : 1;
}

static int write_text(const char *path, const char *offset, const char *text)
{
	size_t size, at = strtoul(offset, NULL, 10);
	char *p = map(path, O_RDWR, PROT_READ | PROT_WRITE, &size);

	if (at + strlen(text) > size)
		return 1;
	memcpy(p + at, text, strlen(text));
	if (msync(p, size, MS_SYNC) < 0)
		die("msync");
	return 0;
}

static int direct(const char *path, const char *to)
{
	size_t size;
	const char *p = map(path, O_RDONLY, PROT_READ, &size);
	int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT, 0644);

	if (fd < 0)
		die(to);
	for (size_t at = 0; at < size; at += 1 << 20)
		if (write(fd, p + at, 1 << 20) != 1 << 20)
			die("write");
	return close(fd) < 0;
}

static int deny(const char *path)
{
	int fd = open(path, O_RDWR);

	puts(fd < 0 && errno == EROFS ? "EROFS" : "opened");
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	puts(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES ? "EACCES"
													  : "mapped");
	return 0;
}

static void on_bus(int signal)
{
	siglongjmp(gone, 1);
}

static __attribute__((noinline)) unsigned long sum(const char *p, size_t size)
{
	unsigned long v = 0;

	for (size_t i = 0; i < size; i += 64)
		v = v * 31 + *(volatile const unsigned char *)(p + i);
	return v;
}

static int look(const char *path)
{
	size_t size;
	const char *p = map(path, O_RDONLY, PROT_READ, &size);

	return printf("%lu\n", sum(p, size)) < 0;
}

static int hold(const char *path, const char *go)
{
	size_t size;
	const char *p = map(path, O_RDONLY, PROT_READ, &size);
	unsigned long before = sum(p, size);

	signal(SIGBUS, on_bus);
	puts("ready");
	fflush(stdout);
	while (access(go, F_OK) < 0)
		usleep(50000);
	if (sigsetjmp(gone, 1))
		puts("bus");
	else
		puts(sum(p, size) == before ? "same" : "other");
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (!strcmp(what, "sum"))
		return look(argv[2]);
	if (!strcmp(what, "cat"))
		return cat(argv[2]);
	if (!strcmp(what, "write") && argc == 5)
		return write_text(argv[2], argv[3], argv[4]);
	if (!strcmp(what, "direct") && argc == 4)
		return direct(argv[2], argv[3]);
	if (!strcmp(what, "deny"))
		return deny(argv[2]);
	if (!strcmp(what, "hold") && argc == 4)
		return hold(argv[2], argv[3]);
	fputs("usage: mapped cat|sum|write|direct|deny|hold FILE ...\n", stderr);
	return 2;
}
