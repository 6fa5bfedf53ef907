/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interned extended attributes. See xattr.h. On disk (kernel, fs/erofs/erofs_fs.h): after an inode a 12-byte header,
 * the numbers of its shared attributes, then attributes {u8 name length, u8 name space, u16 value length, name, value}
 * padded to 4. A shared one's number is its offset in the shared area in units of 4 bytes.
 */
#include "image/xattr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define HEADER_SIZE 12
#define MAX_SHARED 255
/* What follows an inode is read with it: large attributes are better off elsewhere even if nobody shares them. */
#define MAX_INLINE 1024
#define NO_OFFSET UINT32_MAX

struct item {		   /* one attribute, as it is on disk */
	uint32_t pos, len; /* in pool->bytes */
	uint32_t users;
	uint32_t shared; /* number in the shared area, or NO_OFFSET */
};

struct set {
	uint32_t first, count; /* in pool->members */
	uint32_t users;
	uint32_t inline_size;
};

/* Open addressing over numbers from 1; 0 is a free place. */
struct table {
	uint32_t *slots;
	uint32_t size, used;
};

struct xattr_pool {
	struct buf bytes;
	struct item *items; /* [0] unused */
	uint32_t num_items, cap_items;
	struct set *sets; /* [0] unused: the empty set */
	uint32_t num_sets, cap_sets;
	uint32_t *members; /* item numbers, ascending within a set */
	uint32_t num_members, cap_members;
	struct table item_table, set_table;
	struct buf shared;
};

struct xattr_pool *xattr_pool_new(void)
{
	struct xattr_pool *pool = calloc(1, sizeof(*pool));

	if (pool)
		pool->num_items = pool->num_sets = 1;
	return pool;
}

struct xattr_pool *xattr_pool_free(struct xattr_pool *pool)
{
	if (pool) {
		buf_done(&pool->bytes);
		buf_done(&pool->shared);
		free(pool->items);
		free(pool->sets);
		free(pool->members);
		free(pool->item_table.slots);
		free(pool->set_table.slots);
		free(pool);
	}
	return NULL;
}

static int grow(void *array, uint32_t *cap, uint32_t need, size_t item)
{
	uint32_t n = MAX(*cap, 64U);
	void *p;

	if (need <= *cap)
		return 0;
	while (n < need)
		n *= 2;
	p = realloc(*(void **)array, n * item);
	if (!p)
		return -ENOMEM;
	*(void **)array = p;
	*cap = n;
	return 0;
}

static uint32_t hash_bytes(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < len; i++)
		h = (h ^ b[i]) * 0x100000001b3ULL;
	return (uint32_t)(h ^ h >> 32);
}

static uint32_t hash_of(const struct xattr_pool *pool, const struct table *t, uint32_t number)
{
	if (t == &pool->item_table)
		return hash_bytes(pool->bytes.data + pool->items[number].pos, pool->items[number].len);
	return hash_bytes(pool->members + pool->sets[number].first, pool->sets[number].count * sizeof(uint32_t));
}

static bool same(const struct xattr_pool *pool, const struct table *t, uint32_t number, const void *p, size_t len)
{
	if (t == &pool->item_table)
		return pool->items[number].len == len &&
		       memcmp(pool->bytes.data + pool->items[number].pos, p, len) == 0;
	return pool->sets[number].count * sizeof(uint32_t) == len &&
	       memcmp(pool->members + pool->sets[number].first, p, len) == 0;
}

/* The place of the number whose bytes are these, or of the free slot for them. */
static uint32_t *find(const struct xattr_pool *pool, const struct table *t, const void *p, size_t len)
{
	uint32_t mask = t->size - 1, at = hash_bytes(p, len) & mask;

	while (t->slots[at] && !same(pool, t, t->slots[at], p, len))
		at = (at + 1) & mask;
	return &t->slots[at];
}

/* Makes room for one more, so that a free slot always remains. */
static int table_grow(struct xattr_pool *pool, struct table *t)
{
	uint32_t size = t->size ? t->size * 2 : 256, mask = size - 1;
	uint32_t *slots;

	if (t->used + 1 < t->size / 4 * 3)
		return 0;
	slots = calloc(size, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->size; i++) {
		uint32_t at;

		if (!t->slots[i])
			continue;
		for (at = hash_of(pool, t, t->slots[i]) & mask; slots[at]; at = (at + 1) & mask)
			;
		slots[at] = t->slots[i];
	}
	free(t->slots);
	t->slots = slots;
	t->size = size;
	return 0;
}

/* Splits a name into EROFS's number for its name space and the rest. */
static int name_space(struct tar_bytes *name, uint8_t *ret)
{
	static const struct {
		const char *prefix;
		uint8_t number;
		bool whole;
	} spaces[] = {{"user.", 1, false},
		      {"system.posix_acl_access", 2, true},
		      {"system.posix_acl_default", 3, true},
		      {"trusted.", 4, false},
		      {"security.", 6, false}};

	for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
		size_t n = strlen(spaces[i].prefix);

		if (name->len < n || memcmp(name->p, spaces[i].prefix, n) != 0 || (spaces[i].whole && name->len != n))
			continue;
		name->p += n;
		name->len -= n;
		*ret = spaces[i].number;
		return 0;
	}
	return -EINVAL;
}

static int intern_item(struct xattr_pool *pool, const struct tar_xattr *x, uint32_t *ret)
{
	size_t start = pool->bytes.len, len;
	struct tar_bytes name = x->name;
	uint8_t space;
	uint32_t *slot;

	if (name_space(&name, &space) < 0 || name.len > UINT8_MAX || x->value.len > UINT16_MAX)
		return -EINVAL;
	if (table_grow(pool, &pool->item_table) < 0 ||
	    grow(&pool->items, &pool->cap_items, pool->num_items + 1, sizeof(*pool->items)) < 0)
		return -ENOMEM;
	buf_put_u8(&pool->bytes, (uint8_t)name.len);
	buf_put_u8(&pool->bytes, space);
	buf_put_u16(&pool->bytes, (uint16_t)x->value.len);
	buf_put(&pool->bytes, name.p, name.len);
	buf_put(&pool->bytes, x->value.p, x->value.len);
	buf_put_zero(&pool->bytes, -(pool->bytes.len - start) & 3);
	if (pool->bytes.error || pool->bytes.len > UINT32_MAX)
		return -ENOMEM;
	len = pool->bytes.len - start;
	slot = find(pool, &pool->item_table, pool->bytes.data + start, len);
	if (*slot) {
		pool->bytes.len = start;
	} else {
		pool->items[pool->num_items] =
			(struct item){.pos = (uint32_t)start, .len = (uint32_t)len, .shared = NO_OFFSET};
		*slot = pool->num_items++;
		pool->item_table.used++;
	}
	*ret = *slot;
	return 0;
}

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int xattr_intern(struct xattr_pool *pool, const struct tar_xattr *v, size_t n, uint32_t *ret_set)
{
	uint32_t *members, *slot;

	if (!n) {
		*ret_set = 0;
		return 0;
	}
	if (n > UINT32_MAX / 8 - pool->num_members ||
	    grow(&pool->members, &pool->cap_members, pool->num_members + (uint32_t)n, sizeof(*pool->members)) < 0 ||
	    grow(&pool->sets, &pool->cap_sets, pool->num_sets + 1, sizeof(*pool->sets)) < 0 ||
	    table_grow(pool, &pool->set_table) < 0)
		return -ENOMEM;
	members = pool->members + pool->num_members;
	for (size_t i = 0; i < n; i++) {
		int r = intern_item(pool, &v[i], &members[i]);

		if (r < 0)
			return r;
	}
	qsort(members, n, sizeof(*members), compare_numbers);
	slot = find(pool, &pool->set_table, members, n * sizeof(*members));
	if (!*slot) {
		pool->sets[pool->num_sets] = (struct set){.first = pool->num_members, .count = (uint32_t)n};
		pool->num_members += (uint32_t)n;
		*slot = pool->num_sets++;
		pool->set_table.used++;
	}
	*ret_set = *slot;
	return 0;
}

void xattr_count_use(struct xattr_pool *pool, uint32_t set)
{
	if (set)
		pool->sets[set].users++;
}

int xattr_layout(struct xattr_pool *pool, const struct buf **ret_shared)
{
	for (uint32_t s = 1; s < pool->num_sets; s++)
		for (uint32_t i = 0; i < pool->sets[s].count; i++)
			pool->items[pool->members[pool->sets[s].first + i]].users += pool->sets[s].users;
	for (uint32_t i = 1; i < pool->num_items; i++) {
		struct item *item = &pool->items[i];

		if (item->users < 2 && !(item->users && item->len > MAX_INLINE))
			continue;
		item->shared = (uint32_t)(pool->shared.len / 4);
		buf_put(&pool->shared, pool->bytes.data + item->pos, item->len);
	}
	for (uint32_t s = 1; s < pool->num_sets; s++) {
		struct set *set = &pool->sets[s];
		uint32_t shared = 0;

		set->inline_size = HEADER_SIZE;
		for (uint32_t i = 0; i < set->count; i++) {
			const struct item *item = &pool->items[pool->members[set->first + i]];

			if (item->shared != NO_OFFSET && shared < MAX_SHARED) {
				set->inline_size += 4;
				shared++;
			} else {
				set->inline_size += item->len;
			}
		}
	}
	*ret_shared = &pool->shared;
	return pool->shared.error;
}

size_t xattr_inline_size(const struct xattr_pool *pool, uint32_t set)
{
	return set ? pool->sets[set].inline_size : 0;
}

int xattr_put(const struct xattr_pool *pool, uint32_t number, struct buf *out)
{
	const struct set *set;
	uint32_t shared = 0;

	if (!number)
		return 0;
	set = &pool->sets[number];
	for (uint32_t i = 0; i < set->count && shared < MAX_SHARED; i++)
		shared += pool->items[pool->members[set->first + i]].shared != NO_OFFSET;
	buf_put_u32(out, 0);
	buf_put_u8(out, (uint8_t)shared);
	buf_put_zero(out, 7);
	shared = 0;
	for (uint32_t i = 0; i < set->count && shared < MAX_SHARED; i++) {
		const struct item *item = &pool->items[pool->members[set->first + i]];

		if (item->shared != NO_OFFSET) {
			buf_put_u32(out, item->shared);
			shared++;
		}
	}
	shared = 0;
	for (uint32_t i = 0; i < set->count; i++) {
		const struct item *item = &pool->items[pool->members[set->first + i]];

		if (item->shared != NO_OFFSET && shared < MAX_SHARED)
			shared++;
		else
			buf_put(out, pool->bytes.data + item->pos, item->len);
	}
	return out->error;
}
