/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's identification and first registers. All vCPUs start with the local APIC in x2APIC mode, as firmware may
 * leave it: the kernel then never touches the memory-mapped one, whose every access would be an emulated instruction.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "vmm/vm.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/layout.h"

#define CR0_BOOT 0x80010033ULL /* PG, WP, NE, ET, MP, PE */
#define CR4_PAE 0x20ULL
#define EFER_LONG 0x500ULL /* LME, LMA */
#define APIC_X2APIC 0x400ULL
#define RFLAGS_RESERVED 0x2ULL

#define XCR0_X87_SSE_AVX 0x7
#define MSR_MISC_ENABLE 0x1a0
#define MISC_FAST_STRINGS 0x1
#define MSR_MTRR_DEFAULT 0x2ff
#define MTRR_ENABLED_WRITE_BACK 0x806

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = type != 0x0b || code,
		.l = code,
		.db = !code,
		.g = 1,
	};
}

int arch_vcpu_identify(struct vcpu *vcpu, struct sm_error *err)
{
	struct cpuid c = *vcpu->vm->arch.cpuid;
	int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);

	cpuid_filter(&c, vcpu->vm->cfg->cpus, khz > 0 ? (uint32_t)khz : 0);
	cpuid_for_vcpu(&c, vcpu->id, vcpu->vm->cfg->cpus);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, &c) < 0)
		return error_sys(err, errno, "vCPU %u: CPUID", vcpu->id);
	return 0;
}

static int set_msrs(struct vcpu *vcpu, struct sm_error *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {
		.head.nmsrs = 2,
		.entries = {{.index = MSR_MISC_ENABLE, .data = MISC_FAST_STRINGS},
			    {.index = MSR_MTRR_DEFAULT, .data = MTRR_ENABLED_WRITE_BACK}},
	};

	if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != 2)
		return error_sys(err, errno ? errno : EINVAL, "vCPU %u: MSRs", vcpu->id);
	return 0;
}

/*
 * XCR0 as the kernel will set it. A machine that does not intercept XSETBV (emulated SVM) would leave KVM with the
 * reset value, and the guest with a CPUID that contradicts itself.
 */
static int set_xcr0(struct vcpu *vcpu, struct sm_error *err)
{
	struct kvm_xcrs x = {.nr_xcrs = 1};
	uint64_t supported = 0;

	for (uint32_t i = 0; i < vcpu->vm->arch.cpuid->head.nent; i++) {
		const struct kvm_cpuid_entry2 *e = &vcpu->vm->arch.cpuid->entries[i];

		if (e->function == 0x0d && e->index == 0)
			supported = e->eax;
	}
	x.xcrs[0].value = supported & XCR0_X87_SSE_AVX;
	if (!x.xcrs[0].value)
		return 0; /* no XSAVE */
	if (ioctl(vcpu->fd, KVM_SET_XCRS, &x) < 0)
		return error_sys(err, errno, "vCPU %u: XCR0", vcpu->id);
	return 0;
}

static int set_segments(struct vcpu *vcpu, struct sm_error *err)
{
	struct kvm_sregs s;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &s) < 0)
		return error_sys(err, errno, "vCPU %u: registers", vcpu->id);
	s.apic_base |= APIC_X2APIC;
	if (vcpu->id == 0) {
		s.cs = segment(0x10, 0x0b, true);
		s.ds = s.es = s.fs = s.gs = s.ss = segment(0x18, 0x03, false);
		s.gdt.base = LAYOUT_GDT;
		s.gdt.limit = 5 * 8 - 1;
		s.idt.base = 0;
		s.idt.limit = 0;
		s.cr0 = CR0_BOOT;
		s.cr3 = LAYOUT_PAGE_TABLES;
		s.cr4 = CR4_PAE;
		s.efer = EFER_LONG;
	}
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &s) < 0)
		return error_sys(err, errno, "vCPU %u: registers", vcpu->id);
	return 0;
}

int arch_vcpu_init(struct vcpu *vcpu, struct sm_error *err)
{
	struct kvm_regs regs = {.rip = vcpu->vm->arch.entry, .rsi = LAYOUT_BOOT_PARAMS, .rflags = RFLAGS_RESERVED};
	int r = set_msrs(vcpu, err);

	r = r < 0 ? r : set_xcr0(vcpu, err);
	r = r < 0 ? r : set_segments(vcpu, err);
	if (r < 0 || vcpu->id != 0)
		return r; /* the others wait for the kernel's start-up interrupt */
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		return error_sys(err, errno, "vCPU %u: registers", vcpu->id);
	return 0;
}
