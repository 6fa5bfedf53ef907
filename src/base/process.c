/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Children without SIGCHLD. The raw clone system call with exit signal 0 makes a child that only waits with __WALL see;
 * between it and the exec only async-signal-safe calls are made, since other threads' locks are copied as they were.
 * See process.h.
 */
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

/* What a child says on its way: its pid (an orphan's, to the starter), then maybe the errno of what failed. */
struct child_report {
	int pid, error;
};

pid_t process_fork(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, 0UL, NULL, NULL, NULL, 0UL);

	return pid < 0 ? -errno : pid;
}

/* The path to exec: argv[0] or its first hit in PATH. */
static int resolve(const char *name, char out[PATH_MAX])
{
	const char *path = getenv("PATH"), *p, *end;

	if (strchr(name, '/'))
		return (size_t)snprintf(out, PATH_MAX, "%s", name) < PATH_MAX ? 0 : -ENAMETOOLONG;
	if (!path || !*path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	for (p = path; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ':');
		if (snprintf(out, PATH_MAX, "%.*s/%s", (int)(end - p), p, name) < PATH_MAX && access(out, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

static int compare_int(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes all but the standard three and `keep` (sorted). */
static void close_others(const int *keep, size_t num_keep)
{
	int from = 3;

	for (size_t i = 0; i < num_keep; i++) {
		if (keep[i] > from)
			syscall(SYS_close_range, from, keep[i] - 1, 0);
		if (keep[i] >= from)
			from = keep[i] + 1;
	}
	syscall(SYS_close_range, from, ~0U, 0);
}

void process_close_others(int *keep, size_t num_keep)
{
	qsort(keep, num_keep, sizeof(*keep), compare_int);
	close_others(keep, num_keep);
}

static void reset_signals(void)
{
	struct sigaction sa = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		sigaction(i, &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Puts the three standard descriptors in place. They are first moved above all named numbers, so none overwrites
 * another. */
static int place_standard(const struct process_options *o, int floor)
{
	int moved[3];

	for (int i = 0; i < 3; i++) {
		int fd = o->fds[i] >= 0 ? o->fds[i] : open("/dev/null", i ? O_WRONLY : O_RDONLY);

		if (fd < 0)
			return -errno;
		moved[i] = fcntl(fd, F_DUPFD, floor);
		if (moved[i] < 0)
			return -errno;
	}
	for (int i = 0; i < 3; i++)
		if (dup2(moved[i], i) < 0)
			return -errno;
	return 0;
}

/* In the child: everything up to the exec. `report` gets the errno of what failed. Does not return. */
static _Noreturn void become(const struct process_options *o, const char *path, int *keep, size_t num_keep, int report,
			     pid_t parent)
{
	struct child_report rep = {.pid = (int)syscall(SYS_getpid)};
	int r = 0, floor = keep[num_keep - 1] + 1;

	reset_signals();
	if (o->new_session)
		setsid();
	if (o->death_signal) {
		prctl(PR_SET_PDEATHSIG, (unsigned long)o->death_signal);
		if (getppid() != parent) /* it died before the line above */
			_exit(127);
	}
	r = place_standard(o, MAX(floor, 3));
	if (r == 0) {
		close_others(keep, num_keep);
		for (size_t i = 0; i < o->num_keep; i++)
			fcntl(o->keep[i], F_SETFD, 0);
		if (o->cwd && chdir(o->cwd) < 0)
			r = -errno;
	}
	if (r == 0) {
		execve(path, (char *const *)(uintptr_t)o->argv, o->env ? (char *const *)(uintptr_t)o->env : environ);
		r = -errno;
	}
	rep.error = -r;
	if (write(report, &rep, sizeof(rep)) != sizeof(rep))
		_exit(126);
	_exit(127);
}

/*
 * Who is between us and the program: nobody (its end is a SIGCHLD to us, which an exec always sets), a process that
 * ends at once (the program is an orphan), or one that stays, execs nothing, and ends as the program does.
 */
enum between { BETWEEN_NOBODY, BETWEEN_GONE, BETWEEN_WARDEN };

/* Ends as the program has. All descriptors are closed: the caller waits for the end of file of some. */
static _Noreturn void guard(pid_t inner)
{
	int status = 0;

	reset_signals();
	syscall(SYS_close_range, 0, ~0U, 0);
	if (process_wait(inner, &status) < 0)
		_exit(126);
	if (WIFSIGNALED(status))
		kill((pid_t)syscall(SYS_getpid), WTERMSIG(status));
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 126);
}

/* In the child: forks once more if asked to. Returns only as the process that is to become the program, with its
 * parent's pid. */
static pid_t step_aside(enum between between, int report)
{
	struct child_report rep = {0};
	pid_t self = (pid_t)syscall(SYS_getpid);

	rep.pid = process_fork();
	if (rep.pid == 0)
		return self;
	if (rep.pid < 0 || write(report, &rep, sizeof(rep)) != sizeof(rep))
		_exit(1);
	if (between == BETWEEN_WARDEN)
		guard(rep.pid);
	_exit(0);
}

/* Up to two reports, each written at once: the pid of a grandchild, and the errno of an exec that failed. */
static int read_reports(int fd, pid_t *pid)
{
	struct child_report rep;
	int r = 0;

	while (r == 0 && read_full(fd, &rep, sizeof(rep)) == sizeof(rep)) {
		*pid = rep.pid;
		r = -rep.error;
	}
	return r;
}

/* Starts it and waits for its exec, or its failure. Returns the pid of the program, or of its warden. */
static pid_t start(const struct process_options *o, enum between between, struct sm_error *err)
{
	char path[PATH_MAX];
	_free_ int *keep = calloc(o->num_keep + 1, sizeof(*keep));
	int pipefd[2], status, r = resolve(o->argv[0], path);
	pid_t pid, program = -EAGAIN, parent = getpid();

	if (r == 0 && !keep)
		r = -ENOMEM;
	if (r == 0 && pipe2(pipefd, O_CLOEXEC) < 0)
		r = -errno;
	if (r < 0)
		return error_sys(err, -r, "start %s", o->argv[0]);
	if (o->num_keep)
		memcpy(keep, o->keep, o->num_keep * sizeof(*keep));
	keep[o->num_keep] = pipefd[1];
	qsort(keep, o->num_keep + 1, sizeof(*keep), compare_int);
	pid = process_fork();
	if (pid == 0) {
		if (between != BETWEEN_NOBODY)
			parent = step_aside(between, pipefd[1]);
		become(o, path, keep, o->num_keep + 1, pipefd[1], parent);
	}
	close(pipefd[1]);
	if (pid < 0)
		r = (int)pid;
	else if (between == BETWEEN_GONE)
		process_wait(pid, &status);
	else
		program = pid;
	if (r == 0)
		r = read_reports(pipefd[0], &program);
	close(pipefd[0]);
	if (r < 0 && pid > 0 && between != BETWEEN_GONE)
		process_wait(pid, &status);
	if (r == 0 && program < 0)
		r = (int)program;
	if (r < 0)
		return error_sys(err, -r, "start %s", path);
	return between == BETWEEN_WARDEN ? pid : program;
}

pid_t process_start(const struct process_options *o, int *ret_pidfd, struct sm_error *err)
{
	pid_t pid = start(o, BETWEEN_NOBODY, err);

	if (pid > 0 && ret_pidfd) {
		*ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (*ret_pidfd < 0) {
			int r = error_sys(err, errno, "start %s", o->argv[0]), status;

			kill(pid, SIGKILL);
			process_wait(pid, &status);
			return r;
		}
		fcntl(*ret_pidfd, F_SETFD, FD_CLOEXEC);
	}
	return pid;
}

int process_wait(pid_t pid, int *ret_status)
{
	while (waitpid(pid, ret_status, __WALL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

pid_t process_detach(const struct process_options *o, struct sm_error *err)
{
	struct process_options own = *o;

	own.new_session = true;
	own.death_signal = 0;
	return start(&own, BETWEEN_GONE, err);
}

/* Reads until end of file, `max` bytes kept, or the time is over. */
static int collect(int fd, uint64_t deadline_ns, size_t max, struct buf *out)
{
	char piece[16384];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = time_now_ns();
		int n;
		ssize_t got;

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		n = poll(&p, 1, (int)MIN((deadline_ns - now) / 1000000 + 1, (uint64_t)INT_MAX));
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n <= 0)
			continue;
		got = read(fd, piece, sizeof(piece));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : 0;
		if (out && out->len < max)
			buf_put(out, piece, MIN((size_t)got, max - out->len));
	}
}

int process_run(const struct process_options *o, int timeout_ms, bool merge, size_t max, struct buf *out,
		int *ret_status, struct sm_error *err)
{
	struct process_options own = *o;
	_fd_ int in = -1, outfd = -1;
	int pipefd[2], r;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return error_sys(err, errno, "start %s", o->argv[0]);
	in = pipefd[0];
	outfd = pipefd[1];
	own.fds[1] = outfd;
	own.fds[2] = merge ? outfd : -1;
	own.death_signal = SIGKILL; /* the program's, when its warden is killed */
	pid = start(&own, BETWEEN_WARDEN, err);
	if (pid < 0)
		return (int)pid;
	outfd = fd_close(outfd);
	r = collect(in, time_now_ns() + (uint64_t)timeout_ms * 1000000, max, out);
	if (r < 0)
		kill(pid, SIGKILL);
	process_wait(pid, ret_status);
	return r < 0 ? error_sys(err, -r, "run %s", o->argv[0]) : 0;
}

const char **process_plain_env(void)
{
	static const char *const kept[] = {
		"PATH=", "HOME=",	  "TMPDIR=", "TZ=",	      "LANG=",		"LC_",
		"XDG_",	 "SUPERMACHINE_", "LD_",     "ASAN_OPTIONS=", "UBSAN_OPTIONS=", "TSAN_OPTIONS="};
	size_t count = 0, n = 0;
	const char **v;

	while (environ[count])
		count++;
	v = calloc(count + 1, sizeof(*v));
	for (size_t i = 0; v && i < count; i++)
		for (size_t k = 0; k < ARRAY_SIZE(kept); k++)
			if (str_starts(environ[i], kept[k])) {
				v[n++] = environ[i];
				break;
			}
	return v;
}
