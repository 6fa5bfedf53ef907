/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net against a random guest. See fuzz_device.h. */
#include "fuzz_device.h"

#include <stdlib.h>

#include "virtio/net.h"

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_net_options o = {.name = "net", .mac = {2, 3, 4, 5, 6, 7}};
	struct virtio_device *dev;

	return virtio_net_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

const struct fuzz_device fuzz_device = {.make = make};
