/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI bus. See pci_host.h. */
#include "vmm/pci_host.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "vmm/bus.h"

#define ECAM_FUNCTION_SHIFT 12
#define ECAM_DEVICE_SHIFT 15
#define CAPABILITY_LIST 0x34
#define CAPABILITY_VENDOR 0x09
#define WINDOW_TYPE 3 /* of a virtio capability: cfg_type */
#define WINDOW_TYPE_ACCESS 5
#define WINDOW_DATA 16

void pci_host_init(struct pci_host *host, uint64_t mmio_base, uint64_t mmio_size, uint32_t io_base, uint32_t io_size)
{
	*host = (struct pci_host){
		.mmio_base = mmio_base, .mmio_size = mmio_size, .io_base = io_base, .io_size = io_size};
}

void pci_host_done(struct pci_host *host)
{
	for (unsigned i = 0; i < PCI_HOST_SLOTS; i++) {
		if (host->pages[i])
			munmap(host->pages[i], PCI_HOST_PAGE);
		host->pages[i] = NULL;
	}
}

uint64_t pci_host_ecam_offset(unsigned slot)
{
	return (uint64_t)slot << ECAM_DEVICE_SHIFT;
}

/* Finds the configuration-access capability as a driver does. */
static unsigned find_window(struct virtio_pci *fn)
{
	unsigned at = virtio_pci_config_read(fn, CAPABILITY_LIST, 1);

	for (unsigned n = 0; at >= 0x40 && n < 48; n++) {
		if (virtio_pci_config_read(fn, at, 1) == CAPABILITY_VENDOR &&
		    virtio_pci_config_read(fn, at + WINDOW_TYPE, 1) == WINDOW_TYPE_ACCESS)
			return at;
		at = virtio_pci_config_read(fn, at + 1, 1);
	}
	return 0;
}

/* Register by register, since another vCPU may be reading. `wrote`: the offset just written. */
static void refresh(struct pci_host *host, unsigned slot, uint32_t wrote)
{
	struct virtio_pci *fn = host->slots[slot];
	uint32_t window = host->windows[slot], data = window + WINDOW_DATA;

	for (uint32_t off = 0; off < VIRTIO_PCI_CONFIG_SIZE; off += 4) {
		uint32_t v;

		if (window && off == data) {
			if (wrote < window || wrote >= data)
				continue;
			/* It answers accesses of the length that the driver chose only. */
			v = virtio_pci_config_read(fn, off, 4) | virtio_pci_config_read(fn, off, 2) |
			    virtio_pci_config_read(fn, off, 1);
		} else {
			v = virtio_pci_config_read(fn, off, 4);
		}
		__atomic_store_n(&host->pages[slot][off / 4], v, __ATOMIC_RELAXED);
	}
}

/* Every slot has its own place in both windows, so that addresses depend on nothing but the slot. */
int pci_host_add(struct pci_host *host, unsigned slot, struct virtio_pci *fn)
{
	void *page;

	if (slot >= PCI_HOST_SLOTS)
		return -EINVAL;
	if (host->slots[slot])
		return -EEXIST;
	for (unsigned i = 0; i < VIRTIO_PCI_BAR_SHM; i++) {
		struct virtio_pci_bar bar = virtio_pci_bar(fn, i);
		uint64_t stride = bar.io ? PCI_HOST_IO_STRIDE : VIRTIO_PCI_MEM_SIZE;
		uint64_t at = slot * stride, base = bar.io ? host->io_base : host->mmio_base;
		int r;

		if (bar.size > stride || !range_inside(at, bar.size, bar.io ? host->io_size : host->mmio_size))
			return -EINVAL;
		r = virtio_pci_bar_place(fn, i, base + at);
		if (r < 0)
			return r;
	}
	page = mmap(NULL, PCI_HOST_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -ENOMEM;
	host->pages[slot] = page; /* beyond the first 256 bytes: zeros, no extended capabilities (7.9.1) */
	host->slots[slot] = fn;
	host->windows[slot] = find_window(fn);
	refresh(host, slot, 0);
	return 0;
}

void pci_host_refresh(struct pci_host *host)
{
	for (unsigned i = 0; i < PCI_HOST_SLOTS; i++)
		if (host->slots[i])
			refresh(host, i, 0);
}

void pci_host_ecam(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct pci_host *host = arg;
	unsigned device = (unsigned)(off >> ECAM_DEVICE_SHIFT), function = (unsigned)(off >> ECAM_FUNCTION_SHIFT) & 7;
	uint32_t reg = (uint32_t)(off & 0xfff);
	struct virtio_pci *fn = device < PCI_HOST_SLOTS && function == 0 ? host->slots[device] : NULL;

	if (!fn || len > 4) {
		if (!write)
			memset(data, 0xff, len);
		return;
	}
	/* The extended configuration space has no capabilities: its first register is 0 (7.9.1), not absent. */
	if (reg >= VIRTIO_PCI_CONFIG_SIZE) {
		if (!write)
			memset(data, 0, len);
		return;
	}
	if (!write) {
		bus_answer(data, len, virtio_pci_config_read(fn, reg, len));
		return;
	}
	virtio_pci_config_write(fn, reg, len, (uint32_t)bus_value(data, len));
	refresh(host, device, reg);
}

static void bar_access(struct pci_host *host, bool io, uint64_t addr, uint8_t *data, unsigned len, bool write)
{
	for (unsigned s = 0; s < PCI_HOST_SLOTS; s++) {
		struct virtio_pci *fn = host->slots[s];

		for (unsigned i = 0; fn && i < VIRTIO_PCI_BAR_SHM; i++) {
			struct virtio_pci_bar bar = virtio_pci_bar(fn, i);

			if (bar.io != io || !bar.enabled || addr < bar.addr ||
			    !range_inside(addr - bar.addr, len, bar.size))
				continue;
			if (write)
				virtio_pci_bar_write(fn, i, (uint32_t)(addr - bar.addr), data, len);
			else
				virtio_pci_bar_read(fn, i, (uint32_t)(addr - bar.addr), data, len);
			return;
		}
	}
	if (!write)
		memset(data, 0xff, len);
}

void pci_host_mmio(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct pci_host *host = arg;

	bar_access(host, false, host->mmio_base + off, data, len, write);
}

void pci_host_io(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct pci_host *host = arg;

	bar_access(host, true, host->io_base + off, data, len, write);
}
