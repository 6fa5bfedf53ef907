/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables (ACPI 6.4): hardware-reduced, so that the kernel does not look for the fixed hardware of a PC, and
 * plain about what else is absent: no RTC, no keyboard controller, no VGA. One CPU entry a vCPU, one PCI bus by ECAM, a
 * serial port, a generation counter (VMGENID) with the event device that announces its change.
 */
#ifndef VMM_X86_64_ACPI_H
#define VMM_X86_64_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct acpi_layout {
	uint64_t rsdp;			       /* out: guest-physical address of the root pointer */
	uint32_t dsdt, facp, apic, mcfg, xsdt; /* out: offsets into the blob, for tests and tools */
	uint32_t dsdt_len, facp_len, apic_len, mcfg_len, xsdt_len;
};

struct acpi_options {
	unsigned cpus;
	uint64_t high_mmio, high_mmio_size; /* for 64-bit BARs; size 0: none */
};

/* Appends all tables as they are to lie from guest-physical `base`; at most LAYOUT_ACPI_SIZE bytes. */
int acpi_build(uint64_t base, const struct acpi_options *options, struct buf *out, struct acpi_layout *ret,
	       struct sm_error *err) MUST_CHECK;

#endif
