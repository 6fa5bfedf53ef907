/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's registers as bytes of a snapshot. The vCPU does not run meanwhile. */
#ifndef VMM_X86_64_VCPU_STATE_H
#define VMM_X86_64_VCPU_STATE_H

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"

struct vcpu;

int vcpu_state_save(struct vcpu *vcpu, struct buf *out, struct sm_error *err) MUST_CHECK;
/* Into a vCPU that has its identification (CPUID) and has not run yet; vCPU 0 first. SM_ERROR_CORRUPT for a record
 * that is not one, SM_ERROR_UNSUPPORTED for one that this host's CPU does not take. */
int vcpu_state_load(struct vcpu *vcpu, struct cursor *in, struct sm_error *err) MUST_CHECK;

#endif
