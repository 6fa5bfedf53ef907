/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng against a random guest. See fuzz_device.h. */
#include "fuzz_device.h"

#include <stdlib.h>

#include "virtio/rng.h"

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_rng_options o = {.name = "rng", .rate = 1ULL << 30};
	struct virtio_device *dev;

	return virtio_rng_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

const struct fuzz_device fuzz_device = {.make = make};
