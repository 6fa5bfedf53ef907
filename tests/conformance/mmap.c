/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings: shared and private, beside read and write, at the end of files, under truncation. */
#include "conf.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PAGE 4096

static unsigned char buffer[64 * PAGE];

static unsigned char *map(int fd, size_t len, int prot, int flags)
{
	unsigned char *p = mmap(NULL, len, prot, flags, fd, 0);

	need(p != MAP_FAILED, "mmap");
	return p;
}

static void shared(void)
{
	unsigned char *p, *q;
	int fd, again;

	put_bytes("f", 10 * PAGE + 100);
	fd = open("f", O_RDWR);
	p = map(fd, 11 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	is_true(has_pattern(p, 0, 10 * PAGE + 100), "shows the file");
	for (int i = 100; i < PAGE; i++)
		buffer[0] |= p[10 * PAGE + i];
	is_eq(buffer[0], 0, "zeros behind the end");
	for (int i = 0; i < 11; i++) {
		p[i * PAGE + 50] = (unsigned char)(i + 1);
		is_true(pread(fd, buffer, 1, i * PAGE + 50) == 1 && buffer[0] == i + 1, "store in page %d is read", i);
		buffer[0] = (unsigned char)(200 + i);
		is_eq(pwrite(fd, buffer, 1, i * PAGE + 60), 1, "write in page %d", i);
		is_eq(p[i * PAGE + 60], 200 + i, "write in page %d is seen", i);
	}
	works(msync(p, 11 * PAGE, MS_SYNC), "msync");
	works(msync(p, 11 * PAGE, MS_ASYNC), "msync async");
	fails(msync(p, 11 * PAGE, MS_SYNC | MS_ASYNC), EINVAL, "msync both");
	again = open("f", O_RDWR);
	q = map(again, 11 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	is_true(memcmp(p, q, 10 * PAGE + 100) == 0, "another mapping is the same");
	q[5] = 77;
	is_eq(p[5], 77, "and stays the same");
	munmap(p, 11 * PAGE), munmap(q, 11 * PAGE);
	close(fd), close(again);
	fd = open("f", O_RDONLY);
	is_true(pread(fd, buffer, 1, 5) == 1 && buffer[0] == 77, "store is in the file afterwards");
	is_eq(stat_of("f").st_size, 10 * PAGE + 100, "the size stays");
	close(fd);
}

static void private(void)
{
	unsigned char *p;
	int fd;

	put_bytes("f", 4 * PAGE);
	fd = open("f", O_RDONLY);
	p = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	is_true(has_pattern(p, 0, 4 * PAGE), "shows the file");
	for (int i = 0; i < 4; i++) {
		p[i * PAGE] = 1;
		is_true(pread(fd, buffer, 1, i * PAGE) == 1 && buffer[0] == pattern((uint64_t)(i * PAGE)),
			"store in page %d stays private", i);
		is_true(has_pattern(p + i * PAGE + 1, (uint64_t)(i * PAGE + 1), PAGE - 1), "rest of page %d", i);
	}
	munmap(p, 4 * PAGE);
	close(fd);
}

static void rights(void)
{
	int r, w, d;
	unsigned char *p;

	put_bytes("f", PAGE);
	r = open("f", O_RDONLY), w = open("f", O_WRONLY), d = open(".", O_RDONLY);
	fails(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r, 0) == MAP_FAILED ? -1 : 0, EACCES,
	      "shared writing of rdonly");
	fails(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, w, 0) == MAP_FAILED ? -1 : 0, EACCES, "wronly");
	fails(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, d, 0) == MAP_FAILED ? -1 : 0, ENODEV, "a directory");
	fails(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 999, 0) == MAP_FAILED ? -1 : 0, EBADF, "no descriptor");
	fails(mmap(NULL, 0, PROT_READ, MAP_SHARED, r, 0) == MAP_FAILED ? -1 : 0, EINVAL, "nothing");
	fails(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, r, 5) == MAP_FAILED ? -1 : 0, EINVAL, "an odd offset");
	p = map(r, PAGE, PROT_READ, MAP_SHARED);
	fails(mprotect(p, PAGE, PROT_READ | PROT_WRITE), EACCES, "mprotect to writing");
	works(mprotect(p, PAGE, PROT_NONE), "mprotect to nothing");
	works(mprotect(p, PAGE, PROT_READ), "and back");
	munmap(p, PAGE);
	p = map(r, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE);
	is_true(p[0] == pattern(0), "executable mapping");
	munmap(p, PAGE);
	close(r), close(w), close(d);
}

static void touch(void *arg)
{
	signal(SIGBUS, SIG_DFL);
	*(volatile unsigned char *)arg = 1;
}

static bool faults(unsigned char *at)
{
	int status = in_child(touch, at);

	return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

static void past_the_end(void)
{
	unsigned char *p;
	int fd;

	put_bytes("f", PAGE + 10);
	fd = open("f", O_RDWR);
	p = map(fd, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	is_true(!faults(p), "first page");
	is_true(!faults(p + PAGE + 4000), "rest of the last page");
	is_true(faults(p + 2 * PAGE), "page behind the end");
	is_true(faults(p + 7 * PAGE), "page far behind");
	works(ftruncate(fd, 4 * PAGE), "grow");
	is_true(!faults(p + 3 * PAGE), "is there now");
	is_eq(p[3 * PAGE + 5], 0, "as zeros");
	is_eq(p[PAGE + 4000], 0, "what was stored behind the old end does not appear");
	p[3 * PAGE] = 9;
	works(ftruncate(fd, PAGE), "shrink");
	is_true(faults(p + 3 * PAGE), "is gone again");
	is_true(!faults(p), "the first page stays");
	works(ftruncate(fd, 4 * PAGE), "grow again");
	is_eq(p[3 * PAGE], 0, "what was cut off does not come back");
	munmap(p, 8 * PAGE);
	close(fd);
}

static void cut_in_a_page(void)
{
	unsigned char *p;
	int fd;

	put_bytes("f", PAGE);
	fd = open("f", O_RDWR);
	p = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	is_eq(p[2000], pattern(2000), "before");
	works(ftruncate(fd, 1000), "shrink within a page");
	is_eq(p[2000], 0, "the rest of the page is zeros");
	is_eq(p[999], pattern(999), "what is left is left");
	works(ftruncate(fd, PAGE), "grow");
	is_eq(p[2000], 0, "still zeros");
	is_true(pread(fd, buffer, PAGE, 0) == PAGE && buffer[2000] == 0 && buffer[999] == pattern(999), "read agrees");
	munmap(p, PAGE);
	close(fd);
}

static void outlives(void)
{
	unsigned char *p;
	int fd;

	put_bytes("f", 3 * PAGE);
	fd = open("f", O_RDWR);
	p = map(fd, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	close(fd);
	is_true(has_pattern(p, 0, 3 * PAGE), "outlives its descriptor");
	p[0] = 1;
	fd = open("f", O_RDONLY);
	is_true(pread(fd, buffer, 1, 0) == 1 && buffer[0] == 1, "and is still the file's");
	close(fd);
	works(unlink("f"), "unlink");
	is_true(has_pattern(p + PAGE, PAGE, PAGE), "outlives its name");
	p[PAGE] = 2;
	works(msync(p, 3 * PAGE, MS_SYNC), "msync");
	is_eq(p[PAGE], 2, "may be written");
	munmap(p, 3 * PAGE);
}

static void store_child(void *arg)
{
	unsigned char *p = arg;

	for (int i = 0; i < 16; i++)
		p[i * PAGE + 1] = (unsigned char)(i + 100);
}

static void between_processes(void)
{
	unsigned char *p;
	int fd = open("f", O_RDWR | O_CREAT, 0644);

	need(ftruncate(fd, 16 * PAGE) == 0, "truncate");
	p = map(fd, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	is_eq(in_child(store_child, p), 0, "child ends");
	for (int i = 0; i < 16; i++)
		is_eq(p[i * PAGE + 1], i + 100, "store of the child in page %d", i);
	works(msync(p, 16 * PAGE, MS_SYNC), "msync");
	works(madvise(p, 16 * PAGE, MADV_DONTNEED), "madvise");
	for (int i = 0; i < 16; i++)
		is_eq(p[i * PAGE + 1], i + 100, "page %d read again", i);
	munmap(p, 16 * PAGE);
	close(fd);
}

static void hole_mapped(void)
{
	unsigned char *p;
	struct stat st;
	int fd = open("f", O_RDWR | O_CREAT, 0644);

	need(ftruncate(fd, 64 * PAGE) == 0, "truncate");
	p = map(fd, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (int i = 0; i < 64; i++)
		buffer[0] |= p[i * PAGE];
	is_eq(buffer[0], 0, "reads as zeros");
	p[10 * PAGE] = 5;
	works(msync(p, 64 * PAGE, MS_SYNC), "msync");
	munmap(p, 64 * PAGE);
	fsync(fd);
	fstat(fd, &st);
	is_true(st.st_blocks * 512 >= 1 && st.st_blocks * 512 <= 16 * PAGE, "only what was stored takes space");
	is_eq(lseek(fd, 0, SEEK_DATA), 10 * PAGE, "and is found as data");
	close(fd);
}

GROUPS(mmap) = {
	{"mmap", shared, 0},
	{"mmap-private", private, 0},
	{"mmap-right", rights, 0},
	{"mmap-end", past_the_end, 0},
	{"mmap-cut", cut_in_a_page, 0},
	{"mmap-life", outlives, 0},
	{"mmap-process", between_processes, 0},
	{"mmap-hole", hole_mapped, 0},
	END_OF_GROUPS,
};
