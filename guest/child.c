/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The child's side of an exec: see child.h. The order matters: what needs root comes before the change of user, the
 * descriptors are closed last but for the report's, which closes itself on success.
 */
#include "guest/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "proto/messages.h"

#define NOFILE_SOFT 1024u /* select(2) cannot count further; programs that can raise it themselves */

static void fail(const struct child_plan *p, int status, const char *what, const char *why) __attribute__((noreturn));
static void fail(const struct child_plan *p, int status, const char *what, const char *why)
{
	struct child_failure f = {.status = status};

	snprintf(f.text, sizeof(f.text), "%.160s: %s", what, why);
	(void)!write(p->report_fd, &f, sizeof(f));
	_exit(status);
}

static void fail_errno(const struct child_plan *p, const char *what) __attribute__((noreturn));
static void fail_errno(const struct child_plan *p, const char *what)
{
	fail(p, 126, what, strerror(errno));
}

/* Handlers go with the execve. */
static void reset_signals(const struct child_plan *p)
{
	/* The kernel's own struct sigaction, all zero: SIG_DFL. By system call, since a C library keeps some signals to
	 * itself. */
	static const unsigned long dfl[8];
	sigset_t none;

	for (int sig = 1; sig <= 64; sig++)
		if (p->ignored >> (sig - 1) & 1)
			syscall(SYS_rt_sigaction, sig, dfl, NULL, 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The agent's own (boot.c) is not the command's. */
static void reset_scheduling(void)
{
	struct sched_param none = {0};

	syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none);
}

static void reset_oom_score(const struct child_plan *p)
{
	int fd = p->proc_fd < 0 ? -1 : openat(p->proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, "0", 1);
		close(fd);
	}
}

static rlim_t limit_of(uint64_t v)
{
	return v == UINT64_MAX ? RLIM_INFINITY : (rlim_t)v;
}

static void set_limits(const struct child_plan *p)
{
	struct rlimit files = {NOFILE_SOFT, NOFILE_HARD};

	setrlimit(RLIMIT_NOFILE, &files);
	for (size_t i = 0; i < ARRAY_SIZE(p->more_limits); i++) {
		for (char *const *text = p->more_limits[i]; text && *text; text++) {
			struct proto_rlimit l;
			struct rlimit v;

			if (proto_rlimit_parse(*text, &l) < 0)
				fail(p, 126, *text, "not a resource limit");
			v = (struct rlimit){limit_of(l.soft), limit_of(l.hard)};
			if (setrlimit(l.resource, &v) < 0)
				fail_errno(p, *text);
		}
	}
}

/* The old one, if any, was of a namespace that has ended. */
static void mount_proc(const struct child_plan *p)
{
	umount2("/proc", MNT_DETACH);
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		fail_errno(p, "/proc");
}

/* As in other containers, /dev/console is the command's terminal, and is not there without one. */
static void bind_console(void)
{
	char path[64];
	ssize_t n = readlink("/proc/self/fd/0", path, sizeof(path) - 1);
	int fd;

	if (n <= 0)
		return;
	path[n] = '\0';
	fd = open("/dev/console", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
	if (fd >= 0)
		close(fd);
	mount(path, "/dev/console", NULL, MS_BIND, NULL);
}

static void take_descriptors(const struct child_plan *p)
{
	int fds[3];

	/* Out of the way of 0, 1 and 2 first, then into place. */
	for (int i = 0; i < 3; i++) {
		fds[i] = fcntl(p->fds[i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0)
			fail_errno(p, "standard streams");
	}
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			fail_errno(p, "standard streams");
	if (p->tty)
		ioctl(0, TIOCSCTTY, 1);
	if (p->console)
		bind_console();
}

/* All that the agent has open is close-on-exec; this holds even if something was forgotten. */
static void close_others(const struct child_plan *p)
{
	int keep[2] = {MIN(p->report_fd, p->stage.fd), MAX(p->report_fd, p->stage.fd)};
	unsigned first = 3;

	for (int i = 0; i < 2; i++) {
		if (keep[i] < 0)
			continue;
		if ((unsigned)keep[i] > first)
			syscall(SYS_close_range, first, (unsigned)keep[i] - 1, 0u);
		first = (unsigned)keep[i] + 1;
	}
	syscall(SYS_close_range, first, ~0u, 0u);
}

static void enter_cwd(const struct child_plan *p)
{
	char what[160];

	if (chdir(p->cwd) == 0)
		return;
	if (p->make_cwd && errno == ENOENT && mkdir_p(p->cwd, 0755) == 0 && chdir(p->cwd) == 0)
		return;
	snprintf(what, sizeof(what), "working directory %.140s", p->cwd);
	fail(p, errno == ENOENT ? 127 : 126, what, strerror(errno));
}

static void become_user(const struct child_plan *p)
{
	const struct user *u = p->user;

	/* The change of uid away from 0 takes the capabilities; the bounding set stays, so that setuid programs work.
	 */
	if (setgroups(u->num_groups, u->groups) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
	    setresuid(u->uid, u->uid, u->uid) < 0)
		fail_errno(p, "user");
}

static void write_files(const struct child_plan *p)
{
	const char *path = NULL;
	struct child_failure f = {.error = stage_write(&p->stage, &path)};

	if (p->stage.fd >= 0)
		close(p->stage.fd);
	if (!f.error)
		return;
	snprintf(f.text, sizeof(f.text), "%.160s: %s", path, strerror(-f.error));
	(void)!write(p->report_fd, &f, sizeof(f));
	_exit(126);
}

static const char *env_get(char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}

/* The errno of an execve that failed, told as a shell would tell it. */
static void fail_exec(const struct child_plan *p, const char *path, int code) __attribute__((noreturn));
static void fail_exec(const struct child_plan *p, const char *path, int code)
{
	struct stat st;

	if (code == ENOENT && stat(path, &st) == 0)
		fail(p, 127, path, "its interpreter or loader is not in the image");
	if (code == ENOENT || code == ENOTDIR || code == ELOOP || code == ENAMETOOLONG)
		fail(p, 127, path, "no such file or directory");
	if (code == ENOEXEC)
		fail(p, 126, path, "not a program that this kernel can run");
	fail(p, 126, path, strerror(code));
}

static void exec_in_path(const struct child_plan *p)
{
	const char *name = p->argv[0], *dirs = env_get(p->env, "PATH"), *end;
	char path[PATH_MAX];
	bool denied = false;

	for (; dirs && *name; dirs = *end ? end + 1 : NULL) {
		struct stat st;
		int len;

		end = strchrnul(dirs, ':');
		len = end == dirs ? 0 : (int)MIN(end - dirs, PATH_MAX);
		if (snprintf(path, sizeof(path), "%.*s%s%s", len, dirs, len ? "/" : "./", name) >= (int)sizeof(path))
			continue;
		if (stat(path, &st) < 0 || S_ISDIR(st.st_mode))
			continue;
		execve(path, p->argv, p->env);
		if (errno != EACCES)
			fail_exec(p, path, errno);
		denied = true;
	}
	if (denied)
		fail(p, 126, name, "permission denied");
	fail(p, 127, name, "not found in PATH");
}

static void prepare(const struct child_plan *p)
{
	int32_t pid = getpid();

	reset_signals(p);
	(void)!write(p->report_fd, &pid, sizeof(pid));
	setsid();
	reset_oom_score(p);
	reset_scheduling();
	if (p->own_cgroup_view)
		unshare(CLONE_NEWCGROUP);
	if (p->mount_proc)
		mount_proc(p);
	umask(0022);
}

/* For the first process of a PID namespace that has no command of its own: reaps until it is killed. */
static void hold(void) __attribute__((noreturn));
static void hold(void)
{
	/* The report's end tells the agent that /proc is there. */
	syscall(SYS_close_range, 0u, ~0u, 0u);
	prctl(PR_SET_NAME, "init");
	signal(SIGCHLD, SIG_IGN); /* the kernel reaps what is orphaned to us */
	for (;;)
		pause();
}

void child_run(const struct child_plan *p)
{
	prepare(p);
	if (p->hold)
		hold();
	take_descriptors(p);
	close_others(p);
	/* Only now: until its own are in place they are among the agent's, which may have more than it shall. */
	if (p->limits)
		set_limits(p);
	enter_cwd(p);
	become_user(p);
	write_files(p);
	if (strchr(p->argv[0], '/')) {
		execve(p->argv[0], p->argv, p->env);
		fail_exec(p, p->argv[0], errno);
	}
	exec_in_path(p);
	_exit(127);
}
