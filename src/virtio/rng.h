/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng (virtio 1.2 section 5.4): the host kernel's random bytes, at a bounded rate. */
#ifndef VIRTIO_RNG_H
#define VIRTIO_RNG_H

#include "virtio/device.h"

struct virtio_rng_options {
	const char *name; /* kept, not copied */
	uint64_t rate;	  /* bytes a second; 0: 1 MiB. A second's worth may be taken at once. */
};

int virtio_rng_new(struct mem *mem, struct loop *loop, const struct virtio_rng_options *options,
		   struct virtio_device **ret) MUST_CHECK;

extern const int virtio_rng_syscalls[]; /* system calls at run time, ends with -1 */

#endif
