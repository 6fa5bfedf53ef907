/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel loader: a hostile vmlinuz or vmlinux never reads or writes outside the file and the guest's RAM. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/kernel_image.h"

#define RAM (64 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* RAM with a page that traps on each side. */
static uint8_t *guarded_ram(void)
{
	uint8_t *p = mmap(NULL, RAM + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED || mprotect(p + 4096, RAM, PROT_READ | PROT_WRITE))
		abort();
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_options o = {.low_ram = RAM, .cmdline = "fuzz", .rsdp = 0xe0000, .initramfs = -1};
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .size = RAM};
	struct kernel_image image;
	struct mem mem = {0};
	int fd = memfd_create("kernel", MFD_CLOEXEC);
	uint8_t *ram;

	if (fd < 0 || pwrite_full(fd, data, size, 0) < 0)
		abort();
	if (kernel_image_parse(fd, &image, NULL) < 0) {
		close(fd);
		return 0;
	}
	ram = guarded_ram();
	r.host = ram + 4096;
	if (mem_add(&mem, &r) < 0)
		abort();
	if (kernel_image_load(&image, &mem, NULL) == 0) {
		o.initramfs = fd; /* any file will do */
		if (boot_write(&mem, &image, &o, NULL) == 0 && image.end > RAM)
			abort();
	}
	munmap(ram, RAM + 8192);
	close(fd);
	return 0;
}
