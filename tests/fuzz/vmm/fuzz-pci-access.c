/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's register accesses: any sequence of reads and writes of configuration space, BAR windows, ports, the serial
 * port, the I/O APIC and the power registers, over two real devices. Each step is 12 bytes of input.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/loop.h"
#include "base/util.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "vmm/bus.h"
#include "vmm/pci_host.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/x86_64/ioapic.h"
#include "vmm/x86_64/layout.h"

#define RAM (64 * KIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_route(void *arg, unsigned vector, uint64_t addr, uint32_t data, bool masked)
{
	if (vector >= VIRTIO_PCI_MAX_VECTORS)
		abort();
}

static void on_signal(void *arg, unsigned vector)
{
	if (vector >= VIRTIO_PCI_MAX_VECTORS)
		abort();
}

static void on_bar(void *arg, unsigned bar)
{
	if (bar >= VIRTIO_PCI_NUM_BARS)
		abort();
}

static void on_queue(void *arg, unsigned queue)
{
	if (queue >= VIRTIO_MAX_QUEUES)
		abort();
}

static void on_byte(void *arg, uint8_t byte)
{
}

static void on_msi(void *arg, uint64_t addr, uint32_t data)
{
	if ((addr & ~0xfffffULL) != LAYOUT_LAPIC)
		abort();
}

static void nothing(void *arg)
{
}

struct world {
	struct mem mem;
	struct loop *loop;
	struct bus pio, mmio;
	struct pci_host pci;
	struct serial serial;
	struct power power;
	struct ioapic ioapic;
	struct virtio_pci *fn[2];
	uint8_t *ram;
};

static void add(struct world *w, unsigned slot, struct virtio_device *dev, struct virtio_pci **fn)
{
	struct virtio_pci_host host = {
		.route = on_route, .signal = on_signal, .moved = on_bar, .kick = on_queue, .arg = w};

	if (virtio_pci_new(dev, &host, fn) < 0 || pci_host_add(&w->pci, slot, *fn) < 0)
		abort();
}

static void make(struct world *w)
{
	struct virtio_rng_options rng = {.name = "rng"};
	struct virtio_net_options net = {.name = "net"};
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .size = RAM};
	struct virtio_device *dev;
	int bad = 0;

	w->ram = aligned_alloc(4096, RAM);
	r.host = w->ram;
	if (!w->ram || mem_add(&w->mem, &r) < 0 || loop_new(&w->loop) < 0)
		abort();
	pci_host_init(&w->pci, LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_SIZE, LAYOUT_PCI_IO, LAYOUT_PCI_IO_SIZE);
	w->serial = (struct serial){.out = on_byte, .irq = nothing, .arg = w};
	w->power = (struct power){.off = nothing, .reset = nothing, .arg = w};
	ioapic_init(&w->ioapic, on_msi, w);
	if (virtio_rng_new(&w->mem, w->loop, &rng, &dev) < 0)
		abort();
	add(w, 13, dev, &w->fn[0]);
	if (virtio_net_new(&w->mem, w->loop, &net, &dev) < 0)
		abort();
	add(w, 15, dev, &w->fn[1]);
	bad |= bus_add(&w->pio, "serial", LAYOUT_SERIAL, SERIAL_PORTS, serial_access, &w->serial);
	bad |= bus_add(&w->pio, "power", LAYOUT_POWER, LAYOUT_POWER_SIZE, power_access, &w->power);
	bad |= bus_add(&w->pio, "pci", LAYOUT_PCI_IO, LAYOUT_PCI_IO_SIZE, pci_host_io, &w->pci);
	bad |= bus_add(&w->mmio, "ioapic", LAYOUT_IOAPIC, IOAPIC_SIZE, ioapic_access, &w->ioapic);
	bad |= bus_add(&w->mmio, "ecam", LAYOUT_ECAM, LAYOUT_ECAM_SIZE, pci_host_ecam, &w->pci);
	bad |= bus_add(&w->mmio, "pci", LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_SIZE, pci_host_mmio, &w->pci);
	if (bad)
		abort();
}

static void step(struct world *w, struct cursor *c)
{
	/* Where something is, so that few steps are wasted on nothing. */
	static const uint64_t bases[] = {
		LAYOUT_ECAM + (13 << 15),
		LAYOUT_ECAM + (15 << 15),
		LAYOUT_PCI_MMIO + 13 * 4096,
		LAYOUT_PCI_MMIO + 15 * 4096,
		LAYOUT_IOAPIC,
		LAYOUT_ECAM,
		LAYOUT_PCI_MMIO,
		0,
	};
	static const uint64_t ports[] = {LAYOUT_SERIAL, LAYOUT_POWER, LAYOUT_PCI_IO, LAYOUT_PCI_IO + 13 * 64,
					 LAYOUT_PCI_IO + 15 * 64};
	uint8_t op = cursor_u8(c), where = cursor_u8(c), data[8];
	uint16_t off = cursor_u16(c);
	uint64_t value = cursor_u64(c);
	unsigned len = 1u << (op >> 1 & 3);

	bus_answer(data, 8, value);
	if (op & 0x40)
		virtio_pci_notify(w->fn[where & 1], off);
	else if (op & 0x08)
		bus_access(&w->pio, ports[where % ARRAY_SIZE(ports)] + off % 512, data, len > 4 ? 4 : len, op & 1);
	else
		bus_access(&w->mmio, bases[where % ARRAY_SIZE(bases)] + off, data, len, op & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor c = cursor_of(data, size);
	struct world w = {0};

	make(&w);
	memset(w.ram, 0, RAM);
	memcpy(w.ram, data, MIN(size, RAM)); /* rings made of the same bytes */
	while (c.left >= 12)
		step(&w, &c);
	pci_host_done(&w.pci);
	virtio_pci_free(w.fn[0]);
	virtio_pci_free(w.fn[1]);
	loop_free(w.loop);
	free(w.ram);
	return 0;
}
