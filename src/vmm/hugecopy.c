/* SPDX-License-Identifier: Apache-2.0 */
/* Making and mapping a copy on huge pages. See hugecopy.h. */
#include "vmm/hugecopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "vmm/workingset.h"

/* So many chunks at most: 128 MiB. A base has some 30 that are full. */
#define CHUNKS_MAX 64

static int64_t file_size(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return !S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size % RAM_CHUNK ? -EINVAL : st.st_size;
}

/* The next place from `at` on where the file has data; its size: none. */
static uint64_t next_data(int fd, uint64_t at, uint64_t size)
{
	off_t off = at < size ? lseek(fd, (off_t)at, SEEK_DATA) : -1;

	return off < 0 ? size : (uint64_t)off;
}

static uint64_t next_hole(int fd, uint64_t at, uint64_t size)
{
	off_t off = lseek(fd, (off_t)at, SEEK_HOLE);

	return off < 0 ? at : MIN((uint64_t)off, size);
}

static int copy_chunk(int from, int to, uint64_t chunk, uint8_t *buffer)
{
	off_t off = (off_t)(chunk * RAM_CHUNK);
	ssize_t n = pread_full(from, buffer, RAM_CHUNK, off);

	if (n != (ssize_t)RAM_CHUNK)
		return n < 0 ? (int)n : -EIO;
	return pwrite_full(to, buffer, RAM_CHUNK, off);
}

int hugecopy_make(int memory, int workingset, int out)
{
	int64_t size = file_size(memory);
	uint64_t chunks = (uint64_t)MAX(size, 0) / RAM_CHUNK;
	_free_ uint8_t *written = calloc(1, chunks / 8 + 1), *buffer = malloc(RAM_CHUNK);
	int num = 0, r;

	if (size < 0)
		return (int)size;
	if (!written || !buffer)
		return -ENOMEM;
	r = workingset_chunks(workingset, (uint64_t)size, written);
	if (r == 0 && ftruncate(out, size) < 0)
		r = -errno;
	for (uint64_t i = 0; r == 0 && i < chunks && num < CHUNKS_MAX; i++) {
		i = next_data(memory, i * RAM_CHUNK, (uint64_t)size) / RAM_CHUNK;
		if (i == chunks)
			break;
		if (ram_bit(written, i) || next_hole(memory, i * RAM_CHUNK, (uint64_t)size) < (i + 1) * RAM_CHUNK)
			continue;
		r = copy_chunk(memory, out, i, buffer);
		num++;
	}
	return r < 0 ? r : num;
}

int hugecopy_map(struct ram *ram, int fd)
{
	uint64_t size = ram->boot, end = 0;
	int num = 0, r = 0;

	if (ram->num_over || file_size(fd) != (int64_t)size)
		return -EBADMSG;
	for (uint64_t at = 0; r == 0 && (at = next_data(fd, at, size)) < size; at = end) {
		end = next_hole(fd, at, size);
		if (at % RAM_CHUNK || end % RAM_CHUNK || end <= at)
			return -EBADMSG;
		for (uint64_t i = at / RAM_CHUNK; i < end / RAM_CHUNK; i++)
			if (!ram_from_file(ram, i))
				return -EBADMSG;
		r = ram_map_pages(ram, fd, at / RAM_PAGE, end / RAM_PAGE);
		num += (int)((end - at) / RAM_CHUNK);
	}
	return r < 0 ? r : num;
}
