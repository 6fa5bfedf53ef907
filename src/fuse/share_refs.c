/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table of the nodes that a client holds. See share_refs.h. */
#include "fuse/share_refs.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"

#define FIRST_BUCKETS 64u /* a power of two */

static size_t bucket_of(uint64_t nodeid, size_t num_buckets)
{
	return (nodeid * 0x9e3779b97f4a7c15ULL) >> 32 & (num_buckets - 1);
}

int share_refs_init(struct share_refs *r, size_t max)
{
	*r = (struct share_refs){.num_buckets = FIRST_BUCKETS, .max = max};
	r->buckets = calloc(r->num_buckets, sizeof(struct share_ref *));
	return r->buckets ? 0 : -ENOMEM;
}

void share_refs_done(struct share_refs *r)
{
	uint64_t nodeid, count;

	while (share_refs_pop(r, &nodeid, &count))
		;
	free(r->buckets);
	*r = (struct share_refs){0};
}

static struct share_ref **find_slot(const struct share_refs *r, uint64_t nodeid)
{
	struct share_ref **slot = &r->buckets[bucket_of(nodeid, r->num_buckets)];

	while (*slot && (*slot)->nodeid != nodeid)
		slot = &(*slot)->next;
	return slot;
}

struct share_ref *share_refs_find(const struct share_refs *r, uint64_t nodeid)
{
	return *find_slot(r, nodeid);
}

/* Without memory the chains just get longer. */
static void grow(struct share_refs *r)
{
	size_t more = r->num_buckets * 2;
	struct share_ref **bigger = calloc(more, sizeof(struct share_ref *));

	if (!bigger)
		return;
	for (size_t i = 0; i < r->num_buckets; i++) {
		for (struct share_ref *ref = r->buckets[i], *next; ref; ref = next) {
			struct share_ref **to = &bigger[bucket_of(ref->nodeid, more)];

			next = ref->next;
			ref->next = *to;
			*to = ref;
		}
	}
	free(r->buckets);
	r->buckets = bigger;
	r->num_buckets = more;
}

int share_refs_add(struct share_refs *r, uint64_t nodeid)
{
	struct share_ref **slot = find_slot(r, nodeid);

	if (!*slot) {
		struct share_ref *ref;

		if (r->count >= r->max)
			return -ENFILE;
		ref = calloc(1, sizeof(*ref));
		if (!ref)
			return -ENOMEM;
		ref->nodeid = nodeid;
		ref->count = 1;
		*slot = ref;
		if (++r->count > r->num_buckets)
			grow(r);
		return 0;
	}
	(*slot)->count++;
	return 0;
}

uint64_t share_refs_drop(struct share_refs *r, uint64_t nodeid, uint64_t count)
{
	struct share_ref **slot = find_slot(r, nodeid), *ref = *slot;

	if (!ref)
		return 0;
	count = MIN(count, ref->count);
	ref->count -= count;
	if (!ref->count) {
		*slot = ref->next;
		free(ref);
		r->count--;
	}
	return count;
}

bool share_refs_pop(struct share_refs *r, uint64_t *ret_nodeid, uint64_t *ret_count)
{
	for (; r->num_buckets; r->num_buckets--) {
		struct share_ref *ref = r->buckets[r->num_buckets - 1];

		if (!ref)
			continue;
		r->buckets[r->num_buckets - 1] = ref->next;
		*ret_nodeid = ref->nodeid;
		*ret_count = ref->count;
		free(ref);
		r->count--;
		return true;
	}
	return false;
}

void share_ref_show(struct share_ref *ref, const struct stat *st)
{
	ref->shown = true;
	ref->size = st->st_size;
	ref->mtime = st->st_mtim;
	ref->ctime = st->st_ctim;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool share_ref_is(const struct share_ref *ref, const struct stat *st)
{
	return ref->shown && ref->size == st->st_size && same_time(&ref->mtime, &st->st_mtim) &&
	       same_time(&ref->ctime, &st->st_ctim);
}
