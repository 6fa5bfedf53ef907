/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM in two files. See overlay.h. The record: u64 size of RAM, a bit a chunk that lies over the base, a bit a
 * page that is the overlay's.
 */
#include "vmm/overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define PAGES RAM_CHUNK_PAGES
/* Runs this near to each other are one: a page too many costs less than a mapping more. */
#define GAP 2u
/* Shorter runs are copied, which costs less than a mapping; and what was written once is written again. */
#define COPIED 8u

static size_t pages_size(const struct ram *ram)
{
	return (size_t)(ram->size / RAM_PAGE / 8);
}

static bool is_based(const struct ram *ram, uint64_t chunk)
{
	return ram_bit(ram->over ? ram->based : ram->chunks, chunk);
}

/* ------------------------------------------------------------------------------------------ saving */

/* A private mapping's page that is there and not the file's is a copy: it was written. */
static void note_changed(const struct ram *ram, uint64_t chunk, uint8_t *bits)
{
	bool from_file = ram_from_file(ram, chunk);
	uint64_t map[PAGES];

	if (ram_pagemap(ram, chunk, map) < 0) {
		memset(bits + chunk * (PAGES / 8), 0xff, PAGES / 8);
		return;
	}
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t page = chunk * PAGES + i;

		if (((map[i] & RAM_PAGE_TOUCHED) && !(from_file && (map[i] & RAM_PAGE_FILE))) ||
		    ram_bit(ram->over, page))
			ram_set_bit(bits, page);
	}
}

uint8_t *overlay_changed(const struct ram *ram)
{
	uint8_t *bits = calloc(1, pages_size(ram));

	for (uint64_t chunk = 0; bits && chunk < ram->size / RAM_CHUNK; chunk++)
		note_changed(ram, chunk, bits);
	return bits;
}

/* The next run of a chunk's pages from `page` on; *ret_end: behind it. Small gaps are part of it where its neighbours
 * are mapped from another file. */
static uint64_t next_run(const uint8_t *bits, uint64_t page, uint64_t end, unsigned gap, uint64_t *ret_end)
{
	uint64_t last;

	while (page < end && !ram_bit(bits, page))
		page++;
	last = page;
	for (uint64_t i = page; i < end && i <= last + gap + 1; i++)
		if (ram_bit(bits, i))
			last = i;
	*ret_end = page < end ? last + 1 : end;
	return page;
}

/* Notes in `over` what it has written. A chunk without a base needs no zeros. */
static int save_chunk(const struct ram *ram, const uint8_t *changed, uint64_t chunk, int fd, uint8_t *over,
		      uint64_t *bytes)
{
	uint64_t page = chunk * PAGES, run_end;
	bool based = is_based(ram, chunk);
	uint8_t bits[PAGES / 8] = {0};
	int r = 0;

	for (uint64_t i = 0; i < PAGES; i++)
		if (ram_bit(changed, page + i) && (based || !ram_page_is_zero(ram, page + i)))
			ram_set_bit(bits, i);
	for (uint64_t from = 0; r == 0 && (from = next_run(bits, from, PAGES, based ? GAP : 0, &run_end)) < PAGES;
	     from = run_end) {
		r = ram_write_pages(ram, fd, page + from, page + run_end);
		for (uint64_t i = from; i < run_end; i++)
			ram_set_bit(over, page + i);
		*bytes += (run_end - from) * RAM_PAGE;
	}
	return r;
}

int overlay_save(const struct ram *ram, const uint8_t *changed, int fd, struct buf *out, uint64_t *ret_bytes,
		 struct sm_error *err)
{
	_free_ uint8_t *over = calloc(1, pages_size(ram)), *based = calloc(1, ram_bitmap_size(ram));
	int r = 0;

	*ret_bytes = 0;
	if (!over || !based)
		return error_sys(err, ENOMEM, "memory file");
	if (ftruncate(fd, (off_t)ram->size) < 0)
		return error_sys(err, errno, "memory file");
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++) {
		if (is_based(ram, chunk))
			ram_set_bit(based, chunk);
		r = save_chunk(ram, changed, chunk, fd, over, ret_bytes);
	}
	if (r < 0)
		return error_sys(err, -r, "memory file");
	buf_put_u64(out, ram->size);
	buf_put(out, based, ram_bitmap_size(ram));
	buf_put(out, over, pages_size(ram));
	return out->error ? error_sys(err, -out->error, "memory file") : 0;
}

/* ----------------------------------------------------------------------------------------- loading */

static int map_base(struct ram *ram, int base)
{
	uint64_t num = ram->size / RAM_CHUNK;
	int r = 0;

	for (uint64_t i = 0, end; i < num && r == 0; i = end + 1) {
		for (end = i; end < num && ram_bit(ram->based, end);)
			end++;
		r = end > i ? ram_map_pages(ram, base, i * PAGES, end * PAGES) : 0;
	}
	return r;
}

static int copy_run(struct ram *ram, int fd, uint64_t page, uint64_t end)
{
	ssize_t n = pread_full(fd, ram->host + page * RAM_PAGE, (end - page) * RAM_PAGE, (off_t)(page * RAM_PAGE));

	return n < 0 ? (int)n : n == (ssize_t)((end - page) * RAM_PAGE) ? 0 : -EIO;
}

/* A chunk of its own is one mapping, since what it has not is zeros. */
static int map_over(struct ram *ram, int fd, uint64_t chunk)
{
	uint64_t page = chunk * PAGES, end = page + PAGES, run_end;
	int r = 0;

	page = next_run(ram->over, page, end, 0, &run_end);
	if (page == end)
		return 0;
	ram_set_bit(ram->chunks, chunk);
	if (!ram_bit(ram->based, chunk))
		return ram_map_pages(ram, fd, chunk * PAGES, end);
	for (; r == 0 && page < end; page = next_run(ram->over, run_end, end, 0, &run_end))
		r = run_end - page > COPIED ? ram_map_pages(ram, fd, page, run_end) : copy_run(ram, fd, page, run_end);
	return r;
}

static bool any(const uint8_t *bitmap, size_t size)
{
	while (size--)
		if (*bitmap++)
			return true;
	return false;
}

static uint8_t *copy_of(const void *p, size_t size)
{
	uint8_t *copy = malloc(size);

	return copy ? memcpy(copy, p, size) : NULL;
}

int overlay_load(struct ram *ram, int base, int fd, struct cursor *in, struct sm_error *err)
{
	uint64_t size = cursor_u64(in);
	const uint8_t *based = cursor_take(in, ram_bitmap_size(ram)), *over = cursor_take(in, pages_size(ram));
	int r = ram_check_file(ram, fd, in->bad ? 0 : size, err);

	if (r == 0 && any(based, ram_bitmap_size(ram)))
		r = base < 0 ? error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory lies over a file that is not there")
			     : ram_check_file(ram, base, size, err);
	if (r < 0)
		return r;
	ram->based = copy_of(based, ram_bitmap_size(ram));
	ram->chunks = copy_of(based, ram_bitmap_size(ram));
	ram->over = copy_of(over, pages_size(ram));
	if (!ram->based || !ram->chunks || !ram->over)
		return error_sys(err, ENOMEM, "memory file");
	r = map_base(ram, base);
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++)
		r = map_over(ram, fd, chunk);
	madvise(ram->host, ram->size, MADV_DONTDUMP);
	return r < 0 ? error_sys(err, -r, "map the memory file") : 0;
}
