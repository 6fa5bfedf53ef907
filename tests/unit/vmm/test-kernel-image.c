/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel images: good ones load where they say; broken and hostile ones are refused before anything is written. */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/kernel_image.h"
#include "vmm/x86_64/layout.h"

#define RAM (64 * MIB)

static int file_of(const void *p, size_t len)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, p, len, 0), 0);
	return fd;
}

/* A bzImage of 4 setup sectors and 8 KiB of kernel. */
static void make_bzimage(uint8_t img[static 5 * 512 + 8192])
{
	struct setup_header *h = (void *)(img + 0x1f1);

	memset(img, 0, 5 * 512 + 8192);
	memset(img + 5 * 512, 0xaa, 8192);
	h->setup_sects = 4;
	h->syssize = 8192 / 16;
	h->boot_flag = 0xaa55;
	h->header = 0x53726448;
	h->version = 0x020f;
	h->loadflags = 1;
	h->xloadflags = XLF_KERNEL_64;
	h->pref_address = 16 * MIB;
	h->init_size = 2 * MIB;
	h->initrd_addr_max = 0x7fffffff;
	h->cmdline_size = 2047;
}

struct elf_file {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[3];
	uint8_t body[4096];
};

static void make_elf(struct elf_file *e)
{
	memset(e, 0, sizeof(*e));
	memcpy(e->eh.e_ident, ELFMAG, SELFMAG);
	e->eh.e_ident[EI_CLASS] = ELFCLASS64;
	e->eh.e_ident[EI_DATA] = ELFDATA2LSB;
	e->eh.e_type = ET_EXEC;
	e->eh.e_machine = EM_X86_64;
	e->eh.e_entry = 16 * MIB + 16;
	e->eh.e_phoff = offsetof(struct elf_file, ph);
	e->eh.e_phentsize = sizeof(Elf64_Phdr);
	e->eh.e_phnum = 3;
	e->ph[0] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = UINT64_MAX, .p_filesz = 8, .p_memsz = 8};
	e->ph[1] = (Elf64_Phdr){.p_type = PT_LOAD,
				.p_offset = offsetof(struct elf_file, body),
				.p_filesz = 2048,
				.p_memsz = 4096,
				.p_paddr = 16 * MIB};
	e->ph[2] = (Elf64_Phdr){.p_type = PT_LOAD,
				.p_offset = offsetof(struct elf_file, body) + 2048,
				.p_filesz = 2048,
				.p_memsz = 1 * MIB,
				.p_paddr = 18 * MIB};
	memset(e->body, 0xbb, sizeof(e->body));
}

static int parse(const void *p, size_t len, struct kernel_image *k)
{
	int fd = file_of(p, len), r = kernel_image_parse(fd, k, NULL);

	if (r < 0)
		close(fd);
	return r;
}

static void refused(const void *p, size_t len)
{
	struct kernel_image k;

	assert_true(parse(p, len, &k) < 0);
}

static void with_ram(struct mem *mem, uint8_t **ret)
{
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .size = RAM};

	*ret = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(*ret != MAP_FAILED);
	r.host = *ret;
	assert_int_equal(mem_add(mem, &r), 0);
}

static void test_bzimage(void **state)
{
	static uint8_t img[5 * 512 + 8192];
	struct kernel_image k;
	struct mem mem = {0};
	uint8_t *ram;

	make_bzimage(img);
	with_ram(&mem, &ram);
	assert_int_equal(parse(img, sizeof(img), &k), 0);
	assert_int_equal(k.entry, 16 * MIB + 0x200);
	assert_int_equal(k.end, 18 * MIB);
	assert_int_equal(kernel_image_load(&k, &mem, NULL), 0);
	assert_int_equal(ram[16 * MIB], 0xaa);
	assert_int_equal(ram[16 * MIB + 8191], 0xaa);
	assert_int_equal(ram[16 * MIB + 8192], 0);
	/* The file becomes shorter between the two. */
	assert_int_equal(ftruncate(k.fd, 5 * 512 + 100), 0);
	assert_int_equal(kernel_image_load(&k, &mem, NULL), -EIO);
	close(k.fd);
	munmap(ram, RAM);
}

static void test_elf(void **state)
{
	static struct elf_file e;
	struct kernel_image k;
	struct mem mem = {0};
	uint8_t *ram;

	make_elf(&e);
	with_ram(&mem, &ram);
	assert_int_equal(parse(&e, sizeof(e), &k), 0);
	assert_int_equal(k.count, 2);
	assert_int_equal(k.end, 19 * MIB);
	assert_int_equal(kernel_image_load(&k, &mem, NULL), 0);
	assert_int_equal(ram[18 * MIB + 2047], 0xbb);
	assert_int_equal(ram[18 * MIB + 2048], 0);
	assert_int_equal(k.header.header, 0x53726448);
	close(k.fd);
	munmap(ram, RAM);
}

static void test_bzimage_refused(void **state)
{
	static uint8_t img[5 * 512 + 8192];
	struct setup_header *h = (void *)(img + 0x1f1);

	make_bzimage(img);
	refused(img, 0);
	refused(img, 512);
	refused(img, 5 * 512);
	refused(img, 5 * 512 + 4096); /* shorter than syssize says */
	h->version = 0x020b;
	refused(img, sizeof(img));
	make_bzimage(img);
	h->xloadflags = 0;
	refused(img, sizeof(img));
	make_bzimage(img);
	h->loadflags = 0;
	refused(img, sizeof(img));
	make_bzimage(img);
	h->pref_address = 0x1000; /* over the boot structures */
	refused(img, sizeof(img));
	h->pref_address = UINT64_MAX - 4096;
	refused(img, sizeof(img));
	make_bzimage(img);
	h->setup_sects = 255;
	refused(img, sizeof(img));
	make_bzimage(img);
	h->boot_flag = 0;
	refused(img, sizeof(img));
}

static void test_elf_refused(void **state)
{
	static struct elf_file e;

	make_elf(&e);
	e.eh.e_ident[EI_CLASS] = ELFCLASS32;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.eh.e_machine = EM_AARCH64;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.eh.e_phoff = UINT64_MAX - 8;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.eh.e_phnum = 65;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.eh.e_phnum = 1;
	refused(&e, sizeof(e)); /* nothing to load */
	make_elf(&e);
	e.ph[1].p_filesz = 8192;
	refused(&e, sizeof(e)); /* larger in the file than in memory */
	make_elf(&e);
	e.ph[1].p_offset = UINT64_MAX - 100;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.ph[1].p_paddr = 0;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.ph[2].p_memsz = UINT64_MAX;
	refused(&e, sizeof(e));
	make_elf(&e);
	e.eh.e_entry = 16 * MIB + 3000; /* in memory, not in the file */
	refused(&e, sizeof(e));
	make_elf(&e);
	refused(&e, 1500);
}

static void test_does_not_fit(void **state)
{
	static struct elf_file e;
	struct kernel_image k;
	struct sm_error err = {0};
	struct mem mem = {0};
	uint8_t *ram;

	make_elf(&e);
	e.ph[2].p_paddr = RAM - 4096;
	with_ram(&mem, &ram);
	assert_int_equal(parse(&e, sizeof(e), &k), 0);
	assert_int_equal(kernel_image_load(&k, &mem, &err), -ENOMEM);
	assert_non_null(strstr(err.message, "more than the guest has"));
	close(k.fd);
	munmap(ram, RAM);
}

static void test_boot_params(void **state)
{
	static uint8_t img[5 * 512 + 8192];
	struct boot_options o = {.low_ram = RAM, .cmdline = "hello", .rsdp = 0xe1230};
	struct boot_params bp;
	struct kernel_image k;
	struct sm_error err = {0};
	struct mem mem = {0};
	uint8_t *ram, initrd[5000];
	char longline[3000];

	make_bzimage(img);
	with_ram(&mem, &ram);
	assert_int_equal(parse(img, sizeof(img), &k), 0);
	memset(initrd, 0xcc, sizeof(initrd));
	o.initramfs = file_of(initrd, sizeof(initrd));
	assert_int_equal(boot_write(&mem, &k, &o, &err), 0);
	memcpy(&bp, ram + LAYOUT_BOOT_PARAMS, sizeof(bp));
	assert_int_equal(bp.hdr.ramdisk_image, RAM - 8192);
	assert_int_equal(bp.hdr.ramdisk_size, 5000);
	assert_int_equal(ram[RAM - 8192 + 4999], 0xcc);
	assert_int_equal(bp.acpi_rsdp_addr, 0xe1230);
	assert_string_equal((char *)ram + LAYOUT_CMDLINE, "hello");
	assert_int_equal(bp.e820_entries, 4);
	assert_int_equal(bp.e820_table[2].addr + bp.e820_table[2].size, RAM);
	/* An initramfs that would lie over the kernel, an empty one, a command line that is too long. */
	assert_int_equal(ftruncate(o.initramfs, 47 * MIB), 0);
	assert_int_equal(boot_write(&mem, &k, &o, &err), -ENOMEM);
	assert_int_equal(ftruncate(o.initramfs, 0), 0);
	assert_int_equal(boot_write(&mem, &k, &o, &err), -EINVAL);
	memset(longline, 'a', sizeof(longline) - 1);
	longline[sizeof(longline) - 1] = '\0';
	close(o.initramfs);
	o.initramfs = -1;
	o.cmdline = longline;
	assert_int_equal(boot_write(&mem, &k, &o, &err), -E2BIG);
	close(k.fd);
	munmap(ram, RAM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage),		cmocka_unit_test(test_elf),
		cmocka_unit_test(test_bzimage_refused), cmocka_unit_test(test_elf_refused),
		cmocka_unit_test(test_does_not_fit),	cmocka_unit_test(test_boot_params),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
