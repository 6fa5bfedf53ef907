/* SPDX-License-Identifier: Apache-2.0 */
/* The architecture's part of struct vm. */
#ifndef VMM_X86_64_ARCH_VM_H
#define VMM_X86_64_ARCH_VM_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/kvm.h>

#include "vmm/x86_64/ioapic.h"

struct cpuid;

struct arch_vm {
	struct ioapic ioapic;
	struct cpuid *cpuid;	       /* the VM's common part */
	struct kvm_msr_list *msr_list; /* what this host's KVM can save; read before the seal */
	uint64_t tsc_offset;	       /* of all vCPUs, while a snapshot is loaded */
	bool clock_held;
	uint64_t held_clock, held_tsc; /* while it is */
	uint64_t entry;		       /* of the kernel */
	uint64_t lost_msis;	       /* metric: KVM refused to deliver */
};

#endif
