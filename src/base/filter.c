/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filters. See filter.h. They are built by hand: a straight list of comparisons, no library's state kept in
 * each of a host's many processes, and nothing to allocate while a VM starts.
 */
#include "base/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define OFF(field) ((uint32_t)offsetof(struct seccomp_data, field))

/* The C library: locks, allocation (never executable), time, signals, ending. */
static const struct filter_rule libc_rules[] = {
	CALL(futex),
	CALL_WITHOUT(mprotect, 2, PROT_EXEC),
	CALL(munmap),
	CALL(madvise),
	CALL(brk),
	CALL(clock_gettime),
	CALL(clock_nanosleep),
	CALL(rt_sigreturn),
	CALL(rt_sigprocmask),
	CALL(restart_syscall),
	CALL(sched_yield),
	CALL(getpid),
	CALL(gettid),
	CALL(exit),
	CALL(exit_group),
	CALL(close),
	CALL(write), /* log lines, eventfds, the console */
	CALL(rseq),
	CALL(set_robust_list),
};

void filter_emit(struct filter *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (p->count < FILTER_MAX)
		p->insns[p->count] = (struct sock_filter){code, jt, jf, k};
	p->count++;
}

/* Every rule begins with the call's number in the accumulator and leaves it there when it does not match. */
void filter_rules(struct filter *p, const struct filter_rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct filter_rule *r = &rules[i];

		if (r->check == FILTER_ANY) {
			filter_emit(p, FILTER_JUMP_EQ, r->nr, 0, 1);
			filter_emit(p, FILTER_RETURN, SECCOMP_RET_ALLOW, 0, 0);
			continue;
		}
		filter_emit(p, FILTER_JUMP_EQ, r->nr, 0, 4);
		filter_emit(p, FILTER_LOAD, FILTER_ARG(r->arg), 0, 0); /* little-endian: the low half comes first */
		if (r->check == FILTER_EQUAL)
			filter_emit(p, FILTER_JUMP_EQ, r->value, 0, 1);
		else
			filter_emit(p, FILTER_JUMP_SET, r->value, 1, 0);
		filter_emit(p, FILTER_RETURN, SECCOMP_RET_ALLOW, 0, 0);
		filter_emit(p, FILTER_LOAD, OFF(nr), 0, 0);
	}
}

/* True if a rule looks at this call's arguments: then a device's plain wish for it is not granted. */
static bool is_checked(int nr)
{
	return nr == __NR_ioctl || nr == __NR_mmap || nr == __NR_mremap || nr == __NR_mprotect || nr == __NR_fcntl ||
	       nr == __NR_socketpair || nr == __NR_process_vm_readv || nr == __NR_process_vm_writev ||
	       nr == __NR_tgkill;
}

void filter_lists(struct filter *p, const int *const *lists)
{
	bool seen[512] = {false};

	for (; *lists; lists++) {
		for (const int *nr = *lists; *nr >= 0; nr++) {
			struct filter_rule rule = {(uint16_t)*nr, FILTER_ANY, 0, 0};

			if (*nr >= (int)ARRAY_SIZE(seen) || seen[*nr] || is_checked(*nr))
				continue;
			seen[*nr] = true;
			filter_rules(p, &rule, 1);
		}
	}
}

void filter_libc(struct filter *p)
{
	filter_rules(p, libc_rules, ARRAY_SIZE(libc_rules));
}

void filter_begin(struct filter *p)
{
	filter_emit(p, FILTER_LOAD, OFF(arch), 0, 0);
	filter_emit(p, FILTER_JUMP_EQ, AUDIT_ARCH_X86_64, 1, 0);
	filter_emit(p, FILTER_RETURN, SECCOMP_RET_KILL_PROCESS, 0, 0);
	filter_emit(p, FILTER_LOAD, OFF(nr), 0, 0);
}

int filter_install(struct filter *p, uint32_t otherwise, bool all_threads)
{
	struct sock_fprog prog = {.filter = p->insns};
	long r;

	filter_emit(p, FILTER_RETURN, otherwise, 0, 0);
	if (p->count > FILTER_MAX)
		return -E2BIG;
	prog.len = (unsigned short)p->count;
	r = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, all_threads ? SECCOMP_FILTER_FLAG_TSYNC : 0, &prog);
	return r < 0 ? -errno : r > 0 ? -ESRCH : 0; /* > 0: a thread that could not follow */
}

/* ---------------------------------------------------------------------------------------- a whole process */

/* Beside the C library's: memory, which is never executable, and files that are open. */
static const struct filter_rule process_rules[] = {
	CALL_WITHOUT(mmap, 2, PROT_EXEC),
	CALL(mremap),
	CALL(fcntl),
	CALL_WITH(socketpair, 0, AF_UNIX),
};

static const int process_calls[] = {
	/* clang-format off */
	SYS_read, SYS_readv, SYS_writev, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_shutdown, SYS_lseek,
	SYS_dup, SYS_poll, SYS_ppoll, SYS_epoll_wait, SYS_epoll_pwait, SYS_epoll_ctl, SYS_fstat, SYS_newfstatat,
	SYS_getrandom, SYS_nanosleep, SYS_sched_getaffinity, SYS_rt_sigaction, SYS_rt_sigtimedwait, SYS_sigaltstack,
	SYS_getuid, SYS_geteuid, -1,
	/* clang-format on */
};

/* What a sanitizer's runtime calls is on no list. */
static bool is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#else
	return false;
#endif
}

int filter_process(const struct filter_rule *rules, size_t n, const int *const *lists)
{
	const struct filter_rule ends[] = {CALL_WITH(tgkill, 0, getpid())};
	const int *const own[] = {process_calls, NULL};
	struct filter f = {.count = 0};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	if (is_sanitized())
		return 0;
	filter_begin(&f);
	filter_libc(&f);
	filter_rules(&f, process_rules, ARRAY_SIZE(process_rules));
	filter_rules(&f, ends, ARRAY_SIZE(ends));
	filter_rules(&f, rules, n);
	filter_lists(&f, own);
	filter_lists(&f, lists);
	return filter_install(&f, SECCOMP_RET_ERRNO | ENOSYS, true);
}
