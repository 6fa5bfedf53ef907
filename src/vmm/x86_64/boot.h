/* SPDX-License-Identifier: Apache-2.0 */
/* What a Linux kernel finds in memory at its 64-bit entry point (Documentation/arch/x86/boot.rst, zero-page.rst). */
#ifndef VMM_X86_64_BOOT_H
#define VMM_X86_64_BOOT_H

#include <stdint.h>

#include "base/error.h"
#include "mem/mem.h"
#include "vmm/x86_64/kernel_image.h"

struct boot_options {
	uint64_t low_ram, high_ram; /* bytes below the hole and from 4 GiB */
	int initramfs;		    /* -1: none */
	const char *cmdline;	    /* whole */
	uint64_t rsdp;
};

/* Writes boot_params, the command line, the initramfs, the first page tables and descriptor table. */
int boot_write(struct mem *mem, const struct kernel_image *image, const struct boot_options *o,
	       struct sm_error *err) MUST_CHECK;

#endif
