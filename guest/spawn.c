/* SPDX-License-Identifier: Apache-2.0 */
/* See spawn.h. */
#include "guest/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HOLDER_WAIT_MS 5000

/* fork, with the process born in a cgroup (moving it later waits for an RCU grace period) and with a pidfd of it. */
static pid_t fork_into(int cgroup_fd, uint64_t flags, int *ret_pidfd)
{
	struct clone_args args = {
		.flags = flags | (ret_pidfd ? CLONE_PIDFD : 0) | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0,
	};
	long pid = syscall(SYS_clone3, &args, sizeof(args));

	return pid < 0 ? -errno : (pid_t)pid;
}

static pid_t start_namespace(struct agent *a, struct child_plan *plan, int cgroup_fd)
{
	int pidfd = -1;
	pid_t pid;

	plan->mount_proc = true;
	pid = fork_into(cgroup_fd, CLONE_NEWPID, &pidfd);
	if (pid == 0)
		child_run(plan);
	if (pid < 0)
		return pid;
	fcntl(pidfd, F_SETFD, FD_CLOEXEC);
	a->init_pid = pid;
	a->init_fd = pidfd;
	a->init_holds = false;
	return pid;
}

/* Makes the namespace with a holder, and waits until its /proc is mounted. */
static int start_holder(struct agent *a)
{
	struct child_plan plan = {.hold = true, .proc_fd = a->proc_fd, .report_fd = -1, .stage.fd = -1};
	int ends[2];
	_fd_ int in = -1, out = -1;
	struct child_failure f;
	int32_t pid_in_it;
	struct pollfd p;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	in = ends[0];
	plan.report_fd = out = ends[1];
	pid = start_namespace(a, &plan, -1);
	if (pid < 0)
		return pid;
	a->init_holds = true;
	out = fd_close(out);
	p = (struct pollfd){.fd = in, .events = POLLIN};
	while (poll(&p, 1, HOLDER_WAIT_MS) > 0) {
		ssize_t n = read(in, &pid_in_it, sizeof(pid_in_it));

		if (n == 0)
			return 0;
		if (n < 0)
			return -errno;
		if (read(in, &f, sizeof(f)) == sizeof(f))
			return -EIO;
		return 0;
	}
	return -ETIMEDOUT;
}

static pid_t spawn_inside(struct agent *a, struct child_plan *plan, int cgroup_fd)
{
	_fd_ int own = (int)syscall(SYS_pidfd_open, getpid(), 0);
	pid_t pid;

	if (own < 0 || setns(a->init_fd, CLONE_NEWPID) < 0)
		return -errno;
	pid = fork_into(cgroup_fd, 0, NULL);
	if (pid == 0)
		child_run(plan);
	/* Only children are concerned; the agent never left. */
	if (setns(own, CLONE_NEWPID) < 0)
		return pid < 0 ? pid : -errno;
	return pid;
}

pid_t spawn(struct agent *a, struct child_plan *plan, bool main, int cgroup_fd)
{
	pid_t pid;

	if (!a->pid_namespace) {
		pid = fork_into(cgroup_fd, 0, NULL);
		if (pid == 0)
			child_run(plan);
		return pid;
	}
	if (!a->init_pid && main)
		return start_namespace(a, plan, cgroup_fd);
	if (!a->init_pid) {
		int r = start_holder(a);

		if (r < 0) {
			spawn_kill_namespace(a);
			return r;
		}
	}
	return spawn_inside(a, plan, cgroup_fd);
}

bool spawn_reaped(struct agent *a, pid_t pid)
{
	bool held = a->init_holds;

	if (!a->init_pid || pid != a->init_pid)
		return false;
	a->init_pid = 0;
	a->init_holds = false;
	a->init_fd = fd_close(a->init_fd);
	return held;
}

void spawn_rehearse(struct agent *a)
{
	pid_t pid;

	(void)!start_holder(a);
	pid = a->init_pid;
	spawn_kill_namespace(a);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	spawn_reaped(a, pid);
}

void spawn_ahead(struct agent *a)
{
	int pidfd = -1;
	pid_t pid = fork_into(-1, CLONE_NEWPID, &pidfd);

	if (pid == 0)
		_exit(0);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	fd_close(pidfd);
}

void spawn_kill_namespace(struct agent *a)
{
	if (a->init_pid)
		kill(a->init_pid, SIGKILL);
}
