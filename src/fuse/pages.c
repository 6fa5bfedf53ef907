/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse file contents in memory. See pages.h. */
#include "fuse/pages.h"

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

static struct pages_leaf *get_leaf(struct pages *p, uint64_t index, bool create)
{
	if (index >= p->num_leaves) {
		uint64_t more = MAX(index + 1, p->num_leaves + p->num_leaves / 2);
		struct pages_leaf **bigger;

		if (!create)
			return NULL;
		bigger = realloc(p->leaves, more * sizeof(*bigger));
		if (!bigger)
			return NULL;
		memset(bigger + p->num_leaves, 0, (more - p->num_leaves) * sizeof(*bigger));
		p->leaves = bigger;
		p->num_leaves = more;
	}
	if (!p->leaves[index] && create)
		p->leaves[index] = calloc(1, sizeof(struct pages_leaf));
	return p->leaves[index];
}

uint8_t *pages_get(struct pages *p, uint64_t offset, bool create)
{
	struct pages_leaf *leaf = get_leaf(p, offset / LEAF_BYTES, create);
	uint8_t **slot;

	if (!leaf)
		return NULL;
	slot = &leaf->page[offset % LEAF_BYTES / PAGES_SIZE];
	if (!*slot && create) {
		*slot = calloc(1, PAGES_SIZE);
		if (*slot)
			p->present++;
	}
	return *slot;
}

static void drop_page(struct pages *p, uint64_t offset)
{
	struct pages_leaf *leaf = get_leaf(p, offset / LEAF_BYTES, false);
	uint8_t **slot = leaf ? &leaf->page[offset % LEAF_BYTES / PAGES_SIZE] : NULL;

	if (!slot || !*slot)
		return;
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
			uint8_t *bytes = pages_get(p, page, false);

			if (bytes)
				memset(bytes + (from - page), 0, end - from);
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
