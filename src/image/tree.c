/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of names and inodes. See tree.h. */
#include "image/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/util.h"

#define ARENA_CHUNK (1U << 20)
#define MAX_NODES (64U << 20)
#define MAX_TREE_DEPTH INDEX_MAX_DEPTH

/* Memory that is only freed all at once. */
struct arena {
	struct arena *next;
	size_t used, size;
	uint64_t bytes[];
};

void *tree_keep(struct tree *t, const void *p, size_t len)
{
	size_t room = align_up(len, 8);
	struct arena *a = t->arena;
	void *at;

	if (a)
		a->used = MIN(align_up(a->used, 8), a->size);
	if (!a || a->size - a->used < room) {
		size_t size = MAX(room, (size_t)ARENA_CHUNK); /* both multiples of 8 */

		a = malloc(sizeof(*a) + size);
		if (!a)
			return NULL;
		a->next = t->arena;
		a->used = 0;
		a->size = size;
		t->arena = a;
	}
	at = (uint8_t *)a->bytes + a->used;
	a->used += room;
	if (len)
		memcpy(at, p, len);
	return at;
}

/* Names need no alignment: they are put end to end. */
static const char *keep_name(struct tree *t, const char *name, size_t len)
{
	struct arena *a = t->arena;
	size_t at;

	if (!a || a->size - a->used < len)
		return tree_keep(t, name, len);
	at = a->used;
	memcpy((uint8_t *)a->bytes + at, name, len);
	a->used += len;
	return (const char *)a->bytes + at;
}

static int grow_slots(struct tree *t);

int tree_init(struct tree *t)
{
	uint32_t inode;

	*t = (struct tree){.num_nodes = 2, .num_inodes = 1};
	if (getrandom(&t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
		return -EIO;
	t->xattrs = xattr_pool_new();
	t->cap_nodes = t->cap_inodes = 1024;
	t->nodes = calloc(t->cap_nodes, sizeof(*t->nodes));
	t->inodes = calloc(t->cap_inodes, sizeof(*t->inodes));
	if (!t->xattrs || !t->nodes || !t->inodes || grow_slots(t) < 0 || tree_new_inode(t, &inode) < 0) {
		tree_done(t);
		return -ENOMEM;
	}
	t->inodes[inode].mode = S_IFDIR | 0755;
	t->nodes[TREE_ROOT] = (struct node){.parent = TREE_ROOT, .inode = inode, .name = ""};
	t->live_nodes = 1;
	return 0;
}

void tree_done(struct tree *t)
{
	while (t->arena) {
		struct arena *next = t->arena->next;

		free(t->arena);
		t->arena = next;
	}
	xattr_pool_free(t->xattrs);
	free(t->nodes);
	free(t->inodes);
	free(t->slots);
	*t = (struct tree){0};
}

static uint32_t hash_name(uint64_t seed, uint32_t dir, const char *name, size_t len)
{
	uint64_t h = (seed ^ dir) * 0x9e3779b97f4a7c15ULL;

	for (; len >= 8; name += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, name, 8);
		h = (h ^ v) * 0xff51afd7ed558ccdULL;
		h ^= h >> 32;
	}
	for (; len; name++, len--)
		h = (h ^ (uint8_t)*name) * 0x100000001b3ULL;
	h = (h ^ h >> 29) * 0xc4ceb9fe1a85ec53ULL;
	return (uint32_t)(h >> 32);
}

static bool is_child(const struct node *n, uint32_t dir, const char *name, size_t len)
{
	return n->parent == dir && n->name_len == len && memcmp(n->name, name, len) == 0;
}

uint32_t tree_find(const struct tree *t, uint32_t dir, const char *name, size_t len)
{
	uint32_t mask = t->num_slots - 1, at = hash_name(t->seed, dir, name, len) & mask;

	while (t->slots[at] && !is_child(&t->nodes[t->slots[at]], dir, name, len))
		at = (at + 1) & mask;
	return t->slots[at];
}

static void put_slot(uint32_t *slots, uint32_t mask, const struct tree *t, uint32_t node)
{
	const struct node *n = &t->nodes[node];
	uint32_t at = hash_name(t->seed, n->parent, n->name, n->name_len) & mask;

	while (slots[at])
		at = (at + 1) & mask;
	slots[at] = node;
}

static int grow_slots(struct tree *t)
{
	uint32_t size = t->num_slots ? t->num_slots * 2 : 4096;
	uint32_t *slots;

	if (t->num_slots && t->live_nodes < t->num_slots / 8 * 5)
		return 0;
	slots = calloc(size, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->num_slots; i++)
		if (t->slots[i])
			put_slot(slots, size - 1, t, t->slots[i]);
	free(t->slots);
	t->slots = slots;
	t->num_slots = size;
	return 0;
}

/* Takes a node out of the hash table and moves those after it up, so that no search stops short. */
static void remove_slot(struct tree *t, uint32_t node)
{
	uint32_t mask = t->num_slots - 1, at, next;
	const struct node *n = &t->nodes[node];

	for (at = hash_name(t->seed, n->parent, n->name, n->name_len) & mask; t->slots[at] != node;
	     at = (at + 1) & mask)
		;
	for (next = (at + 1) & mask; t->slots[next]; next = (next + 1) & mask) {
		uint32_t home;

		n = &t->nodes[t->slots[next]];
		home = hash_name(t->seed, n->parent, n->name, n->name_len) & mask;
		/* May it move to `at`? Only if its home is not within (at, next]. */
		if (((next - home) & mask) >= ((next - at) & mask)) {
			t->slots[at] = t->slots[next];
			at = next;
		}
	}
	t->slots[at] = 0;
}

static int grow_array(void *array, uint32_t *cap, uint32_t need, size_t item)
{
	uint32_t n = *cap;
	void *p;

	if (need <= n)
		return 0;
	if (need > MAX_NODES)
		return -EMFILE;
	n += n / 2;
	p = realloc(*(void **)array, n * item);
	if (!p)
		return -ENOMEM;
	*(void **)array = p;
	*cap = n;
	return 0;
}

int tree_new_inode(struct tree *t, uint32_t *ret)
{
	uint32_t i = t->free_inode;

	if (i) {
		t->free_inode = t->inodes[i].nlink;
	} else {
		int r = grow_array(&t->inodes, &t->cap_inodes, t->num_inodes + 1, sizeof(*t->inodes));

		if (r < 0)
			return r;
		i = t->num_inodes++;
	}
	t->inodes[i] = (struct inode){.nlink = 1};
	t->live_inodes++;
	*ret = i;
	return 0;
}

void tree_put_inode(struct tree *t, uint32_t inode)
{
	struct inode *i = &t->inodes[inode];

	if (--i->nlink)
		return;
	i->nlink = t->free_inode;
	t->free_inode = inode;
	t->live_inodes--;
}

static int new_node(struct tree *t, uint32_t *ret)
{
	uint32_t n = t->free_node;
	int r;

	if (n) {
		t->free_node = t->nodes[n].next;
	} else {
		r = grow_array(&t->nodes, &t->cap_nodes, t->num_nodes + 1, sizeof(*t->nodes));
		if (r < 0)
			return r;
		n = t->num_nodes++;
	}
	*ret = n;
	return 0;
}

int tree_add(struct tree *t, uint32_t dir, const char *name, size_t len, uint32_t inode, uint32_t layer, uint32_t *ret)
{
	const char *kept;
	struct node *n;
	uint32_t number;
	int r;

	if (t->nodes[dir].depth >= MAX_TREE_DEPTH)
		return -ELOOP;
	kept = keep_name(t, name, len);
	if (!kept || grow_slots(t) < 0)
		return -ENOMEM;
	r = new_node(t, &number);
	if (r < 0)
		return r;
	n = &t->nodes[number];
	*n = (struct node){.name = kept,
			   .name_len = (uint8_t)len,
			   .parent = dir,
			   .inode = inode,
			   .layer = layer,
			   .depth = (uint16_t)(t->nodes[dir].depth + 1),
			   .next = t->nodes[dir].child};
	if (n->next)
		t->nodes[n->next].prev = number;
	t->nodes[dir].child = number;
	put_slot(t->slots, t->num_slots - 1, t, number);
	t->live_nodes++;
	*ret = number;
	return 0;
}

static void unlink_node(struct tree *t, uint32_t node)
{
	struct node *n = &t->nodes[node];

	remove_slot(t, node);
	if (n->prev)
		t->nodes[n->prev].next = n->next;
	else
		t->nodes[n->parent].child = n->next;
	if (n->next)
		t->nodes[n->next].prev = n->prev;
	tree_put_inode(t, n->inode);
	*n = (struct node){.next = t->free_node};
	t->free_node = node;
	t->live_nodes--;
}

void tree_remove(struct tree *t, uint32_t node)
{
	uint32_t at = node;

	if (!S_ISREG(tree_inode(t, node)->mode))
		t->removals++;
	for (;;) { /* leaves first */
		uint32_t parent;

		while (t->nodes[at].child)
			at = t->nodes[at].child;
		parent = t->nodes[at].parent;
		unlink_node(t, at);
		if (at == node)
			return;
		at = parent;
	}
}

void tree_touch(struct tree *t, uint32_t node, uint32_t layer)
{
	while (t->nodes[node].layer != layer) {
		t->nodes[node].layer = layer;
		node = t->nodes[node].parent;
	}
}
