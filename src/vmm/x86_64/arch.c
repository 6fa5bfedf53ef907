/* SPDX-License-Identifier: Apache-2.0 */
/* The x86-64 machine: a PC without the PC. See arch.h, and layout.h for where things are. */
#include "vmm/arch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "vmm/vm.h"
#include "vmm/x86_64/acpi.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/layout.h"

#define CMDLINE_MAX 2048
#define MSR_LIST_MAX 512

/*
 * What the monitor itself tells the kernel. docs/PERFORMANCE.md has what each of the last two lines saves.
 *  - panic=-1, reboot=a: reset at once by the register that the ACPI tables name (a kernel on a hardware-reduced
 * machine would try EFI and then the BIOS); the monitor reports it.
 *  - tsc=reliable: KVM keeps the vCPUs' counters together, so do not spend the boot comparing them.
 *  - quiet, loglevel=3: a line on the serial port costs two exits a character; a panic is printed all the same.
 *  - 8250.nr_uarts=1, pci=noearly, nokaslr, cryptomgr.notests: do not look for what is not there, nor move a kernel
 * about that is alone in its machine, nor check its ciphers at every start.
 *  - initcall_blacklist: ftrace's check of 37,000 addresses for weak functions, resolving enum names in the trace
 * events' formats, the files of tracefs (8000 inodes, 9 MiB of each snapshot), and the certificates for module
 * signatures (which are not enforced; modules are marked unsigned). Kernels without these functions ignore the names.
 */
static const char base_cmdline[] = "console=ttyS0 panic=-1 reboot=a tsc=reliable no_timer_check quiet loglevel=3 "
				   "8250.nr_uarts=1 pci=noearly nokaslr cryptomgr.notests "
				   "initcall_blacklist=ftrace_check_for_weak_functions,trace_eval_init,tracer_init_"
				   "tracefs,load_system_certificate_list";

/* Where a kernel ends that resets through the BIOS all the same: 16-bit code that writes the reset register. */
static const uint8_t reset_stub[] = {
	0xba,
	(LAYOUT_POWER + POWER_RESET) & 0xff,
	(LAYOUT_POWER + POWER_RESET) >> 8, /* mov dx, port */
	0xb0,
	POWER_RESET_VALUE,
	0xee, /* mov al, value; out dx, al */
	0xf4,
	0xeb,
	0xfd, /* hlt; jmp to it */
};

uint64_t arch_low_ram_end(uint64_t memory)
{
	return MIN(memory, LAYOUT_HOLE);
}

uint64_t arch_high_ram_base(void)
{
	return LAYOUT_HIGH_RAM;
}

uint64_t arch_ecam_base(void)
{
	return LAYOUT_ECAM;
}

int arch_vm_init(struct vm *vm, struct sm_error *err)
{
	uint64_t map = LAYOUT_IDENTITY_MAP;

	/* Only Intel CPUs of the first generations need these two, but KVM wants them told before it knows. */
	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &map) < 0 || ioctl(vm->fd, KVM_SET_TSS_ADDR, LAYOUT_TSS) < 0)
		return error_sys(err, errno, "KVM: real-mode pages");
	pci_host_init(&vm->pci, LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_SIZE, LAYOUT_PCI_IO, LAYOUT_PCI_IO_SIZE);
	return 0;
}

/* Local APICs in the kernel; our own small I/O APIC, no PIC, no PIT. */
int arch_vm_irqchip(struct vm *vm, struct sm_error *err)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {LAYOUT_IOAPIC_PINS}};

	return ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0 ? error_sys(err, errno, "KVM: interrupt controller") : 0;
}

void arch_signal_msi(struct vm *vm, uint64_t addr, uint32_t data)
{
	struct kvm_msi msi = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};

	if (ioctl(vm->fd, KVM_SIGNAL_MSI, &msi) < 0)
		vm->arch.lost_msis++;
}

static void ioapic_msi(void *arg, uint64_t addr, uint32_t data)
{
	arch_signal_msi(arg, addr, data);
}

static void serial_out(void *arg, uint8_t byte)
{
	console_put(&((struct vm *)arg)->console, byte);
}

static void serial_irq(void *arg)
{
	ioapic_edge(&((struct vm *)arg)->arch.ioapic, LAYOUT_SERIAL_GSI);
}

int arch_vm_buses(struct vm *vm, struct sm_error *err)
{
	int r;

	ioapic_init(&vm->arch.ioapic, ioapic_msi, vm);
	vm->serial = (struct serial){.out = serial_out, .irq = serial_irq, .arg = vm};
	r = bus_add(&vm->pio, "serial", LAYOUT_SERIAL, SERIAL_PORTS, serial_access, &vm->serial);
	r = r ? r : bus_add(&vm->pio, "power", LAYOUT_POWER, LAYOUT_POWER_SIZE, power_access, &vm->power);
	r = r ? r : bus_add(&vm->pio, "cf9", LAYOUT_PCI_RESET, 1, power_cf9_access, &vm->power);
	r = r ? r : bus_add(&vm->pio, "kbd", LAYOUT_KBD_RESET, 1, power_kbd_access, &vm->power);
	r = r ? r : bus_add(&vm->pio, "pci", LAYOUT_PCI_IO, LAYOUT_PCI_IO_SIZE, pci_host_io, &vm->pci);
	r = r ? r : bus_add(&vm->mmio, "ioapic", LAYOUT_IOAPIC, IOAPIC_SIZE, ioapic_access, &vm->arch.ioapic);
	r = r ? r : bus_add(&vm->mmio, "ecam", LAYOUT_ECAM, LAYOUT_ECAM_SIZE, pci_host_ecam, &vm->pci);
	r = r ? r : bus_add(&vm->mmio, "pci", LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_SIZE, pci_host_mmio, &vm->pci);
	return r < 0 ? error_sys(err, -r, "buses") : 0;
}

static int write_acpi(struct vm *vm, uint64_t *ret_rsdp, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf tables = {0};
	struct acpi_layout layout;
	uint8_t generation[16];
	struct acpi_options o = {
		.cpus = vm->cfg->cpus,
		.high_mmio = vm->dax_place.gpa,
		.high_mmio_size = vm->dax_place.size ? round_up_pow2(vm->dax_place.size) : 0,
	};
	int r = acpi_build(LAYOUT_ACPI, &o, &tables, &layout, err);

	if (r < 0)
		return r;
	if (getrandom(generation, sizeof(generation), 0) != sizeof(generation))
		return error_sys(err, errno, "random generation");
	if (mem_write(&vm->mem, LAYOUT_ACPI, tables.data, tables.len) < 0 ||
	    mem_write(&vm->mem, LAYOUT_VMGENID, generation, sizeof(generation)) < 0 ||
	    mem_write(&vm->mem, LAYOUT_RESET_VECTOR, reset_stub, sizeof(reset_stub)) < 0)
		return error_set(err, SM_ERROR_LIMIT, ENOMEM, "ACPI tables do not fit");
	*ret_rsdp = layout.rsdp;
	return 0;
}

/* The common part of the CPU identification, once for all vCPUs. */
static int read_cpuid(struct vm *vm, struct sm_error *err)
{
	vm->arch.cpuid = calloc(1, sizeof(*vm->arch.cpuid));
	if (!vm->arch.cpuid)
		return error_sys(err, ENOMEM, "CPUID");
	vm->arch.cpuid->head.nent = CPUID_MAX_ENTRIES;
	if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, vm->arch.cpuid) < 0)
		return error_sys(err, errno, "KVM: supported CPUID");
	return 0;
}

static int read_msr_list(struct vm *vm, struct sm_error *err)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MSR_LIST_MAX * sizeof(list->indices[0]));

	if (!list)
		return error_sys(err, ENOMEM, "MSRs");
	vm->arch.msr_list = list;
	list->nmsrs = MSR_LIST_MAX;
	return ioctl(vm->kvm, KVM_GET_MSR_INDEX_LIST, list) < 0 ? error_sys(err, errno, "KVM: list of MSRs") : 0;
}

int arch_vm_probe(struct vm *vm, struct sm_error *err)
{
	int r = read_cpuid(vm, err);

	return r < 0 ? r : read_msr_list(vm, err);
}

static bool has_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = line; (p = strstr(p, word)); p += n)
		if ((p == line || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

int arch_vm_load(struct vm *vm, struct sm_error *err)
{
	struct kernel_image image;
	struct boot_options o = {.initramfs = vm->cfg->initramfs};
	char cmdline[CMDLINE_MAX];
	int r, n;

	/* Another "quiet" would bring errors back, and the first is that there is no CF8/CFC. */
	n = snprintf(cmdline, sizeof(cmdline), "%s %s%s", base_cmdline, vm->cfg->cmdline,
		     has_word(vm->cfg->cmdline, "quiet") ? " loglevel=3" : "");
	if (n >= (int)sizeof(cmdline))
		return error_set(err, SM_ERROR_LIMIT, E2BIG, "kernel command line too long");
	o.cmdline = cmdline;
	o.low_ram = arch_low_ram_end(vm->cfg->memory);
	o.high_ram = vm->cfg->memory - o.low_ram;
	r = write_acpi(vm, &o.rsdp, err);
	r = r < 0 ? r : kernel_image_parse(vm->cfg->kernel, &image, err);
	r = r < 0 ? r : kernel_image_load(&image, &vm->mem, err);
	r = r < 0 ? r : boot_write(&vm->mem, &image, &o, err);
	if (r == 0)
		vm->arch.entry = image.entry;
	return r;
}
