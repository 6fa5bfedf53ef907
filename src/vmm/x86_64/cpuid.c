/* SPDX-License-Identifier: Apache-2.0 */
/* CPU identification. See cpuid.h. (Intel SDM 2A, CPUID; AMD APM 3, appendix E; Linux Documentation/virt/kvm/x86.) */
#include "vmm/x86_64/cpuid.h"

#include <stdbool.h>
#include <string.h>

#include "base/util.h"

#define BIT(n) (1u << (n))

#define KVM_SIGNATURE 0x40000000u
#define KVM_FEATURES 0x40000001u

/* Paravirtual features that we vouch for. Asynchronous page faults are not among them: a snapshot taken while a task
 * waits for a page leaves it waiting for ever. */
#define KVM_FEATURES_KEPT (BIT(0) | BIT(1) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(11) | BIT(13) | BIT(24))
/*	clocksource, no I/O delay, clocksource2, steal time, PV EOI, PV unhalt, PV TLB flush, PV IPI, PV yield, stable
 * clock */

static struct kvm_cpuid_entry2 *find(struct cpuid *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->head.nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

static struct kvm_cpuid_entry2 *get(struct cpuid *c, uint32_t function, uint32_t index, uint32_t flags)
{
	struct kvm_cpuid_entry2 *e = find(c, function, index);

	if (e || c->head.nent == CPUID_MAX_ENTRIES)
		return e;
	e = &c->entries[c->head.nent++];
	*e = (struct kvm_cpuid_entry2){.function = function, .index = index, .flags = flags};
	return e;
}

static void drop(struct cpuid *c, uint32_t function)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->head.nent; i++)
		if (c->entries[i].function != function)
			c->entries[kept++] = c->entries[i];
	c->head.nent = kept;
}

static void zero(struct cpuid *c, uint32_t function)
{
	for (uint32_t i = 0; i < c->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == function)
			e->eax = e->ebx = e->ecx = e->edx = 0;
	}
}

static void filter_basic(struct cpuid *c, unsigned cpus)
{
	struct kvm_cpuid_entry2 *e = find(c, 1, 0);

	if (e) {
		/* DTES64, monitor, DS-CPL, VMX, SMX, EIST, TM2, PDCM */
		e->ecx &= ~(BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(15));
		e->ecx |= BIT(21) | BIT(24) | BIT(31);	  /* x2APIC, TSC deadline, hypervisor */
		e->edx &= ~(BIT(21) | BIT(22) | BIT(29)); /* debug store, thermal */
		if (cpus > 1)
			e->edx |= BIT(28);
	}
	e = find(c, 6, 0);
	if (e) {
		e->eax = BIT(2); /* the APIC timer always runs */
		e->ebx = e->ecx = e->edx = 0;
	}
	e = find(c, 7, 0);
	if (e) {
		e->ebx &= ~(BIT(2) | BIT(25));				      /* SGX, processor trace */
		e->ecx &= ~(BIT(7) | BIT(30));				      /* shadow stacks, SGX launch control */
		e->edx &= ~(BIT(19) | BIT(20) | BIT(22) | BIT(24) | BIT(25)); /* arch LBR, IBT, AMX */
	}
	e = find(c, 7, 1);
	if (e)
		e->eax &= ~BIT(21); /* AMX-FP16 */
}

static void filter_extended(struct cpuid *c)
{
	struct kvm_cpuid_entry2 *e = find(c, 0x80000001, 0);

	if (e)
		/* SVM, IBS, SKINIT, WDT, LWP, node id MSR, the performance counters */
		e->ecx &= ~(BIT(2) | BIT(10) | BIT(12) | BIT(13) | BIT(15) | BIT(19) | BIT(23) | BIT(24) | BIT(28));
	zero(c, 0x8000000a); /* SVM */
	zero(c, 0x8000001b); /* IBS */
	zero(c, 0x8000001f); /* memory encryption */
	zero(c, 0x80000022); /* performance counters */
}

static void filter_paravirtual(struct cpuid *c, uint32_t tsc_khz)
{
	struct kvm_cpuid_entry2 *e = find(c, KVM_SIGNATURE, 0);

	if (!e)
		return;
	e->eax = CPUID_TIMING_LEAF;
	e = find(c, KVM_FEATURES, 0);
	if (e) {
		e->eax &= KVM_FEATURES_KEPT;
		e->edx = 0;
	}
	if (!tsc_khz)
		return;
	e = get(c, CPUID_TIMING_LEAF, 0, 0);
	if (e) {
		e->eax = tsc_khz;
		e->ebx = 1000000; /* KVM's APIC timer: 1 GHz */
	}
}

void cpuid_filter(struct cpuid *c, unsigned cpus, uint32_t tsc_khz)
{
	static const uint32_t hidden[] = {0x0a, 0x12, 0x14, 0x1c, 0x1d, 0x1e, 0x23, 0x24};

	filter_basic(c, cpus);
	filter_extended(c);
	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
		zero(c, hidden[i]);
	filter_paravirtual(c, tsc_khz);
	/* The topology of the host is not the guest's: rebuilt for each vCPU. */
	drop(c, 0x0b);
	drop(c, 0x1f);
}

static unsigned bits_for(unsigned n)
{
	unsigned bits = 0;

	while ((1u << bits) < n)
		bits++;
	return bits;
}

/* One package, one thread a core. */
static void topology_leaf(struct cpuid *c, uint32_t function, unsigned id, unsigned cpus)
{
	struct kvm_cpuid_entry2 *thread = get(c, function, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX), *core;

	if (thread) {
		thread->eax = 0;
		thread->ebx = 1;
		thread->ecx = 0 | 1 << 8;
		thread->edx = id;
	}
	core = get(c, function, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	if (core) {
		core->eax = bits_for(cpus);
		core->ebx = cpus;
		core->ecx = 1 | 2 << 8;
		core->edx = id;
	}
}

static void cache_sharing(struct cpuid *c, uint32_t function, unsigned cpus)
{
	for (uint32_t i = 0; i < c->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];
		unsigned level = e->eax >> 5 & 7, sharing = level >= 3 ? cpus : 1;

		if (e->function != function || !(e->eax & 0x1f))
			continue;
		e->eax &= ~(0xfffu << 14 | 0x3fu << 26);
		e->eax |= (sharing - 1) << 14;
		if (function == 4)
			e->eax |= ((1u << bits_for(cpus)) - 1) << 26;
	}
}

void cpuid_for_vcpu(struct cpuid *c, unsigned id, unsigned cpus)
{
	struct kvm_cpuid_entry2 *e = find(c, 1, 0);

	if (e)
		e->ebx = (e->ebx & 0xffff) | (1u << bits_for(cpus)) << 16 | id << 24;
	topology_leaf(c, 0x0b, id, cpus);
	cache_sharing(c, 4, cpus);
	cache_sharing(c, 0x8000001d, cpus);
	e = find(c, 0x80000008, 0);
	if (e)
		e->ecx = (cpus - 1) | bits_for(cpus) << 12;
	e = find(c, 0x8000001e, 0);
	if (e) {
		e->eax = id;
		e->ebx = id; /* core id, one thread a core */
		e->ecx = 0;  /* one node */
		e->edx = 0;
	}
}
