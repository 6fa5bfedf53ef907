/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon (virtio 1.2 section 5.5): inflate and deflate towards a target, statistics, and free page reporting.
 *
 * Released memory reads as zeros, or (RAM mapped from a snapshot's file) as what the file holds: both are fine for
 * pages that the guest has declared free. PAGE_POISON is not offered, so the guest may not count on any content.
 */
#ifndef VIRTIO_BALLOON_H
#define VIRTIO_BALLOON_H

#include "virtio/device.h"

struct virtio_balloon_options {
	const char *name; /* kept, not copied */
	/*
	 * Gives the host back [host, host + len) of guest RAM, page-aligned, whole inside one region. NULL:
	 * madvise(MADV_DONTNEED). Never called for windows.
	 */
	void (*release)(void *arg, void *host, size_t len);
	void *arg;
};

int virtio_balloon_new(struct mem *mem, struct loop *loop, const struct virtio_balloon_options *options,
		       struct virtio_device **ret) MUST_CHECK;

/* How much the guest should give up, in bytes (rounded down to pages); it follows as it can. */
void virtio_balloon_set_target(struct virtio_device *dev, uint64_t bytes);

struct virtio_balloon_stats {
	uint64_t target, actual;     /* bytes; `actual` is what the guest says */
	uint64_t inflated, reported; /* bytes given back so far, by either way */
	bool valid;		     /* the guest has sent statistics */
	uint64_t free, total, available, caches, major_faults, swap_in, swap_out; /* UINT64_MAX: not said */
};
/* The last known statistics; also asks the guest for new ones. */
void virtio_balloon_stats(struct virtio_device *dev, struct virtio_balloon_stats *ret);

extern const int virtio_balloon_syscalls[]; /* system calls at run time, ends with -1 */

#endif
