/* SPDX-License-Identifier: Apache-2.0 */
/* The seal, on a process of its own each time: what it forbids ends the process, what it allows works, /proc shows it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/kvm.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "vmm/devices.h"
#include "vmm/seal.h"

#include "sanitized.h"

/* Runs in the sealed child: its result is the exit status. */
typedef int (*deed)(void);

/* Forks, seals and does it. Returns the exit status, or -1 if the filter ended the process. */
static int sealed(enum seal_kind kind, deed fn)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit none = {0};

		setrlimit(RLIMIT_CORE, &none);
		if (seal_process(0, NULL) < 0)
			_exit(100);
		if (seal_thread(SEAL_LOOP, devices_syscalls()) < 0)
			_exit(101);
		if (kind == SEAL_VCPU && seal_thread(SEAL_VCPU, devices_syscalls()) < 0)
			_exit(102);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
		return -1;
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int do_open(void)
{
	return (int)syscall(__NR_openat, AT_FDCWD, "/dev/null", O_RDONLY, 0);
}

static int do_exec(void)
{
	char *argv[] = {NULL};

	return (int)syscall(__NR_execve, "/bin/true", argv, argv);
}

static int do_socket(void)
{
	return (int)syscall(__NR_socket, AF_UNIX, SOCK_STREAM, 0);
}

static int do_connect(void)
{
	return (int)syscall(__NR_connect, 0, NULL, 0);
}

static int do_ptrace(void)
{
	return (int)syscall(__NR_ptrace, PTRACE_TRACEME, 0, 0, 0);
}

static int do_clone(void)
{
	return (int)syscall(__NR_clone, SIGCHLD, 0, 0, 0, 0);
}

static int do_clone_thread(void)
{
	return (int)syscall(__NR_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0);
}

static int do_clone_namespace(void)
{
	return (int)syscall(__NR_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}

/* A copy of the process, to write a snapshot: sealed as well. */
static int do_copy(void)
{
	int pair[2], status = 0;
	char c = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
		return 1;
	if (fork() == 0) {
		syscall(__NR_close_range, 1000, ~0U, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		free(malloc(1 << 20));
		send(pair[1], "x", 1, 0);
		do_open();
		send(pair[1], "y", 1, 0);
		_exit(0);
	}
	close(pair[1]);
	status = recv(pair[0], &c, 1, 0) == 1 && c == 'x' ? 0 : 2;
	return status ? status : recv(pair[0], &c, 1, 0) == 0 ? 7 : 3;
}

static int do_map_exec(void)
{
	return (int)syscall(__NR_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int do_kill_other(void)
{
	return (int)syscall(__NR_tgkill, 1, 1, 0);
}

static int do_read_other(void)
{
	return (int)syscall(__NR_process_vm_readv, 1, NULL, 0, NULL, 0, 0);
}

static int do_tty_ioctl(void)
{
	return (int)syscall(__NR_ioctl, 0, 0x5412 /* TIOCSTI */, "x");
}

static int do_internet_pair(void)
{
	int fds[2];

	return (int)syscall(__NR_socketpair, AF_INET, SOCK_STREAM, 0, fds);
}

static int do_read_file(void)
{
	char b[1];

	syscall(__NR_pread64, 0, b, 1, 0);
	return 7;
}

/* What the monitor does all day; bad descriptors, so that only the filter could mind. */
static int do_work(void)
{
	char a[8] = "window", b[8] = "";
	struct iovec from = {a, 8}, to = {b, 8};
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || munmap(p, 4096) < 0)
		return 1;
	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 8 || strcmp(b, "window") != 0)
		return 2;
	if (ioctl(-1, KVM_RUN, 0) != -1 || errno != EBADF)
		return 3;
	if (ioctl(-1, KVM_SIGNAL_MSI, 0) != -1 || errno != EBADF)
		return 4;
	if (write(-1, "", 1) != -1 || errno != EBADF)
		return 5;
	free(malloc(1 << 20));
	return 7;
}

static void test_forbidden(void **state)
{
	static const deed deeds[] = {do_open,	    do_exec,	     do_socket,		 do_connect,  do_ptrace,
				     do_clone,	    do_clone_thread, do_clone_namespace, do_map_exec, do_kill_other,
				     do_read_other, do_tty_ioctl,    do_internet_pair};

	for (size_t i = 0; i < sizeof(deeds) / sizeof(deeds[0]); i++)
		if (sealed(SEAL_LOOP, deeds[i]) != -1 || sealed(SEAL_VCPU, deeds[i]) != -1)
			fail_msg("deed %zu was allowed", i);
}

static void test_allowed(void **state)
{
	skip_if_sanitized();
	assert_int_equal(sealed(SEAL_LOOP, do_work), 7);
	assert_int_equal(sealed(SEAL_VCPU, do_work), 7);
	assert_int_equal(sealed(SEAL_LOOP, do_read_file), 7);
	assert_int_equal(sealed(SEAL_LOOP, do_copy), 7);
	assert_int_equal(sealed(SEAL_VCPU, do_copy), -1);
}

/* Read from outside, as a user would. */
static void test_status(void **state)
{
	char path[64], *text = NULL, go = 0;
	int up[2], down[2], status;
	size_t len;
	pid_t pid;

	skip_if_sanitized();
	assert_int_equal(pipe(up), 0);
	assert_int_equal(pipe(down), 0);
	pid = fork();
	if (pid == 0) {
		if (seal_process(0, NULL) < 0 || seal_thread(SEAL_LOOP, devices_syscalls()) < 0)
			_exit(1);
		if (write(up[1], "x", 1) != 1 || read(down[0], &go, 1) != 1)
			_exit(2);
		_exit(0);
	}
	assert_int_equal(read(up[0], &go, 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	assert_int_equal(read_file_at(AT_FDCWD, path, 1 << 16, &text, &len), 0);
	assert_non_null(strstr(text, "Seccomp:\t2"));
	assert_non_null(strstr(text, "NoNewPrivs:\t1"));
	assert_non_null(strstr(text, "CapEff:\t0000000000000000"));
	assert_non_null(strstr(text, "CapPrm:\t0000000000000000"));
	assert_non_null(strstr(text, "CapInh:\t0000000000000000"));
	free(text);
	assert_int_equal(write(down[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(up[0]);
	close(up[1]);
	close(down[0]);
	close(down[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
