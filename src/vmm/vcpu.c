/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU threads: enter the guest, serve its exits, wait outside while the machine is paused.
 *
 * A kick sets run->immediate_exit and sends a signal: whether the thread is before, inside or after KVM_RUN, it comes
 * back at once, and a pending access is completed by the next KVM_RUN, which then returns immediately too.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "vmm/seal.h"
#include "vmm/vm.h"

#define KICK_SIGNAL SIGUSR1
#define MAX_FAULTS_IN_A_ROW 64

static void kicked(int sig)
{
}

int vcpu_open(struct vm *vm, unsigned id, struct sm_error *err)
{
	struct vcpu *vcpu = &vm->vcpus[id];
	void *run;

	vcpu->vm = vm;
	vcpu->id = id;
	pthread_mutex_init(&vcpu->place_lock, NULL);
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)id);
	if (vcpu->fd < 0)
		return error_sys(err, errno, "vCPU %u", id);
	run = mmap(NULL, (size_t)vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return error_sys(err, errno, "vCPU %u: mmap", id);
	vcpu->run = run;
	return 0;
}

void vcpu_close(struct vcpu *vcpu)
{
	if (vcpu->run)
		munmap(vcpu->run, (size_t)vcpu->vm->run_size);
	vcpu->run = NULL;
	vcpu->fd = fd_close(vcpu->fd);
	pthread_mutex_destroy(&vcpu->place_lock);
}

void vcpu_kick(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	pthread_kill(vcpu->thread, KICK_SIGNAL);
}

/* The kernel keeps the C library's rseq area up to date whenever it moves a thread, KVM_RUN or not. */
static const struct rseq *own_rseq(void)
{
	return __rseq_size ? (const struct rseq *)((const char *)__builtin_thread_pointer() + __rseq_offset) : NULL;
}

static void note_place(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->place_lock);
	vcpu->tid = gettid();
	if (sched_getaffinity(0, sizeof(vcpu->all_cpus), &vcpu->all_cpus) == 0)
		vcpu->rseq = own_rseq();
	pthread_mutex_unlock(&vcpu->place_lock);
}

static void forget_place(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->place_lock);
	vcpu->rseq = NULL;
	pthread_mutex_unlock(&vcpu->place_lock);
}

static bool pair_locked(struct vcpu *vcpu)
{
	uint32_t cpu = vcpu->rseq ? __atomic_load_n(&vcpu->rseq->cpu_id, __ATOMIC_RELAXED) : CPU_SETSIZE;
	cpu_set_t set;

	if (cpu >= CPU_SETSIZE)
		return false;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(vcpu->tid, sizeof(set), &set) == 0 && sched_setaffinity(0, sizeof(set), &set) == 0;
}

bool vcpu_pair(struct vcpu *vcpu, bool together)
{
	bool done;

	pthread_mutex_lock(&vcpu->place_lock);
	done = together ? pair_locked(vcpu)
			: vcpu->rseq && sched_setaffinity(vcpu->tid, sizeof(vcpu->all_cpus), &vcpu->all_cpus) == 0;
	pthread_mutex_unlock(&vcpu->place_lock);
	return done;
}

/* Waits until the vCPUs may run; false when the machine ends. */
static bool wait_until_running(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	bool go;

	pthread_mutex_lock(&vm->lock);
	while (!vm->running && !vm->stopping)
		pthread_cond_wait(&vm->changed, &vm->lock);
	go = !vm->stopping;
	if (go) {
		__atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		vm->inside++;
	}
	pthread_mutex_unlock(&vm->lock);
	return go;
}

static void leave_guest(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->lock);
	vm->inside--;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

static void serve_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	pthread_mutex_lock(&vcpu->vm->lock);
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
		bus_access(&vcpu->vm->pio, run->io.port, data, run->io.size, run->io.direction == KVM_EXIT_IO_OUT);
	pthread_mutex_unlock(&vcpu->vm->lock);
}

static void serve_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	pthread_mutex_lock(&vcpu->vm->lock);
	bus_access(&vcpu->vm->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len, run->mmio.is_write);
	pthread_mutex_unlock(&vcpu->vm->lock);
}

static void finish(struct vcpu *vcpu, enum vm_reason reason, const char *what, uint64_t code)
{
	pthread_mutex_lock(&vcpu->vm->lock);
	vm_finish_locked(vcpu->vm, reason, "vCPU %u: %s (%#llx)", vcpu->id, what, (unsigned long long)code);
	pthread_mutex_unlock(&vcpu->vm->lock);
}

static void serve_system_event(struct vcpu *vcpu)
{
	uint32_t type = vcpu->run->system_event.type;
	enum vm_reason reason = type == KVM_SYSTEM_EVENT_SHUTDOWN ? VM_SHUTDOWN
				: type == KVM_SYSTEM_EVENT_RESET  ? VM_RESET
								  : VM_PANIC;

	finish(vcpu, reason, "system event", type);
}

static void serve_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (run->exit_reason < VCPU_EXIT_REASONS)
		vcpu->exits[run->exit_reason]++;
	else
		vcpu->exits_other++;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_io(vcpu);
		break;
	case KVM_EXIT_MMIO:
		serve_mmio(vcpu);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_IOAPIC_EOI:
	case KVM_EXIT_HLT:
		break;
	case KVM_EXIT_SHUTDOWN:
		finish(vcpu, VM_TRIPLE_FAULT, "triple fault", 0);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		serve_system_event(vcpu);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		finish(vcpu, VM_ERROR, "the CPU refused the guest's state",
		       run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		finish(vcpu, VM_ERROR, "KVM internal error", run->internal.suberror);
		break;
	default:
		finish(vcpu, VM_ERROR, "unexpected exit", run->exit_reason);
		break;
	}
}

/*
 * What a repair of the DAX window finds is new each time. One of the image window mends all parts and finds them again
 * later, so faults that go on without the guest getting anywhere have another cause; it may be a page of a DAX file
 * that cannot be read, and that is looked for last, since it means to read them all.
 */
static bool mend_windows(struct vm *vm, unsigned *in_a_row)
{
	bool found = dax_window_repair(&vm->dax, 0) > 0 || dax_window_repair(&vm->dax, 1) > 0;

	if (!found && ++*in_a_row <= MAX_FAULTS_IN_A_ROW && window_repair(&vm->window) > 0)
		return true;
	found = found || dax_window_repair(&vm->dax, 2) > 0;
	if (found)
		*in_a_row = 0;
	return found;
}

/*
 * A page of guest memory that the host could not provide: a window's file that shrank, or nothing we can mend. before:
 * how often the DAX window had been mended when the guest was entered; another vCPU may have been here meanwhile.
 */
static void serve_fault(struct vcpu *vcpu, uint64_t before, unsigned *in_a_row)
{
	struct vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->lock);
	if (vm->dax.repairs != before || mend_windows(vm, in_a_row))
		vm->window_faults++;
	else
		vm_finish_locked(vm, VM_ERROR, "vCPU %u: guest memory fault that no truncated file explains", vcpu->id);
	pthread_mutex_unlock(&vm->lock);
}

static void run_guest(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	unsigned faults = 0;

	while (__atomic_load_n(&vm->running, __ATOMIC_RELAXED)) {
		uint64_t mended = __atomic_load_n(&vm->dax.repairs, __ATOMIC_ACQUIRE);

		if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
			faults = 0;
			serve_exit(vcpu);
		} else if (errno == EFAULT)
			serve_fault(vcpu, mended, &faults);
		else if (errno != EINTR && errno != EAGAIN)
			finish(vcpu, VM_ERROR, strerror(errno), (uint64_t)errno);
	}
	/* Lets KVM complete a register access that was just served, without entering the guest. */
	__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (ioctl(vcpu->fd, KVM_RUN, 0) < 0 && errno != EINTR && errno != EFAULT)
		finish(vcpu, VM_ERROR, strerror(errno), (uint64_t)errno);
}

/* Waits for the process's filter, then narrows this thread's. */
static bool seal_vcpu(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;
	bool stopping;
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	while (!vm->sealed && !vm->stopping)
		pthread_cond_wait(&vm->changed, &vm->lock);
	stopping = vm->stopping;
	pthread_mutex_unlock(&vm->lock);
	if (!stopping && vm->cfg->seal)
		r = seal_thread(SEAL_VCPU, devices_syscalls());
	if (r < 0)
		finish(vcpu, VM_ERROR, "seal", (uint64_t)-r);
	return r >= 0;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", vcpu->id);
	prctl(PR_SET_NAME, name);
	note_place(vcpu);
	leave_guest(vcpu); /* vm_start counts each thread as inside until it has come this far, */
	if (!seal_vcpu(vcpu))
		return NULL;
	leave_guest(vcpu); /* and again until here */
	while (wait_until_running(vcpu)) {
		run_guest(vcpu);
		leave_guest(vcpu);
	}
	forget_place(vcpu);
	return NULL;
}

int vcpu_start(struct vcpu *vcpu, struct sm_error *err)
{
	struct sigaction action = {.sa_handler = kicked};
	pthread_attr_t attr;
	int r;

	sigaction(KICK_SIGNAL, &action, NULL); /* without SA_RESTART: KVM_RUN must return */
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * KIB);
	r = pthread_create(&vcpu->thread, &attr, vcpu_main, vcpu);
	pthread_attr_destroy(&attr);
	if (r)
		return error_sys(err, r, "vCPU %u: thread", vcpu->id);
	vcpu->started = true;
	return 0;
}
