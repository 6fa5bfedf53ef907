/* SPDX-License-Identifier: Apache-2.0 */
/* The pump of a command's streams, against a scripted peer in another thread: every kind of descriptor, slow and absent
 * readers. */
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
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/loop.h"
#include "base/util.h"
#include "lib/exec.h"
#include "proto/link.h"

/* The other end: floods stdout, or echoes stdin to stdout until its end. */
struct peer {
	int fd;
	uint64_t flood;
	bool echo, sleeps;
	int got_signal;
	uint16_t got_rows;
	/* the thread's */
	struct loop *loop;
	struct link *link;
	uint32_t ch;
	pthread_t thread;
};

static void finish(struct peer *p, int status)
{
	struct proto_event e = {.kind = PROTO_EV_EXIT, .reason = PROTO_EXITED, .status = status};
	struct buf b = {0};

	if (proto_event_encode(&b, &e) == 0)
		mux_send_event(link_mux(p->link), p->ch, &b);
	mux_close(link_mux(p->link), p->ch, 0, "");
	buf_done(&b);
}

static void flood(struct peer *p)
{
	static const uint8_t bytes[8192] = "flood";

	while (p->flood) {
		size_t n =
			MIN(MIN(p->flood, (uint64_t)sizeof(bytes)), (uint64_t)mux_credit(link_mux(p->link), p->ch, 1));

		if (n == 0 || mux_send(link_mux(p->link), p->ch, 1, bytes, n) < 0)
			return;
		p->flood -= n;
	}
	finish(p, 0);
}

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct peer *p = arg;

	p->ch = ch;
	mux_opened(link_mux(p->link), ch, NULL);
	if (p->flood)
		flood(p);
	else if (!p->echo && !p->sleeps)
		finish(p, 42);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *b, size_t len)
{
	struct peer *p = arg;

	/* Both windows are the same and both sides give credit as they go. */
	mux_send(link_mux(p->link), ch, 1, b, len);
	mux_consumed(link_mux(p->link), ch, stream, len);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	finish(arg, 0);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct peer *p = arg;

	if (p->flood)
		flood(p);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct peer *p = arg;
	struct proto_event e;

	if (proto_event_decode(event, &e) < 0)
		return;
	if (e.kind == PROTO_EV_RESIZE)
		p->got_rows = e.rows;
	if (e.kind == PROTO_EV_SIGNAL) {
		p->got_signal = e.signal;
		p->flood = 0;
		finish(p, 128 + e.signal);
	}
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct peer *p = arg;

	mux_close(link_mux(p->link), ch, 0, "");
}

static void on_end(struct link *l, int r, const char *why, void *arg)
{
	struct peer *p = arg;

	loop_stop(p->loop, 0);
}

static const struct mux_callbacks callbacks = {.open = on_open,
					       .data = on_data,
					       .eof = on_eof,
					       .event = on_event,
					       .writable = on_writable,
					       .closed = on_closed};

static void *peer_main(void *arg)
{
	struct peer *p = arg;
	struct mux *m = NULL;
	sigset_t set;

	/* The signal under test is that of the pump's thread. */
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (loop_new(&p->loop) == 0 && mux_new(MUX_SERVER, &callbacks, p, PROTO_DEFAULT_WINDOW, &m) == 0 &&
	    link_new(p->loop, p->fd, m, on_end, p, &p->link) == 0 && mux_hello(m, NULL) == 0)
		loop_run(p->loop);
	link_free(p->link);
	loop_free(p->loop);
	return NULL;
}

/* A command's handle joined to such a peer. */
static struct sm_exec *open_pair(struct peer *p, int in, int out)
{
	struct sm_exec_options o = SM_EXEC_OPTIONS_INIT;
	struct sm_exec *x;
	int pair[2];

	o.stdin_open = in >= 0;
	o.stdin_fd = in;
	o.stdout_fd = out;
	o.output_max = 1000;
	x = exec_new(NULL, "", &o);
	assert_non_null(x);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->fd = pair[1];
	assert_int_equal(pthread_create(&p->thread, NULL, peer_main, p), 0);
	assert_int_equal(conn_init(&x->conn, pair[0], NULL), 0);
	x->conn.data = exec_on_data;
	x->conn.arg = x;
	assert_int_equal(conn_call(&x->conn, PROTO_EXEC, NULL, &x->call), 0);
	return x;
}

static struct sm_outcome close_pair(struct peer *p, struct sm_exec *x)
{
	struct sm_outcome o = SM_OUTCOME_INIT;

	assert_int_equal(sm_exec_wait(x, &o, NULL), 0);
	assert_int_equal(sm_exec_wait(x, &o, NULL), -EALREADY);
	sm_exec_close(x);
	pthread_join(p->thread, NULL);
	return o;
}

static void status_without_streams(void **state)
{
	struct peer p = {0};
	struct sm_exec *x = open_pair(&p, -1, -1);

	assert_int_equal(close_pair(&p, x).status, 42);
}

struct reader {
	int fd;
	size_t got;
	unsigned pause_us;
};

static void *read_all(void *arg)
{
	struct reader *r = arg;
	char chunk[65536];
	ssize_t n;

	while ((n = read(r->fd, chunk, sizeof(chunk))) > 0) {
		r->got += (size_t)n;
		if (r->pause_us)
			usleep(r->pause_us);
	}
	return NULL;
}

static void output_to(int ends[2], unsigned pause_us)
{
	const size_t total = 3000001;
	struct reader r = {.fd = ends[0], .pause_us = pause_us};
	struct peer p = {.flood = total};
	struct sm_exec *x = open_pair(&p, -1, ends[1]);
	int flags = fcntl(ends[1], F_GETFL);
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
	assert_int_equal(close_pair(&p, x).status, 0);
	assert_int_equal(fcntl(ends[1], F_GETFL), flags);
	close(ends[1]);
	pthread_join(thread, NULL);
	close(ends[0]);
	assert_int_equal(r.got, total);
}

static void output_reaches_every_kind_of_reader(void **state)
{
	int ends[2];

	for (unsigned pause = 0; pause <= 300; pause += 300) {
		assert_int_equal(pipe(ends), 0);
		output_to(ends, pause);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
		output_to(ends, pause);
	}
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(fd_set_nonblock(ends[1], true), 0);
	output_to(ends, 300);
}

static void input_comes_back_whole(void **state)
{
	const size_t total = 2000003;
	char name[] = "/tmp/test-pump.XXXXXX", out_name[] = "/tmp/test-pump.XXXXXX";
	int in = mkstemp(name), out = mkstemp(out_name);
	uint8_t *data = malloc(total), *back = malloc(total + 1);
	struct peer p = {.echo = true};
	struct sm_exec *x;

	for (size_t i = 0; i < total; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	assert_int_equal(pwrite_full(in, data, total, 0), 0);
	x = open_pair(&p, in, out);
	assert_int_equal(close_pair(&p, x).status, 0);
	assert_int_equal(pread_full(out, back, total + 1, 0), total);
	assert_memory_equal(data, back, total);
	free(data);
	free(back);
	close(in);
	close(out);
	unlink(name);
	unlink(out_name);
}

/* The reader is gone: the command hears of it as of a pipe of its own, and this process gets no signal. */
static void broken_pipe_is_passed_on(void **state)
{
	struct peer p = {.flood = 100000000};
	struct sigaction default_action = {.sa_handler = SIG_DFL}, old;
	struct sm_outcome o;
	struct sm_exec *x;
	int ends[2];

	sigaction(SIGPIPE, &default_action, &old);
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	x = open_pair(&p, -1, ends[1]);
	o = close_pair(&p, x);
	assert_int_equal(o.status, 128 + SIGPIPE);
	assert_false(o.output_lost);
	assert_int_equal(p.got_signal, SIGPIPE);
	close(ends[1]);
	sigaction(SIGPIPE, &old, NULL);
}

static void lost_output_is_told(void **state)
{
	struct peer p = {.flood = 1000};
	struct sm_outcome o;
	int fd = open("/dev/full", O_WRONLY);

	assert_true(fd >= 0);
	o = close_pair(&p, open_pair(&p, -1, fd));
	assert_string_equal(o.message, "standard output: No space left on device: not all of it was written");
	assert_true(o.output_lost);
	close(fd);
}

/* Whatever is not kept is read all the same. */
static void output_is_collected_within_its_limit(void **state)
{
	struct peer p = {.flood = 3000001};
	struct sm_exec *x = open_pair(&p, -1, -1);
	struct sm_result *r;

	assert_int_equal(sm_exec_collect(x, &r, NULL), 0);
	assert_int_equal(r->outcome.status, 0);
	assert_int_equal(r->out.total, 3000001);
	assert_int_equal(r->out.length, 1000);
	assert_int_equal(r->out.head, 500);
	assert_true(r->out.truncated);
	assert_string_equal(r->out.data, "flood");
	assert_int_equal(r->err.total, 0);
	assert_int_equal(r->err.length, 0);
	assert_false(r->err.truncated);
	assert_string_equal(r->err.data, "");
	assert_null(sm_result_free(r));
	assert_int_equal(sm_exec_collect(x, &r, NULL), -EALREADY);
	sm_exec_close(x);
	pthread_join(p.thread, NULL);
}

/* More than the channel takes at once, so it goes as the other end reads. */
static void input_from_memory_comes_back(void **state)
{
	const size_t total = 2000003;
	struct peer p = {.echo = true};
	struct sm_exec *x = open_pair(&p, -1, -1);
	struct sm_result *r;
	uint8_t *bytes;

	x->stdin_open = true;
	x->out[0].kept.max = total;
	bytes = buf_extend(&x->input, total);
	for (size_t i = 0; i < total; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 13);
	assert_int_equal(sm_exec_collect(x, &r, NULL), 0);
	assert_int_equal(r->out.length, total);
	assert_int_equal(r->out.head, total);
	assert_false(r->out.truncated);
	assert_memory_equal(r->out.data, x->input.data, total);
	sm_result_free(r);
	sm_exec_close(x);
	pthread_join(p.thread, NULL);
}

static void a_descriptor_cancels(void **state)
{
	struct peer p = {.sleeps = true};
	struct sm_exec *x = open_pair(&p, -1, -1);
	struct sm_error err = {0};
	struct sm_result *r = NULL;
	uint64_t one = 1;
	int fd = eventfd(0, EFD_CLOEXEC);

	x->cancel_fd = fd;
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(sm_exec_collect(x, &r, &err), -ECANCELED);
	assert_int_equal(err.kind, SM_ERROR_CANCELLED);
	assert_null(r);
	sm_exec_close(x);
	pthread_join(p.thread, NULL);
	close(fd);
}

static void *from_another_thread(void *arg)
{
	struct sm_exec *x = arg;

	usleep(20000);
	sm_exec_resize(x, 33, 44, NULL);
	sm_exec_signal(x, SIGUSR2, NULL);
	return NULL;
}

static void signals_and_sizes_from_another_thread(void **state)
{
	struct peer p = {.sleeps = true};
	struct sm_exec *x = open_pair(&p, -1, -1);
	struct sm_outcome o;
	pthread_t thread;

	assert_int_equal(sm_exec_signal(x, 0, NULL), -EINVAL);
	assert_int_equal(sm_exec_signal(x, 65, NULL), -EINVAL);
	assert_int_equal(pthread_create(&thread, NULL, from_another_thread, x), 0);
	o = close_pair(&p, x);
	pthread_join(thread, NULL);
	assert_int_equal(o.status, 128 + SIGUSR2);
}

/* Turn by turn, whenever the descriptor says so. */
static struct sm_outcome drive(struct peer *p, struct sm_exec *x)
{
	struct sm_outcome o = SM_OUTCOME_INIT;
	struct pollfd fd = {.fd = sm_exec_fd(x, NULL), .events = POLLIN};
	int r = 0;

	assert_true(fd.fd >= 0);
	assert_int_equal(sm_exec_fd(x, NULL), fd.fd);
	while (r == 0) {
		assert_int_equal(poll(&fd, 1, 20000), 1);
		r = sm_exec_poll(x, NULL);
	}
	assert_int_equal(r, 1);
	assert_int_equal(poll(&fd, 1, 0), 1); /* it stays so */
	assert_int_equal(sm_exec_poll(x, NULL), 1);
	assert_int_equal(sm_exec_wait(x, &o, NULL), 0);
	sm_exec_close(x);
	pthread_join(p->thread, NULL);
	return o;
}

static void an_event_loop_drives_it(void **state)
{
	const size_t total = 3000001;
	struct peer flood, none = {0};
	struct reader r;
	pthread_t thread;
	int ends[2];

	assert_int_equal(drive(&none, open_pair(&none, -1, -1)).status, 42);
	/* A slow reader behind a pipe, and behind a socket. */
	for (int i = 0; i < 2; i++) {
		flood = (struct peer){.flood = total};
		assert_int_equal(i ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends), 0);
		r = (struct reader){.fd = ends[0], .pause_us = 300};
		assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
		assert_int_equal(drive(&flood, open_pair(&flood, -1, ends[1])).status, 0);
		close(ends[1]);
		pthread_join(thread, NULL);
		close(ends[0]);
		assert_int_equal(r.got, total);
	}
}

/* What comes with it goes first, whatever there is to read besides, and without waiting for room in one turn. */
static void an_event_loop_sends_what_was_given(void **state)
{
	const size_t total = 1500007, more = 900001;
	struct peer p = {.echo = true};
	struct sm_exec *x = open_pair(&p, -1, -1);
	_cleanup_(buf_done) struct buf all = {0};
	struct pollfd fd = {.fd = sm_exec_fd(x, NULL), .events = POLLIN};
	struct sm_result *result;

	x->stdin_open = true;
	x->out[0].kept.max = total + more;
	for (size_t i = 0; i < total + more; i++)
		buf_put_u8(&all, (uint8_t)(i * 2654435761u >> 13));
	buf_put(&x->staged, all.data, total);
	buf_put(&x->input, all.data + total, more);
	while (sm_exec_poll(x, NULL) == 0)
		assert_int_equal(poll(&fd, 1, 20000), 1);
	assert_int_equal(sm_exec_collect(x, &result, NULL), 0);
	assert_int_equal(result->out.length, total + more);
	assert_memory_equal(result->out.data, all.data, total + more);
	sm_result_free(result);
	sm_exec_close(x);
	pthread_join(p.thread, NULL);
}

/* Input from a file, which no epoll takes, and from one socket that is its output, too. */
static void an_event_loop_feeds_it(void **state)
{
	const size_t total = 1000003;
	char name[] = "/tmp/test-pump.XXXXXX", out_name[] = "/tmp/test-pump.XXXXXX";
	int in = mkstemp(name), out = mkstemp(out_name), ends[2];
	struct peer p = {.echo = true};
	uint8_t *data = calloc(1, total + 1);

	assert_int_equal(pwrite_full(in, data, total, 0), 0);
	assert_int_equal(drive(&p, open_pair(&p, in, out)).status, 0);
	assert_int_equal(pread_full(out, data, total + 1, 0), total);

	p = (struct peer){.echo = true};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_int_equal(write(ends[0], "hello", 5), 5);
	shutdown(ends[0], SHUT_WR);
	assert_int_equal(drive(&p, open_pair(&p, ends[1], ends[1])).status, 0);
	assert_int_equal(read(ends[0], data, 6), 5);
	close(ends[0]);
	close(ends[1]);
	close(in);
	close(out);
	unlink(name);
	unlink(out_name);
	free(data);
}

static int slow_call(void *arg, struct sm_error *err)
{
	usleep(20000);
	return *(int *)arg ? error_set(err, SM_ERROR_LIMIT, E2BIG, "too much of it") : 7;
}

static void long_calls_tell_when_they_are_done(void **state)
{
	for (int fail = 0; fail < 2; fail++) {
		struct sm_error err = {0};
		struct sm_task *t;
		struct pollfd fd;

		assert_int_equal(sm_task_start(slow_call, &fail, &t, NULL), 0);
		fd = (struct pollfd){.fd = sm_task_fd(t), .events = POLLIN};
		assert_int_equal(poll(&fd, 1, 20000), 1);
		assert_int_equal(sm_task_finish(t, &err), fail ? -E2BIG : 7);
		assert_int_equal(err.kind, fail ? SM_ERROR_LIMIT : SM_ERROR_NONE);
	}
}

static void detach_lets_go(void **state)
{
	struct peer p = {.sleeps = true};
	struct sm_exec *x = open_pair(&p, -1, -1);
	struct sm_outcome o = SM_OUTCOME_INIT;

	assert_int_equal(sm_exec_detach(x, NULL), 0);
	assert_int_equal(sm_exec_wait(x, &o, NULL), -ECANCELED);
	sm_exec_close(x);
	pthread_join(p.thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(status_without_streams),
		cmocka_unit_test(output_reaches_every_kind_of_reader),
		cmocka_unit_test(input_comes_back_whole),
		cmocka_unit_test(broken_pipe_is_passed_on),
		cmocka_unit_test(lost_output_is_told),
		cmocka_unit_test(output_is_collected_within_its_limit),
		cmocka_unit_test(input_from_memory_comes_back),
		cmocka_unit_test(a_descriptor_cancels),
		cmocka_unit_test(signals_and_sizes_from_another_thread),
		cmocka_unit_test(an_event_loop_drives_it),
		cmocka_unit_test(an_event_loop_sends_what_was_given),
		cmocka_unit_test(an_event_loop_feeds_it),
		cmocka_unit_test(long_calls_tell_when_they_are_done),
		cmocka_unit_test(detach_lets_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
