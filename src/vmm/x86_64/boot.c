/* SPDX-License-Identifier: Apache-2.0 */
/* Boot parameters. See boot.h. */
#include "vmm/x86_64/boot.h"

#include <asm/e820.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/x86_64/layout.h"

#define PAGE 4096ULL
#define PTE_PRESENT_WRITE 0x3
#define PDE_HUGE 0x83
#define LOADER_TYPE_OTHER 0xff

static int write_at(struct mem *mem, uint64_t gpa, const void *p, size_t len, struct sm_error *err)
{
	return mem_write(mem, gpa, p, len) < 0 ? error_set(err, SM_ERROR_LIMIT, ENOMEM, "boot data do not fit") : 0;
}

static int write_page_tables(struct mem *mem, struct sm_error *err)
{
	uint64_t table[512] = {0}, base = LAYOUT_PAGE_TABLES;
	int r;

	table[0] = (base + PAGE) | PTE_PRESENT_WRITE;
	r = write_at(mem, base, table, sizeof(table), err);
	for (uint64_t i = 0; i < 4; i++)
		table[i] = (base + (2 + i) * PAGE) | PTE_PRESENT_WRITE;
	if (!r)
		r = write_at(mem, base + PAGE, table, sizeof(table), err);
	for (uint64_t d = 0; d < 4 && !r; d++) {
		for (uint64_t i = 0; i < 512; i++)
			table[i] = ((d * 512 + i) * 2 * MIB) | PDE_HUGE;
		r = write_at(mem, base + (2 + d) * PAGE, table, sizeof(table), err);
	}
	return r;
}

/* The selectors that the boot protocol asks for: code at 0x10, data at 0x18. */
static int write_gdt(struct mem *mem, struct sm_error *err)
{
	static const uint64_t gdt[] = {0, 0, 0x00af9b000000ffffULL, 0x00cf93000000ffffULL, 0x008f8b000000ffffULL};

	return write_at(mem, LAYOUT_GDT, gdt, sizeof(gdt), err);
}

static void add_e820(struct boot_params *bp, uint64_t addr, uint64_t size, uint32_t type)
{
	bp->e820_table[bp->e820_entries++] = (struct boot_e820_entry){.addr = addr, .size = size, .type = type};
}

/* As high as the kernel reaches, so that it is out of the way of everything the kernel unpacks. */
static int load_initramfs(struct mem *mem, const struct kernel_image *image, const struct boot_options *o,
			  struct boot_params *bp, struct sm_error *err)
{
	uint64_t limit = MIN(o->low_ram, image->initrd_max + 1), at;
	struct stat st;
	void *host;
	ssize_t n;

	if (o->initramfs < 0)
		return 0;
	if (fstat(o->initramfs, &st) < 0)
		return error_sys(err, errno, "initramfs");
	if (!S_ISREG(st.st_mode) || !st.st_size)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "initramfs: empty or not a regular file");
	if ((uint64_t)st.st_size > limit || ((limit - (uint64_t)st.st_size) & ~(PAGE - 1)) < image->end)
		return error_set(err, SM_ERROR_LIMIT, ENOMEM, "initramfs: kernel and initramfs need more memory");
	at = (limit - (uint64_t)st.st_size) & ~(PAGE - 1);
	host = mem_ram(mem, at, (uint64_t)st.st_size, true);
	n = host ? pread_full(o->initramfs, host, (size_t)st.st_size, 0) : -EFAULT;
	if (n != st.st_size)
		return error_sys(err, n < 0 ? (int)-n : EIO, "initramfs: read");
	bp->hdr.ramdisk_image = (uint32_t)at;
	bp->hdr.ramdisk_size = (uint32_t)st.st_size;
	return 0;
}

int boot_write(struct mem *mem, const struct kernel_image *image, const struct boot_options *o, struct sm_error *err)
{
	size_t cmdline = strlen(o->cmdline);
	struct boot_params bp;
	int r;

	memset(&bp, 0, sizeof(bp));
	bp.hdr = image->header;
	if (cmdline > image->cmdline_max)
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "kernel command line: %zu bytes, the kernel takes %u",
				 cmdline, image->cmdline_max);
	r = load_initramfs(mem, image, o, &bp, err);
	if (r < 0)
		return r;
	bp.hdr.type_of_loader = LOADER_TYPE_OTHER;
	bp.hdr.cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
	bp.acpi_rsdp_addr = o->rsdp;
	add_e820(&bp, 0, LAYOUT_LOW_END, E820_RAM);
	add_e820(&bp, LAYOUT_ACPI, MIB - LAYOUT_ACPI, E820_RESERVED);
	add_e820(&bp, MIB, o->low_ram - MIB, E820_RAM);
	add_e820(&bp, LAYOUT_ECAM, LAYOUT_ECAM_SIZE, E820_RESERVED);
	if (o->high_ram)
		add_e820(&bp, LAYOUT_HIGH_RAM, o->high_ram, E820_RAM);
	r = write_at(mem, LAYOUT_BOOT_PARAMS, &bp, sizeof(bp), err);
	r = r < 0 ? r : write_at(mem, LAYOUT_CMDLINE, o->cmdline, cmdline + 1, err);
	r = r < 0 ? r : write_gdt(mem, err);
	return r < 0 ? r : write_page_tables(mem, err);
}
