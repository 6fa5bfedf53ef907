/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtual machine: memory, vCPUs, buses, devices, and the event loop that drives them.
 *
 * Threads: one a vCPU, and the event loop in the thread that calls vm_run(). `lock` is the big device lock: a vCPU
 * thread takes it around every register access, the loop around every batch of callbacks. KVM_RUN and epoll_wait are
 * outside.
 *
 * Life: vm_create (everything that opens, maps or allocates) -> vm_start (vCPU threads, waiting; every thread sealed)
 * -> vm_run (until vm_finish).
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <linux/kvm.h>

#include "base/error.h"
#include "base/loop.h"
#include "mem/mem.h"
#include "vmm/arch.h"
#include "vmm/bus.h"
#include "vmm/config.h"
#include "vmm/console.h"
#include "vmm/dax_window.h"
#include "vmm/devices.h"
#include "vmm/mark.h"
#include "vmm/pci_host.h"
#include "vmm/power.h"
#include "vmm/ram.h"
#include "vmm/saver.h"
#include "vmm/serial.h"
#include "vmm/share.h"
#include "vmm/snapshot.h"
#include "vmm/window.h"

#define VCPU_EXIT_REASONS 40

struct vcpu {
	struct vm *vm;
	unsigned id;
	int fd;
	struct kvm_run *run; /* shared with KVM; run->immediate_exit is set by whoever kicks */
	pthread_t thread;
	bool started;
	pthread_mutex_t place_lock; /* of the next three */
	const struct rseq *rseq;    /* the kernel's word on where the thread runs; NULL: there is no thread */
	pid_t tid;
	cpu_set_t all_cpus;		   /* that the thread may use */
	uint64_t exits[VCPU_EXIT_REASONS]; /* metric, this thread's: by KVM_EXIT_* */
	uint64_t exits_other;
};

enum vm_reason { VM_NONE, VM_SHUTDOWN, VM_RESET, VM_PANIC, VM_TRIPLE_FAULT, VM_ERROR, VM_STOPPED };

struct vm {
	const struct vmm_config *cfg;
	int kvm, fd;
	int run_size;
	struct ram ram; /* cfg->memory bytes; below the hole, above it, and plugged, back to back */
	struct mem mem;
	struct window window;
	uint64_t window_gpa;
	struct dax_window dax;
	struct virtio_shm dax_place; /* where the guest finds it */
	uint64_t plug_gpa;	     /* where memory is plugged (virtio/mem.h); 0: nowhere */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* of the fields below, under the lock */
	bool sealed;		/* the process has its filter: vCPU threads may add theirs */
	bool running;		/* vCPUs may enter the guest */
	bool stopping;
	bool paused;	 /* by the keeper's command, until it says "resume" */
	unsigned inside; /* vCPU threads that may be in KVM_RUN */
	enum vm_reason reason;
	char detail[256];

	struct loop *loop;
	int finished; /* eventfd: vm_finish was called */
	struct bus pio, mmio;
	struct pci_host pci;
	struct serial serial;
	struct power power;
	struct console console;
	struct devices devices;
	struct share *share; /* NULL: no directories are shared */
	struct share_watch *share_watch;
	int share_watch_fd;	   /* the guest's end, until its vsock device has it; -1 */
	struct snapshot *snapshot; /* while it is being restored */
	bool restored;
	struct saver saver;
	struct mark mark;
	struct arch_vm arch;
	struct vcpu vcpus[VMM_MAX_CPUS];
	uint64_t window_faults; /* metric: KVM_RUN failures that a repair of a window explained */
	uint64_t start_ns;
};

/* cfg must outlive the vm. On failure vm_done is still to be called. */
int vm_create(struct vm *vm, const struct vmm_config *cfg, struct sm_error *err) MUST_CHECK;
int vm_start(struct vm *vm, struct sm_error *err) MUST_CHECK;
/* Lets the vCPUs in and runs the event loop until vm_finish; 0 or -errno of the loop. */
int vm_run(struct vm *vm) MUST_CHECK;
void vm_done(struct vm *vm);

/* Ends the machine; the first reason counts. Any thread, with the lock held. */
void vm_finish_locked(struct vm *vm, enum vm_reason reason, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Holds the vCPUs outside the guest (waits until they are) and lets them in again. In the loop, with the lock held. */
void vm_pause_locked(struct vm *vm);
void vm_resume_locked(struct vm *vm);
const char *vm_reason_name(enum vm_reason reason);

/* For the threads of devices: seals the calling one (see vm_start), or ends the monitor. */
void vm_seal_worker(struct vm *vm);
void vm_seal_server(struct vm *vm);

/* vcpu.c: opens a vCPU (KVM's part), and the thread's body. */
int vcpu_open(struct vm *vm, unsigned id, struct sm_error *err) MUST_CHECK;
void vcpu_close(struct vcpu *vcpu);
int vcpu_start(struct vcpu *vcpu, struct sm_error *err) MUST_CHECK;
/* together: puts the calling thread on the CPU where the vCPU's runs and holds both there; false if that cannot be.
 * Else: the vCPU's may run anywhere again. */
bool vcpu_pair(struct vcpu *vcpu, bool together);
/* Makes the thread leave KVM_RUN soon. */
void vcpu_kick(struct vcpu *vcpu);

#endif
