/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Noting and applying a working set. See workingset.h. The file: magic, version, the size of RAM at boot, the number of
 * runs, the runs (first page, pages; ascending, apart), CRC-32C of all that; little-endian.
 */
#include "vmm/workingset.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/fileio.h"
#include "base/util.h"

#define PAGE RAM_PAGE
#define PAGES RAM_CHUNK_PAGES
#define VERSION 1u
#define HEAD_SIZE 24u
#define RUN_SIZE 8u
#define CRC_SIZE 4u
#define FILE_MAX (HEAD_SIZE + WORKINGSET_MAX_PAGES * RUN_SIZE + CRC_SIZE)

#ifndef MADV_POPULATE_WRITE /* Linux 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

static const char magic[8] = "SM-WSET";

struct runs {
	struct buf list;
	uint32_t first, num; /* the run that is growing; num 0: none */
	uint32_t count, pages;
};

static void end_run(struct runs *r)
{
	if (!r->num)
		return;
	buf_put_u32(&r->list, r->first);
	buf_put_u32(&r->list, r->num);
	r->count++;
	r->pages += r->num;
	r->num = 0;
}

static void add_page(struct runs *r, uint32_t page)
{
	if (r->num && page != r->first + r->num)
		end_run(r);
	if (!r->num)
		r->first = page;
	r->num = page + 1 - r->first;
}

/* A private mapping's page that is there and not the file's is a copy: it was written. */
static int scan_chunk(const struct ram *ram, uint64_t chunk, struct runs *r)
{
	uint64_t map[PAGES];
	int error = ram_pagemap(ram, chunk, map);

	for (uint64_t i = 0; error == 0 && i < PAGES; i++)
		if ((map[i] & RAM_PAGE_TOUCHED) && !(map[i] & RAM_PAGE_FILE))
			add_page(r, (uint32_t)(chunk * PAGES + i));
	return error;
}

static int write_runs(const struct ram *ram, struct runs *r, int fd)
{
	_cleanup_(buf_done) struct buf out = {0};

	buf_put(&out, magic, sizeof(magic));
	buf_put_u32(&out, VERSION);
	buf_put_u64(&out, ram->boot);
	buf_put_u32(&out, r->count);
	buf_put(&out, r->list.data, r->list.len);
	buf_put_u32(&out, ~crc32c(UINT32_MAX, out.data, out.len));
	if (out.error || r->list.error)
		return -ENOMEM;
	return pwrite_full(fd, out.data, out.len, 0);
}

int workingset_note(const struct ram *ram, int fd)
{
	struct runs runs = {0};
	int r = 0;

	if (ram->pagemap < 0)
		return 0;
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++)
		if (ram_from_file(ram, chunk))
			r = scan_chunk(ram, chunk, &runs);
	end_run(&runs);
	if (r == 0 && runs.pages > WORKINGSET_MAX_PAGES)
		runs.pages = 0;
	if (r == 0 && runs.pages)
		r = write_runs(ram, &runs, fd);
	buf_done(&runs.list);
	return r < 0 ? r : (int)runs.pages;
}

/* The file's bytes, whole and of this RAM's size: *ret are its runs. */
static int read_runs(uint64_t size, int fd, uint8_t *data, struct cursor *ret)
{
	ssize_t n = pread_full(fd, data, FILE_MAX, 0);
	struct cursor c, end;
	const void *head;
	uint32_t count;

	if (n < (ssize_t)(HEAD_SIZE + CRC_SIZE))
		return n < 0 ? (int)n : -EBADMSG;
	end = cursor_of(data + n - CRC_SIZE, CRC_SIZE);
	if (cursor_u32(&end) != (uint32_t)~crc32c(UINT32_MAX, data, (size_t)n - CRC_SIZE))
		return -EBADMSG;
	c = cursor_of(data, (size_t)n - CRC_SIZE);
	head = cursor_take(&c, sizeof(magic));
	if (!head || memcmp(head, magic, sizeof(magic)) != 0 || cursor_u32(&c) != VERSION || cursor_u64(&c) != size)
		return -EBADMSG;
	count = cursor_u32(&c);
	if (c.bad || count > WORKINGSET_MAX_PAGES || c.left != count * RUN_SIZE)
		return -EBADMSG;
	*ret = c;
	return 0;
}

/* True if the run lies behind *next, within RAM, in chunks of the file, and the whole stays below the limit. */
static bool run_is_good(const struct ram *ram, uint64_t first, uint64_t num, uint64_t next, uint64_t pages)
{
	if (!num || first < next || first + num > ram->size / PAGE || pages + num > WORKINGSET_MAX_PAGES)
		return false;
	for (uint64_t chunk = first / PAGES; chunk <= (first + num - 1) / PAGES; chunk++)
		if (!ram_from_file(ram, chunk))
			return false;
	return true;
}

int workingset_chunks(int fd, uint64_t size, uint8_t *bits)
{
	_free_ uint8_t *data = malloc(FILE_MAX);
	struct cursor c;
	int r;

	if (!data)
		return -ENOMEM;
	r = read_runs(size, fd, data, &c);
	while (r == 0 && c.left) {
		uint64_t first = cursor_u32(&c), num = cursor_u32(&c);

		if (!num || first + num > size / PAGE)
			return -EBADMSG;
		for (uint64_t chunk = first / PAGES; chunk <= (first + num - 1) / PAGES; chunk++)
			ram_set_bit(bits, chunk);
	}
	return r;
}

int workingset_apply(const struct ram *ram, int fd)
{
	_free_ uint8_t *data = malloc(FILE_MAX);
	uint64_t next = 0, pages = 0;
	struct cursor c;
	int r;

	if (!data)
		return -ENOMEM;
	r = read_runs(ram->boot, fd, data, &c);
	if (r < 0)
		return r;
	while (c.left) {
		uint64_t first = cursor_u32(&c), num = cursor_u32(&c);

		if (!run_is_good(ram, first, num, next, pages))
			return -EBADMSG;
		if (madvise(ram->host + first * PAGE, num * PAGE, MADV_POPULATE_WRITE) < 0)
			return -errno;
		next = first + num;
		pages += num;
	}
	return (int)pages;
}
