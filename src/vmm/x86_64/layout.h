/* SPDX-License-Identifier: Apache-2.0 */
/* Where things lie in the guest's physical address and port space on x86-64. */
#ifndef VMM_X86_64_LAYOUT_H
#define VMM_X86_64_LAYOUT_H

/* Low memory: what the boot CPU needs before the kernel has its own tables. All inside the first 640 KiB of RAM. */
#define LAYOUT_GDT 0x500ULL
#define LAYOUT_BOOT_PARAMS 0x7000ULL
#define LAYOUT_PAGE_TABLES 0x9000ULL /* PML4, PDPT, then 4 directories of 2 MiB pages: 4 GiB identity-mapped */
#define LAYOUT_CMDLINE 0x20000ULL
#define LAYOUT_LOW_END 0xa0000ULL

/* The traditional BIOS area: RAM of the slot that the memory map does not offer. */
#define LAYOUT_ACPI 0xe0000ULL
#define LAYOUT_ACPI_SIZE 0x10000ULL
#define LAYOUT_VMGENID 0xff000ULL
#define LAYOUT_RESET_VECTOR 0xffff0ULL

#define LAYOUT_KERNEL 0x1000000ULL /* 16 MiB: what stock kernels prefer */

#define LAYOUT_HOLE 0xc0000000ULL /* RAM goes on at 4 GiB */
#define LAYOUT_HIGH_RAM 0x100000000ULL

#define LAYOUT_PCI_MMIO 0xc0000000ULL
#define LAYOUT_PCI_MMIO_SIZE 0x10000000ULL
#define LAYOUT_ECAM 0xe0000000ULL
#define LAYOUT_ECAM_SIZE 0x100000ULL /* one bus */
#define LAYOUT_IOAPIC 0xfec00000ULL
#define LAYOUT_LAPIC 0xfee00000ULL
#define LAYOUT_TSS 0xfffbd000ULL /* three pages, for CPUs that cannot run real mode natively */
#define LAYOUT_IDENTITY_MAP 0xfffbc000ULL

#define LAYOUT_PCI_IO 0x1000
#define LAYOUT_PCI_IO_SIZE 0x1000
#define LAYOUT_SERIAL 0x3f8
#define LAYOUT_POWER 0x600 /* sleep control, sleep status, reset: a byte each */
#define LAYOUT_POWER_SIZE 4
#define LAYOUT_PCI_RESET 0xcf9
#define LAYOUT_KBD_RESET 0x64

/* Interrupt lines of the I/O APIC; all edge-triggered. */
#define LAYOUT_IOAPIC_PINS 3 /* the first is no one's: some code takes line 0 for none */
#define LAYOUT_SERIAL_GSI 1
#define LAYOUT_EVENT_GSI 2 /* the ACPI generic event device */

#endif
