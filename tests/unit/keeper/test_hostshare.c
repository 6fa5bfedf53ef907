/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to programs on the host, which a process there carries to the keeper of a VM in the machine: what comes
 * through, and what is left when the program, the process or the keeper goes. */
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
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/carried.h"
#include "keeper/hostshare.h"
#include "proto/link.h"
#include "proto/messages.h"
#include "sealed.h"

#define NUMBER 3
#define PATIENCE_NS 20000000000ull
#define MUCH (3 << 20)

struct fixture {
	char dir[64], path[80];
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	struct carried carried;
	int refused; /* -errno */
	bool lost;
	pid_t host, program;
};

/* ------------------------------------------------------------------------------------------- the keeper's side */

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct fixture *f = arg;

	assert_int_equal(service, PROTO_KEEPER_SHARE);
	if (cursor_u8(request) == NUMBER)
		assert_int_equal(carried_offer(&f->carried, f->mux, ch), 0);
	else
		mux_close(f->mux, ch, -ENOENT, "");
	assert_true(!request->bad && !request->left);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	mux_close(((struct fixture *)arg)->mux, ch, 0, "");
}

static const struct mux_callbacks callbacks = {.open = on_open, .closed = on_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	struct fixture *f = arg;

	f->lost = true;
	f->link = link_free(f->link);
}

static void on_refused(void *arg, int error)
{
	((struct fixture *)arg)->refused = error;
}

/* Until what is asked for by `done` is there. */
static void run_until(struct fixture *f, bool (*done)(struct fixture *f, int fd), int fd)
{
	uint64_t deadline = time_now_ns() + PATIENCE_NS;

	while (!done(f, fd)) {
		assert_true(time_now_ns() < deadline);
		assert_true(loop_run_once(f->loop, 50) >= 0);
	}
}

static bool readable(struct fixture *f, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

static bool host_waits(struct fixture *f, int fd)
{
	return f->carried.mux != NULL;
}

static bool is_lost(struct fixture *f, int fd)
{
	return f->lost;
}

/* ------------------------------------------------------------------------------------------- the host's side */

/* A program that says what it hears, to one after the other. */
static void start_program(struct fixture *f)
{
	int listener, sock;
	char piece[4096];
	ssize_t n;

	unlink(f->path);
	listener = unix_listen(f->path, 8);
	assert_true(listener >= 0);
	f->program = fork();
	if (f->program == 0) /* not the keeper's ends */
		process_close_others(&listener, 1);
	while (f->program == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sock = accept(listener, NULL, NULL);
		while ((n = read(sock, piece, sizeof(piece))) > 0 && write_full(sock, piece, (size_t)n) == 0)
			;
		close(sock);
	}
	close(listener);
}

static void stop(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int pair[2];

	*state = f;
	signal(SIGPIPE, SIG_IGN);
	strcpy(f->dir, "/tmp/sm-test-hostshare.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/program", f->dir);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->host = fork();
	if (f->host == 0) {
		const struct hostshare_place places[2] = {{NUMBER, f->path}, {5, "/nowhere"}};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		_exit(hostshare_run(pair[1], places, 2) == 0 ? 0 : 1);
	}
	close(pair[1]);
	assert_int_equal(loop_new(&f->loop), 0);
	f->carried = (struct carried)CARRIED_INIT;
	f->carried.loop = f->loop;
	f->carried.refused = on_refused;
	f->carried.arg = f;
	assert_int_equal(mux_new(MUX_SERVER, &callbacks, f, PROTO_DEFAULT_WINDOW, &f->mux), 0);
	assert_int_equal(link_new(f->loop, pair[0], f->mux, on_link_end, f, &f->link), 0);
	assert_int_equal(mux_hello(f->mux, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stop(&f->program);
	stop(&f->host);
	carried_done(&f->carried);
	link_free(f->link);
	loop_free(f->loop);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return 0;
}

/* ---------------------------------------------------------------------------------------------------- tests */

static void assert_answers(struct fixture *f, int fd)
{
	char text[8] = "";

	assert_int_equal(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
	run_until(f, readable, fd);
	assert_int_equal(read(fd, text, sizeof(text)), 5);
	assert_string_equal(text, "hello");
}

static void test_much_goes_both_ways(void **state)
{
	struct fixture *f = *state;
	_fd_ int fd = carried_new(&f->carried); /* wanted before the host is there */
	_free_ uint8_t *out = malloc(MUCH), *in = malloc(MUCH);
	size_t sent = 0, got = 0;
	ssize_t n;

	start_program(f);
	for (size_t i = 0; i < MUCH; i++)
		out[i] = (uint8_t)(i * 7 + i / 251);
	fd_set_nonblock(fd, true);
	while (got < MUCH) {
		n = send(fd, out + sent, MUCH - sent, MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
		n = read(fd, in + got, MUCH - got);
		assert_true(n != 0);
		got += n > 0 ? (size_t)n : 0;
		assert_true(loop_run_once(f->loop, n > 0 ? 0 : 50) >= 0);
	}
	assert_memory_equal(in, out, MUCH);
	assert_int_equal(f->refused, 0);
}

static void test_a_program_that_goes_and_comes(void **state)
{
	struct fixture *f = *state;
	_fd_ int first = carried_new(&f->carried), second = -1, third = -1;
	char byte;

	start_program(f);
	assert_answers(f, first);
	stop(&f->program);
	run_until(f, readable, first);
	assert_true(read(first, &byte, 1) <= 0);
	assert_int_equal(f->refused, 0);
	/* nobody is there: the end, and how */
	second = carried_new(&f->carried);
	run_until(f, readable, second);
	assert_true(read(second, &byte, 1) <= 0);
	assert_int_equal(f->refused, -ECONNREFUSED);
	start_program(f);
	third = carried_new(&f->carried);
	assert_answers(f, third);
}

static void test_there_is_one_connection(void **state)
{
	struct fixture *f = *state;
	_fd_ int first = carried_new(&f->carried), second = -1;
	char byte;

	start_program(f);
	assert_answers(f, first);
	assert_sealed(f->host);
	second = carried_new(&f->carried);
	assert_true(readable(f, first) && read(first, &byte, 1) <= 0);
	assert_answers(f, second);
}

static void test_the_process_goes(void **state)
{
	struct fixture *f = *state;
	_fd_ int fd = carried_new(&f->carried);
	char byte;

	start_program(f);
	assert_answers(f, fd);
	run_until(f, host_waits, -1);
	stop(&f->host);
	run_until(f, is_lost, -1);
	assert_true(readable(f, fd) && read(fd, &byte, 1) <= 0);
	assert_int_equal(carried_new(&f->carried), -ENOTCONN);
}

static void test_the_keeper_goes(void **state)
{
	struct fixture *f = *state;
	int status;

	run_until(f, host_waits, -1);
	f->link = link_free(f->link);
	assert_int_equal(waitpid(f->host, &status, 0), f->host);
	f->host = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_much_goes_both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_program_that_goes_and_comes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_there_is_one_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_process_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_keeper_goes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
