/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel images. See kernel_image.h. (Linux Documentation/arch/x86/boot.rst; ELF-64 Object File Format 1.5.) */
#include "vmm/x86_64/kernel_image.h"

#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/x86_64/layout.h"

#define LOWEST (1 * MIB)      /* below lie the boot structures and the ACPI tables */
#define HIGHEST (64ULL * GIB) /* sanity: sums of two such values never overflow */
#define SETUP_HEADER 0x1f1
#define SETUP_MAGIC 0x53726448 /* "HdrS" */
#define BOOT_FLAG 0xaa55
#define ENTRY_64 0x200 /* of the 64-bit entry point, from the protected-mode code's start */
#define DEFAULT_INITRD_MAX 0x7fffffffULL

static int bad(struct sm_error *err, const char *what)
{
	return error_set(err, SM_ERROR_CORRUPT, ENOEXEC, "%s", what);
}

static int add_segment(struct kernel_image *k, uint64_t size, struct kernel_segment s, struct sm_error *err)
{
	if (k->count == KERNEL_MAX_SEGMENTS)
		return bad(err, "too many segments");
	if (!range_inside(s.file_off, s.file_len, size))
		return bad(err, "segment beyond the end of the file");
	if (s.file_len > s.mem_len || s.gpa < LOWEST || s.gpa > HIGHEST || s.mem_len > HIGHEST)
		return bad(err, "segment with impossible addresses");
	k->segments[k->count++] = s;
	k->end = MAX(k->end, s.gpa + s.mem_len);
	return 0;
}

/* The entry must be inside what was loaded from the file. */
static int check_entry(const struct kernel_image *k, struct sm_error *err)
{
	for (unsigned i = 0; i < k->count; i++)
		if (k->entry >= k->segments[i].gpa && k->entry - k->segments[i].gpa < k->segments[i].file_len)
			return 0;
	return bad(err, "entry point outside the image");
}

static int parse_bzimage(struct kernel_image *k, uint64_t size, struct sm_error *err)
{
	struct setup_header *h = &k->header;
	struct kernel_segment s;
	uint64_t sectors;

	if (h->version < 0x020c || !(h->xloadflags & XLF_KERNEL_64))
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOEXEC, "no 64-bit entry point (boot protocol %x.%02x)",
				 h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH))
		return bad(err, "not a big kernel image");
	sectors = h->setup_sects ? h->setup_sects : 4;
	s.file_off = (sectors + 1) * 512;
	if (s.file_off >= size)
		return bad(err, "truncated: ends before the kernel proper");
	s.file_len = size - s.file_off;
	s.gpa = h->pref_address;
	s.mem_len = MAX((uint64_t)h->init_size, s.file_len);
	if (h->syssize && (uint64_t)h->syssize * 16 > align_up(s.file_len, 16))
		return bad(err, "truncated: shorter than its header says");
	k->entry = s.gpa + ENTRY_64;
	k->initrd_max = h->initrd_addr_max ? h->initrd_addr_max : DEFAULT_INITRD_MAX;
	k->cmdline_max = h->cmdline_size;
	return add_segment(k, size, s, err);
}

static void elf_setup_header(struct kernel_image *k)
{
	struct setup_header *h = &k->header;

	memset(h, 0, sizeof(*h));
	h->boot_flag = BOOT_FLAG;
	h->header = SETUP_MAGIC;
	h->version = 0x020f;
	h->loadflags = LOADED_HIGH;
	h->kernel_alignment = 2 * MIB;
	h->initrd_addr_max = DEFAULT_INITRD_MAX;
	h->cmdline_size = k->cmdline_max = 2047;
	k->initrd_max = DEFAULT_INITRD_MAX;
}

static int parse_elf(struct kernel_image *k, const Elf64_Ehdr *eh, uint64_t size, struct sm_error *err)
{
	Elf64_Phdr ph;

	if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_machine != EM_X86_64)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOEXEC, "not an x86-64 ELF file");
	if (eh->e_type != ET_EXEC || eh->e_phentsize != sizeof(ph) || eh->e_phnum > 64)
		return bad(err, "not an executable kernel");
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		uint64_t off = eh->e_phoff + i * sizeof(ph);
		int r;

		if (!range_inside(eh->e_phoff, (i + 1) * sizeof(ph), size) ||
		    pread_full(k->fd, &ph, sizeof(ph), (off_t)off) != (ssize_t)sizeof(ph))
			return bad(err, "program headers beyond the end of the file");
		if (ph.p_type != PT_LOAD || !ph.p_memsz)
			continue;
		r = add_segment(k, size, (struct kernel_segment){ph.p_offset, ph.p_filesz, ph.p_paddr, ph.p_memsz},
				err);
		if (r < 0)
			return r;
	}
	if (!k->count)
		return bad(err, "nothing to load");
	k->entry = eh->e_entry;
	elf_setup_header(k);
	return 0;
}

int kernel_image_parse(int fd, struct kernel_image *ret, struct sm_error *err)
{
	struct kernel_image k = {.fd = fd};
	uint8_t head[1024] = {0};
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "kernel");
	if (!S_ISREG(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "kernel: not a regular file");
	if (pread_full(fd, head, sizeof(head), 0) < (ssize_t)sizeof(head))
		return error_wrap(err, bad(err, "too short"), "kernel");
	memcpy(&k.header, head + SETUP_HEADER, sizeof(k.header));
	if (!memcmp(head, ELFMAG, SELFMAG)) {
		Elf64_Ehdr eh;

		memcpy(&eh, head, sizeof(eh));
		r = parse_elf(&k, &eh, (uint64_t)st.st_size, err);
	} else if (k.header.boot_flag == BOOT_FLAG && k.header.header == SETUP_MAGIC) {
		r = parse_bzimage(&k, (uint64_t)st.st_size, err);
	} else {
		r = bad(err, "neither a bzImage (vmlinuz) nor an ELF vmlinux");
	}
	if (!r)
		r = check_entry(&k, err);
	if (r < 0)
		return error_wrap(err, r, "kernel");
	*ret = k;
	return 0;
}

int kernel_image_load(const struct kernel_image *image, struct mem *mem, struct sm_error *err)
{
	for (unsigned i = 0; i < image->count; i++) {
		const struct kernel_segment *s = &image->segments[i];
		void *host = mem_ram(mem, s->gpa, s->mem_len, true);
		ssize_t n;

		if (!host)
			return error_set(err, SM_ERROR_LIMIT, ENOMEM,
					 "kernel: needs memory up to %llu MiB, more than the guest has",
					 (unsigned long long)((s->gpa + s->mem_len) >> 20));
		n = pread_full(image->fd, host, s->file_len, (off_t)s->file_off);
		if (n < 0)
			return error_sys(err, (int)-n, "kernel: read");
		if ((uint64_t)n != s->file_len)
			return error_set(err, SM_ERROR_CORRUPT, EIO, "kernel: the file became shorter");
	}
	return 0;
}
