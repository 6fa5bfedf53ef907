/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One PCI bus without a bridge: configuration space by ECAM alone (PCI Express Base 7.2.2), one virtio function a
 * device number, BARs placed here before the guest boots and found wherever it moves them inside the two windows.
 * Memory that a function shares is in place already: a memory slot, never an access that comes here.
 *
 * Each function's configuration space also lies in a page that the guest reads directly (a read-only memory slot): an
 * enumeration is some hundred reads a function and few writes. Writes exit and come to pci_host_ecam, which
 * brings the page up to date. The one register whose reads have an effect, the data window of the
 * configuration-access capability (virtio 1.2, 4.1.4.9), is read once after each write to that capability.
 *
 * No CF8/CFC: a kernel that finds it uses it for everything below 256 bytes, at two exits an access instead of one.
 */
#ifndef VMM_PCI_HOST_H
#define VMM_PCI_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "virtio/pci.h"

#define PCI_HOST_SLOTS 32
#define PCI_HOST_PAGE 4096
#define PCI_HOST_IO_STRIDE 64 /* port space a function gets; the transport's BAR 0 needs no more */

struct pci_host {
	uint64_t mmio_base, mmio_size;
	uint32_t io_base, io_size;
	struct virtio_pci *slots[PCI_HOST_SLOTS]; /* not owned */
	unsigned windows[PCI_HOST_SLOTS];	  /* offset of the configuration-access capability; 0: none */
	uint32_t *pages[PCI_HOST_SLOTS];	  /* PCI_HOST_PAGE bytes each; NULL without a function */
};

void pci_host_init(struct pci_host *host, uint64_t mmio_base, uint64_t mmio_size, uint32_t io_base, uint32_t io_size);
void pci_host_done(struct pci_host *host); /* frees the pages: no slot may use them any more */
/* Offset of a device's function 0 in the ECAM area: where its page is to be mapped. */
uint64_t pci_host_ecam_offset(unsigned slot);
/* Puts fn at device number `slot` and places its BARs: 0, -EINVAL, -EEXIST or -ENOMEM. */
int pci_host_add(struct pci_host *host, unsigned slot, struct virtio_pci *fn) MUST_CHECK;

/* After functions were loaded from a snapshot. */
void pci_host_refresh(struct pci_host *host);

/* bus_fns; arg is the struct pci_host, the offset is into the ECAM area or the window. */
void pci_host_ecam(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);
void pci_host_mmio(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);
void pci_host_io(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);

#endif
