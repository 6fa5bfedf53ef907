/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of a memory file: CRC-64 (ECMA-182, reflected) over its pages that are not all zero, each after its
 * number, and the file's size at the end. So it is the same whether zeros are holes or not, and a file costs what it
 * has on the disk. It finds damage, not malice: who can write the file can write its sum.
 */
#include "lib/memsum.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc64.h>
#include <isa-l/mem_routines.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define PAGE 4096u
#define CHUNK (256u * PAGE)

static uint64_t add_number(uint64_t crc, uint64_t v)
{
	uint8_t b[8];

	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(v >> (8 * i));
	return crc64_ecma_refl(crc, b, sizeof(b));
}

/* at: a multiple of PAGE. */
static uint64_t add_chunk(uint64_t crc, uint8_t *p, size_t len, uint64_t at)
{
	for (size_t i = 0; i < len; i += PAGE) {
		size_t n = MIN(len - i, (size_t)PAGE);

		if (isal_zero_detect(p + i, n) != 0)
			crc = crc64_ecma_refl(add_number(crc, (at + i) / PAGE), p + i, n);
	}
	return crc;
}

static int sum(int fd, uint64_t size, uint8_t *chunk, uint64_t *ret)
{
	uint64_t crc = 0;

	for (uint64_t at = 0; at < size;) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		ssize_t n;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0)
			return -errno;
		at = (uint64_t)data / PAGE * PAGE;
		n = pread_full(fd, chunk, (size_t)MIN((uint64_t)CHUNK, size - at), (off_t)at);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		crc = add_chunk(crc, chunk, (size_t)n, at);
		at += (uint64_t)n;
	}
	*ret = add_number(crc, size);
	return 0;
}

int memsum_file(int dir, const char *name, char ret[static MEMSUM_DIGITS + 1])
{
	_fd_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_free_ uint8_t *chunk = malloc(CHUNK);
	uint64_t crc = 0;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!chunk)
		return -ENOMEM;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	r = sum(fd, (uint64_t)st.st_size, chunk, &crc);
	if (r == 0)
		snprintf(ret, MEMSUM_DIGITS + 1, "%016llx", (unsigned long long)crc);
	return r;
}
