/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing. See seal.h. The filter is built by hand: a straight list of comparisons, no library's state kept in each of
 * a host's many monitors, and nothing to allocate while a VM starts.
 */
#include "vmm/seal.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
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

#include "base/util.h"

#define MAX_INSNS 512
#define OFF(field) ((uint32_t)offsetof(struct seccomp_data, field))

#define ANY(name)                                                                                                      \
	{                                                                                                              \
		__NR_##name, SEAL_ANY, 0, 0                                                                            \
	}
#define EQUAL(name, a, v)                                                                                              \
	{                                                                                                              \
		__NR_##name, SEAL_EQUAL, a, (uint32_t)(v)                                                              \
	}
#define CLEAR(name, a, v)                                                                                              \
	{                                                                                                              \
		__NR_##name, SEAL_CLEAR, a, (uint32_t)(v)                                                              \
	}

/* The C library: locks, allocation (never executable), time, signals, ending. */
static const struct seal_rule libc_rules[] = {
	ANY(futex),
	CLEAR(mprotect, 2, PROT_EXEC),
	ANY(munmap),
	ANY(madvise),
	ANY(brk),
	ANY(clock_gettime),
	ANY(clock_nanosleep),
	ANY(rt_sigreturn),
	ANY(rt_sigprocmask),
	ANY(restart_syscall),
	ANY(sched_yield),
	ANY(getpid),
	ANY(gettid),
	ANY(exit),
	ANY(exit_group),
	ANY(close),
	ANY(write), /* log lines, eventfds, the console */
	ANY(rseq),
	ANY(set_robust_list),
};

/* Not for a thread that serves files: it has descriptors of all sorts. */
static const struct seal_rule map_rules[] = {
	CLEAR(mmap, 2, PROT_EXEC),
	ANY(mremap),
};

/* Registers that either thread kind may end up serving, and the machine's own calls (devices.c, arch.c, window.c,
 * vm.c). */
static const struct seal_rule machine_rules[] = {
	EQUAL(ioctl, 1, KVM_SIGNAL_MSI), EQUAL(ioctl, 1, KVM_IOEVENTFD), ANY(fstat), ANY(newfstatat), ANY(epoll_ctl),
};

/* A thread of the virtio-fs device raises its interrupts itself. */
static const struct seal_rule fs_rules[] = {
	EQUAL(ioctl, 1, KVM_SIGNAL_MSI),
	EQUAL(fcntl, 1, 2), /* F_SETFD: fdopendir */
	EQUAL(fcntl, 1, 3), /* F_GETFL */
	CLEAR(mremap, 3, MREMAP_FIXED),
};

static const struct seal_rule vcpu_rules[] = {
	EQUAL(ioctl, 1, KVM_RUN), ANY(poll), /* the console */
};

/* The event loop and the devices' back ends: reads, writes and syncs on descriptors that are already there. */
static const struct seal_rule loop_rules[] = {
	ANY(epoll_wait),
	ANY(epoll_pwait),
	ANY(poll),
	ANY(ppoll),
	ANY(read),
	ANY(readv),
	ANY(writev),
	ANY(pread64),
	ANY(pwrite64),
	ANY(preadv),
	ANY(pwritev),
	ANY(preadv2),
	ANY(pwritev2),
	ANY(fdatasync),
	ANY(fsync),
	ANY(fallocate),
	ANY(lseek),
	ANY(io_uring_enter),
	ANY(recvmsg),
	ANY(sendmsg),
	ANY(recvfrom),
	ANY(sendto),
	ANY(shutdown),
	ANY(ftruncate),
	ANY(getrandom),
	ANY(seccomp),		 /* a vCPU thread's further narrowing; it can only take away */
	EQUAL(socketpair, 0, 1), /* AF_UNIX: a new stream for a guest's connection, handed to the keeper */
	EQUAL(fcntl, 1, 1),	 /* F_GETFD */
	EQUAL(fcntl, 1, 2),	 /* F_SETFD */
	EQUAL(fcntl, 1, 3),	 /* F_GETFL */
	EQUAL(fcntl, 1, 4),	 /* F_SETFL */
};

/* The event loop reads the state of a paused machine (x86_64/arch_state.c, vcpu_state.c). */
static const struct seal_rule snapshot_rules[] = {
	EQUAL(ioctl, 1, KVM_GET_CLOCK),	      EQUAL(ioctl, 1, KVM_GET_TSC_KHZ), EQUAL(ioctl, 1, KVM_GET_MP_STATE),
	EQUAL(ioctl, 1, KVM_GET_REGS),	      EQUAL(ioctl, 1, KVM_GET_SREGS),	EQUAL(ioctl, 1, KVM_GET_XCRS),
	EQUAL(ioctl, 1, KVM_GET_DEBUGREGS),   EQUAL(ioctl, 1, KVM_GET_LAPIC),	EQUAL(ioctl, 1, KVM_GET_MSRS),
	EQUAL(ioctl, 1, KVM_GET_VCPU_EVENTS), EQUAL(ioctl, 1, KVM_GET_XSAVE),	EQUAL(ioctl, 1, KVM_GET_XSAVE2),
	EQUAL(ioctl, 1, KVM_CHECK_EXTENSION),
};

/* A copy of the process, as the C library's fork makes it, to write them (saver.c): neither a thread nor a namespace.
 */
static const struct seal_rule copy_rules[] = {
	EQUAL(clone, 0, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD),
	EQUAL(prctl, 0, PR_SET_PDEATHSIG),
	ANY(close_range),
};

/* And sets its clock back to when it was paused (arch_clock_release). */
static const struct seal_rule pause_rules[] = {
	EQUAL(ioctl, 1, KVM_HAS_DEVICE_ATTR), EQUAL(ioctl, 1, KVM_GET_DEVICE_ATTR),
	EQUAL(ioctl, 1, KVM_SET_DEVICE_ATTR), EQUAL(ioctl, 1, KVM_SET_CLOCK),
	EQUAL(ioctl, 1, KVM_KVMCLOCK_CTRL),
};

struct program {
	struct sock_filter insns[MAX_INSNS];
	unsigned count;
};

static void emit(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (p->count < MAX_INSNS)
		p->insns[p->count] = (struct sock_filter){code, jt, jf, k};
	p->count++;
}

#define LOAD (BPF_LD | BPF_W | BPF_ABS)
#define JUMP_EQ (BPF_JMP | BPF_JEQ | BPF_K)
#define JUMP_SET (BPF_JMP | BPF_JSET | BPF_K)
#define RETURN (BPF_RET | BPF_K)

/* Every rule begins with the call's number in the accumulator and leaves it there when it does not match. */
static void emit_rules(struct program *p, const struct seal_rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct seal_rule *r = &rules[i];

		if (r->check == SEAL_ANY) {
			emit(p, JUMP_EQ, r->nr, 0, 1);
			emit(p, RETURN, SECCOMP_RET_ALLOW, 0, 0);
			continue;
		}
		emit(p, JUMP_EQ, r->nr, 0, 4);
		emit(p, LOAD, OFF(args) + 8u * r->arg, 0, 0); /* little-endian: the low half comes first */
		if (r->check == SEAL_EQUAL)
			emit(p, JUMP_EQ, r->value, 0, 1);
		else
			emit(p, JUMP_SET, r->value, 1, 0);
		emit(p, RETURN, SECCOMP_RET_ALLOW, 0, 0);
		emit(p, LOAD, OFF(nr), 0, 0);
	}
}

/* Calls that name a process: this one alone. Copies to and from windows (mem.c); kicks for the vCPU threads. */
static void emit_own_process(struct program *p, enum seal_kind kind)
{
	uint32_t self = (uint32_t)getpid();
	const struct seal_rule rules[] = {
		EQUAL(process_vm_readv, 0, self),
		EQUAL(process_vm_writev, 0, self),
		EQUAL(tgkill, 0, self),
	};

	emit_rules(p, rules, kind == SEAL_LOOP || kind == SEAL_ALONE ? 3 : 2);
}

/* True if a rule looks at this call's arguments: then a device's plain wish for it is not granted. */
static bool is_checked(int nr)
{
	return nr == __NR_ioctl || nr == __NR_mmap || nr == __NR_mremap || nr == __NR_mprotect || nr == __NR_fcntl ||
	       nr == __NR_socketpair || nr == __NR_process_vm_readv || nr == __NR_process_vm_writev ||
	       nr == __NR_tgkill;
}

static void emit_lists(struct program *p, const int *const *lists)
{
	bool seen[512] = {false};

	for (; *lists; lists++) {
		for (const int *nr = *lists; *nr >= 0; nr++) {
			struct seal_rule rule = {(uint16_t)*nr, SEAL_ANY, 0, 0};

			if (*nr >= (int)ARRAY_SIZE(seen) || seen[*nr] || is_checked(*nr))
				continue;
			seen[*nr] = true;
			emit_rules(p, &rule, 1);
		}
	}
}

static void emit_machine(struct program *p, enum seal_kind kind, const int *const *lists)
{
	emit_rules(p, vcpu_rules, ARRAY_SIZE(vcpu_rules)); /* KVM_RUN is by far the most frequent */
	emit_rules(p, libc_rules, ARRAY_SIZE(libc_rules));
	emit_rules(p, map_rules, ARRAY_SIZE(map_rules));
	emit_rules(p, machine_rules, ARRAY_SIZE(machine_rules));
	emit_own_process(p, kind);
	if (kind != SEAL_VCPU) {
		emit_rules(p, loop_rules, ARRAY_SIZE(loop_rules));
		emit_rules(p, snapshot_rules, ARRAY_SIZE(snapshot_rules));
		emit_rules(p, copy_rules, ARRAY_SIZE(copy_rules));
		emit_rules(p, pause_rules, ARRAY_SIZE(pause_rules));
	}
	emit_lists(p, lists);
}

#define LOW(n) (OFF(args) + 8u * (n)) /* halves of an argument */
#define HIGH(n) (LOW(n) + 4u)

/*
 * mmap for a thread that serves files: memory of its own at an address of the kernel's choice; files and memory over
 * the window, where the piece begins inside it and is no longer than SEAL_PIECE, so that it ends in what lies behind at
 * most. Never executable. In units of a piece every address of user space is a number of 32 bits.
 */
static void emit_server_mmap(struct program *p, const struct seal_window *w)
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

	emit(p, JUMP_EQ, __NR_mmap, 0, ARRAY_SIZE(body));
	for (size_t i = 0; i < ARRAY_SIZE(body); i++)
		emit(p, body[i].code, body[i].k, body[i].jt, body[i].jf);
}

static void begin(struct program *p)
{
	emit(p, LOAD, OFF(arch), 0, 0);
	emit(p, JUMP_EQ, AUDIT_ARCH_X86_64, 1, 0);
	emit(p, RETURN, SECCOMP_RET_KILL_PROCESS, 0, 0);
	emit(p, LOAD, OFF(nr), 0, 0);
}

static int install(struct program *p, enum seal_kind kind)
{
	struct sock_fprog prog = {.filter = p->insns};
	long r;

	emit(p, RETURN, SECCOMP_RET_KILL_PROCESS, 0, 0);
	if (p->count > MAX_INSNS)
		return -E2BIG;
	prog.len = (unsigned short)p->count;
	r = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, kind == SEAL_LOOP ? SECCOMP_FILTER_FLAG_TSYNC : 0, &prog);
	return r < 0 ? -errno : r > 0 ? -ESRCH : 0; /* > 0: a thread that could not follow */
}

int seal_thread(enum seal_kind kind, const int *const *lists)
{
	struct program p = {.count = 0};

	begin(&p);
	emit_machine(&p, kind, lists);
	return install(&p, kind);
}

int seal_server(const int *const *lists, const struct seal_window *window)
{
	struct program p = {.count = 0};

	begin(&p);
	emit_server_mmap(&p, window);
	emit_rules(&p, fs_rules, ARRAY_SIZE(fs_rules));
	emit_lists(&p, lists);
	emit_rules(&p, libc_rules, ARRAY_SIZE(libc_rules));
	emit_own_process(&p, SEAL_FS);
	return install(&p, SEAL_FS);
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
