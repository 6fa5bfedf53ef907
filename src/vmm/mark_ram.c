/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory at a mark. See mark.h. A page is the guest's own if it is there and no file's (the pagemap says so). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "vmm/mark.h"
#include "vmm/ram.h"

#define PAGE RAM_PAGE
#define PAGES RAM_CHUNK_PAGES

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
		memcpy(back ? own : copy, back ? copy : own, PAGE);
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

/* Gives up what the guest has written since, neighbours at once. */
static int drop_chunk(const struct ram *ram, uint64_t chunk, const struct ram_mark *m)
{
	uint64_t map[PAGES];
	int r = ram_pagemap(ram, chunk, map);

	for (uint64_t i = 0, n; r == 0 && i < PAGES; i += n + 1) {
		uint64_t first = chunk * PAGES + i;

		for (n = 0; i + n < PAGES && is_own(map[i + n]) && !ram_bit(m->kept, first + n);)
			n++;
		if (n && madvise(ram->host + first * PAGE, n * PAGE, MADV_DONTNEED) < 0)
			r = -errno;
	}
	return r;
}

int ram_mark_rewind(const struct ram *ram, const struct ram_mark *m)
{
	int r = 0;

	for (uint64_t chunk = 0; chunk < ram->size / RAM_CHUNK && r == 0; chunk++)
		r = drop_chunk(ram, chunk, m);
	if (r < 0)
		return r;
	copy_kept(ram, m, true);
	return 0;
}

void ram_mark_done(struct ram_mark *m)
{
	free(m->kept);
	free(m->pages);
	*m = (struct ram_mark){0};
}
