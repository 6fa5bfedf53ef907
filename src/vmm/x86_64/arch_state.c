/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine in a snapshot: which CPU it believes to have, its clock, the platform's own devices, its vCPUs.
 *
 * A guest keeps what it has learnt of its CPU at boot, so it is only loaded on a host that would tell it the same.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "base/util.h"
#include "vmm/vm.h"
#include "vmm/x86_64/cpuid.h"
#include "vmm/x86_64/vcpu_state.h"

/* Documentation/virt/kvm/api.rst, KVM_SET_CLOCK: the rest of the structure is for hosts that trust each other's clocks.
 */
static int get_clock(struct vm *vm, uint64_t *ret, struct sm_error *err)
{
	struct kvm_clock_data data = {0};

	if (ioctl(vm->fd, KVM_GET_CLOCK, &data) < 0)
		return error_sys(err, errno, "KVM: read the clock");
	*ret = data.clock;
	return 0;
}

static int set_clock(struct vm *vm, uint64_t clock, struct sm_error *err)
{
	struct kvm_clock_data data = {.clock = clock};

	return ioctl(vm->fd, KVM_SET_CLOCK, &data) < 0 ? error_sys(err, errno, "KVM: set the clock") : 0;
}

/* As vCPU 0 sees it. The counter's rate is part of it. */
static void identity(struct vm *vm, struct cpuid *c)
{
	int khz = ioctl(vm->vcpus[0].fd, KVM_GET_TSC_KHZ, 0);

	*c = *vm->arch.cpuid;
	cpuid_filter(c, vm->cfg->cpus, khz > 0 ? (uint32_t)khz : 0);
	cpuid_for_vcpu(c, 0, vm->cfg->cpus);
}

static void save_identity(struct vm *vm, struct buf *out)
{
	struct cpuid c;

	identity(vm, &c);
	buf_put_u32(out, c.head.nent);
	for (uint32_t i = 0; i < c.head.nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c.entries[i];
		const uint32_t words[] = {e->function, e->index, e->eax, e->ebx, e->ecx, e->edx};

		for (size_t w = 0; w < ARRAY_SIZE(words); w++)
			buf_put_u32(out, words[w]);
	}
}

/*
 * A rate that a host measures at its own boot differs by a little from one to the next. Where the guest keeps time by
 * the counter itself (it is said to be fixed), 250 ppm may pass, as in KVM; else the host's clock tells it, and only
 * how early a timer comes depends on this.
 */
static bool same_rate(uint32_t a, uint32_t b, bool fixed)
{
	return (a > b ? a - b : b - a) <= a / (fixed ? 4000 : 50);
}

static bool counter_is_fixed(const struct cpuid *c)
{
	for (uint32_t i = 0; i < c->head.nent; i++)
		if (c->entries[i].function == 0x80000007)
			return c->entries[i].edx & 1U << 8;
	return false;
}

static bool same_entry(const struct kvm_cpuid_entry2 *e, const uint32_t w[6], bool fixed)
{
	bool timing = e->function == CPUID_TIMING_LEAF;

	return e->function == w[0] && e->index == w[1] && (timing ? same_rate(e->eax, w[2], fixed) : e->eax == w[2]) &&
	       e->ebx == w[3] && e->ecx == w[4] && e->edx == w[5];
}

static int check_identity(struct vm *vm, struct cursor *in, struct sm_error *err)
{
	struct cpuid c;
	uint32_t n = cursor_u32(in);
	bool fixed;

	identity(vm, &c);
	fixed = counter_is_fixed(&c);
	if (in->bad || n > CPUID_MAX_ENTRIES)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "%u CPUID entries", n);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t w[6];

		for (size_t k = 0; k < ARRAY_SIZE(w); k++)
			w[k] = cursor_u32(in);
		if (in->bad)
			return error_set(err, SM_ERROR_CORRUPT, EINVAL, "CPUID entry %u is cut short", i);
		if (i >= c.head.nent || !same_entry(&c.entries[i], w, fixed))
			return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
					 "made on another kind of CPU (CPUID %#x.%u)", w[0], w[1]);
	}
	if (n != c.head.nent)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "made on another kind of CPU (CPUID)");
	return 0;
}

static void save_platform(struct vm *vm, struct buf *out)
{
	const struct ioapic *io = &vm->arch.ioapic;
	const struct serial *s = &vm->serial;

	buf_put_u8(out, io->id);
	buf_put_u8(out, io->select);
	for (unsigned i = 0; i < LAYOUT_IOAPIC_PINS; i++) {
		buf_put_u64(out, io->entries[i]);
		buf_put_u8(out, io->pending[i]);
	}
	buf_put_u8(out, s->ier);
	buf_put_u8(out, s->lcr);
	buf_put_u8(out, s->mcr);
	buf_put_u8(out, s->scr);
	buf_put_u8(out, s->fcr);
	buf_put_u16(out, s->divisor);
	buf_put_u8(out, s->thr_empty);
}

/* Any values are harmless: they are what a guest could have written. */
static void load_platform(struct vm *vm, struct cursor *in)
{
	struct ioapic *io = &vm->arch.ioapic;
	struct serial *s = &vm->serial;

	io->id = cursor_u8(in);
	io->select = cursor_u8(in);
	for (unsigned i = 0; i < LAYOUT_IOAPIC_PINS; i++) {
		io->entries[i] = cursor_u64(in);
		io->pending[i] = cursor_u8(in);
	}
	s->ier = cursor_u8(in);
	s->lcr = cursor_u8(in);
	s->mcr = cursor_u8(in);
	s->scr = cursor_u8(in);
	s->fcr = cursor_u8(in);
	s->divisor = cursor_u16(in);
	s->thr_empty = cursor_u8(in);
}

int arch_state_save(struct vm *vm, struct buf *out, struct sm_error *err)
{
	uint64_t clock = 0;
	int r = get_clock(vm, &clock, err); /* at once: it goes on while the counters are read */

	if (r < 0)
		return r;
	save_identity(vm, out);
	buf_put_u64(out, clock);
	save_platform(vm, out);
	for (unsigned i = 0; i < vm->cfg->cpus && r == 0; i++)
		r = vcpu_state_save(&vm->vcpus[i], out, err);
	return r;
}

/* The clock last: it is made of the counters, which the vCPUs bring. */
int arch_state_load(struct vm *vm, struct cursor *in, struct sm_error *err)
{
	uint64_t clock = 0;
	int r = check_identity(vm, in, err);

	if (r < 0)
		return r;
	clock = cursor_u64(in);
	load_platform(vm, in);
	if (in->bad)
		return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the platform's record is cut short");
	for (unsigned i = 0; i < vm->cfg->cpus && r == 0; i++)
		r = vcpu_state_load(&vm->vcpus[i], in, err);
	return r < 0 ? r : set_clock(vm, clock, err);
}

/*
 * A timer that was armed before fires when the host's counter gets there, which is early for the guest's: its kernel
 * looks at its clock and arms the timer again.
 */
void arch_clock_hold(struct vm *vm)
{
	struct arch_vm *a = &vm->arch;
	struct sm_error err = {0};

	if (get_clock(vm, &a->held_clock, &err) < 0 || !vcpu_tsc_can_set(&vm->vcpus[0]) ||
	    vcpu_tsc_get(&vm->vcpus[0], &a->held_tsc) < 0)
		log_warn("vmm", "pause: the guest's clock goes on: %s",
			 err.kind ? err.message : "this host cannot set its counter back");
	else
		a->clock_held = true;
}

void arch_clock_release(struct vm *vm)
{
	struct arch_vm *a = &vm->arch;
	struct sm_error err = {0};
	int r = 0;

	for (unsigned i = 0; i < vm->cfg->cpus; i++) {
		if (r == 0 && a->clock_held)
			r = vcpu_tsc_set(&vm->vcpus[i], a->held_tsc, &err);
		ioctl(vm->vcpus[i].fd, KVM_KVMCLOCK_CTRL); /* as in vcpu_state_load */
	}
	if (r == 0 && a->clock_held)
		r = set_clock(vm, a->held_clock, &err);
	if (r < 0)
		log_warn("vmm", "pause: %s", err.message);
	a->clock_held = false;
}
