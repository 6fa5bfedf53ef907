/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-balloon against a random guest; what it releases must be whole pages of RAM. See fuzz_device.h. */
#include "fuzz_device.h"

#include <stdlib.h>
#include <string.h>

#include "virtio/balloon.h"

static void release(void *arg, void *host, size_t len)
{
	struct driver *d = arg;
	uint8_t *p = host;

	if (p < d->ram || len > RAM_SIZE || (size_t)(p - d->ram) > RAM_SIZE - len || (p - d->ram) % 4096 || len % 4096)
		abort();
	memset(p, 0, len);
}

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_balloon_options o = {.name = "balloon", .release = release, .arg = d};
	struct virtio_device *dev;

	return virtio_balloon_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

static void outside(struct driver *d, struct virtio_device *dev, struct cursor *in)
{
	struct virtio_balloon_stats stats;

	if (cursor_u8(in) & 1)
		virtio_balloon_set_target(dev, cursor_u64(in));
	else
		virtio_balloon_stats(dev, &stats);
}

/* Frames near RAM. */
static void header(struct cursor *in, unsigned queue, uint8_t *p, size_t room)
{
	for (size_t i = 0; i + 4 <= room && i < 32; i += 4) {
		uint32_t frame = (uint32_t)(RAM_BASE >> 12) - 4 + cursor_u8(in);

		memcpy(p + i, &frame, 4);
	}
}

const struct fuzz_device fuzz_device = {.make = make, .outside = outside, .header = header, .header_size = 32};
