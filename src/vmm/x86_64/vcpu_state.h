/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's registers as bytes of a snapshot. The vCPU does not run meanwhile. */
#ifndef VMM_X86_64_VCPU_STATE_H
#define VMM_X86_64_VCPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"

struct vcpu;

int vcpu_state_save(struct vcpu *vcpu, struct buf *out, struct sm_error *err) MUST_CHECK;
/* Into a vCPU that has its identification (CPUID) and has not run yet; vCPU 0 first. SM_ERROR_CORRUPT for a record
 * that is not one, SM_ERROR_UNSUPPORTED for one that this host's CPU does not take. */
int vcpu_state_load(struct vcpu *vcpu, struct cursor *in, struct sm_error *err) MUST_CHECK;

/* The counter as the guest sees it; and setting it, vCPU 0 first. tsc_can_set: by calls that a sealed loop may make. */
int vcpu_tsc_get(struct vcpu *vcpu, uint64_t *ret) MUST_CHECK;
bool vcpu_tsc_can_set(struct vcpu *vcpu);
int vcpu_tsc_set(struct vcpu *vcpu, uint64_t value, struct sm_error *err) MUST_CHECK;

#endif
