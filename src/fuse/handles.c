/* SPDX-License-Identifier: Apache-2.0 */
/* The handle table. See handles.h. A handle is generation << 32 | slot; a slot's generation grows each time it is
 * freed. */
#include "fuse/handles.h"

#include <errno.h>
#include <stdlib.h>

#define NO_SLOT UINT32_MAX

int handles_init(struct fuse_handles *h, uint32_t max)
{
	*h = (struct fuse_handles){.free_head = NO_SLOT, .max = max};
	return -pthread_rwlock_init(&h->lock, NULL);
}

void handles_done(struct fuse_handles *h)
{
	free(h->slots);
	h->slots = NULL;
	pthread_rwlock_destroy(&h->lock);
}

/* Doubles the table and chains the new slots into the free list. */
static int grow_locked(struct fuse_handles *h)
{
	uint32_t bigger = h->count ? h->count * 2 : 64;
	struct fuse_handle *slots;

	if (bigger > h->max)
		bigger = h->max;
	if (bigger <= h->count)
		return -EMFILE;
	slots = realloc(h->slots, bigger * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	h->slots = slots;
	for (uint32_t i = bigger; i-- > h->count;) {
		slots[i] = (struct fuse_handle){.generation = 1, .next_free = h->free_head};
		h->free_head = i;
	}
	h->count = bigger;
	return 0;
}

uint32_t handles_used(struct fuse_handles *h)
{
	uint32_t n;

	pthread_rwlock_rdlock(&h->lock);
	n = h->used;
	pthread_rwlock_unlock(&h->lock);
	return n;
}

int handles_add(struct fuse_handles *h, uint64_t nodeid, uint64_t fh, bool is_dir, uint64_t *ret)
{
	struct fuse_handle *slot;
	int r = 0;

	pthread_rwlock_wrlock(&h->lock);
	if (h->free_head == NO_SLOT)
		r = grow_locked(h);
	if (r == 0) {
		uint32_t i = h->free_head;

		slot = &h->slots[i];
		h->free_head = slot->next_free;
		slot->nodeid = nodeid;
		slot->fh = fh;
		slot->is_dir = is_dir;
		slot->used = true;
		h->used++;
		*ret = (uint64_t)slot->generation << 32 | i;
	}
	pthread_rwlock_unlock(&h->lock);
	return r;
}

static struct fuse_handle *find_locked(struct fuse_handles *h, uint64_t handle, uint64_t nodeid, bool is_dir)
{
	uint32_t i = (uint32_t)handle;
	struct fuse_handle *slot;

	if (i >= h->count)
		return NULL;
	slot = &h->slots[i];
	if (!slot->used || slot->generation != handle >> 32 || slot->nodeid != nodeid || slot->is_dir != is_dir)
		return NULL;
	return slot;
}

int handles_get(struct fuse_handles *h, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh)
{
	struct fuse_handle *slot;

	pthread_rwlock_rdlock(&h->lock);
	slot = find_locked(h, handle, nodeid, is_dir);
	if (slot) {
		*ret_fh = slot->fh;
		__atomic_fetch_add(&slot->users, 1, __ATOMIC_ACQUIRE);
	}
	pthread_rwlock_unlock(&h->lock);
	return slot ? 0 : -EBADF;
}

void handles_put(struct fuse_handles *h, uint64_t handle)
{
	pthread_rwlock_rdlock(&h->lock); /* the table may move */
	__atomic_fetch_sub(&h->slots[(uint32_t)handle].users, 1, __ATOMIC_RELEASE);
	pthread_rwlock_unlock(&h->lock);
}

int handles_remove(struct fuse_handles *h, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh)
{
	struct fuse_handle *slot;
	int r = -EBADF;

	pthread_rwlock_wrlock(&h->lock);
	slot = find_locked(h, handle, nodeid, is_dir);
	if (slot)
		r = __atomic_load_n(&slot->users, __ATOMIC_ACQUIRE) ? -EBUSY : 0;
	if (r == 0) {
		*ret_fh = slot->fh;
		slot->used = false;
		slot->generation++;
		slot->next_free = h->free_head;
		h->free_head = (uint32_t)handle;
		h->used--;
	}
	pthread_rwlock_unlock(&h->lock);
	return r;
}

int handles_restore(struct fuse_handles *h, uint32_t slot, const struct fuse_handle *as)
{
	int r = 0;

	pthread_rwlock_wrlock(&h->lock);
	while (slot >= h->count && r == 0)
		r = grow_locked(h);
	if (r == 0 && (h->slots[slot].used || !as->generation))
		r = -EPROTO;
	if (r == 0) {
		h->slots[slot] = (struct fuse_handle){.nodeid = as->nodeid,
						      .fh = as->fh,
						      .generation = as->generation,
						      .used = true,
						      .is_dir = as->is_dir};
		h->used++;
	}
	pthread_rwlock_unlock(&h->lock);
	return r;
}

/* The list of what is free, anew. */
void handles_restored(struct fuse_handles *h)
{
	pthread_rwlock_wrlock(&h->lock);
	h->free_head = NO_SLOT;
	for (uint32_t i = h->count; i-- > 0;) {
		if (h->slots[i].used)
			continue;
		h->slots[i].next_free = h->free_head;
		h->free_head = i;
	}
	pthread_rwlock_unlock(&h->lock);
}
