/* SPDX-License-Identifier: Apache-2.0 */
/* The script that every device's target runs. See fuzz_device.h. */
#include "fuzz_device.h"

#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"

#define WINDOW_GPA (1ULL << 32)
#define MAX_BUFS 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A shared window of two pages over a file of one. Mapped once: it holds no state that matters. */
static void *window(void)
{
	static void *host;
	int fd;

	if (host)
		return host;
	fd = memfd_create("window", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 4096) < 0)
		abort();
	host = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	log_set_level(LOG_ERROR);
	return host;
}

static void add_window(struct driver *d)
{
	struct mem_region region = {
		.kind = MEM_DAX_WINDOW, .writable = true, .gpa = WINDOW_GPA, .size = 8192, .host = window()};

	if (mem_add(&d->mem, &region) < 0)
		abort();
}

/* An address: mostly well inside RAM, sometimes in the window or at an edge, sometimes anywhere. */
static uint64_t address(struct cursor *in)
{
	uint8_t kind = cursor_u8(in);

	if (kind < 236)
		return RAM_BASE + (RAM_SIZE / 2) + (uint64_t)kind * 256;
	if (kind < 246)
		return WINDOW_GPA + (cursor_u16(in) & 0x1fff);
	if (kind < 252)
		return RAM_END - cursor_u8(in);
	return cursor_u64(in);
}

static uint32_t length(struct cursor *in)
{
	static const uint32_t usual[] = {1, 4, 8, 16, 24, 40, 44, 80, 512, 1024, 4096, 8192, 16384, 65536};
	uint8_t kind = cursor_u8(in);

	if (kind < 240)
		return usual[kind % ARRAY_SIZE(usual)];
	return kind < 252 ? cursor_u16(in) : cursor_u32(in);
}

/* A chain: mostly one that its device can make sense of, with a header where one belongs. */
static void post_chain(struct driver *d, struct cursor *in)
{
	struct driver_buf bufs[MAX_BUFS];
	uint8_t shape = cursor_u8(in), split = cursor_u8(in);
	unsigned q = shape % d->num_queues, n = 1 + (shape >> 4) % MAX_BUFS, writes = split % (n + 1);
	bool sensible = fuzz_device.header && split < 0xe0;

	for (unsigned i = 0; i < n; i++)
		bufs[i] = (struct driver_buf){address(in), length(in), i >= n - writes};
	if (sensible && fuzz_device.status) {
		n = MAX(n, 2);
		bufs[n - 1] = (struct driver_buf){RAM_BASE + RAM_SIZE - 64, 1, true};
	}
	if (sensible && (!bufs[0].write || fuzz_device.status)) {
		bufs[0] = (struct driver_buf){RAM_BASE + RAM_SIZE - 1024, fuzz_device.header_size, false};
		fuzz_device.header(in, q, driver_at(d, bufs[0].addr), fuzz_device.header_size);
	}
	driver_chain(d, q, bufs, n);
	driver_kick(d, q);
	if (d->queues[q].next_desc > d->queues[q].size - MAX_BUFS)
		d->queues[q].next_desc = 0;
}

static void poke(struct driver *d, struct cursor *in)
{
	uint8_t where = cursor_u8(in);
	uint16_t off = cursor_u16(in);
	uint64_t value = cursor_u64(in);
	unsigned len = 1U << (where >> 6);

	if (where & 1)
		virtio_pci_bar_write(d->pci, (where >> 1) & 3, off & 0xfff, &value, len);
	else
		virtio_pci_config_write(d->pci, off & 0xff, len, (uint32_t)value);
	virtio_pci_bar_read(d->pci, (where >> 1) & 3, off & 0xfff, &value, len);
	virtio_pci_config_read(d->pci, off & 0xff, len);
}

static void restart(struct driver *d)
{
	d->brk = RAM_BASE;
	memset(d->queues, 0, sizeof(d->queues));
	driver_start(d, UINT64_MAX);
}

static void write_memory(struct driver *d, struct cursor *in)
{
	uint64_t off = ((uint64_t)cursor_u16(in) * 4) % RAM_SIZE;
	size_t n = cursor_u8(in) % 64U;
	const void *p;

	n = MIN(n, RAM_SIZE - off);
	n = MIN(n, in->left);
	p = cursor_take(in, n);
	if (p)
		memcpy(d->ram + off, p, n);
}

static void save(struct driver *d)
{
	struct buf out = {0};

	if (virtio_pci_save(d->pci, &out) < 0)
		abort();
	buf_done(&out);
}

static void step(struct driver *d, struct virtio_device *dev, struct cursor *in)
{
	uint8_t op = cursor_u8(in);

	if (op < 120)
		post_chain(d, in);
	else if (op < 160 && fuzz_device.outside)
		fuzz_device.outside(d, dev, in);
	else if (op < 180)
		driver_kick(d, cursor_u8(in) % 9);
	else if (op < 200)
		write_memory(d, in);
	else if (op < 225)
		driver_spin(d, 0);
	else if (op < 245)
		poke(d, in);
	else if (op < 252)
		restart(d);
	else
		save(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor in = cursor_of(data, size);
	struct virtio_device *dev;
	struct driver d;

	driver_init(&d);
	add_window(&d);
	dev = fuzz_device.make(&d, &in);
	if (!dev)
		abort();
	driver_attach(&d, dev);
	restart(&d);
	while (in.left && !in.bad) {
		step(&d, dev, &in);
		if (driver_broken(&d))
			restart(&d);
	}
	driver_spin(&d, 0);
	driver_done(&d);
	if (fuzz_device.done)
		fuzz_device.done(&d);
	return 0;
}
