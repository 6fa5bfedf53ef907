/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse file contents in memory. See pages.h. */
#include "fuse/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define LEAF_BYTES (512ULL * PAGES_SIZE)

void pages_done(struct pages *p)
{
	pages_punch(p, 0, p->num_leaves * LEAF_BYTES);
	for (uint64_t i = 0; i < p->num_leaves; i++)
		free(p->leaves[i]);
	free(p->leaves);
	*p = (struct pages){0};
}

/* What every reserved page shows. Never written. */
static const uint8_t zeros[PAGES_SIZE];
#define RESERVED ((uint8_t *)(uintptr_t)zeros)

static uint8_t **find_slot(const struct pages *p, uint64_t offset)
{
	uint64_t leaf = offset / LEAF_BYTES;

	if (leaf >= p->num_leaves || !p->leaves[leaf])
		return NULL;
	return &p->leaves[leaf]->page[offset % LEAF_BYTES / PAGES_SIZE];
}

static struct pages_leaf *make_leaf(struct pages *p, uint64_t index)
{
	if (index >= p->num_leaves) {
		uint64_t more = MAX(index + 1, p->num_leaves + p->num_leaves / 2);
		struct pages_leaf **bigger = realloc(p->leaves, more * sizeof(*bigger));

		if (!bigger)
			return NULL;
		memset(bigger + p->num_leaves, 0, (more - p->num_leaves) * sizeof(*bigger));
		p->leaves = bigger;
		p->num_leaves = more;
	}
	if (!p->leaves[index])
		p->leaves[index] = calloc(1, sizeof(struct pages_leaf));
	return p->leaves[index];
}

const uint8_t *pages_look(const struct pages *p, uint64_t offset)
{
	uint8_t **slot = find_slot(p, offset);

	return slot ? *slot : NULL;
}

uint8_t *pages_make(struct pages *p, uint64_t offset)
{
	struct pages_leaf *leaf = make_leaf(p, offset / LEAF_BYTES);
	uint8_t **slot, *page;

	if (!leaf)
		return NULL;
	slot = &leaf->page[offset % LEAF_BYTES / PAGES_SIZE];
	if (*slot && *slot != RESERVED)
		return *slot;
	page = calloc(1, PAGES_SIZE);
	if (!page)
		return NULL;
	p->present += !*slot;
	*slot = page;
	return page;
}

uint64_t pages_count_holes(const struct pages *p, uint64_t from, uint64_t to)
{
	uint64_t n = 0;

	for (uint64_t at = from & ~(uint64_t)(PAGES_SIZE - 1); at < to;) {
		uint64_t leaf_end = (at / LEAF_BYTES + 1) * LEAF_BYTES;

		if (!find_slot(p, at)) {
			uint64_t end = MIN(leaf_end, align_up(to, PAGES_SIZE));

			n += (end - at) / PAGES_SIZE;
			at = end;
			continue;
		}
		n += !pages_look(p, at);
		at += PAGES_SIZE;
	}
	return n;
}

int pages_reserve(struct pages *p, uint64_t from, uint64_t to)
{
	for (uint64_t at = from & ~(uint64_t)(PAGES_SIZE - 1); at < to; at += PAGES_SIZE) {
		struct pages_leaf *leaf = make_leaf(p, at / LEAF_BYTES);
		uint8_t **slot = leaf ? &leaf->page[at % LEAF_BYTES / PAGES_SIZE] : NULL;

		if (!slot)
			return -ENOMEM;
		p->present += !*slot;
		if (!*slot)
			*slot = RESERVED;
	}
	return 0;
}

static void drop_page(struct pages *p, uint64_t offset)
{
	uint8_t **slot = find_slot(p, offset);

	if (!slot || !*slot)
		return;
	if (*slot != RESERVED)
		free(*slot);
	*slot = NULL;
	p->present--;
}

void pages_punch(struct pages *p, uint64_t from, uint64_t to)
{
	to = MIN(to, p->num_leaves * LEAF_BYTES);
	while (from < to) {
		uint64_t page = from & ~(uint64_t)(PAGES_SIZE - 1), end = MIN(page + PAGES_SIZE, to);

		if (!p->leaves[from / LEAF_BYTES]) { /* nothing for 2 MiB */
			from = (from / LEAF_BYTES + 1) * LEAF_BYTES;
			continue;
		}
		if (from == page && end == page + PAGES_SIZE) {
			drop_page(p, page);
		} else {
			uint8_t **slot = find_slot(p, page);

			if (*slot && *slot != RESERVED)
				memset(*slot + (from - page), 0, end - from);
		}
		from = end;
	}
}

uint64_t pages_seek(const struct pages *p, uint64_t from, uint64_t size, bool data)
{
	while (from < size) {
		uint64_t leaf = from / LEAF_BYTES;

		if (leaf >= p->num_leaves || !p->leaves[leaf]) {
			if (!data)
				return from;
			if (leaf >= p->num_leaves)
				return size;
			from = (leaf + 1) * LEAF_BYTES;
			continue;
		}
		if (!!p->leaves[leaf]->page[from % LEAF_BYTES / PAGES_SIZE] == data)
			return from;
		from = (from / PAGES_SIZE + 1) * PAGES_SIZE;
	}
	return size;
}
