/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory at a mark. See mark.h. A page is the guest's own if it is there and no file's (the pagemap says so). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/mark.h"
#include "vmm/ram.h"

#define PAGE RAM_PAGE
#define PAGES RAM_CHUNK_PAGES
#define IN_PLACE_MAX 2048u /* pages */

static bool is_own(uint64_t entry)
{
	return (entry & RAM_PAGE_TOUCHED) && !(entry & RAM_PAGE_FILE);
}

/* Where there is no file beneath it a page of zeros is one that can be given up. */
static bool is_kept(const struct ram *ram, uint64_t chunk, uint64_t page, uint64_t entry)
{
	return is_own(entry) && (ram_from_file(ram, chunk) || !ram_page_is_zero(ram, page));
}

static int note_chunk(const struct ram *ram, uint64_t chunk, struct ram_mark *m)
{
	uint64_t map[PAGES];
	int r = ram_pagemap(ram, chunk, map);

	for (uint64_t i = 0; r == 0 && i < PAGES; i++) {
		uint64_t page = chunk * PAGES + i;

		if (!is_kept(ram, chunk, page, map[i]))
			continue;
		ram_set_bit(m->kept, page);
		m->num++;
	}
	return r < 0 ? r : m->num > MARK_PAGES_MAX ? -E2BIG : 0;
}

/* Most of a page is what it was, and is left alone; a `rep movs` of all of it would also take an emulated CPU four
 * times as long. */
static void copy_page(void *to, const void *from)
{
	const uint64_t *f = from;
	uint64_t *t = to;

	for (size_t i = 0; i < PAGE / sizeof(*t); i += 4) {
		if (!((t[i] ^ f[i]) | (t[i + 1] ^ f[i + 1]) | (t[i + 2] ^ f[i + 2]) | (t[i + 3] ^ f[i + 3])))
			continue;
		for (size_t k = i; k < i + 4; k++)
			t[k] = f[k];
	}
}

/* The kept pages out of RAM, or back into it. */
static void copy_kept(const struct ram *ram, const struct ram_mark *m, bool back)
{
	uint8_t *copy = m->pages;

	for (uint64_t page = 0; page < ram->size / PAGE; page++) {
		uint8_t *own = ram->host + page * PAGE;

		if (!m->kept[page / 8])
			page |= 7; /* nor any of its neighbours */
		if (!ram_bit(m->kept, page))
			continue;
		copy_page(back ? own : copy, back ? copy : own);
		copy += PAGE;
	}
}

int ram_mark_take(const struct ram *ram, struct ram_mark *ret)
{
	int r = 0;

	*ret = (struct ram_mark){.kept = calloc(1, ram->size / PAGE / 8)};
	if (!ret->kept)
		return -ENOMEM;
	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++)
		r = note_chunk(ram, chunk, ret);
	if (r < 0)
		return r;
	ret->pages = malloc(MAX(ret->num, 1ull) * PAGE);
	if (!ret->pages)
		return -ENOMEM;
	copy_kept(ram, ret, false);
	return 0;
}

/* What the guest has written since: a bit a page, and how many. */
struct later {
	uint8_t *pages;
	uint64_t num;
};

/* There is nothing in such a chunk that would have to stay. */
static bool is_bare(const struct ram *ram, const struct ram_mark *m, uint64_t chunk)
{
	const uint8_t *kept = m->kept + chunk * (PAGES / 8);

	return !ram_from_file(ram, chunk) && !kept[0] && memcmp(kept, kept + 1, PAGES / 8 - 1) == 0;
}

static int note_later(const struct ram *ram, const struct ram_mark *m, uint64_t chunk, struct later *l)
{
	uint64_t map[PAGES];
	int r = ram_pagemap(ram, chunk, map);

	for (uint64_t i = 0; r == 0 && i < PAGES; i++) {
		uint64_t page = chunk * PAGES + i;

		if (!is_own(map[i]) || ram_bit(m->kept, page))
			continue;
		ram_set_bit(l->pages, page);
		l->num++;
	}
	return r;
}

static int give_up(const struct ram *ram, uint64_t page, uint64_t num)
{
	return madvise(ram->host + page * PAGE, num * PAGE, MADV_DONTNEED) < 0 ? -errno : 0;
}

/* Looks at all chunks but the bare ones, which are given up without a look, neighbours at once. */
static int look(const struct ram *ram, const struct ram_mark *m, struct later *l)
{
	uint64_t chunks = ram->size / RAM_CHUNK;
	int r = 0;

	for (uint64_t i = 0, n; i < chunks && r == 0; i += n + 1) {
		for (n = 0; i + n < chunks && is_bare(ram, m, i + n);)
			n++;
		if (n)
			r = give_up(ram, i * PAGES, n * PAGES);
		if (r == 0 && i + n < chunks)
			r = note_later(ram, m, i + n, l);
	}
	return r;
}

/*
 * A few pages get the file's content where they are: the next lease is going to write most of them again, and then need
 * not have them mapped and copied once more. Many are given up, as are those that no single file is beneath.
 */
static int undo_run(const struct ram *ram, uint64_t page, uint64_t num, bool in_place)
{
	ssize_t n;

	if (!in_place || !ram_from_file(ram, page / PAGES))
		return give_up(ram, page, num);
	n = pread_full(ram->files[0], ram->host + page * PAGE, num * PAGE, (off_t)(page * PAGE));
	return n < 0 ? (int)n : n == (ssize_t)(num * PAGE) ? 0 : -EIO;
}

/* A run ends with its chunk: what is beneath it may be another. */
static int undo(const struct ram *ram, const struct later *l)
{
	bool in_place = l->num <= IN_PLACE_MAX && !ram->num_over && ram->files[0] >= 0;
	uint64_t page = 0, n;
	int r = 0;

	while (page < ram->size / PAGE && r == 0) {
		for (n = 0; (page + n) / PAGES == page / PAGES && ram_bit(l->pages, page + n);)
			n++;
		if (n)
			r = undo_run(ram, page, n, in_place);
		page = n ? page + n : l->pages[page / 8] ? page + 1 : (page | 7) + 1;
	}
	return r;
}

int ram_mark_rewind(const struct ram *ram, const struct ram_mark *m)
{
	struct later l = {.pages = calloc(1, ram->size / PAGE / 8)};
	int r = l.pages ? look(ram, m, &l) : -ENOMEM;

	r = r < 0 ? r : undo(ram, &l);
	free(l.pages);
	if (r == 0)
		copy_kept(ram, m, true);
	return r;
}

void ram_mark_done(struct ram_mark *m)
{
	free(m->kept);
	free(m->pages);
	*m = (struct ram_mark){0};
}
