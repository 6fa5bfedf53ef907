/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: RAM and windows behind one checked translation.
 *
 * Three kinds of region: RAM (MAP_PRIVATE, readable and writable by the monitor), image window (read-only
 * mapping of files that may shrink under us) and DAX window. All are legal targets of a guest's DMA, but the
 * windows are touched only by calls that report a fault as an error (preadv, pwritev, process_vm_*),
 * never by memcpy: mem_ram() refuses them, mem_read()/mem_write() and mem_iov() users must go
 * through a system call for them.
 *
 * Thread rules: regions are added before the vCPUs start and never removed while they run; everything
 * else is read-only on the table and safe from any thread.
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

enum mem_kind { MEM_RAM, MEM_IMAGE_WINDOW, MEM_DAX_WINDOW };

#define MEM_MAX_REGIONS 16

struct mem_region {
	enum mem_kind kind;
	bool writable; /* by the guest; false makes the KVM slot read-only */
	uint64_t gpa, size;
	uint8_t *host;
};

struct mem {
	struct mem_region regions[MEM_MAX_REGIONS]; /* sorted by gpa, disjoint */
	size_t count;
	uint64_t faults; /* accesses refused or failed: a metric, atomically increased */
};

/* Adds a mapped region (page-aligned, non-empty, disjoint): 0, -EINVAL, -EEXIST or -ENOSPC. Does not own `host`. */
int mem_add(struct mem *mem, const struct mem_region *region) MUST_CHECK;

/* The one translation. A region's host address for [gpa, gpa + len), entirely inside one region and, if
 * `write`, writable; NULL otherwise. len 0 is refused. *ret_kind may be NULL. */
void *mem_translate(struct mem *mem, uint64_t gpa, uint64_t len, bool write, enum mem_kind *ret_kind);

/* Like mem_translate but RAM alone: what a device may touch with plain loads and stores. */
void *mem_ram(struct mem *mem, uint64_t gpa, uint64_t len, bool write);

/* Copies between guest memory of any kind (crossing adjacent regions too) and our own; 0 or -EFAULT, in which
 * case part may have been copied. Windows are copied by a system call, so a truncated file is -EFAULT, never SIGBUS. */
int mem_read(struct mem *mem, uint64_t gpa, void *dst, size_t len) MUST_CHECK;
int mem_write(struct mem *mem, uint64_t gpa, const void *src, size_t len) MUST_CHECK;

#endif
