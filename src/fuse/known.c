/* SPDX-License-Identifier: Apache-2.0 */
/* Names and attributes that the peer may have cached. See known.h. */
#include "fuse/known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define BUCKETS (1u << 14)
#define GOLDEN 0x9e3779b97f4a7c15ULL

int known_init(struct known *k, size_t max_names)
{
	*k = (struct known){.max_names = max_names};
	k->nodes = calloc(BUCKETS, sizeof(struct known_node *));
	k->names = calloc(BUCKETS, sizeof(struct known_name *));
	k->by_wd = calloc(BUCKETS, sizeof(struct known_node *));
	if (k->nodes && k->names && k->by_wd)
		return 0;
	known_done(k);
	return -ENOMEM;
}

void known_done(struct known *k)
{
	for (size_t i = 0; k->names && i < BUCKETS; i++)
		for (struct known_name *n = k->names[i], *next; n; n = next) {
			next = n->next;
			free(n);
		}
	for (size_t i = 0; k->nodes && i < BUCKETS; i++)
		for (struct known_node *node = k->nodes[i], *next; node; node = next) {
			next = node->next;
			free(node);
		}
	free(k->nodes);
	free(k->names);
	free(k->by_wd);
	*k = (struct known){0};
}

/* ------------------------------------------------------------------------------------------------ nodes */

static struct known_node **node_bucket(const struct known *k, uint64_t id)
{
	return &k->nodes[(id * GOLDEN >> 32) % BUCKETS];
}

struct known_node *known_find(const struct known *k, uint64_t id)
{
	struct known_node *node = *node_bucket(k, id);

	while (node && node->id != id)
		node = node->next;
	return node;
}

struct known_node *known_next(const struct known *k, const struct known_node *after)
{
	size_t i = 0;

	if (after && after->next)
		return after->next;
	if (after)
		i = (size_t)(node_bucket(k, after->id) - k->nodes) + 1;
	while (i < BUCKETS && !k->nodes[i])
		i++;
	return i < BUCKETS ? k->nodes[i] : NULL;
}

struct known_node *known_enter(struct known *k, uint64_t id)
{
	struct known_node *node = known_find(k, id), **bucket = node_bucket(k, id);

	if (node)
		return node;
	node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->id = id;
	node->wd = -1;
	node->next = *bucket;
	*bucket = node;
	k->num_nodes++;
	return node;
}

static struct known_node **wd_bucket(const struct known *k, int wd)
{
	return &k->by_wd[(unsigned)wd % BUCKETS]; /* the kernel counts them up */
}

struct known_node *known_find_wd(const struct known *k, int wd)
{
	struct known_node *node = *wd_bucket(k, wd);

	while (node && node->wd != wd)
		node = node->wd_next;
	return node;
}

void known_set_watch(struct known *k, struct known_node *node, int wd)
{
	struct known_node **at;

	if (node->wd >= 0) {
		for (at = wd_bucket(k, node->wd); *at != node;)
			at = &(*at)->wd_next;
		*at = node->wd_next;
		k->num_watches--;
	}
	node->wd = wd;
	node->pending = false;
	if (wd >= 0) {
		at = wd_bucket(k, wd);
		node->wd_next = *at;
		*at = node;
		k->num_watches++;
	}
}

void known_drop(struct known *k, struct known_node *node)
{
	struct known_node **at = node_bucket(k, node->id);

	while (node->names)
		known_name_remove(k, node->names);
	while (node->children)
		known_name_remove(k, node->children);
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	known_set_watch(k, node, -1);
	k->num_nodes--;
	free(node);
}

/* ------------------------------------------------------------------------------------------------ names */

uint64_t known_hash(uint64_t parent, const char *name)
{
	uint64_t h = parent * GOLDEN;

	for (const char *p = name; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3ULL; /* FNV-1a */
	return h * GOLDEN;
}

static struct known_name **name_bucket(const struct known *k, const struct known_node *parent, const char *name)
{
	return &k->names[(known_hash(parent->id, name) >> 32) % BUCKETS];
}

struct known_name *known_name_find(const struct known *k, const struct known_node *parent, const char *name)
{
	struct known_name *n = *name_bucket(k, parent, name);

	while (n && (n->parent != parent || !streq(n->name, name)))
		n = n->next;
	return n;
}

static void unlink_node(struct known_name *n)
{
	if (!n->node)
		return;
	*n->node_prev = n->node_next;
	if (n->node_next)
		n->node_next->node_prev = n->node_prev;
	n->node = NULL;
}

static void link_node(struct known_name *n, struct known_node *node)
{
	n->node = node;
	if (!node)
		return;
	n->node_next = node->names;
	if (n->node_next)
		n->node_next->node_prev = &n->node_next;
	node->names = n;
	n->node_prev = &node->names;
}

bool known_name_set(struct known *k, struct known_node *parent, const char *name, struct known_node *node)
{
	struct known_name *n = known_name_find(k, parent, name), **bucket;

	if (n) {
		if (n->node != node) {
			unlink_node(n);
			link_node(n, node);
		}
		return true;
	}
	if (k->num_names >= k->max_names)
		return false;
	n = malloc(sizeof(*n) + strlen(name) + 1);
	if (!n)
		return false;
	*n = (struct known_name){.parent = parent};
	strcpy(n->name, name);
	bucket = name_bucket(k, parent, name);
	n->next = *bucket;
	*bucket = n;
	n->dir_next = parent->children;
	if (n->dir_next)
		n->dir_next->dir_prev = &n->dir_next;
	parent->children = n;
	n->dir_prev = &parent->children;
	link_node(n, node);
	k->num_names++;
	return true;
}

void known_name_remove(struct known *k, struct known_name *n)
{
	struct known_name **at = name_bucket(k, n->parent, n->name);

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	*n->dir_prev = n->dir_next;
	if (n->dir_next)
		n->dir_next->dir_prev = n->dir_prev;
	unlink_node(n);
	free(n);
	k->num_names--;
}
