/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-fs without a share, against a random guest. See fuzz_device.h. */
#include "fuzz_device.h"

#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "virtio/fs.h"

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct virtio_fs_options o = {.name = "fs", .tag = "tag"};
	struct virtio_device *dev;

	return virtio_fs_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

static void header(struct cursor *in, unsigned queue, uint8_t *p, size_t room)
{
	struct fuse_in_header h = {.opcode = cursor_u8(in), .unique = cursor_u16(in)};

	memcpy(p, &h, MIN(room, sizeof(h)));
}

const struct fuzz_device fuzz_device = {.make = make, .header = header, .header_size = sizeof(struct fuse_in_header)};
