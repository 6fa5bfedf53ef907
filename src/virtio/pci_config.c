/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCI configuration space of a virtio function: identity, BARs, and the capability list
 *	0x40 MSI-X   0x50 common   0x60 ISR   0x70 device   0x80 notify   0x98 configuration access   0xb0 shared memory
 * Almost all of it is constant and lies ready in pci->config; the registers that change are laid over it.
 */
#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "base/util.h"
#include "virtio/pci_internal.h"

enum {
	CAP_MSIX = 0x40,
	CAP_COMMON = 0x50,
	CAP_ISR = 0x60,
	CAP_DEVICE = 0x70,
	CAP_NOTIFY = 0x80,
	CAP_WINDOW = 0x98,
	CAP_SHM = 0xb0,
};
#define CAP_SHM_LEN 24 /* struct virtio_pci_cap64 (section 4.1.4.7) */
#define CAP_SHM_ID 5
#define CAP_SHM_OFFSET_HIGH 16
#define CAP_SHM_LENGTH_HIGH 20
#define BAR_SHM_TYPE (PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH)
#define COMMAND_WRITABLE                                                                                               \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |            \
	 PCI_COMMAND_INTX_DISABLE)
#define WINDOW_BAR (CAP_WINDOW + VIRTIO_PCI_CAP_BAR)
#define WINDOW_OFF (CAP_WINDOW + VIRTIO_PCI_CAP_OFFSET)
#define WINDOW_LEN (CAP_WINDOW + VIRTIO_PCI_CAP_LENGTH)
#define WINDOW_DATA (CAP_WINDOW + 16)

static void put16(uint8_t *config, unsigned off, uint16_t v)
{
	v = htole16(v);
	memcpy(config + off, &v, sizeof(v));
}

static void put32(uint8_t *config, unsigned off, uint32_t v)
{
	v = htole32(v);
	memcpy(config + off, &v, sizeof(v));
}

static uint32_t class_code(enum virtio_id id)
{
	switch (id) {
	case VIRTIO_ID_NET_:
		return 0x020000;
	case VIRTIO_ID_BLK_:
	case VIRTIO_ID_FS_:
		return 0x018000;
	case VIRTIO_ID_CONSOLE_:
	case VIRTIO_ID_VSOCK_:
		return 0x078000;
	case VIRTIO_ID_PMEM_:
		return 0x058000;
	default:
		return 0x00ff00;
	}
}

/* Puts a virtio capability (section 4.1.4) at `at`; the one before it points there. */
static void add_cap(uint8_t *config, unsigned at, uint8_t type, uint8_t bar, uint32_t off, uint32_t len)
{
	unsigned prev = CAP_MSIX;

	while (config[prev + 1])
		prev = config[prev + 1];
	config[prev + 1] = (uint8_t)at;
	config[at] = PCI_CAP_ID_VNDR;
	config[at + VIRTIO_PCI_CAP_LEN] = type == VIRTIO_PCI_CAP_NOTIFY_CFG || type == VIRTIO_PCI_CAP_PCI_CFG ? 20 : 16;
	config[at + VIRTIO_PCI_CAP_CFG_TYPE] = type;
	config[at + VIRTIO_PCI_CAP_BAR] = bar;
	put32(config, at + VIRTIO_PCI_CAP_OFFSET, off);
	put32(config, at + VIRTIO_PCI_CAP_LENGTH, len);
}

/* The whole of the window's BAR that is really there. */
static void add_shm(uint8_t *config, uint64_t size)
{
	add_cap(config, CAP_SHM, VIRTIO_PCI_CAP_SHARED_MEMORY_CFG, VIRTIO_PCI_BAR_SHM, 0, (uint32_t)size);
	config[CAP_SHM + VIRTIO_PCI_CAP_LEN] = CAP_SHM_LEN;
	config[CAP_SHM + CAP_SHM_ID] = 0;
	put32(config, CAP_SHM + CAP_SHM_OFFSET_HIGH, 0);
	put32(config, CAP_SHM + CAP_SHM_LENGTH_HIGH, (uint32_t)(size >> 32));
}

static void init_caps(struct virtio_pci *pci)
{
	struct virtio_device *dev = pci->dev;
	uint8_t *c = pci->config;

	c[PCI_CAPABILITY_LIST] = CAP_MSIX;
	c[CAP_MSIX] = PCI_CAP_ID_MSIX;
	put32(c, CAP_MSIX + PCI_MSIX_TABLE, MEM_MSIX | VIRTIO_PCI_BAR_MEM);
	put32(c, CAP_MSIX + PCI_MSIX_PBA, MEM_PBA | VIRTIO_PCI_BAR_MEM);
	add_cap(c, CAP_COMMON, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_BAR_MEM, MEM_COMMON, MEM_ISR - MEM_COMMON);
	add_cap(c, CAP_ISR, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_BAR_MEM, MEM_ISR, 4);
	if (dev->config_size)
		add_cap(c, CAP_DEVICE, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_BAR_MEM, MEM_DEVICE,
			(uint32_t)align_up(dev->config_size, 4));
	add_cap(c, CAP_NOTIFY, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_BAR_NOTIFY, 0,
		dev->num_queues * VIRTIO_PCI_NOTIFY_STRIDE);
	put32(c, CAP_NOTIFY + VIRTIO_PCI_NOTIFY_CAP_MULT, VIRTIO_PCI_NOTIFY_STRIDE);
	add_cap(c, CAP_WINDOW, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0);
	if (dev->shm.size)
		add_shm(c, dev->shm.size);
}

void virtio_pci_config_init(struct virtio_pci *pci)
{
	uint8_t *c = pci->config;
	uint32_t ports = VIRTIO_PCI_NOTIFY_STRIDE;

	while (ports < pci->dev->num_queues * VIRTIO_PCI_NOTIFY_STRIDE)
		ports *= 2;
	pci->bars[VIRTIO_PCI_BAR_NOTIFY] = (struct pci_bar){.io = true, .size = ports};
	pci->bars[VIRTIO_PCI_BAR_MEM] = (struct pci_bar){.size = VIRTIO_PCI_MEM_SIZE};
	if (pci->dev->shm.size)
		pci->bars[VIRTIO_PCI_BAR_SHM] =
			(struct pci_bar){.size = round_up_pow2(pci->dev->shm.size), .value = pci->dev->shm.gpa};
	pci->msix_control = (uint16_t)(pci->num_vectors - 1);

	put16(c, PCI_VENDOR_ID, VIRTIO_PCI_VENDOR);
	put16(c, PCI_DEVICE_ID, (uint16_t)(VIRTIO_PCI_DEVICE_BASE + pci->dev->id));
	put16(c, PCI_STATUS, PCI_STATUS_CAP_LIST);
	put32(c, PCI_CLASS_REVISION, class_code(pci->dev->id) << 8 | 1);
	put16(c, PCI_SUBSYSTEM_VENDOR_ID, VIRTIO_PCI_VENDOR);
	put16(c, PCI_SUBSYSTEM_ID, 0x1100);
	init_caps(pci);
}

struct virtio_pci_bar virtio_pci_bar(const struct virtio_pci *pci, unsigned bar)
{
	const struct pci_bar *b = &pci->bars[bar];
	uint16_t decode = b->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

	return (struct virtio_pci_bar){
		.io = b->io,
		.enabled = (pci->command & decode) && b->value,
		.addr = b->value,
		.size = b->size,
	};
}

int virtio_pci_bar_place(struct virtio_pci *pci, unsigned bar, uint64_t addr)
{
	if (bar >= VIRTIO_PCI_BAR_SHM || !addr || addr % pci->bars[bar].size || addr > UINT32_MAX)
		return -EINVAL;
	pci->bars[bar].value = addr;
	pci->command |= pci->bars[bar].io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	pci->host.moved(pci->host.arg, bar);
	return 0;
}

/* Whether the access-by-configuration registers point at something that may be accessed (section 4.1.4.9). */
static bool window_good(const struct virtio_pci *pci, unsigned len)
{
	return pci->window_bar < VIRTIO_PCI_NUM_BARS && len == pci->window_len && pci->window_off % len == 0;
}

/* The registers that change, laid over the constant bytes. */
static void overlay(const struct virtio_pci *pci, uint8_t *c)
{
	const struct pci_bar *shm = &pci->bars[VIRTIO_PCI_BAR_SHM];

	put16(c, PCI_COMMAND, pci->command);
	put32(c, PCI_BASE_ADDRESS_0, (uint32_t)pci->bars[0].value | PCI_BASE_ADDRESS_SPACE_IO);
	put32(c, PCI_BASE_ADDRESS_1, (uint32_t)pci->bars[1].value);
	if (shm->size) {
		put32(c, PCI_BASE_ADDRESS_2, (uint32_t)shm->value | BAR_SHM_TYPE);
		put32(c, PCI_BASE_ADDRESS_3, (uint32_t)(shm->value >> 32));
	}
	c[PCI_INTERRUPT_LINE] = pci->interrupt_line;
	put16(c, CAP_MSIX + PCI_MSIX_FLAGS, pci->msix_control);
	c[WINDOW_BAR] = pci->window_bar;
	put32(c, WINDOW_OFF, pci->window_off);
	put32(c, WINDOW_LEN, pci->window_len);
}

static bool access_good(uint32_t off, unsigned len)
{
	return (len == 1 || len == 2 || len == 4) && off % len == 0 && range_inside(off, len, VIRTIO_PCI_CONFIG_SIZE);
}

uint32_t virtio_pci_config_read(struct virtio_pci *pci, uint32_t off, unsigned len)
{
	uint8_t c[VIRTIO_PCI_CONFIG_SIZE];
	uint32_t v = 0;

	if (!access_good(off, len))
		return 0xffffffffU;
	if (off == WINDOW_DATA) {
		if (window_good(pci, len))
			virtio_pci_bar_read(pci, pci->window_bar, pci->window_off, &v, len);
		return le32toh(v);
	}
	memcpy(c, pci->config, sizeof(c));
	overlay(pci, c);
	memcpy(&v, c + off, len);
	return le32toh(v);
}

static void write_command(struct virtio_pci *pci, uint16_t command)
{
	uint16_t changed = pci->command ^ command;

	pci->command = command;
	for (unsigned i = 0; i < VIRTIO_PCI_NUM_BARS; i++)
		if (pci->bars[i].size && changed & (pci->bars[i].io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY))
			pci->host.moved(pci->host.arg, i);
}

/* One of the two halves of a 64-bit BAR is kept: high 0 or 32, the bits that the register is about. */
static void write_bar(struct virtio_pci *pci, unsigned bar, uint32_t word, unsigned high)
{
	struct pci_bar *b = &pci->bars[bar];
	uint64_t value = (uint64_t)word << high | (b->value & ~(0xffffffffULL << high));

	if (!b->size)
		return;
	/* Writing all ones reads back as the size's mask: the size is a power of two. */
	value &= ~(b->size - 1);
	if (value == b->value)
		return;
	b->value = value;
	pci->host.moved(pci->host.arg, bar);
}

static void write_msix_control(struct virtio_pci *pci, uint16_t value)
{
	uint16_t control =
		(pci->msix_control & ~(MSIX_ENABLE | MSIX_MASK_ALL)) | (value & (MSIX_ENABLE | MSIX_MASK_ALL));

	if (control == pci->msix_control)
		return;
	pci->msix_control = control;
	virtio_pci_route_all(pci);
}

/* A dword of the space after a write of some of its bytes: unaffected ones keep what they hold. */
static uint32_t merged(struct virtio_pci *pci, uint32_t off, unsigned len, uint32_t value)
{
	uint32_t old = virtio_pci_config_read(pci, off & ~3U, 4), mask = len == 4 ? 0xffffffffU : (1U << (8 * len)) - 1;
	unsigned shift = 8 * (off % 4);

	return (old & ~(mask << shift)) | (value & mask) << shift;
}

void virtio_pci_config_write(struct virtio_pci *pci, uint32_t off, unsigned len, uint32_t value)
{
	uint32_t dword;

	if (!access_good(off, len))
		return;
	if (off == WINDOW_DATA) {
		value = htole32(value);
		if (window_good(pci, len))
			virtio_pci_bar_write(pci, pci->window_bar, pci->window_off, &value, len);
		return;
	}
	if ((off & ~3U) == WINDOW_DATA)
		return;
	dword = merged(pci, off, len, value);
	switch (off & ~3U) {
	case PCI_COMMAND:
		write_command(pci, (uint16_t)(dword & COMMAND_WRITABLE));
		return;
	case PCI_BASE_ADDRESS_0:
	case PCI_BASE_ADDRESS_1:
		write_bar(pci, ((off & ~3U) - PCI_BASE_ADDRESS_0) / 4, dword, 0);
		return;
	case PCI_BASE_ADDRESS_2:
	case PCI_BASE_ADDRESS_3:
		write_bar(pci, VIRTIO_PCI_BAR_SHM, dword, (off & ~3U) == PCI_BASE_ADDRESS_3 ? 32 : 0);
		return;
	case PCI_INTERRUPT_LINE:
		pci->interrupt_line = (uint8_t)dword; /* a scratch register of the driver's */
		return;
	case CAP_MSIX:
		write_msix_control(pci, (uint16_t)(dword >> 16));
		return;
	case WINDOW_BAR & ~3U:
		pci->window_bar = (uint8_t)(dword >> (8 * (WINDOW_BAR % 4)));
		return;
	case WINDOW_OFF:
		pci->window_off = dword;
		return;
	case WINDOW_LEN:
		pci->window_len = dword;
		return;
	default:
		return;
	}
}
