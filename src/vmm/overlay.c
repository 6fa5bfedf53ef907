/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM in several files. See overlay.h. The record: u64 size of RAM, u32 how many lie over the first, a bit a
 * chunk that is the first's, and for each of the others, lowest first, a bit a page that it has. Bits instead of a list
 * of ranges: they cannot be out of order or out of range, and for 256 MiB they are 8 KiB.
 */
#include "vmm/overlay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define PAGES RAM_CHUNK_PAGES
/* Runs this near to each other are one: a page too many costs less than a mapping more. */
#define GAP 2u
/* Shorter runs are copied, which costs less than a mapping; and what was written once is written again. */
#define COPIED 8u
/* So many are mapped, and if there are more only the longer ones: each is two mappings, of which a process may have
 * 65530 (vm.max_map_count). */
#define MAPPED_MAX 4096u
/* Pages that are read at once to be compared. */
#define BATCH 64u

static size_t pages_size(const struct ram *ram)
{
	return (size_t)(ram->size / RAM_PAGE / 8);
}

/* ------------------------------------------------------------------------------------------ saving */

bool overlay_possible(const struct ram *ram, unsigned keep)
{
	return keep ? ram->files[0] >= 0 && keep <= MIN(ram->num_over + 1, OVERLAY_MAX) : ram->files[0] < 0;
}

/* Of those that lie over the first. */
static unsigned kept_overs(unsigned keep)
{
	return keep ? keep - 1 : 0;
}

static bool is_based(const struct ram *ram, unsigned keep, uint64_t chunk)
{
	return keep && ram_bit(ram->num_over ? ram->based : ram->chunks, chunk);
}

/* Which of the files that are kept has a page: an index of ram->files, -1: none, it was zeros. */
static int owner(const struct ram *ram, unsigned keep, uint64_t page)
{
	for (unsigned i = kept_overs(keep); i-- > 0;)
		if (ram_bit(ram->over[i], page))
			return (int)i + 1;
	return is_based(ram, keep, page / PAGES) ? 0 : -1;
}

static bool came_from_rest(const struct ram *ram, unsigned keep, uint64_t page)
{
	for (unsigned i = kept_overs(keep); i < ram->num_over; i++)
		if (ram_bit(ram->over[i], page))
			return true;
	return false;
}

/*
 * A private mapping's page that is there and not the file's is a copy: it was written. Short runs and the working set
 * are copies, too, without having been written (lean). Without a pagemap all pages may have been; to compare them all
 * would do without it, but a look at a page that the guest never had brings it into being, and all have to be read.
 */
static void note_changed(const struct ram *ram, unsigned keep, uint64_t chunk, uint8_t *bits)
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
		    came_from_rest(ram, keep, page))
			ram_set_bit(bits, page);
	}
}

uint8_t *overlay_changed(const struct ram *ram, unsigned keep)
{
	uint8_t *bits = calloc(1, pages_size(ram));

	for (uint64_t chunk = 0; bits && chunk < ram->size / RAM_CHUNK; chunk++)
		note_changed(ram, keep, chunk, bits);
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

struct saving {
	const struct ram *ram;
	const struct overlay_options *o;
	uint8_t *over;	 /* what has been written */
	uint8_t *beside; /* lean: room for what a file has */
	uint64_t bytes;
};

/* Clears the bits of pages that hold what a file holds: page and on of RAM, `num` of them, all that file's. */
static void drop_equal(const struct saving *s, int file, uint64_t page, uint64_t num, uint8_t *bits, uint64_t at)
{
	ssize_t n = pread_full(s->ram->files[file], s->beside, num * RAM_PAGE, (off_t)(page * RAM_PAGE));

	for (uint64_t i = 0; n == (ssize_t)(num * RAM_PAGE) && i < num; i++)
		if (memcmp(s->beside + i * RAM_PAGE, s->ram->host + (page + i) * RAM_PAGE, RAM_PAGE) == 0)
			bits[(at + i) / 8] &= (uint8_t) ~(1U << ((at + i) % 8));
}

/* Neighbours that came from one file at once. */
static void make_lean(const struct saving *s, uint64_t chunk, uint8_t bits[PAGES / 8])
{
	uint64_t first = chunk * PAGES;

	for (uint64_t i = 0, n; i < PAGES; i += n) {
		int file = ram_bit(bits, i) ? owner(s->ram, s->o->keep, first + i) : -1;

		n = 1;
		if (file < 0)
			continue;
		while (n < BATCH && i + n < PAGES && ram_bit(bits, i + n) &&
		       owner(s->ram, s->o->keep, first + i + n) == file)
			n++;
		drop_equal(s, file, first + i, n, bits, i);
	}
}

/* Notes in `over` what it has written. Zeros over nothing need not be. */
static int save_chunk(struct saving *s, const uint8_t *changed, uint64_t chunk, int fd)
{
	uint64_t page = chunk * PAGES, run_end;
	unsigned gap = is_based(s->ram, s->o->keep, chunk) ? GAP : 0;
	uint8_t bits[PAGES / 8] = {0};
	int r = 0;

	for (uint64_t i = 0; i < PAGES; i++)
		if (ram_bit(changed, page + i) &&
		    (owner(s->ram, s->o->keep, page + i) >= 0 || !ram_page_is_zero(s->ram, page + i)))
			ram_set_bit(bits, i);
	if (s->o->lean)
		make_lean(s, chunk, bits);
	for (uint64_t from = 0; r == 0 && (from = next_run(bits, from, PAGES, gap, &run_end)) < PAGES; from = run_end) {
		r = ram_write_pages(s->ram, fd, page + from, page + run_end);
		for (uint64_t i = from; i < run_end; i++)
			ram_set_bit(s->over, page + i);
		s->bytes += (run_end - from) * RAM_PAGE;
	}
	return r;
}

static void put_record(const struct saving *s, const uint8_t *based, struct buf *out)
{
	const struct ram *ram = s->ram;
	unsigned kept = kept_overs(s->o->keep);

	buf_put_u64(out, ram->size);
	buf_put_u32(out, kept + 1);
	buf_put(out, based, ram_bitmap_size(ram));
	for (unsigned i = 0; i < kept; i++)
		buf_put(out, ram->over[i], pages_size(ram));
	buf_put(out, s->over, pages_size(ram));
}

int overlay_save(const struct ram *ram, const uint8_t *changed, const struct overlay_options *o, int fd,
		 struct buf *out, uint64_t *ret_bytes, struct sm_error *err)
{
	_free_ uint8_t *over = calloc(1, pages_size(ram)), *based = calloc(1, ram_bitmap_size(ram));
	_free_ uint8_t *beside = malloc(BATCH * RAM_PAGE);
	struct saving s = {.ram = ram, .o = o, .over = over, .beside = beside};
	int r = 0;

	*ret_bytes = 0;
	if (!over || !based || !beside)
		return error_sys(err, ENOMEM, "memory file");
	if (ftruncate(fd, (off_t)ram->size) < 0)
		return error_sys(err, errno, "memory file");
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++) {
		if (is_based(ram, o->keep, chunk))
			ram_set_bit(based, chunk);
		r = save_chunk(&s, changed, chunk, fd);
	}
	if (r < 0)
		return error_sys(err, -r, "memory file");
	*ret_bytes = s.bytes;
	put_record(&s, based, out);
	return out->error ? error_sys(err, -out->error, "memory file") : 0;
}

/* ----------------------------------------------------------------------------------------- loading */

static int map_base(struct ram *ram)
{
	uint64_t num = ram->size / RAM_CHUNK;
	int r = 0;

	for (uint64_t i = 0, end; i < num && r == 0; i = end + 1) {
		for (end = i; end < num && ram_bit(ram->based, end);)
			end++;
		r = end > i ? ram_map_pages(ram, ram->files[0], i * PAGES, end * PAGES) : 0;
	}
	return r;
}

static int copy_run(struct ram *ram, int fd, uint64_t page, uint64_t end)
{
	ssize_t n = pread_full(fd, ram->host + page * RAM_PAGE, (end - page) * RAM_PAGE, (off_t)(page * RAM_PAGE));

	return n < 0 ? (int)n : n == (ssize_t)((end - page) * RAM_PAGE) ? 0 : -EIO;
}

static bool any(const uint8_t *bitmap, size_t size)
{
	while (size--)
		if (*bitmap++)
			return true;
	return false;
}

/* Which of a chunk's pages one has that no later one has; false: none. */
static bool pages_of(const struct ram *ram, unsigned over, uint64_t chunk, uint8_t ret[PAGES / 8])
{
	size_t at = chunk * (PAGES / 8);

	if (!any(ram->over[over] + at, PAGES / 8))
		return false;
	memcpy(ret, ram->over[over] + at, PAGES / 8);
	for (unsigned i = over + 1; i < ram->num_over; i++)
		for (size_t n = 0; n < PAGES / 8; n++)
			ret[n] &= (uint8_t)~ram->over[i][at + n];
	return any(ret, PAGES / 8);
}

static int lay_runs(struct ram *ram, unsigned over, uint64_t chunk, const uint8_t bits[PAGES / 8], unsigned copied)
{
	uint64_t first = chunk * PAGES, end;
	int fd = ram->files[over + 1], r = 0;

	for (uint64_t from = next_run(bits, 0, PAGES, 0, &end); r == 0 && from < PAGES;
	     from = next_run(bits, end, PAGES, 0, &end))
		r = end - from > copied ? ram_map_pages(ram, fd, first + from, first + end)
					: copy_run(ram, fd, first + from, first + end);
	return r;
}

/* In a chunk of which the first file has nothing, the first that has pages there is one mapping: what it has not is
 * zeros, or a later one's. */
static int lay_over(struct ram *ram, uint64_t chunk, unsigned copied)
{
	bool below = ram_bit(ram->based, chunk);
	uint8_t bits[PAGES / 8];
	int r = 0;

	for (unsigned i = 0; i < ram->num_over && r == 0; i++) {
		if (!pages_of(ram, i, chunk, bits))
			continue;
		ram_set_bit(ram->chunks, chunk);
		r = below ? lay_runs(ram, i, chunk, bits, copied)
			  : ram_map_pages(ram, ram->files[i + 1], chunk * PAGES, (chunk + 1) * PAGES);
		below = true;
	}
	return r;
}

static bool too_many(const struct ram *ram, unsigned copied)
{
	uint8_t bits[PAGES / 8];
	uint64_t runs = 0, end;

	for (unsigned i = 0; i < ram->num_over; i++)
		for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && runs <= MAPPED_MAX; chunk++) {
			if (!pages_of(ram, i, chunk, bits))
				continue;
			for (uint64_t from = next_run(bits, 0, PAGES, 0, &end); from < PAGES;
			     from = next_run(bits, end, PAGES, 0, &end))
				runs += end - from > copied;
		}
	return runs > MAPPED_MAX;
}

/* Runs up to this long are copied. */
static unsigned copied_runs(const struct ram *ram)
{
	unsigned copied = COPIED;

	while (copied < PAGES && too_many(ram, copied))
		copied *= 2;
	return copied;
}

static uint8_t *copy_of(const void *p, size_t size)
{
	uint8_t *copy = malloc(size);

	return copy ? memcpy(copy, p, size) : NULL;
}

static int read_record(struct ram *ram, unsigned overs, struct cursor *in, struct sm_error *err)
{
	const uint8_t *based = cursor_take(in, ram_bitmap_size(ram));

	for (ram->num_over = 0; !in->bad && ram->num_over < overs; ram->num_over++) {
		const uint8_t *over = cursor_take(in, pages_size(ram));

		ram->over[ram->num_over] = over ? copy_of(over, pages_size(ram)) : NULL;
		if (over && !ram->over[ram->num_over])
			return error_sys(err, ENOMEM, "memory file");
	}
	if (in->bad || in->left)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory's record is not as long as it must be");
	ram->based = copy_of(based, ram_bitmap_size(ram));
	ram->chunks = copy_of(based, ram_bitmap_size(ram));
	if (!ram->based || !ram->chunks)
		return error_sys(err, ENOMEM, "memory file");
	return 0;
}

/* The first file may be that of a guest to which nothing was plugged: then it has nothing there. */
static int check_first(const struct ram *ram, int fd, struct sm_error *err)
{
	struct stat st;
	uint64_t size = fstat(fd, &st) == 0 && (uint64_t)st.st_size == ram->boot ? ram->boot : ram->size;

	for (uint64_t chunk = size / RAM_CHUNK; chunk < ram->size / RAM_CHUNK; chunk++)
		if (ram_bit(ram->based, chunk))
			return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory lies over more than there is");
	return ram_check_file(ram, fd, size, err);
}

static int take_files(struct ram *ram, const int *under, unsigned num_under, int fd, struct sm_error *err)
{
	int r = ram_check_file(ram, fd, ram->size, err);

	for (unsigned i = 0; i < num_under && r == 0; i++) {
		ram->files[i] = under[i];
		r = i ? ram_check_file(ram, under[i], ram->size, err) : check_first(ram, under[i], err);
	}
	ram->files[ram->num_over] = fd;
	if (r == 0 && !num_under && any(ram->based, ram_bitmap_size(ram)))
		r = error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory lies over a file that is not there");
	return r;
}

int overlay_load(struct ram *ram, const int *under, unsigned num_under, int fd, struct cursor *in, struct sm_error *err)
{
	uint64_t size = cursor_u64(in);
	unsigned overs = cursor_u32(in), copied;
	int r;

	if (in->bad || size != ram->size)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory's record does not fit %llu MiB",
				 (unsigned long long)(ram->size >> 20));
	if (overs != MAX(num_under, 1u) || overs > OVERLAY_MAX)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the memory is in %u files over another, not in %u",
				 overs, MAX(num_under, 1u));
	r = read_record(ram, overs, in, err);
	r = r < 0 ? r : take_files(ram, under, num_under, fd, err);
	if (r < 0)
		return r;
	copied = copied_runs(ram);
	r = map_base(ram);
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++)
		r = lay_over(ram, chunk, copied);
	madvise(ram->host, ram->size, MADV_DONTDUMP);
	return r < 0 ? error_sys(err, -r, "map the memory file") : 0;
}
