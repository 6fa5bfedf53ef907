/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of children without SIGCHLD: what they inherit, how they fail, that nothing of them is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/process.h"

static volatile sig_atomic_t children_heard;

static void on_child(int sig)
{
	children_heard++;
}

static void run_sh(const char *script, int *ret_status, struct buf *out, int timeout_ms, int expect)
{
	const char *argv[] = {"sh", "-c", script, NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	struct sm_error err = {0};

	assert_int_equal(process_run(&o, timeout_ms, false, 4096, out, ret_status, &err), expect);
	assert_int_equal(buf_put_u8(out, 0), 0);
}

static void test_run_gives_output_and_status(void **state)
{
	_cleanup_(buf_done) struct buf out = {0};
	int status;

	run_sh("echo out; echo err >&2; exit 3", &status, &out, 10000, 0);
	assert_string_equal((char *)out.data, "out\n");
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void test_run_is_killed_when_its_time_is_over(void **state)
{
	_cleanup_(buf_done) struct buf out = {0};
	int status;

	run_sh("echo early; exec sleep 60", &status, &out, 300, -ETIMEDOUT);
	assert_string_equal((char *)out.data, "early\n");
	assert_true(WIFSIGNALED(status));
}

static void test_output_is_bounded(void **state)
{
	_cleanup_(buf_done) struct buf out = {0};
	int status;

	run_sh("head -c 100000 /dev/zero", &status, &out, 10000, 0);
	assert_int_equal(out.len, 4097);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_missing_program_is_an_error(void **state)
{
	const char *slash[] = {"/nonexistent/program", NULL}, *bare[] = {"sm-no-such-program", NULL};
	struct process_options o = {.argv = slash, .fds = {-1, -1, -1}};
	struct sm_error err = {0};
	int status;

	assert_int_equal(process_start(&o, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nonexistent/program"));
	assert_int_equal(process_detach(&o, NULL), -ENOENT);
	o.argv = bare;
	assert_int_equal(process_start(&o, NULL, NULL), -ENOENT);
	/* None is left to wait for. */
	assert_int_equal(waitpid(-1, &status, WNOHANG | __WALL), -1);
	assert_int_equal(errno, ECHILD);
}

static void test_only_named_descriptors_survive(void **state)
{
	const char *argv[] = {"sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; cat <&9", NULL};
	_cleanup_(buf_done) struct buf out = {0};
	int status, leak = open("/dev/null", O_RDONLY), source[2];
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}, .num_keep = 1};
	int keep = 9;

	assert_true(leak > 0);
	assert_int_equal(pipe2(source, O_CLOEXEC), 0);
	assert_int_equal(write(source[1], "kept", 4), 4);
	close(source[1]);
	assert_int_equal(dup3(source[0], keep, O_CLOEXEC), keep);
	o.keep = &keep;
	assert_int_equal(process_run(&o, 10000, false, 4096, &out, &status, NULL), 0);
	assert_int_equal(buf_put_u8(&out, 0), 0);
	assert_string_equal((char *)out.data, "0 1 2 3 9 kept"); /* 3: the directory that ls reads */
	assert_true(fcntl(keep, F_GETFD) & FD_CLOEXEC);		 /* ours is as it was */
	close(keep);
	close(source[0]);
	close(leak);
}

static void test_no_sigchld_and_no_zombie(void **state)
{
	struct sigaction sa = {.sa_handler = on_child}, old;
	const char *argv[] = {"true", NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	int status;
	pid_t pid;

	sigaction(SIGCHLD, &sa, &old);
	assert_int_equal(process_run(&o, 10000, false, 0, NULL, &status, NULL), 0);
	assert_int_equal(status, 0);
	pid = process_detach(&o, NULL);
	assert_true(pid > 0);
	assert_int_equal(waitpid(-1, &status, WNOHANG | __WALL), -1);
	sigaction(SIGCHLD, &old, NULL);
	assert_int_equal(children_heard, 0);
}

static void test_orphan_has_its_own_session(void **state)
{
	int pipefd[2];
	const char *argv[] = {"sh", "-c", "cut -d' ' -f1,4,6 /proc/$$/stat", NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	int pid, parent, session;
	char text[128];
	ssize_t n;
	pid_t told;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	o.fds[1] = pipefd[1];
	told = process_detach(&o, NULL);
	assert_true(told > 0);
	close(pipefd[1]);
	n = read(pipefd[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = 0;
	close(pipefd[0]);
	assert_int_equal(sscanf(text, "%d %d %d", &pid, &parent, &session), 3);
	assert_int_equal(pid, told);
	assert_int_equal(session, told);
	assert_int_not_equal(parent, getpid());
}

static void test_child_is_waited_for_by_pidfd(void **state)
{
	const char *argv[] = {"sh", "-c", "exit 4", NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	int status, pidfd;
	struct pollfd p;
	pid_t pid = process_start(&o, &pidfd, NULL);

	assert_true(pid > 0);
	p = (struct pollfd){.fd = pidfd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(process_wait(pid, &status), 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 4);
	close(pidfd);
}

static void test_run_tells_the_signal(void **state)
{
	_cleanup_(buf_done) struct buf out = {0};
	int status;

	run_sh("kill -USR1 $$", &status, &out, 10000, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
}

/* A process starts a child with a death signal and ends: the child must be gone, which its end of a pipe shows. */
static void test_death_signal(void **state)
{
	const char *argv[] = {"sleep", "60", NULL};
	struct pollfd p;
	int pipefd[2], status;
	pid_t middle;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	middle = fork();
	if (middle == 0) {
		struct process_options o = {.argv = argv, .fds = {-1, pipefd[1], -1}, .death_signal = SIGKILL};

		_exit(process_start(&o, NULL, NULL) > 0 ? 0 : 1);
	}
	close(pipefd[1]);
	assert_int_equal(waitpid(middle, &status, 0), middle);
	assert_int_equal(status, 0);
	p = (struct pollfd){.fd = pipefd[0], .events = POLLIN};
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_true(p.revents & POLLHUP);
	close(pipefd[0]);
}

static void plain_env_leaves_out(void **state)
{
	const char **v;
	bool path = false;

	setenv("PASSWORD", "x", 1);
	setenv("SUPERMACHINE_TEST", "y", 1);
	v = process_plain_env();
	assert_non_null(v);
	for (const char **e = v; *e; e++) {
		path |= strcmp(*e, "SUPERMACHINE_TEST=y") == 0;
		assert_null(strstr(*e, "PASSWORD"));
	}
	assert_true(path);
	free(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_env_leaves_out),
		cmocka_unit_test(test_run_gives_output_and_status),
		cmocka_unit_test(test_run_is_killed_when_its_time_is_over),
		cmocka_unit_test(test_output_is_bounded),
		cmocka_unit_test(test_missing_program_is_an_error),
		cmocka_unit_test(test_only_named_descriptors_survive),
		cmocka_unit_test(test_no_sigchld_and_no_zombie),
		cmocka_unit_test(test_orphan_has_its_own_session),
		cmocka_unit_test(test_child_is_waited_for_by_pidfd),
		cmocka_unit_test(test_run_tells_the_signal),
		cmocka_unit_test(test_death_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
