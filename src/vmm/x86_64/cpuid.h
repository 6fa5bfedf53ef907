/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU says it is: the host's CPU as KVM supports it, less what a guest of ours must not see (nested
 * virtualization, performance counters, tracing, control-flow shadow stacks and tiles that a snapshot would have to
 * carry), plus its place in the topology and the paravirtual leaves.
 */
#ifndef VMM_X86_64_CPUID_H
#define VMM_X86_64_CPUID_H

#include <stdint.h>
#include <linux/kvm.h>

#include "base/error.h"

#define CPUID_MAX_ENTRIES 128
#define CPUID_TIMING_LEAF 0x40000010u /* hypervisors' own: counter and APIC timer rates in kHz */

struct cpuid {
	struct kvm_cpuid2 head; /* as the ioctl wants it: entries follow */
	struct kvm_cpuid_entry2 entries[CPUID_MAX_ENTRIES];
};

/* Turns what KVM supports (*c, from KVM_GET_SUPPORTED_CPUID) into the VM's common part. */
void cpuid_filter(struct cpuid *c, unsigned cpus, uint32_t tsc_khz);
/* Sets what differs from vCPU to vCPU. */
void cpuid_for_vcpu(struct cpuid *c, unsigned id, unsigned cpus);

#endif
