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

/* An address: mostly in RAM, sometimes in the window, sometimes anywhere. */
static uint64_t address(struct cursor *in)
{
	uint8_t kind = cursor_u8(in);

	if (kind < 200)
		return RAM_BASE + (RAM_SIZE / 2) + (uint64_t)kind * 512 + (cursor_u8(in) & 0x1f);
	if (kind < 220)
		return WINDOW_GPA + (cursor_u16(in) & 0x1fff);
	if (kind < 240)
		return RAM_END - cursor_u8(in);
	return cursor_u64(in);
}

static uint32_t length(struct cursor *in)
{
	static const uint32_t usual[] = {1, 4, 8, 16, 24, 40, 44, 80, 512, 4096, 8192, 65536};
	uint8_t kind = cursor_u8(in);

	if (kind < 200)
		return usual[kind % ARRAY_SIZE(usual)];
	return kind < 240 ? cursor_u16(in) : cursor_u32(in);
}

static void post_chain(struct driver *d, struct cursor *in)
{
	struct driver_buf bufs[MAX_BUFS];
	uint8_t shape = cursor_u8(in);
	unsigned q = shape % d->num_queues, n = 1 + (shape >> 4) % MAX_BUFS, writes = cursor_u8(in) % (n + 1);

	for (unsigned i = 0; i < n; i++)
		bufs[i] = (struct driver_buf){address(in), length(in), i >= n - writes};
	/* A readable first buffer in RAM gets a header that makes some sense. */
	if (fuzz_device.header && !bufs[0].write && (shape & 0x0c) && bufs[0].addr >= RAM_BASE &&
	    bufs[0].addr < RAM_END)
		fuzz_device.header(in, q, driver_at(d, bufs[0].addr), MIN(bufs[0].len, RAM_END - bufs[0].addr));
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
	while (in.left && !in.bad)
		step(&d, dev, &in);
	driver_spin(&d, 0);
	driver_done(&d);
	if (fuzz_device.done)
		fuzz_device.done(&d);
	return 0;
}
