/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small I/O APIC (Intel 82093AA), edge-triggered lines only. Linux wants one before it uses more than one CPU, and
 * the few lines without MSI end here. Eight pins instead of KVM's twenty-four: a kernel clears each by a dozen
 * accesses.
 */
#ifndef VMM_X86_64_IOAPIC_H
#define VMM_X86_64_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/x86_64/layout.h"

#define IOAPIC_SIZE 0x1000

struct ioapic {
	uint8_t id, select;
	uint64_t entries[LAYOUT_IOAPIC_PINS];
	bool pending[LAYOUT_IOAPIC_PINS]; /* an edge came while masked */
	void (*msi)(void *arg, uint64_t addr, uint32_t data);
	void *arg;
};

void ioapic_init(struct ioapic *io, void (*msi)(void *arg, uint64_t addr, uint32_t data), void *arg);
void ioapic_edge(struct ioapic *io, unsigned pin);
/* A bus_fn; arg is the struct ioapic. */
void ioapic_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);

#endif
