/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-pmem against a random guest. See fuzz_device.h. */
#include "fuzz_device.h"

#include <stdlib.h>

#include "virtio/pmem.h"

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_pmem_options o = {.name = "pmem", .gpa = 1ULL << 40, .size = 1ULL << 30};
	struct virtio_device *dev;

	return virtio_pmem_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

const struct fuzz_device fuzz_device = {.make = make};
