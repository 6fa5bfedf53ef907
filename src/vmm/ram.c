/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM and its file. See ram.h. */
#include "vmm/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define PAGE RAM_PAGE
#define PAGES RAM_CHUNK_PAGES

#ifndef MADV_POPULATE_READ /* Linux 5.14 */
#define MADV_POPULATE_READ 22
#endif

size_t ram_bitmap_size(const struct ram *ram)
{
	return (size_t)((ram->size / RAM_CHUNK + 7) / 8);
}

bool ram_from_file(const struct ram *ram, uint64_t chunk)
{
	return ram_bit(ram->chunks, chunk);
}

int ram_pagemap(const struct ram *ram, uint64_t chunk, uint64_t ret[PAGES])
{
	uintptr_t at = (uintptr_t)ram->host + chunk * RAM_CHUNK;
	ssize_t n;

	if (ram->pagemap < 0)
		return -ENOSYS;
	n = pread(ram->pagemap, ret, PAGES * sizeof(ret[0]), (off_t)(at / PAGE * sizeof(ret[0])));
	return n < 0 ? -errno : n == (ssize_t)(PAGES * sizeof(ret[0])) ? 0 : -EIO;
}

uint8_t *ram_reserve(uint64_t size, int prot)
{
	uint8_t *p = mmap(NULL, size + RAM_CHUNK, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before;

	if (p == MAP_FAILED)
		return NULL;
	before = align_up((uintptr_t)p, RAM_CHUNK) - (uintptr_t)p;
	if (before)
		munmap(p, before);
	munmap(p + before + size, RAM_CHUNK - before);
	return p + before;
}

int ram_map(struct ram *ram, uint64_t size, struct sm_error *err)
{
	*ram = (struct ram){.size = size, .boot = size, .pagemap = -1, .files = {-1}};
	ram->host = ram_reserve(size, PROT_READ | PROT_WRITE);
	if (!ram->host)
		return error_sys(err, errno, "guest memory of %llu MiB", (unsigned long long)(size >> 20));
	madvise(ram->host, size, MADV_HUGEPAGE); /* where the host has none, small pages do */
	madvise(ram->host, size, MADV_DONTDUMP);
	ram->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return 0;
}

void ram_unmap(struct ram *ram)
{
	if (ram->host)
		munmap(ram->host, ram->size);
	ram->host = NULL;
	free(ram->chunks);
	free(ram->based);
	ram->chunks = ram->based = NULL;
	while (ram->num_over)
		free(ram->over[--ram->num_over]);
	ram->pagemap = fd_close(ram->pagemap);
}

bool ram_page_is_zero(const struct ram *ram, uint64_t page)
{
	const uint64_t *p = (const uint64_t *)(ram->host + page * PAGE);

	for (size_t i = 0; i < PAGE / sizeof(*p); i += 4)
		if (p[i] | p[i + 1] | p[i + 2] | p[i + 3])
			return false;
	return true;
}

/* Of a chunk that came from a file, untouched pages hold what the file holds. */
static void note_touched(const struct ram *ram, uint64_t chunk, uint8_t bits[PAGES / 8])
{
	uint64_t map[PAGES];

	if (ram_from_file(ram, chunk) || ram_pagemap(ram, chunk, map) < 0) {
		memset(bits, 0xff, PAGES / 8);
		return;
	}
	for (size_t i = 0; i < PAGES; i++)
		if (map[i] & RAM_PAGE_TOUCHED)
			bits[i / 8] |= (uint8_t)(1U << (i % 8));
}

uint8_t *ram_touched(const struct ram *ram)
{
	uint64_t chunks = ram->size / RAM_CHUNK;
	uint8_t *bits = calloc(chunks, PAGES / 8);

	for (uint64_t chunk = 0; bits && chunk < chunks; chunk++)
		note_touched(ram, chunk, bits + chunk * (PAGES / 8));
	return bits;
}

/* Only pages that were ever touched are looked at, since a look would bring the others into being. */
static int find_data(const struct ram *ram, const uint8_t *touched, uint64_t chunk, bool data[PAGES])
{
	int found = 0;

	for (size_t i = 0; i < PAGES; i++) {
		uint64_t page = chunk * PAGES + i;

		data[i] = ram_bit(touched, page) && !ram_page_is_zero(ram, page);
		found += data[i];
	}
	return found;
}

int ram_write_pages(const struct ram *ram, int fd, uint64_t from, uint64_t to)
{
	uint64_t off = from * PAGE, end = to * PAGE;

	while (off < end) {
		ssize_t n = pwrite(fd, ram->host + off, end - off, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		off += (uint64_t)n;
	}
	return 0;
}

/* Neighbouring pages with data at once. */
static int write_chunk(const struct ram *ram, int fd, uint64_t chunk, const bool data[PAGES])
{
	int r = 0;

	for (size_t i = 0, n; i < PAGES && r == 0; i += n + 1) {
		uint64_t page = chunk * PAGES + i;

		for (n = 0; i + n < PAGES && data[i + n];)
			n++;
		r = ram_write_pages(ram, fd, page, page + n);
	}
	return r;
}

int ram_save(const struct ram *ram, const uint8_t *touched, int fd, struct buf *out, uint64_t *ret_bytes,
	     struct sm_error *err)
{
	_free_ uint8_t *bitmap = calloc(1, ram_bitmap_size(ram));
	bool data[PAGES];
	int r = 0;

	*ret_bytes = 0;
	if (!bitmap)
		return error_sys(err, ENOMEM, "memory file");
	if (ftruncate(fd, (off_t)ram->size) < 0)
		return error_sys(err, errno, "memory file");
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++) {
		int found = find_data(ram, touched, chunk, data);

		if (!found)
			continue;
		ram_set_bit(bitmap, chunk);
		*ret_bytes += (uint64_t)found * PAGE;
		r = write_chunk(ram, fd, chunk, data);
	}
	if (r < 0)
		return error_sys(err, -r, "memory file");
	buf_put_u64(out, ram->size);
	buf_put(out, bitmap, ram_bitmap_size(ram));
	return out->error ? error_sys(err, -out->error, "memory file") : 0;
}

int ram_map_pages(struct ram *ram, int fd, uint64_t from, uint64_t to)
{
	uint8_t *p = ram->host + from * PAGE;
	size_t len = (to - from) * PAGE;

	return mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
		    (off_t)(from * PAGE)) == MAP_FAILED
		       ? -errno
		       : 0;
}

bool ram_may_have(const struct ram *ram, uint64_t size)
{
	return size == ram->size || size == ram->boot;
}

int ram_check_file(const struct ram *ram, int fd, uint64_t size, struct sm_error *err)
{
	struct stat st;

	if (!ram_may_have(ram, size))
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory's record does not fit %llu MiB",
				 (unsigned long long)(ram->size >> 20));
	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "memory file");
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory file has %lld bytes instead of %llu",
				 (long long)st.st_size, (unsigned long long)size);
	return 0;
}

void ram_read_ahead(const struct ram *ram)
{
	for (uint64_t i = 0; i < ram->size / RAM_CHUNK; i++)
		if (ram_from_file(ram, i))
			madvise(ram->host + i * RAM_CHUNK, RAM_CHUNK, MADV_POPULATE_READ);
}

int ram_load(struct ram *ram, int fd, struct cursor *in, struct sm_error *err)
{
	uint64_t size = cursor_u64(in), num = size / RAM_CHUNK;
	size_t len = (size_t)((num + 7) / 8);
	const uint8_t *bitmap = ram_may_have(ram, size) ? cursor_take(in, len) : NULL;
	int r = ram_check_file(ram, fd, bitmap ? size : 0, err);

	if (r < 0)
		return r;
	ram->chunks = calloc(1, ram_bitmap_size(ram));
	if (!ram->chunks)
		return error_sys(err, ENOMEM, "memory file");
	for (uint64_t i = 0; i < num; i++)
		if (ram_bit(bitmap, i))
			ram_set_bit(ram->chunks, i);
	ram->files[0] = fd;
	for (uint64_t i = 0, end; i < num && r == 0; i = end + 1) {
		for (end = i; end < num && ram_bit(bitmap, end);)
			end++;
		r = end > i ? ram_map_pages(ram, fd, i * PAGES, end * PAGES) : 0;
	}
	madvise(ram->host, ram->size, MADV_DONTDUMP);
	return r < 0 ? error_sys(err, -r, "map the memory file") : 0;
}
