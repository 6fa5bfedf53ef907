/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between processor architectures. Each function is defined once, by the directory of the architecture
 * built for (vmm/x86_64/).
 */
#ifndef VMM_ARCH_H
#define VMM_ARCH_H

#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"
#include "vmm/x86_64/arch_vm.h"

struct vm;
struct vcpu;

/* The boundary between low and high RAM, and where high RAM begins. */
uint64_t arch_low_ram_end(uint64_t memory);
uint64_t arch_high_ram_base(void);
/* Where PCI configuration space lies in memory. */
uint64_t arch_ecam_base(void);

/* Before and after the memory slots (slots first: a slot is far cheaper before the interrupt controller exists). */
int arch_vm_init(struct vm *vm, struct sm_error *err) MUST_CHECK;
int arch_vm_irqchip(struct vm *vm, struct sm_error *err) MUST_CHECK;
/* Puts the platform's own devices on the buses. */
int arch_vm_buses(struct vm *vm, struct sm_error *err) MUST_CHECK;
/* Loads kernel, initramfs, tables and parameters into RAM. */
int arch_vm_load(struct vm *vm, struct sm_error *err) MUST_CHECK;
/* Reads what this host's KVM can do; before vCPUs are made, and before the seal. */
int arch_vm_probe(struct vm *vm, struct sm_error *err) MUST_CHECK;
/* Identification of a vCPU; after arch_vm_probe. */
int arch_vcpu_identify(struct vcpu *vcpu, struct sm_error *err) MUST_CHECK;
/* First registers of a vCPU that boots; after arch_vm_load. */
int arch_vcpu_init(struct vcpu *vcpu, struct sm_error *err) MUST_CHECK;

/*
 * The machine and all its vCPUs in a snapshot: saved while they are outside the guest, loaded into vCPUs that are
 * identified and have not run. SM_ERROR_UNSUPPORTED: another CPU; SM_ERROR_CORRUPT: not such a record.
 */
int arch_state_save(struct vm *vm, struct buf *out, struct sm_error *err) MUST_CHECK;
int arch_state_load(struct vm *vm, struct cursor *in, struct sm_error *err) MUST_CHECK;

/* The guest's clock stands between the two, so that a pause is no time to it. While no vCPU is in the guest. Where the
 * host cannot set it back the clock goes on, and that is said in the log. */
void arch_clock_hold(struct vm *vm);
void arch_clock_release(struct vm *vm);

/* Sends a message-signalled interrupt. With the device lock held. */
void arch_signal_msi(struct vm *vm, uint64_t addr, uint32_t data);

#endif
