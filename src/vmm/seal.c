/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing. See seal.h. */
#include "vmm/seal.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/filter.h"
#include "base/util.h"

/* Not for a thread that serves files: it has descriptors of all sorts. */
static const struct filter_rule map_rules[] = {
	CALL_WITHOUT(mmap, 2, PROT_EXEC),
	CALL(mremap),
};

/* Registers that either thread kind may end up serving, and the machine's own calls (devices.c, arch.c, window.c,
 * vm.c). */
static const struct filter_rule machine_rules[] = {
	CALL_WITH(ioctl, 1, KVM_SIGNAL_MSI),
	CALL_WITH(ioctl, 1, KVM_IOEVENTFD),
	CALL(fstat),
	CALL(newfstatat),
	CALL(epoll_ctl),
};

/* A thread of the virtio-fs device raises its interrupts itself. */
static const struct filter_rule fs_rules[] = {
	CALL_WITH(ioctl, 1, KVM_SIGNAL_MSI),
	CALL_WITH(fcntl, 1, 2), /* F_SETFD: fdopendir */
	CALL_WITH(fcntl, 1, 3), /* F_GETFL */
	CALL_WITHOUT(mremap, 3, MREMAP_FIXED),
};

static const struct filter_rule vcpu_rules[] = {
	CALL_WITH(ioctl, 1, KVM_RUN), CALL(poll), /* the console */
};

/* The event loop and the devices' back ends: reads, writes and syncs on descriptors that are already there. */
static const struct filter_rule loop_rules[] = {
	CALL(epoll_wait),
	CALL(epoll_pwait),
	CALL(poll),
	CALL(ppoll),
	CALL(read),
	CALL(readv),
	CALL(writev),
	CALL(pread64),
	CALL(pwrite64),
	CALL(preadv),
	CALL(pwritev),
	CALL(preadv2),
	CALL(pwritev2),
	CALL(fdatasync),
	CALL(fsync),
	CALL(fallocate),
	CALL(lseek),
	CALL(io_uring_enter),
	CALL(recvmsg),
	CALL(sendmsg),
	CALL(recvfrom),
	CALL(sendto),
	CALL(shutdown),
	CALL(ftruncate),
	CALL(getrandom),
	CALL(seccomp),		     /* a vCPU thread's further narrowing; it can only take away */
	CALL_WITH(socketpair, 0, 1), /* AF_UNIX: a new stream for a guest's connection, handed to the keeper */
	CALL_WITH(fcntl, 1, 1),	     /* F_GETFD */
	CALL_WITH(fcntl, 1, 2),	     /* F_SETFD */
	CALL_WITH(fcntl, 1, 3),	     /* F_GETFL */
	CALL_WITH(fcntl, 1, 4),	     /* F_SETFL */
};

/* The event loop reads the state of a paused machine (x86_64/arch_state.c, vcpu_state.c). */
static const struct filter_rule snapshot_rules[] = {
	CALL_WITH(ioctl, 1, KVM_GET_CLOCK),	  CALL_WITH(ioctl, 1, KVM_GET_TSC_KHZ),
	CALL_WITH(ioctl, 1, KVM_GET_MP_STATE),	  CALL_WITH(ioctl, 1, KVM_GET_REGS),
	CALL_WITH(ioctl, 1, KVM_GET_SREGS),	  CALL_WITH(ioctl, 1, KVM_GET_XCRS),
	CALL_WITH(ioctl, 1, KVM_GET_DEBUGREGS),	  CALL_WITH(ioctl, 1, KVM_GET_LAPIC),
	CALL_WITH(ioctl, 1, KVM_GET_MSRS),	  CALL_WITH(ioctl, 1, KVM_GET_VCPU_EVENTS),
	CALL_WITH(ioctl, 1, KVM_GET_XSAVE),	  CALL_WITH(ioctl, 1, KVM_GET_XSAVE2),
	CALL_WITH(ioctl, 1, KVM_CHECK_EXTENSION),
};

/* And sets it again, when it goes back to a mark (mark.h). */
static const struct filter_rule mark_rules[] = {
	CALL_WITH(ioctl, 1, KVM_SET_MP_STATE),	CALL_WITH(ioctl, 1, KVM_SET_REGS),
	CALL_WITH(ioctl, 1, KVM_SET_SREGS),	CALL_WITH(ioctl, 1, KVM_SET_XCRS),
	CALL_WITH(ioctl, 1, KVM_SET_DEBUGREGS), CALL_WITH(ioctl, 1, KVM_SET_LAPIC),
	CALL_WITH(ioctl, 1, KVM_SET_MSRS),	CALL_WITH(ioctl, 1, KVM_SET_VCPU_EVENTS),
	CALL_WITH(ioctl, 1, KVM_SET_XSAVE),
};

/* A copy of the process, as the C library's fork makes it, to write them (saver.c): neither a thread nor a namespace.
 */
static const struct filter_rule copy_rules[] = {
	CALL_WITH(clone, 0, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD),
	CALL_WITH(prctl, 0, PR_SET_PDEATHSIG),
	CALL(close_range),
};

/* And sets its clock back to when it was paused (arch_clock_release). */
static const struct filter_rule pause_rules[] = {
	CALL_WITH(ioctl, 1, KVM_HAS_DEVICE_ATTR), CALL_WITH(ioctl, 1, KVM_GET_DEVICE_ATTR),
	CALL_WITH(ioctl, 1, KVM_SET_DEVICE_ATTR), CALL_WITH(ioctl, 1, KVM_SET_CLOCK),
	CALL_WITH(ioctl, 1, KVM_KVMCLOCK_CTRL),
};

/* Calls that name a process: this one alone. Copies to and from windows (mem.c); kicks for the vCPU threads. */
static void emit_own_process(struct filter *p, enum seal_kind kind)
{
	uint32_t self = (uint32_t)getpid();
	const struct filter_rule rules[] = {
		CALL_WITH(process_vm_readv, 0, self),
		CALL_WITH(process_vm_writev, 0, self),
		CALL_WITH(tgkill, 0, self),
	};

	filter_rules(p, rules, kind == SEAL_LOOP || kind == SEAL_ALONE ? 3 : 2);
}

static void emit_machine(struct filter *p, enum seal_kind kind, const int *const *lists)
{
	filter_rules(p, vcpu_rules, ARRAY_SIZE(vcpu_rules)); /* KVM_RUN is by far the most frequent */
	filter_libc(p);
	filter_rules(p, map_rules, ARRAY_SIZE(map_rules));
	filter_rules(p, machine_rules, ARRAY_SIZE(machine_rules));
	emit_own_process(p, kind);
	if (kind != SEAL_VCPU) {
		filter_rules(p, loop_rules, ARRAY_SIZE(loop_rules));
		filter_rules(p, snapshot_rules, ARRAY_SIZE(snapshot_rules));
		filter_rules(p, mark_rules, ARRAY_SIZE(mark_rules));
		filter_rules(p, copy_rules, ARRAY_SIZE(copy_rules));
		filter_rules(p, pause_rules, ARRAY_SIZE(pause_rules));
	}
	filter_lists(p, lists);
}

#define LOW(n) FILTER_ARG(n) /* halves of an argument */
#define HIGH(n) (LOW(n) + 4u)
#define LOAD FILTER_LOAD
#define JUMP_EQ FILTER_JUMP_EQ
#define JUMP_SET FILTER_JUMP_SET
#define RETURN FILTER_RETURN

/*
 * mmap for a thread that serves files: memory of its own at an address of the kernel's choice; files and memory over
 * the window, where the piece begins inside it and is no longer than SEAL_PIECE, so that it ends in what lies behind at
 * most. Never executable. In units of a piece every address of user space is a number of 32 bits.
 */
static void emit_server_mmap(struct filter *p, const struct seal_window *w)
{
	uint32_t first = w ? (uint32_t)((uintptr_t)w->host / SEAL_PIECE) : 0;
	uint32_t end = w ? first + (uint32_t)(w->size / SEAL_PIECE) : 0;
	const struct sock_filter body[] = {
		{LOAD, 0, 0, LOW(2)},
		{JUMP_SET, 18, 0, PROT_EXEC},
		{LOAD, 0, 0, LOW(3)},
		{JUMP_SET, 2, 0, MAP_SHARED | MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN},
		{LOAD, 0, 0, LOW(4)},
		{JUMP_EQ, 13, 14, UINT32_MAX}, /* no descriptor */
		{LOAD, 0, 0, HIGH(1)},	       /* the length */
		{JUMP_EQ, 0, 12, 0},
		{LOAD, 0, 0, LOW(1)},
		{BPF_JMP | BPF_JGT | BPF_K, 10, 0, (uint32_t)SEAL_PIECE},
		{LOAD, 0, 0, HIGH(0)}, /* the address, in pieces */
		{BPF_ALU | BPF_LSH | BPF_K, 0, 0, 11},
		{BPF_ST, 0, 0, 0},
		{LOAD, 0, 0, LOW(0)},
		{BPF_ALU | BPF_RSH | BPF_K, 0, 0, 21},
		{BPF_LDX | BPF_MEM, 0, 0, 0},
		{BPF_ALU | BPF_OR | BPF_X, 0, 0, 0},
		{BPF_JMP | BPF_JGE | BPF_K, 0, 2, first},
		{BPF_JMP | BPF_JGE | BPF_K, 1, 0, end},
		{RETURN, 0, 0, SECCOMP_RET_ALLOW},
		{RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS},
	};

	filter_emit(p, JUMP_EQ, __NR_mmap, 0, ARRAY_SIZE(body));
	for (size_t i = 0; i < ARRAY_SIZE(body); i++)
		filter_emit(p, body[i].code, body[i].k, body[i].jt, body[i].jf);
}

int seal_thread(enum seal_kind kind, const int *const *lists)
{
	struct filter p = {.count = 0};

	filter_begin(&p);
	emit_machine(&p, kind, lists);
	return filter_install(&p, SECCOMP_RET_KILL_PROCESS, kind == SEAL_LOOP);
}

int seal_server(const int *const *lists, const struct seal_window *window)
{
	struct filter p = {.count = 0};

	filter_begin(&p);
	emit_server_mmap(&p, window);
	filter_rules(&p, fs_rules, ARRAY_SIZE(fs_rules));
	filter_lists(&p, lists);
	filter_libc(&p);
	emit_own_process(&p, SEAL_FS);
	return filter_install(&p, SECCOMP_RET_KILL_PROCESS, false);
}

int seal_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};

	if (keep && syscall(__NR_capget, &head, sets) < 0)
		return -errno;
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		sets[i].permitted &= (uint32_t)(keep >> (32 * i));
		sets[i].effective = sets[i].permitted;
		sets[i].inheritable = 0;
	}
	return syscall(__NR_capset, &head, sets) < 0 ? -errno : 0;
}

static int drop_capabilities(uint64_t keep)
{
	/* The bounding set can only be emptied while CAP_SETPCAP is there; without it, there is nothing to gain back
	 * anyway, since no_new_privs holds. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			break;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return seal_capabilities(keep);
}

int seal_process(uint64_t keep, struct sm_error *err)
{
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_sys(err, errno, "seal: no new privileges");
	r = drop_capabilities(keep);
	if (r < 0)
		return error_sys(err, -r, "seal: capabilities");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_sys(err, errno, "seal: dumpable");
	return 0;
}
