/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU in a snapshot (Linux Documentation/virt/kvm/api.rst). The vCPU is outside the guest, and a register access
 * that it was making has been completed (vcpu.c does that on its way out).
 *
 * The order of loading is KVM's: identification first, since registers are checked against it; the special registers
 * before the local APIC (they hold its base and mode), the APIC before the MSRs (its timer's deadline is one), and the
 * counter before the deadline that refers to it; events last, since setting registers clears them.
 *
 * The record is hostile input: KVM checks what the values mean, we check lengths, counts and the MSRs' order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "vmm/vm.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/vcpu_state.h"

#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define MSRS_MAX 512
#define APIC_LVT_TIMER 0x320
#define LVT_MASKED (1U << 16)
#define LVT_TIMER_MODE (3U << 17)
#define LVT_TSC_DEADLINE (2U << 17)
#define XSAVE_MAX (64 * KIB)

/* Fixed-size parts, each one KVM structure. */
#define PARTS(X)                                                                                                       \
	X(mp_state, struct kvm_mp_state, KVM_GET_MP_STATE, KVM_SET_MP_STATE)                                           \
	X(regs, struct kvm_regs, KVM_GET_REGS, KVM_SET_REGS)                                                           \
	X(sregs, struct kvm_sregs, KVM_GET_SREGS, KVM_SET_SREGS)                                                       \
	X(xcrs, struct kvm_xcrs, KVM_GET_XCRS, KVM_SET_XCRS)                                                           \
	X(debug, struct kvm_debugregs, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS)                                           \
	X(lapic, struct kvm_lapic_state, KVM_GET_LAPIC, KVM_SET_LAPIC)                                                 \
	X(events, struct kvm_vcpu_events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS)

struct parts {
#define MEMBER(name, type, get, set) type name;
	PARTS(MEMBER)
#undef MEMBER
};

struct msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[MSRS_MAX];
};

static int failed(struct vcpu *vcpu, const char *what, struct sm_error *err)
{
	return error_sys(err, errno ? errno : EINVAL, "vCPU %u: %s", vcpu->id, what);
}

/* ------------------------------------------------------------------------------------------ saving */

/* The mode first: reading it lets KVM take in a start-up interrupt that is under way. */
static int get_parts(struct vcpu *vcpu, struct parts *p, struct sm_error *err)
{
#define GET(name, type, get, set)                                                                                      \
	if (ioctl(vcpu->fd, get, &p->name) < 0)                                                                        \
		return failed(vcpu, "read its " #name, err);
	PARTS(GET)
#undef GET
	return 0;
}

static int save_xsave(struct vcpu *vcpu, struct buf *out, struct sm_error *err)
{
	int size = ioctl(vcpu->vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	bool large = size > (int)sizeof(struct kvm_xsave);
	_free_ void *area = NULL;

	if (!large)
		size = sizeof(struct kvm_xsave);
	area = calloc(1, (size_t)size);
	if (!area)
		return error_sys(err, ENOMEM, "vCPU %u", vcpu->id);
	if (ioctl(vcpu->fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area) < 0)
		return failed(vcpu, "read its extended registers", err);
	buf_put_u32(out, (uint32_t)size);
	buf_put(out, area, (size_t)size);
	return 0;
}

/* Those that KVM can read here and now: it names more than every CPU has. */
static void get_msrs(struct vcpu *vcpu, struct msrs *m)
{
	const struct kvm_msr_list *list = vcpu->vm->arch.msr_list;

	m->head.nmsrs = 0;
	for (uint32_t i = 0; i < list->nmsrs && m->head.nmsrs < MSRS_MAX; i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} one = {.head.nmsrs = 1, .entry.index = list->indices[i]};

		if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) == 1)
			m->entries[m->head.nmsrs++] = one.entry;
	}
}

static int save_msrs(struct vcpu *vcpu, struct buf *out, struct sm_error *err)
{
	_free_ struct msrs *m = malloc(sizeof(*m));

	if (!m)
		return error_sys(err, ENOMEM, "vCPU %u", vcpu->id);
	get_msrs(vcpu, m);
	buf_put_u32(out, m->head.nmsrs);
	for (uint32_t i = 0; i < m->head.nmsrs; i++) {
		buf_put_u32(out, m->entries[i].index);
		buf_put_u64(out, m->entries[i].data);
	}
	return 0;
}

int vcpu_state_save(struct vcpu *vcpu, struct buf *out, struct sm_error *err)
{
	struct parts p = {0};
	int r = get_parts(vcpu, &p, err);

#define PUT(name, type, get, set) buf_put(out, &p.name, sizeof(p.name));
	PARTS(PUT)
#undef PUT
	r = r < 0 ? r : save_xsave(vcpu, out, err);
	r = r < 0 ? r : save_msrs(vcpu, out, err);
	return r == 0 && out->error ? error_sys(err, -out->error, "vCPU %u", vcpu->id) : r;
}

/* ------------------------------------------------------------------------------------------ loading */

static void take(struct cursor *in, void *p, size_t size)
{
	const void *from = cursor_take(in, size);

	if (from)
		memcpy(p, from, size);
}

static int load_xsave(struct vcpu *vcpu, struct cursor *in, struct sm_error *err)
{
	int want = ioctl(vcpu->vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	uint32_t size = cursor_u32(in);
	const void *from = cursor_take(in, size);
	_free_ void *area = NULL;

	want = MAX(want, (int)sizeof(struct kvm_xsave));
	if (!from || size != (uint32_t)want || size > XSAVE_MAX)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "vCPU %u: extended registers of %u bytes, this host's have %d", vcpu->id, size, want);
	area = malloc(size);
	if (!area)
		return error_sys(err, ENOMEM, "vCPU %u", vcpu->id);
	memcpy(area, from, size);
	return ioctl(vcpu->fd, KVM_SET_XSAVE, area) < 0 ? failed(vcpu, "set its extended registers", err) : 0;
}

/* One that cannot be set does no harm if it has the value already. */
static int set_msr(struct vcpu *vcpu, const struct kvm_msr_entry *e, struct sm_error *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} one = {.head.nmsrs = 1, .entry = *e};

	if (ioctl(vcpu->fd, KVM_SET_MSRS, &one) == 1)
		return 0;
	one.entry.data = 0;
	if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) == 1 && one.entry.data == e->data)
		return 0;
	return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "vCPU %u: this host does not take MSR %#x = %#llx",
			 vcpu->id, e->index, (unsigned long long)e->data);
}

/* All in one call; what that stops at is tried alone. */
static int set_msrs(struct vcpu *vcpu, struct msrs *m, struct sm_error *err)
{
	uint32_t total = m->head.nmsrs, done = 0;

	while (done < total) {
		int n, r;

		memmove(m->entries, m->entries + done, (total - done) * sizeof(m->entries[0]));
		total -= done;
		m->head.nmsrs = total;
		n = ioctl(vcpu->fd, KVM_SET_MSRS, m);
		if (n < 0 || (uint32_t)n > total)
			return failed(vcpu, "set its MSRs", err);
		done = (uint32_t)n;
		if (done == total)
			break;
		r = set_msr(vcpu, &m->entries[done++], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct kvm_device_attr offset_attr(struct vcpu *vcpu)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&vcpu->vm->arch.tsc_offset};
}

bool vcpu_tsc_can_set(struct vcpu *vcpu)
{
	struct kvm_device_attr attr = offset_attr(vcpu);

	return ioctl(vcpu->fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
}

int vcpu_tsc_get(struct vcpu *vcpu, uint64_t *ret)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} now = {.head.nmsrs = 1, .entry.index = MSR_TSC};

	if (ioctl(vcpu->fd, KVM_GET_MSRS, &now) != 1)
		return -EIO;
	*ret = now.entry.data;
	return 0;
}

/*
 * The counter goes on from where it stood. All vCPUs of a VM have the same offset to the host's counter, chosen once;
 * KVM would otherwise guess from the times of the writes whether they were meant to be the same.
 */
int vcpu_tsc_set(struct vcpu *vcpu, uint64_t value, struct sm_error *err)
{
	struct vm *vm = vcpu->vm;
	struct kvm_device_attr attr = offset_attr(vcpu);
	struct kvm_msr_entry e = {.index = MSR_TSC, .data = value};
	uint64_t now;

	if (!vcpu_tsc_can_set(vcpu))
		return set_msr(vcpu, &e, err);
	if (vcpu->id == 0) {
		/* Offset of the present value, and how far that is from what is wanted. */
		if (ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attr) < 0 || vcpu_tsc_get(vcpu, &now) < 0)
			return failed(vcpu, "read its counter", err);
		vm->arch.tsc_offset += value - now;
	}
	return ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attr) < 0 ? failed(vcpu, "set its counter", err) : 0;
}

/*
 * KVM reads the deadline of a timer that has just expired as 0, and the interrupt may not be in the APIC yet: one too
 * many does no harm, one too few leaves the guest asleep.
 */
static bool may_have_expired(const struct kvm_lapic_state *lapic)
{
	uint32_t lvt;

	memcpy(&lvt, lapic->regs + APIC_LVT_TIMER, sizeof(lvt));
	return !(lvt & LVT_MASKED) && (lvt & LVT_TIMER_MODE) == LVT_TSC_DEADLINE;
}

/* The counter and the timer's deadline are taken out of the list. */
static int load_msrs(struct vcpu *vcpu, struct cursor *in, const struct kvm_lapic_state *lapic, struct sm_error *err)
{
	_free_ struct msrs *m = calloc(1, sizeof(*m));
	struct kvm_msr_entry deadline = {.index = MSR_TSC_DEADLINE};
	uint32_t n = cursor_u32(in);
	uint64_t tsc = 0;
	int r;

	if (!m)
		return error_sys(err, ENOMEM, "vCPU %u", vcpu->id);
	if (in->bad || n > MSRS_MAX)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "vCPU %u: %u MSRs", vcpu->id, n);
	for (uint32_t i = 0; i < n; i++) {
		struct kvm_msr_entry e = {.index = cursor_u32(in)};

		e.data = cursor_u64(in);
		if (e.index == MSR_TSC)
			tsc = e.data;
		else if (e.index == MSR_TSC_DEADLINE)
			deadline.data = e.data;
		else
			m->entries[m->head.nmsrs++] = e;
	}
	if (in->bad)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "vCPU %u: its record is cut short", vcpu->id);
	r = vcpu_tsc_set(vcpu, tsc, err);
	r = r < 0 ? r : set_msrs(vcpu, m, err);
	if (!deadline.data && may_have_expired(lapic))
		deadline.data = tsc;
	return r < 0 || !deadline.data ? r : set_msr(vcpu, &deadline, err);
}

int vcpu_state_load(struct vcpu *vcpu, struct cursor *in, struct sm_error *err)
{
	struct parts p = {0};
	int r;

#define TAKE(name, type, get, set) take(in, &p.name, sizeof(p.name));
	PARTS(TAKE)
#undef TAKE
#define SET(name, set)                                                                                                 \
	if (ioctl(vcpu->fd, set, &p.name) < 0)                                                                         \
		return failed(vcpu, "set its " #name, err);
	if (in->bad)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "vCPU %u: its record is cut short", vcpu->id);
	SET(mp_state, KVM_SET_MP_STATE)
	SET(regs, KVM_SET_REGS)
	SET(sregs, KVM_SET_SREGS)
	r = load_xsave(vcpu, in, err);
	if (r < 0)
		return r;
	SET(xcrs, KVM_SET_XCRS)
	SET(debug, KVM_SET_DEBUGREGS)
	SET(lapic, KVM_SET_LAPIC)
	r = load_msrs(vcpu, in, &p.lapic, err);
	if (r < 0)
		return r;
	SET(events, KVM_SET_VCPU_EVENTS)
#undef SET
	/* Tells the guest's watchdog that it stood still; a guest without that clock refuses, and has none to tell. */
	ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL);
	return 0;
}
