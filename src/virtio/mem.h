/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-mem (virtio 1.2 section 5.15): memory that a guest gets beyond what it booted with.
 *
 * The region is a place in guest-physical space, fixed for a guest's life and mostly empty: what the guest may have of
 * it, `backed`, lies at its start and is there (mem.h) before the guest runs. The guest's requests say which blocks of
 * that it uses; nothing that it says makes it more. A block that it gives up is given back to the host.
 */
#ifndef VIRTIO_MEM_H
#define VIRTIO_MEM_H

#include "virtio/device.h"

#define VIRTIO_MEM_BLOCK (2ULL << 20)
#define VIRTIO_MEM_REGION_MAX (64ULL << 30)

struct virtio_mem_options {
	const char *name;	   /* kept, not copied */
	uint64_t gpa, region_size; /* multiples of VIRTIO_MEM_BLOCK, region_size at most VIRTIO_MEM_REGION_MAX */
	uint64_t backed;	   /* the same; the guest is asked to use all of it */
	/* As the balloon's (balloon.h). */
	void (*release)(void *arg, void *host, size_t len);
	void *arg;
};

/* -EINVAL: sizes that do not fit. A state that is loaded may be of a device with nothing backed: the driver then hears
 * of what there is now. */
int virtio_mem_new(struct mem *mem, struct loop *loop, const struct virtio_mem_options *options,
		   struct virtio_device **ret) MUST_CHECK;

/* How much of it the guest uses, in bytes. */
uint64_t virtio_mem_plugged(const struct virtio_device *dev);

extern const int virtio_mem_syscalls[]; /* system calls at run time, ends with -1 */

#endif
