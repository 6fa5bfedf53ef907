/* SPDX-License-Identifier: Apache-2.0 */
/* The transport's own state, shared by pci.c (registers), pci_config.c (configuration space) and pci_state.c. */
#ifndef VIRTIO_PCI_INTERNAL_H
#define VIRTIO_PCI_INTERNAL_H

#include "virtio/pci.h"

/* Where the structures lie in the memory BAR; pci.h draws it. */
enum { MEM_COMMON = 0, MEM_ISR = 0x100, MEM_DEVICE = 0x200, MEM_MSIX = 0x800, MEM_PBA = 0xc00 };

enum { MSIX_MASK_ALL = 1 << 14, MSIX_ENABLE = 1 << 15 }; /* message control */
#define MSIX_VECTOR_MASK 1U				 /* vector control */
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

struct msix_entry {
	uint32_t addr_lo, addr_hi, data, control;
};

struct pci_bar {
	bool io;
	uint64_t size, value; /* value: the registers without their type bits */
};

struct virtio_pci {
	struct virtio_device *dev; /* owned */
	struct virtio_pci_host host;
	unsigned num_vectors;

	/* Configuration space: the constant bytes, and the registers that change. */
	uint8_t config[VIRTIO_PCI_CONFIG_SIZE];
	uint16_t command, msix_control;
	uint8_t interrupt_line;
	struct pci_bar bars[VIRTIO_PCI_NUM_BARS];
	uint8_t window_bar; /* VIRTIO_PCI_CAP_PCI_CFG: where its data register points */
	uint32_t window_off, window_len;

	/* Memory BAR. */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	uint16_t config_vector, queue_select;
	uint8_t status, generation, isr;
	uint16_t queue_vector[VIRTIO_MAX_QUEUES];
	struct msix_entry msix[VIRTIO_PCI_MAX_VECTORS];
	uint32_t pending; /* PBA: a bit a vector */
};

void virtio_pci_config_init(struct virtio_pci *pci);

/* Tells the host a vector's message, and delivers what waited for the mask to go. */
void virtio_pci_route_vector(struct virtio_pci *pci, unsigned vector);
void virtio_pci_route_all(struct virtio_pci *pci);

/* Translates the rings of the queues that are ready; 0 or -EINVAL. */
int virtio_pci_activate_queues(struct virtio_pci *pci) MUST_CHECK;

#endif
