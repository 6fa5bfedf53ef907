/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the seat without an emulator: towards a daemon that a thread of the test plays. The real program
 * is started for the lock and for what it leaves behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "machine/client.h"
#include "proto/messages.h"

struct world {
	char dir[64], runtime[80], libexec[80], socket[128];
	char notices[1024];
	struct machine_place place;
};

static void hear(void *arg, const char *line)
{
	struct world *w = arg;
	size_t used = strlen(w->notices);

	snprintf(w->notices + used, sizeof(w->notices) - used, "%s\n", line);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/sm-test-seat.XXXXXX");
	if (!mkdtemp(w->dir))
		return -1;
	snprintf(w->runtime, sizeof(w->runtime), "%s/run", w->dir);
	snprintf(w->libexec, sizeof(w->libexec), "%s/libexec", w->dir);
	snprintf(w->socket, sizeof(w->socket), "%s/" MACHINE_SOCKET, w->runtime);
	w->place = (struct machine_place){.runtime_dir = w->runtime,
					  .data_dir = w->dir,
					  .state_dir = w->dir,
					  .libexec_dir = w->libexec,
					  .notice = hear,
					  .notice_arg = w,
					  .reason = "no /dev/kvm"};
	*state = w;
	return mkdir(w->runtime, 0700) | mkdir(w->libexec, 0700);
}

static int teardown(void **state)
{
	struct world *w = *state;

	remove_tree_at(AT_FDCWD, w->dir);
	free(w);
	return 0;
}

static void open_seat(struct world *w, struct seat **ret)
{
	struct seat_options o = {.mode = SEAT_ALWAYS,
				 .runtime_dir = w->runtime,
				 .data_dir = w->dir,
				 .state_dir = w->dir,
				 .libexec_dir = w->libexec,
				 .notice = hear,
				 .notice_arg = w};

	assert_int_equal(seat_open(&o, ret, NULL), 0);
	assert_true(seat_in_machine(*ret));
	assert_string_equal(seat_engine_name(*ret), "machine");
}

/* ----------------------------------------------------------------------------------- a daemon for one client */

struct fake {
	int listener, count;
	struct buf answer; /* sent after the request */
	struct wire_header got;
	bool echo;	   /* then sends back what comes, until end of file */
	int hang_up_first; /* so many connections are closed unanswered */
	pthread_t thread;
};

static void *play(void *arg)
{
	struct fake *f = arg;

	for (;;) {
		int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
		uint8_t head[WIRE_HEADER], *payload;
		char piece[4096];
		ssize_t n;

		if (fd < 0)
			return NULL;
		f->count++;
		if (f->hang_up_first-- > 0) {
			close(fd);
			continue;
		}
		if (read_full(fd, head, sizeof(head)) == sizeof(head) && wire_header_decode(head, &f->got) == 0) {
			payload = calloc(1, f->got.len + 1u);
			if (read_full(fd, payload, f->got.len) == (ssize_t)f->got.len)
				fd_send(fd, f->answer.data, f->answer.len, NULL, 0);
			free(payload);
		}
		while (f->echo && (n = read(fd, piece, sizeof(piece))) > 0)
			fd_send(fd, piece, (size_t)n, NULL, 0);
		close(fd);
		return NULL;
	}
}

static void fake_start(struct world *w, struct fake *f)
{
	char dir[128];

	snprintf(dir, sizeof(dir), "%s/" MACHINE_DIR, w->runtime);
	assert_int_equal(mkdir_p(dir, 0700), 0);
	f->listener = unix_listen(w->socket, 4);
	assert_true(f->listener >= 0);
	assert_int_equal(pthread_create(&f->thread, NULL, play, f), 0);
}

static void fake_end(struct fake *f)
{
	pthread_join(f->thread, NULL);
	close(f->listener);
	buf_done(&f->answer);
}

static void test_notices_come_before_the_answer(void **state)
{
	struct world *w = *state;
	struct fake f = {0};
	_cleanup_(buf_done) struct buf reply = {0};
	int fd;

	wire_put(&f.answer, WIRE_NOTICE, "one", 3);
	wire_put(&f.answer, WIRE_NOTICE, "two", 3);
	wire_put(&f.answer, WIRE_OK, "fine", 4);
	fake_start(w, &f);
	fd = machine_request(&w->place, WIRE_READY, NULL, false, &reply, NULL);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	fake_end(&f);
	assert_string_equal(w->notices, "one\ntwo\n");
	assert_memory_equal(reply.data, "fine", 4);
	assert_int_equal(f.got.type, WIRE_READY);
}

static void test_its_error_is_ours(void **state)
{
	struct world *w = *state;
	struct fake f = {0};
	_cleanup_(buf_done) struct buf b = {0};
	struct sm_error told = {.kind = SM_ERROR_HOST, .code = ENODEV, .message = "no QEMU"}, err = {0};

	wire_error_encode(&b, &told);
	wire_put(&f.answer, WIRE_ERROR, b.data, b.len);
	fake_start(w, &f);
	assert_int_equal(machine_request(&w->place, WIRE_READY, NULL, false, NULL, &err), -ENODEV);
	fake_end(&f);
	assert_string_equal(err.message, "no QEMU");
	assert_int_equal(err.kind, SM_ERROR_HOST);
}

static void test_broken_answers(void **state)
{
	static const char *const answers[] = {"", "x", "garbage that is longer than a header", "SMM1\x10"};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct fake f = {0};
		struct sm_error err = {0};

		buf_put(&f.answer, answers[i], strlen(answers[i]));
		fake_start(w, &f);
		assert_true(machine_request(&w->place, WIRE_READY, NULL, false, NULL, &err) < 0);
		assert_true(err.kind != SM_ERROR_NONE && *err.message);
		fake_end(&f);
		unlink(w->socket);
	}
}

static void test_a_daemon_that_goes_is_asked_again(void **state)
{
	struct world *w = *state;
	struct fake f = {.hang_up_first = 3};
	int fd;

	wire_put(&f.answer, WIRE_OK, NULL, 0);
	fake_start(w, &f);
	fd = machine_request(&w->place, WIRE_READY, NULL, true, NULL, NULL);
	assert_true(fd >= 0);
	close(fd);
	fake_end(&f);
	assert_int_equal(f.count, 4);
}

static void test_connect_is_a_plain_pipe(void **state)
{
	struct world *w = *state;
	struct fake f = {.echo = true};
	struct seat *seat = NULL;
	char back[8] = "";
	int fd;

	wire_put(&f.answer, WIRE_OK, NULL, 0);
	open_seat(w, &seat);
	fake_start(w, &f);
	fd = seat_connect(seat, "/run/supermachine/x", 0, NULL);
	assert_true(fd >= 0);
	assert_int_equal(f.got.type, WIRE_CONNECT);
	assert_int_equal(write_full(fd, "hello", 5), 0);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_int_equal(read_full(fd, back, sizeof(back)), 5);
	assert_string_equal(back, "hello");
	close(fd);
	fake_end(&f);
	seat_close(seat);
}

static void test_nothing_runs(void **state)
{
	struct world *w = *state;
	struct seat_machine_status status = {.running = true};
	struct seat *seat = NULL;
	struct sm_error err = {0};
	char id[40] = "x";

	open_seat(w, &seat);
	assert_int_equal(seat_connect(seat, "/x", 0, &err), -ECONNREFUSED);
	assert_int_equal(err.kind, SM_ERROR_STATE);
	assert_int_equal(seat_machine_status(seat, &status, &err), 0);
	assert_false(status.running);
	assert_int_equal(seat_boot_id(seat, id, &err), 0);
	assert_string_equal(id, "");
	assert_int_equal(seat_machine_stop(seat, &err), 0);
	seat_close(seat);
	assert_string_equal(w->notices, "");
}

static void put_daemon(struct world *w, const char *script)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/supermachine-machine", w->libexec);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, script, strlen(script), 0755), 0);
}

static void test_a_daemon_that_cannot_start_says_why(void **state)
{
	struct world *w = *state;
	struct sm_error err = {0};

	assert_int_equal(machine_request(&w->place, WIRE_READY, NULL, true, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.message, "supermachine-machine"));
	put_daemon(w, "#!/bin/sh\necho 'the disk is on fire'\n");
	assert_true(machine_request(&w->place, WIRE_READY, NULL, true, NULL, &err) < 0);
	assert_non_null(strstr(err.message, "the disk is on fire"));
	put_daemon(w, "#!/bin/sh\nkill -9 $$\n");
	assert_true(machine_request(&w->place, WIRE_READY, NULL, true, NULL, &err) < 0);
	assert_non_null(strstr(err.message, "died"));
	assert_non_null(strstr(w->notices, "no /dev/kvm"));
}

static void test_a_stale_socket_is_told_from_a_first_start(void **state)
{
	struct world *w = *state;
	char dir[128];
	int fd;

	snprintf(dir, sizeof(dir), "%s/" MACHINE_DIR, w->runtime);
	assert_int_equal(mkdir_p(dir, 0700), 0);
	fd = unix_listen(w->socket, 1);
	assert_true(fd >= 0);
	close(fd); /* the file stays, as after kill -9 */
	put_daemon(w, "#!/bin/sh\necho no\n");
	assert_true(machine_request(&w->place, WIRE_READY, NULL, true, NULL, NULL) < 0);
	assert_non_null(strstr(w->notices, "had died"));
}

/* ----------------------------------------------------------------------------------------- the real program */

static pid_t start_program(struct world *w, char line[static 256])
{
	const char *program = getenv("SM_MACHINE_PROGRAM");
	const char *argv[] = {program,	     "--runtime-dir", w->runtime,      "--data-dir", w->dir,
			      "--state-dir", w->dir,	      "--libexec-dir", w->libexec,   NULL};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}};
	int pipefd[2];
	ssize_t n;
	pid_t pid;

	assert_non_null(program);
	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	o.fds[1] = pipefd[1];
	pid = process_start(&o, NULL, NULL);
	assert_true(pid > 0);
	close(pipefd[1]);
	n = read_full(pipefd[0], line, 255);
	assert_true(n >= 0);
	line[n] = 0;
	close(pipefd[0]);
	return pid;
}

static void end_program(pid_t pid, int sig)
{
	int status;

	kill(pid, sig);
	assert_int_equal(process_wait(pid, &status), 0);
	if (sig != SIGKILL)
		assert_int_equal(status, 0);
}

static void assert_nothing_left(struct world *w)
{
	char command[256];

	snprintf(command, sizeof(command), "test -z \"$(ls -A %s)\"", w->runtime);
	assert_int_equal(system(command), 0);
}

static void test_one_daemon_holds_the_lock(void **state)
{
	struct world *w = *state;
	char line[256];
	pid_t first = start_program(w, line), second;
	int status;

	assert_string_equal(line, "ok\n");
	second = start_program(w, line);
	assert_string_equal(line, "busy\n");
	assert_int_equal(process_wait(second, &status), 0);
	end_program(first, SIGTERM);
	assert_nothing_left(w);
}

static void test_leavings_of_a_killed_daemon(void **state)
{
	struct world *w = *state;
	char line[256];

	end_program(start_program(w, line), SIGKILL);
	assert_int_equal(access(w->socket, F_OK), 0);
	end_program(start_program(w, line), SIGTERM);
	assert_string_equal(line, "ok\n");
	assert_nothing_left(w);
}

static void test_a_daemon_whose_home_is_removed_ends(void **state)
{
	struct world *w = *state;
	char line[256], command[256];
	pid_t first = start_program(w, line), second;
	int status;

	assert_string_equal(line, "ok\n");
	snprintf(command, sizeof(command), "rm -rf %s/*", w->runtime);
	assert_int_equal(system(command), 0);
	/* Another one at the same place has nothing to fear from it. */
	second = start_program(w, line);
	assert_string_equal(line, "ok\n");
	assert_int_equal(process_wait(first, &status), 0);
	assert_int_equal(status, 0);
	assert_int_equal(access(w->socket, F_OK), 0);
	end_program(second, SIGTERM);
	assert_nothing_left(w);
}

static void test_status_and_stop_of_a_daemon_without_machine(void **state)
{
	struct world *w = *state;
	struct seat_machine_status s;
	struct seat *seat = NULL;
	char line[256];
	pid_t pid = start_program(w, line);
	int status;

	open_seat(w, &seat);
	assert_int_equal(seat_machine_status(seat, &s, NULL), 0);
	assert_false(s.running);
	assert_int_equal(s.daemon_pid, pid);
	assert_true(s.memory >= 512 * MIB && s.cpus >= 1);
	assert_int_equal(seat_machine_stop(seat, NULL), 0);
	/* Its answer comes when nothing is left, and just before its end. */
	assert_nothing_left(w);
	assert_int_equal(process_wait(pid, &status), 0);
	assert_int_equal(status, 0);
	seat_close(seat);
}

static void test_a_machine_that_cannot_boot_says_why(void **state)
{
	struct world *w = *state;
	struct seat *seat = NULL;
	struct sm_error err = {0};
	char line[256];
	pid_t pid = start_program(w, line);

	/* There is no agent in this libexec directory. */
	open_seat(w, &seat);
	assert_true(seat_ready(seat, &err) < 0);
	assert_non_null(strstr(err.message, "the machine cannot start: "));
	assert_true(seat_machine_link(seat, &err) < 0); /* the daemon lives on and says it again */
	end_program(pid, SIGTERM);
	assert_nothing_left(w);
	seat_close(seat);
}

static void test_hostile_requests(void **state)
{
	struct world *w = *state;
	struct seat_machine_status s;
	struct seat *seat = NULL;
	char line[256];
	pid_t pid = start_program(w, line);
	unsigned seed = 7;

	for (int i = 0; i < 300; i++) {
		uint8_t junk[64];
		_fd_ int fd = unix_connect(w->socket);
		size_t len = (size_t)(rand_r(&seed) % (int)sizeof(junk));

		assert_true(fd >= 0);
		for (size_t k = 0; k < len; k++)
			junk[k] = (uint8_t)rand_r(&seed);
		if (i % 2 && len > 8) /* past the magic at least */
			memcpy(junk, (const uint8_t[]){'S', 'M', 'M', '1', (uint8_t)(i % 32), 0, 0, 0}, 8);
		if (fd_send(fd, junk, len, NULL, 0) == 0 && i % 3 == 0)
			shutdown(fd, SHUT_WR);
	}
	open_seat(w, &seat);
	/* One of them may have been a stop, spelt by chance: only type 5 with length 0 is, which the bytes above never
	 * are. */
	assert_int_equal(seat_machine_status(seat, &s, NULL), 0);
	assert_int_equal(s.daemon_pid, pid);
	end_program(pid, SIGTERM);
	seat_close(seat);
}

/* ------------------------------------------------------------------------------------------------ mode, probe */

static void get_identity(struct seat *seat, struct buf *ret)
{
	*ret = (struct buf){0};
	assert_int_equal(seat_identity(seat, ret), 0);
	assert_int_equal(buf_put_u8(ret, 0), 0);
}

/* Another emulator or another program that starts it is another engine; the same ones are the same. */
static void test_identity(void **state)
{
	struct world *w = *state;
	struct buf none = {0}, a, b, c, d;
	char path[160], *old = strdup(getenv("PATH"));
	struct seat *seat;

	open_seat(w, &seat);
	setenv("PATH", w->dir, 1);
	assert_int_equal(seat_identity(seat, &none), -ENOENT);
	buf_done(&none);
	snprintf(path, sizeof(path), "%s/" MACHINE_EMULATOR, w->dir);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, "one", 3, 0700), 0);
	put_daemon(w, "exit 0");
	get_identity(seat, &a);
	get_identity(seat, &b);
	assert_non_null(strstr((char *)a.data, "engine machine\n"));
	assert_string_equal(a.data, b.data);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, "another", 7, 0700), 0);
	get_identity(seat, &c);
	assert_string_not_equal(b.data, c.data);
	put_daemon(w, "exit 00");
	get_identity(seat, &d);
	assert_string_not_equal(c.data, d.data);
	setenv("PATH", old, 1);
	free(old);
	buf_done(&a);
	buf_done(&b);
	buf_done(&c);
	buf_done(&d);
	seat_close(seat);
}

static void test_modes(void **state)
{
	struct sm_error err = {0};
	enum seat_mode m;

	assert_int_equal(seat_mode_parse(NULL, &m, NULL), 0);
	assert_int_equal(m, SEAT_AUTO);
	assert_int_equal(seat_mode_parse("never", &m, NULL), 0);
	assert_int_equal(m, SEAT_NEVER);
	assert_int_equal(seat_mode_parse("always", &m, NULL), 0);
	assert_int_equal(m, SEAT_ALWAYS);
	assert_int_equal(seat_mode_parse("Always", &m, &err), -EINVAL);
	assert_non_null(strstr(err.message, "SUPERMACHINE_MACHINE"));
}

static void test_probe_is_remembered_for_this_boot(void **state)
{
	struct world *w = *state;
	struct kvm_probe first, second;
	_free_ char *text = NULL;
	char path[128];
	size_t len;
	char *line;

	kvm_probe(w->runtime, &first);
	assert_true(first.state >= KVM_STATE_WORKS && first.state <= KVM_STATE_INTERPRETED);
	assert_true(*first.why);
	snprintf(path, sizeof(path), "%s/kvm-probe", w->runtime);
	if (read_file_at(AT_FDCWD, path, 4096, &text, &len) < 0)
		skip(); /* no usable /dev/kvm at all: nothing that ran, nothing to remember */
	kvm_probe(w->runtime, &second);
	assert_int_equal(first.state, second.state);
	assert_int_equal(first.run_ns, second.run_ns); /* it did not run again */
	assert_string_equal(first.why, second.why);
	/* Another boot's answer, and a broken one, are not believed. */
	line = strchr(text, '\n');
	text[3] ^= 1;
	memcpy(line + 1, "1 1 made", 8);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, len, 0600), 0);
	kvm_probe(w->runtime, &second);
	assert_int_not_equal(second.run_ns, 1);
	text[3] ^= 1;
	memcpy(line + 1, "9 1 made", 8);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, len, 0600), 0);
	kvm_probe(w->runtime, &second);
	assert_int_not_equal(second.run_ns, 1);
	assert_true(second.state <= KVM_STATE_INTERPRETED);
}

/* A seat on this host, whatever its KVM: the probe is made to remember that it works. */
static bool open_here(struct world *w, struct seat **ret)
{
	struct seat_options o = {.mode = SEAT_NEVER,
				 .runtime_dir = w->runtime,
				 .data_dir = w->dir,
				 .state_dir = w->dir,
				 .libexec_dir = w->libexec};
	_free_ char *text = NULL;
	struct kvm_probe p;
	char path[128];
	size_t len;

	kvm_probe(w->runtime, &p);
	snprintf(path, sizeof(path), "%s/kvm-probe", w->runtime);
	if (read_file_at(AT_FDCWD, path, 4096, &text, &len) < 0)
		return false;
	strchr(text, '\n')[1] = '1';
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, len, 0600), 0);
	assert_int_equal(seat_open(&o, ret, NULL), 0);
	assert_false(seat_in_machine(*ret));
	return true;
}

static void test_spawn_and_connect_here(void **state)
{
	struct world *w = *state;
	const char *argv[] = {"/bin/sh", "-c", "echo $$ $X; pwd; echo err >&2", NULL}, *env[] = {"X=y", NULL};
	struct seat_command c = {.argv = argv, .env = env, .cwd = w->dir};
	_free_ char *text = NULL;
	char log[128], want[256], path[128];
	struct seat *seat = NULL;
	struct sm_error err = {0};
	struct stat st;
	int64_t pid;
	size_t len = 0;
	int listener, fd;

	if (!open_here(w, &seat))
		skip();
	assert_int_equal(seat_ready(seat, NULL), 0);
	snprintf(log, sizeof(log), "%s/log", w->dir);
	c.log = log;
	assert_int_equal(seat_spawn(seat, &c, &pid, NULL), 0);
	snprintf(want, sizeof(want), "%lld y\n%s\nerr\n", (long long)pid, w->dir);
	for (int i = 0; i < 100 && len < strlen(want); i++) {
		usleep(50000);
		free(TAKE_PTR(text));
		assert_int_equal(read_file_at(AT_FDCWD, log, 4096, &text, &len), 0);
	}
	assert_string_equal(text, want);
	assert_int_equal(stat(log, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	argv[0] = "/nonexistent";
	assert_int_equal(seat_spawn(seat, &c, &pid, &err), -ENOENT);
	snprintf(path, sizeof(path), "%s/sock", seat_runtime_dir(seat));
	assert_int_equal(seat_connect(seat, path, 0, NULL), -ENOENT);
	listener = unix_listen(path, 1);
	fd = seat_connect(seat, path, 0, NULL);
	assert_true(listener >= 0 && fd >= 0);
	close(fd);
	close(listener);
	assert_int_equal(seat_machine_link(seat, &err), -ENOTSUP);
	seat_close(seat);
}

static void test_never_without_kvm_is_refused(void **state)
{
	struct world *w = *state;
	struct seat_options o = {.mode = SEAT_NEVER,
				 .runtime_dir = w->runtime,
				 .data_dir = w->dir,
				 .state_dir = w->dir,
				 .libexec_dir = w->libexec};
	struct kvm_probe probe;
	struct sm_error err = {0};
	struct seat *seat = NULL;
	int r;

	kvm_probe(w->runtime, &probe);
	r = seat_open(&o, &seat, &err);
	if (probe.state == KVM_STATE_WORKS) {
		assert_int_equal(r, 0);
		assert_false(seat_in_machine(seat));
		assert_string_equal(seat_engine_name(seat), "kvm");
		assert_string_equal(seat_runtime_dir(seat), w->runtime);
	} else {
		assert_int_equal(r, -ENODEV);
		assert_int_equal(err.kind, SM_ERROR_HOST);
		assert_non_null(strstr(err.message, "/dev/kvm"));
	}
	seat_close(seat);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_notices_come_before_the_answer),
		TEST(test_its_error_is_ours),
		TEST(test_broken_answers),
		TEST(test_a_daemon_that_goes_is_asked_again),
		TEST(test_connect_is_a_plain_pipe),
		TEST(test_nothing_runs),
		TEST(test_a_daemon_that_cannot_start_says_why),
		TEST(test_a_stale_socket_is_told_from_a_first_start),
		TEST(test_one_daemon_holds_the_lock),
		TEST(test_leavings_of_a_killed_daemon),
		TEST(test_a_daemon_whose_home_is_removed_ends),
		TEST(test_status_and_stop_of_a_daemon_without_machine),
		TEST(test_a_machine_that_cannot_boot_says_why),
		TEST(test_hostile_requests),
		TEST(test_identity),
		TEST(test_modes),
		TEST(test_probe_is_remembered_for_this_boot),
		TEST(test_spawn_and_connect_here),
		TEST(test_never_without_kvm_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
