/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI transport: random register accesses, then the rest of the input loaded as a saved state. */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/log.h"
#include "base/util.h"
#include "driver.h"
#include "virtio/balloon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void release(void *arg, void *host, size_t len)
{
}

static void attach(struct driver *d)
{
	struct virtio_balloon_options o = {.name = "balloon", .release = release};
	struct virtio_device *dev;

	driver_init(d);
	if (virtio_balloon_new(&d->mem, d->loop, &o, &dev) < 0)
		abort();
	driver_attach(d, dev);
}

static void load(struct cursor in)
{
	struct buf out = {0};
	struct driver d;

	attach(&d);
	if (virtio_pci_load(d.pci, &in) == 0) {
		virtio_pci_restart(d.pci);
		if (virtio_pci_save(d.pci, &out) < 0)
			abort();
	}
	buf_done(&out);
	driver_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor in = cursor_of(data, size);
	unsigned steps = cursor_u8(&in);
	struct buf out = {0};
	struct driver d;

	log_set_level(LOG_ERROR);
	attach(&d);
	if (steps & 1)
		driver_start(&d, UINT64_MAX);
	while (steps-- && in.left) {
		uint8_t where = cursor_u8(&in);
		uint16_t off = cursor_u16(&in) & 0xfff;
		uint64_t value = cursor_u64(&in);
		unsigned len = 1U << (where >> 6);

		if (where & 0x20)
			virtio_pci_config_write(d.pci, off & 0xff, len, (uint32_t)value);
		else
			virtio_pci_bar_write(d.pci, where & 3, where & 0x10 ? off & 0x3f : off, &value, len);
		virtio_pci_bar_read(d.pci, where & 3, off, &value, len);
		virtio_pci_config_read(d.pci, off, len);
		virtio_pci_notify(d.pci, where & 7);
	}
	/* What it has become can be saved, and loaded again. */
	if (virtio_pci_save(d.pci, &out) < 0)
		abort();
	if (out.len)
		load(cursor_of(out.data, out.len));
	/* So can anything: with the input's bytes over the good ones. */
	if (in.left > 2) {
		uint16_t at = cursor_u16(&in);

		for (size_t i = 0; i < in.left && at % out.len + i < out.len; i++)
			out.data[at % out.len + i] ^= in.p[i];
		load(cursor_of(out.data, out.len));
	}
	buf_done(&out);
	driver_done(&d);
	return 0;
}
