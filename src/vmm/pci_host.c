/* SPDX-License-Identifier: Apache-2.0 */
/* The PCI bus. See pci_host.h. */
#include "vmm/pci_host.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "vmm/bus.h"

#define ECAM_FUNCTION_SHIFT 12
#define ECAM_DEVICE_SHIFT 15

void pci_host_init(struct pci_host *host, uint64_t mmio_base, uint64_t mmio_size, uint32_t io_base, uint32_t io_size)
{
	*host = (struct pci_host){
		.mmio_base = mmio_base, .mmio_size = mmio_size, .io_base = io_base, .io_size = io_size};
}

/* Every slot has its own place in both windows, so that addresses depend on nothing but the slot. */
int pci_host_add(struct pci_host *host, unsigned slot, struct virtio_pci *fn)
{
	if (slot >= PCI_HOST_SLOTS)
		return -EINVAL;
	if (host->slots[slot])
		return -EEXIST;
	for (unsigned i = 0; i < VIRTIO_PCI_NUM_BARS; i++) {
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
	host->slots[slot] = fn;
	return 0;
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
	if (write)
		virtio_pci_config_write(fn, reg, len, (uint32_t)bus_value(data, len));
	else
		bus_answer(data, len, virtio_pci_config_read(fn, reg, len));
}

static void bar_access(struct pci_host *host, bool io, uint64_t addr, uint8_t *data, unsigned len, bool write)
{
	for (unsigned s = 0; s < PCI_HOST_SLOTS; s++) {
		struct virtio_pci *fn = host->slots[s];

		for (unsigned i = 0; fn && i < VIRTIO_PCI_NUM_BARS; i++) {
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
