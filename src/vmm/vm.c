/* SPDX-License-Identifier: Apache-2.0 */
/* Making, running, pausing and ending a machine. See vm.h. */
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "virtio/mem.h"
#include "vmm/control.h"
#include "vmm/hugecopy.h"
#include "vmm/overlay.h"
#include "vmm/seal.h"
#include "vmm/share_watch.h"
#include "vmm/workingset.h"

#define WINDOW_LOOK_NS 1000000000ull
#define WINDOW_ALIGN GIB
#define PLUG_END_MAX (1ULL << 39) /* as far as any CPU with nested paging addresses memory */

static int check_capabilities(struct vm *vm, struct sm_error *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{KVM_CAP_USER_MEMORY, "user memory"},
		{KVM_CAP_SPLIT_IRQCHIP, "split interrupt controller"},
		{KVM_CAP_IOEVENTFD, "ioeventfd"},
		{KVM_CAP_IOEVENTFD_ANY_LENGTH, "ioeventfd of any length"},
		{KVM_CAP_SIGNAL_MSI, "MSI"},
		{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
		{KVM_CAP_READONLY_MEM, "read-only memory"},
	};
	int version = ioctl(vm->kvm, KVM_GET_API_VERSION, 0);

	if (version != KVM_API_VERSION)
		return error_set(err, SM_ERROR_HOST, ENODEV, "/dev/kvm: not KVM, or a version (%d) nobody has",
				 version);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(vm->kvm, KVM_CHECK_EXTENSION, (long)needed[i].cap) <= 0)
			return error_set(err, SM_ERROR_HOST, ENOTSUP, "this host's KVM lacks: %s", needed[i].name);
	return 0;
}

static int open_kvm(struct vm *vm, struct sm_error *err)
{
	int r;

	vm->kvm = vm->cfg->kvm >= 0 ? vm->cfg->kvm : open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return error_set(err, SM_ERROR_HOST, errno, "/dev/kvm: %s", strerror(errno));
	r = check_capabilities(vm, err);
	if (r < 0)
		return r;
	do
		vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR);
	if (vm->fd < 0)
		return error_set(err, SM_ERROR_HOST, errno, "KVM: make a machine: %s", strerror(errno));
	vm->run_size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm->run_size < (int)sizeof(struct kvm_run))
		return error_set(err, SM_ERROR_HOST, EINVAL, "KVM: vCPU state of %d bytes", vm->run_size);
	return 0;
}

static int add_region(struct vm *vm, struct mem_region region, struct sm_error *err)
{
	struct kvm_userspace_memory_region slot = {
		.slot = (uint32_t)vm->mem.count,
		.flags = region.writable ? 0 : KVM_MEM_READONLY,
		.guest_phys_addr = region.gpa,
		.memory_size = region.size,
		.userspace_addr = (uintptr_t)region.host,
	};
	int r = mem_add(&vm->mem, &region);

	if (r < 0)
		return error_sys(err, -r, "guest memory at %#llx", (unsigned long long)region.gpa);
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return error_sys(err, errno, "guest memory at %#llx", (unsigned long long)region.gpa);
	return 0;
}

/* A window that nobody may write to takes no writes by KVM's word, too. */
static int map_dax(struct vm *vm, uint64_t *top, struct sm_error *err)
{
	uint64_t size = vm->cfg->dax_size;
	struct mem_region r = {.kind = MEM_DAX_WINDOW, .size = size};
	int ret;

	if (!size)
		return 0;
	ret = dax_window_open(&vm->dax, size, err);
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < vm->cfg->num_fs; i++)
		r.writable |= vm->cfg->fs[i].dax && !vm->cfg->fs[i].read_only;
	r.gpa = align_up(*top, round_up_pow2(size)); /* a BAR's place */
	r.host = vm->dax.host;
	vm->dax_place = (struct virtio_shm){.gpa = r.gpa, .size = size};
	*top = r.gpa + round_up_pow2(size);
	return add_region(vm, r, err);
}

/*
 * Above everything else, since what a guest may have of it is not known before. What it has is in the slot and what it
 * has not is nowhere, whatever the device's driver believes.
 */
static int map_plugged(struct vm *vm, uint64_t top, struct sm_error *err)
{
	struct mem_region r = {.kind = MEM_RAM,
			       .writable = true,
			       .gpa = align_up(top, WINDOW_ALIGN),
			       .size = vm->ram.size - vm->ram.boot,
			       .host = vm->ram.host + vm->ram.boot};

	if (!(vm->snapshot ? vm->snapshot->pluggable : vm->cfg->pluggable) ||
	    r.gpa + VIRTIO_MEM_REGION_MAX > PLUG_END_MAX)
		return r.size ? error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "there is no place for more memory") : 0;
	vm->plug_gpa = r.gpa;
	return r.size ? add_region(vm, r, err) : 0;
}

static int load_ram(struct vm *vm, struct sm_error *err)
{
	const struct vmm_config *cfg = vm->cfg;
	int r, n;

	if (vm->snapshot->over)
		r = overlay_load(&vm->ram, cfg->restore_under, cfg->num_under, cfg->restore_memory, &vm->snapshot->ram,
				 err);
	else if (cfg->num_under)
		r = error_set(err, SM_ERROR_CORRUPT, EINVAL, "its memory lies over no other, and others are given");
	else
		r = ram_load(&vm->ram, cfg->restore_memory, &vm->snapshot->ram, err);
	if (r == 0 && cfg->restore_learns)
		ram_read_ahead(&vm->ram);
	if (r == 0 && cfg->restore_huge >= 0 && (n = hugecopy_map(&vm->ram, cfg->restore_huge)) < 0)
		log_debug("vmm", "copy on huge pages: %s", strerror(-n));
	if (r == 0 && cfg->restore_workingset >= 0 && (n = workingset_apply(&vm->ram, cfg->restore_workingset)) < 0)
		log_debug("vmm", "working set: %s", strerror(-n));
	return r;
}

/* Up to *top, from which on everything else lies at multiples of 1 GiB. */
static int map_ram(struct vm *vm, uint64_t *top, struct sm_error *err)
{
	uint64_t boot = vm->snapshot ? vm->snapshot->memory : vm->cfg->memory, low = arch_low_ram_end(boot);
	struct mem_region r = {.kind = MEM_RAM, .writable = true, .size = low};
	int ret = ram_map(&vm->ram, vm->cfg->memory, err);

	*top = arch_high_ram_base();
	vm->ram.boot = boot;
	if (ret == 0 && vm->snapshot)
		ret = load_ram(vm, err);
	if (ret < 0)
		return ret;
	r.host = vm->ram.host;
	ret = add_region(vm, r, err);
	if (ret < 0 || boot == low)
		return ret;
	r.gpa = *top;
	r.host = vm->ram.host + low;
	r.size = boot - low;
	*top += r.size;
	return add_region(vm, r, err);
}

static int map_window(struct vm *vm, uint64_t *top, struct sm_error *err)
{
	struct mem_region r = {.kind = MEM_IMAGE_WINDOW};
	int ret;

	*top = align_up(*top, WINDOW_ALIGN);
	if (!vm->cfg->window_size)
		return 0;
	ret = window_map(&vm->window, vm->cfg->window_size, vm->cfg->window, vm->cfg->num_window, err);
	if (ret < 0)
		return ret;
	vm->window_gpa = r.gpa = *top;
	r.size = vm->window.size;
	r.host = vm->window.host;
	*top = align_up(r.gpa + r.size, WINDOW_ALIGN);
	return add_region(vm, r, err);
}

static int map_memory(struct vm *vm, struct sm_error *err)
{
	uint64_t top;
	int r = map_ram(vm, &top, err);

	r = r < 0 ? r : map_window(vm, &top, err);
	r = r < 0 ? r : map_dax(vm, &top, err);
	return r < 0 ? r : map_plugged(vm, top, err);
}

static void on_finished(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	loop_stop(loop, 0);
}

static void lock_enter(void *arg)
{
	pthread_mutex_lock(&((struct vm *)arg)->lock);
}

static void lock_leave(void *arg)
{
	pthread_mutex_unlock(&((struct vm *)arg)->lock);
}

static int make_loop(struct vm *vm, struct sm_error *err)
{
	int r = loop_new(&vm->loop);

	if (r < 0)
		return error_sys(err, -r, "event loop");
	loop_set_guard(vm->loop, lock_enter, lock_leave, vm);
	vm->finished = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vm->finished < 0)
		return error_sys(err, errno, "eventfd");
	r = loop_add(vm->loop, vm->finished, EPOLLIN, on_finished, vm, NULL);
	return r < 0 ? error_sys(err, -r, "event loop") : 0;
}

static void guest_off(void *arg)
{
	vm_finish_locked(arg, VM_SHUTDOWN, "power off");
}

static void guest_reset(void *arg)
{
	vm_finish_locked(arg, VM_RESET, "the guest asked for a reset");
}

/* See window_shrunk. */
static void on_window_timer(struct loop *loop, struct loop_source *src, void *arg)
{
	struct vm *vm = arg;

	if (window_shrunk(&vm->window) && window_repair(&vm->window) < 0)
		log_warn("vmm", "an image file has shrunk and its place could not be mended");
	loop_timer_at(src, time_now_ns() + WINDOW_LOOK_NS);
}

static int watch_window(struct vm *vm, struct sm_error *err)
{
	struct loop_source *timer;
	int r;

	if (!vm->cfg->num_window)
		return 0;
	r = loop_add_timer(vm->loop, on_window_timer, vm, &timer);
	if (r < 0)
		return error_sys(err, -r, "event loop");
	loop_timer_at(timer, time_now_ns() + WINDOW_LOOK_NS);
	return 0;
}

/* Opens the shared directories and confines the process to them, as long as it has one thread. */
static int open_share(struct vm *vm, struct sm_error *err)
{
	int r;

	if (!vm->cfg->num_fs)
		return 0;
	r = share_new(vm->cfg, &vm->dax, &vm->share, err);
	if (r < 0 || !vm->cfg->seal)
		return r;
	return share_confine(vm->cfg, err);
}

/* vCPUs with registers to boot with. */
static int boot(struct vm *vm, struct sm_error *err)
{
	int r = arch_vm_load(vm, err);

	control_trace(vm, "loaded");
	for (unsigned i = 0; r >= 0 && i < vm->cfg->cpus; i++)
		r = arch_vcpu_init(&vm->vcpus[i], err);
	return r;
}

static int restore(struct vm *vm, struct sm_error *err)
{
	int r = snapshot_load(vm, vm->snapshot, err);

	snapshot_done(vm->snapshot);
	free(vm->snapshot);
	vm->snapshot = NULL;
	vm->restored = true;
	control_trace(vm, "restored");
	return r;
}

static int wait_for_files(const struct vmm_config *cfg, struct sm_error *err)
{
	int r;

	do
		r = cfg->restore_wait ? flock(cfg->restore_state, LOCK_SH) : 0;
	while (r < 0 && errno == EINTR);
	return r < 0 ? error_sys(err, errno, "wait for the state file") : 0;
}

static int open_snapshot(struct vm *vm, struct sm_error *err)
{
	struct snapshot *s;
	int r;

	if (vm->cfg->restore_state < 0)
		return 0;
	r = wait_for_files(vm->cfg, err);
	if (r < 0)
		return r;
	s = malloc(sizeof(*s));
	if (!s)
		return error_sys(err, ENOMEM, "snapshot");
	r = snapshot_open(s, vm->cfg->restore_state, vm->cfg, err);
	if (r < 0)
		free(s);
	else
		vm->snapshot = s;
	return r;
}

/* Says of a failure that it was a restore's: the keeper then knows that another start may do better. */
static int as_restore(const struct vm *vm, int r, struct sm_error *err)
{
	return r < 0 && vm->cfg->restore_state >= 0 ? error_wrap(err, r, "restore") : r;
}

static int create(struct vm *vm, struct sm_error *err)
{
	int r = open_kvm(vm, err);

	control_trace(vm, "kvm-vm");
	r = r < 0 ? r : open_snapshot(vm, err);
	r = r < 0 ? r : arch_vm_init(vm, err);
	r = r < 0 ? r : map_memory(vm, err);
	r = r < 0 ? r : watch_window(vm, err);
	r = r < 0 ? r : open_share(vm, err);
	r = r < 0 ? r : devices_create(vm, err);
	/* A guest that was restored has looked already; should it look again, it gets its answers by exits. */
	r = r < 0 || vm->snapshot ? r : devices_map_config(vm, err);
	control_trace(vm, "devices");
	r = r < 0 ? r : arch_vm_irqchip(vm, err);
	r = r < 0 ? r : arch_vm_buses(vm, err);
	control_trace(vm, "irqchip");
	r = r < 0 ? r : arch_vm_probe(vm, err);
	for (unsigned i = 0; r >= 0 && i < vm->cfg->cpus; i++) {
		r = vcpu_open(vm, i, err);
		r = r < 0 ? r : arch_vcpu_identify(&vm->vcpus[i], err);
	}
	control_trace(vm, "vcpus");
	return r < 0 ? r : vm->snapshot ? restore(vm, err) : boot(vm, err);
}

/* Last of all: what is mapped over the memory later would be without it. */
static int let_merge(struct vm *vm, struct sm_error *err)
{
	if (!vm->cfg->ksm || madvise(vm->ram.host, vm->ram.size, MADV_MERGEABLE) == 0)
		return 0;
	return error_set(err, SM_ERROR_UNSUPPORTED, errno, "the host's kernel cannot merge pages (KSM): %s",
			 strerror(errno));
}

int vm_create(struct vm *vm, const struct vmm_config *cfg, struct sm_error *err)
{
	int r;

	memset(vm, 0, sizeof(*vm));
	vm->start_ns = time_now_ns();
	vm->cfg = cfg;
	vm->kvm = vm->fd = vm->finished = vm->share_watch_fd = vm->saver.report = -1;
	for (unsigned i = 0; i < VMM_MAX_CPUS; i++)
		vm->vcpus[i].fd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->changed, NULL);
	console_init(&vm->console, cfg->console);
	vm->power = (struct power){.off = guest_off, .reset = guest_reset, .arg = vm};
	r = make_loop(vm, err);
	r = as_restore(vm, r < 0 ? r : create(vm, err), err);
	return r < 0 ? r : let_merge(vm, err);
}

/* Until every vCPU thread has passed its next step (or one has failed). */
static void wait_outside(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	while (vm->inside && !vm->reason)
		pthread_cond_wait(&vm->changed, &vm->lock);
	pthread_mutex_unlock(&vm->lock);
}

/* Where each thread seals itself it must not go on without: nothing that the guest says has reached it yet. */
static void sealed_or_end(struct vm *vm, int r)
{
	if (r == 0)
		return;
	log_error("vmm", "seal: %s", strerror(-r));
	control_exit_error(vm->cfg->control, "a thread could not be sealed");
	_exit(0);
}

void vm_seal_worker(struct vm *vm)
{
	if (vm->cfg->seal && vm->cfg->num_fs)
		sealed_or_end(vm, seal_thread(SEAL_ALONE, devices_syscalls()));
}

void vm_seal_server(struct vm *vm)
{
	struct seal_window window = {.host = vm->dax.host, .size = vm->dax.size};

	if (vm->cfg->seal)
		sealed_or_end(vm, seal_server(share_syscalls(vm->share), &window));
}

/*
 * The threads first come up (naming themselves and what else the C library does), then the process is sealed, then
 * each thread narrows its own filter; nothing of the guest runs before all of that is done. In a machine that shares
 * directories the devices' threads have sealed themselves when they began, each with its own filter, so this thread and
 * the vCPUs' do the same.
 */
int vm_start(struct vm *vm, struct sm_error *err)
{
	unsigned n = vm->cfg->cpus;
	int r = 0;

	vm->inside = n;
	for (unsigned i = 0; i < n && !r; i++)
		r = vcpu_start(&vm->vcpus[i], err);
	if (r < 0)
		return r;
	wait_outside(vm);
	if (vm->cfg->seal) {
		r = seal_thread(vm->cfg->num_fs ? SEAL_ALONE : SEAL_LOOP, devices_syscalls());
		if (r < 0)
			return error_sys(err, -r, "seal");
	}
	pthread_mutex_lock(&vm->lock);
	vm->inside = n;
	vm->sealed = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	wait_outside(vm);
	pthread_mutex_lock(&vm->lock);
	if (vm->reason)
		r = error_set(err, SM_ERROR_HOST, EPERM, "%s", vm->detail);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int vm_run(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	if (vm->restored)
		devices_restart(vm);
	if (vm->share_watch && share_goes_on(vm->share))
		share_watch_compare(vm->share_watch);
	vm_resume_locked(vm);
	pthread_mutex_unlock(&vm->lock);
	return loop_run(vm->loop);
}

static void kick_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm->cfg->cpus; i++)
		if (vm->vcpus[i].started)
			vcpu_kick(&vm->vcpus[i]);
}

void vm_pause_locked(struct vm *vm)
{
	if (!vm->running)
		return;
	__atomic_store_n(&vm->running, false, __ATOMIC_RELAXED);
	kick_all(vm);
	while (vm->inside)
		pthread_cond_wait(&vm->changed, &vm->lock);
}

void vm_resume_locked(struct vm *vm)
{
	if (vm->stopping)
		return;
	__atomic_store_n(&vm->running, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&vm->changed);
}

void vm_finish_locked(struct vm *vm, enum vm_reason reason, const char *fmt, ...)
{
	uint64_t one = 1;
	va_list ap;

	if (vm->reason)
		return;
	/* A kernel that panics resets the machine: its own last words say which it was. */
	if ((reason == VM_RESET || reason == VM_TRIPLE_FAULT) && vm->console.panicked) {
		reason = VM_PANIC;
		snprintf(vm->detail, sizeof(vm->detail), "%.255s", vm->console.panic_line);
	} else {
		va_start(ap, fmt);
		vsnprintf(vm->detail, sizeof(vm->detail), fmt, ap);
		va_end(ap);
	}
	vm->reason = reason;
	vm->stopping = true;
	__atomic_store_n(&vm->running, false, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&vm->changed);
	if (write(vm->finished, &one, sizeof(one)) < 0)
		return; /* only when it is full, and then the loop wakes anyway */
}

const char *vm_reason_name(enum vm_reason reason)
{
	static const char *const names[] = {
		[VM_NONE] = "none",	  [VM_SHUTDOWN] = "shutdown",	      [VM_RESET] = "reset",
		[VM_PANIC] = "panic",	  [VM_TRIPLE_FAULT] = "triple-fault", [VM_ERROR] = "error",
		[VM_STOPPED] = "stopped",
	};

	return names[reason];
}

/* Ends the vCPU threads. */
static void stop_vcpus(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->stopping = true;
	__atomic_store_n(&vm->running, false, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&vm->changed);
	kick_all(vm);
	pthread_mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->cfg->cpus; i++) {
		if (vm->vcpus[i].started)
			pthread_join(vm->vcpus[i].thread, NULL);
		vm->vcpus[i].started = false;
	}
}

void vm_done(struct vm *vm)
{
	stop_vcpus(vm);
	devices_done(vm);
	vm->share_watch = share_watch_stop(vm->share_watch);
	vm->share_watch_fd = fd_close(vm->share_watch_fd);
	vm->share = share_free(vm->share);
	for (unsigned i = 0; i < vm->cfg->cpus; i++)
		vcpu_close(&vm->vcpus[i]);
	fd_close(vm->fd);
	if (vm->kvm != vm->cfg->kvm)
		fd_close(vm->kvm);
	pci_host_done(&vm->pci);
	mark_done(&vm->mark);
	window_unmap(&vm->window);
	dax_window_close(&vm->dax);
	ram_unmap(&vm->ram);
	vm->loop = loop_free(vm->loop);
	fd_close(vm->finished);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
}
