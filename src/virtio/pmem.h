/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-pmem (virtio 1.2 section 5.19): tells the guest where a window of persistent memory lies. The window itself is
 * a memory slot of the monitor's; the device serves flushes alone. What it shows is read-only files, so there is
 * never anything to flush: the answer is "ok" at once.
 */
#ifndef VIRTIO_PMEM_H
#define VIRTIO_PMEM_H

#include "virtio/device.h"

struct virtio_pmem_options {
	const char *name;   /* kept, not copied: a literal */
	uint64_t gpa, size; /* of the window; page-aligned; size 0: no window (the guest's driver refuses the device) */
};

int virtio_pmem_new(struct mem *mem, struct loop *loop, const struct virtio_pmem_options *options,
		    struct virtio_device **ret) MUST_CHECK; /* 0, -ENOMEM, -EINVAL */

extern const int virtio_pmem_syscalls[]; /* system calls at run time, ends with -1 */

#endif
