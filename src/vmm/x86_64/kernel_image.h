/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel images: a bzImage (Linux x86 boot protocol 2.12 or later, with the 64-bit entry point) or an ELF vmlinux.
 * Headers are read once into our own memory and checked; the body goes from the file straight into guest RAM.
 */
#ifndef VMM_X86_64_KERNEL_IMAGE_H
#define VMM_X86_64_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <asm/bootparam.h>

#include "base/error.h"
#include "mem/mem.h"

#define KERNEL_MAX_SEGMENTS 16

struct kernel_segment {
	uint64_t file_off, file_len;
	uint64_t gpa, mem_len; /* mem_len >= file_len: the rest is zero */
};

struct kernel_image {
	int fd; /* the caller's */
	struct kernel_segment segments[KERNEL_MAX_SEGMENTS];
	unsigned count;
	uint64_t entry;	     /* guest-physical, 64-bit mode, RSI -> boot_params */
	uint64_t end;	     /* first byte after all that the kernel uses before it knows the memory map */
	uint64_t initrd_max; /* the last address an initramfs may use */
	uint32_t cmdline_max;
	struct setup_header header; /* for boot_params: the image's own, or made up for an ELF */
};

/* Reads and checks the headers. Keeps fd, does not own it. */
int kernel_image_parse(int fd, struct kernel_image *ret, struct sm_error *err) MUST_CHECK;
/* Reads the segments into RAM (fresh: zero). Fails if they do not fit. */
int kernel_image_load(const struct kernel_image *image, struct mem *mem, struct sm_error *err) MUST_CHECK;

#endif
