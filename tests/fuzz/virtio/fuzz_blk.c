/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk over a two-layer chain, with either engine, against a random guest. See fuzz_device.h. */
#include "fuzz_device.h"

#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "virtio/blk.h"

#define DISK_SIZE (64 * 4096ULL + 512)

static struct blk_file base = {.fd = -1, .size = 30 * 4096 + 7}, top = {.fd = -1, .size = DISK_SIZE};

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_blk_options o = {.name = "blk", .serial = "serial"};
	struct virtio_device *dev;
	uint8_t kind = cursor_u8(in);

	if (base.fd < 0)
		base.fd = memfd_create("base", MFD_CLOEXEC);
	top.fd = memfd_create("top", MFD_CLOEXEC);
	if (base.fd < 0 || top.fd < 0 || ftruncate(base.fd, 31 * 4096) < 0)
		abort();
	if (blk_chain_open(&base, 1, kind & 1 ? &top : NULL, &o.chain, NULL) < 0)
		abort();
	o.engine = kind & 2 ? VIRTIO_BLK_PLAIN : VIRTIO_BLK_AUTO;
	return virtio_blk_new(&d->mem, d->loop, &o, &dev, NULL) < 0 ? NULL : dev;
}

static void header(struct cursor *in, unsigned queue, uint8_t *p, size_t room)
{
	static const uint32_t types[] = {0, 0, 1, 1, 1, 4, 8, 11, 13, 13, 2, 14};
	uint8_t a = cursor_u8(in);
	struct virtio_blk_outhdr hdr = {.type = types[a % ARRAY_SIZE(types)],
					.sector = cursor_u16(in) % (DISK_SIZE / 512 + 1)};

	memcpy(p, &hdr, MIN(room, sizeof(hdr)));
}

/* Ranges where buffers of data mostly lie: a discard that finds them there makes sense. */
static void outside(struct driver *d, struct virtio_device *dev, struct cursor *in)
{
	uint8_t at = cursor_u8(in), a = cursor_u8(in);
	struct virtio_blk_discard_write_zeroes s = {
		.sector = cursor_u16(in) % (DISK_SIZE / 512 + 1), .num_sectors = a & 0x3f, .flags = a >> 7};

	memcpy(d->ram + RAM_SIZE / 2 + (at % 236) * 256ULL, &s, sizeof(s));
}

static void done(struct driver *d)
{
	close(top.fd);
}

const struct fuzz_device fuzz_device = {
	.make = make, .outside = outside, .header = header, .header_size = 16, .status = true, .done = done};
