/* SPDX-License-Identifier: Apache-2.0 */
/* The architecture's part of struct vm. */
#ifndef VMM_X86_64_ARCH_VM_H
#define VMM_X86_64_ARCH_VM_H

#include <stdint.h>

#include "vmm/x86_64/ioapic.h"

struct cpuid;

struct arch_vm {
	struct ioapic ioapic;
	struct cpuid *cpuid; /* while vCPUs are made */
	uint64_t entry;	     /* of the kernel */
	uint64_t lost_msis;  /* metric: KVM refused to deliver */
};

#endif
