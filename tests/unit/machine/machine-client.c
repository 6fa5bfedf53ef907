/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seat from a shell, for tests below the library: machine-client RUNTIME_DIR DATA_DIR LIBEXEC_DIR VERB ...
 *
 *	start | stop | status		status prints "running daemon emulator busy boot-id"
 *	exec [-t] ARGV...		runs it in the machine with this process's cwd, environment and standard streams
 *	spawn LOG ARGV...		detached; prints its pid
 *	connect PATH			standard input and output to a unix socket in the machine
 *	probe				prints the state and the reason
 *
 * Status 125: our own failure, its reason on standard error.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/loop.h"
#include "base/util.h"
#include "machine/seat.h"
#include "proto/link.h"
#include "proto/messages.h"

struct client {
	struct loop *loop;
	struct link *link;
	struct proto_exec exec;
	uint32_t ch;
	struct loop_source *in;
	int signals, status;
};

static void say(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int fail(const struct sm_error *err)
{
	fprintf(stderr, "machine-client: %s\n", err->message);
	return 125;
}

/* Reads by poll, since a regular file is no epoll source: the timer-less loop is woken by credit and by us alike. */
static void feed(struct client *c)
{
	struct mux *mux = link_mux(c->link);
	uint8_t piece[32768];
	size_t room;

	while (c->exec.stdin_open && (room = MIN(mux_credit(mux, c->ch, 0), sizeof(piece))) > 0) {
		struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 0) == 0)
			return;
		n = read(STDIN_FILENO, piece, room);
		if (n > 0) {
			mux_send(mux, c->ch, 0, piece, (size_t)n);
			continue;
		}
		c->exec.stdin_open = false;
		c->in = loop_remove(c->in);
		mux_send_eof(mux, c->ch, 0);
	}
}

static void on_stdin(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct client *c = arg;

	feed(c);
	if (c->in && !mux_credit(link_mux(c->link), c->ch, 0))
		loop_modify(c->in, 0);
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct client *c = arg;

	if (!c->exec.stdin_open)
		mux_send_eof(link_mux(c->link), ch, 0);
	else if (loop_add(c->loop, STDIN_FILENO, EPOLLIN, on_stdin, c, &c->in) == 0)
		return;
	feed(c); /* a regular file, always ready */
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct client *c = arg;

	if (stream == 0 && c->in)
		loop_modify(c->in, EPOLLIN);
	else if (stream == 0)
		feed(c);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct client *c = arg;

	if (write_full((int)stream, p, len) < 0)
		loop_stop(c->loop, 141);
	mux_consumed(link_mux(c->link), ch, stream, len);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct client *c = arg;
	struct proto_event ev;

	if (proto_event_decode(event, &ev) < 0 || ev.kind != PROTO_EV_EXIT)
		return;
	if (*ev.text)
		fprintf(stderr, "machine-client: %s\n", ev.text);
	c->status = ev.status;
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct client *c = arg;

	if (code < 0)
		fprintf(stderr, "machine-client: %s (%s)\n", text, strerror(-code));
	loop_stop(c->loop, c->status);
}

static void on_hello(void *arg, struct cursor *attributes, uint16_t version)
{
	struct client *c = arg;
	struct buf b = {0};

	if (proto_exec_encode(&b, &c->exec) < 0 || mux_open(link_mux(c->link), PROTO_EXEC, &b, NULL, &c->ch) < 0) {
		fprintf(stderr, "machine-client: the request is too long\n");
		loop_stop(c->loop, 125);
	}
	buf_done(&b);
}

static void on_signal(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct client *c = arg;
	struct proto_event ev = {.kind = PROTO_EV_SIGNAL};
	struct signalfd_siginfo si;
	struct winsize w;
	struct buf b = {0};

	if (read(c->signals, &si, sizeof(si)) != sizeof(si))
		return;
	ev.signal = (int)si.ssi_signo;
	if (ev.signal == SIGWINCH && ioctl(STDIN_FILENO, TIOCGWINSZ, &w) == 0)
		ev = (struct proto_event){.kind = PROTO_EV_RESIZE, .rows = w.ws_row, .cols = w.ws_col};
	if (proto_event_encode(&b, &ev) == 0)
		mux_send_event(link_mux(c->link), c->ch, &b);
	buf_done(&b);
}

static void on_end(struct link *l, int r, const char *why, void *arg)
{
	struct client *c = arg;

	fprintf(stderr, "machine-client: %s\n", why);
	loop_stop(c->loop, 125);
}

static int watch_signals(struct client *c)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	c->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return loop_add(c->loop, c->signals, EPOLLIN, on_signal, c, NULL);
}

static int do_exec(struct seat *seat, char **argv, struct sm_error *err)
{
	static const struct mux_callbacks callbacks = {.hello = on_hello,
						       .opened = on_opened,
						       .data = on_data,
						       .event = on_event,
						       .writable = on_writable,
						       .closed = on_closed};
	struct client c = {.status = 125};
	_free_ char *cwd = getcwd(NULL, 0);
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	struct mux *mux;
	int fd, r;

	c.exec = (struct proto_exec){.env = environ, .cwd = cwd, .clear_env = true, .stdin_open = true};
	if (*argv && streq(*argv, "-t")) {
		c.exec.tty = true;
		argv++;
		ioctl(STDIN_FILENO, TIOCGWINSZ, &w);
		c.exec.rows = w.ws_row;
		c.exec.cols = w.ws_col;
	}
	c.exec.argv = argv;
	if (loop_new(&c.loop) < 0 || watch_signals(&c) < 0)
		return 125;
	fd = seat_machine_link(seat, err);
	if (fd < 0)
		return fail(err);
	if (mux_new(MUX_CLIENT, &callbacks, &c, PROTO_DEFAULT_WINDOW, &mux) < 0 || mux_hello(mux, NULL) < 0 ||
	    link_new(c.loop, fd, mux, on_end, &c, &c.link) < 0)
		return 125;
	r = loop_run(c.loop);
	link_free(c.link);
	loop_free(c.loop);
	fd_close(c.signals);
	return r;
}

static int do_connect(struct seat *seat, const char *path, struct sm_error *err)
{
	struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};
	char piece[32768];
	ssize_t n;

	signal(SIGPIPE, SIG_IGN);
	p[1].fd = seat_connect(seat, path, 0, err);
	if (p[1].fd < 0)
		return fail(err);
	for (;;) {
		if (poll(p, 2, -1) < 0)
			return 125;
		if (p[0].revents) {
			n = read(STDIN_FILENO, piece, sizeof(piece));
			if (n <= 0) {
				shutdown(p[1].fd, SHUT_WR);
				p[0].fd = -1;
			} else if (write_full(p[1].fd, piece, (size_t)n) < 0) {
				return 1;
			}
		}
		if (p[1].revents) {
			n = read(p[1].fd, piece, sizeof(piece));
			if (n <= 0)
				return n < 0;
			if (write_full(STDOUT_FILENO, piece, (size_t)n) < 0)
				return 1;
		}
	}
}

static int do_status(struct seat *seat, struct sm_error *err)
{
	struct seat_machine_status s;

	if (seat_machine_status(seat, &s, err) < 0)
		return fail(err);
	printf("%d %lld %lld %u %s\n", s.running, (long long)s.daemon_pid, (long long)s.emulator_pid, s.busy,
	       *s.boot_id ? s.boot_id : "-");
	return 0;
}

static int do_spawn(struct seat *seat, char **argv, struct sm_error *err)
{
	struct seat_command c = {
		.argv = (const char *const *)argv + 1, .env = (const char *const *)environ, .log = argv[0]};
	int64_t pid;

	if (seat_spawn(seat, &c, &pid, err) < 0)
		return fail(err);
	printf("%lld\n", (long long)pid);
	return 0;
}

int main(int argc, char **argv)
{
	struct sm_error err = {0};
	struct kvm_probe probe;
	struct seat *seat;
	const char *verb;
	int r = 2;

	if (argc < 5) {
		fprintf(stderr, "usage: machine-client RUNTIME_DIR DATA_DIR LIBEXEC_DIR VERB ...\n");
		return 2;
	}
	verb = argv[4];
	if (streq(verb, "probe")) {
		kvm_probe(argv[1], &probe);
		printf("%d %s\n", probe.state, probe.why);
		return 0;
	}
	if (seat_open_machine(&(struct seat_options){.mode = SEAT_ALWAYS,
						     .runtime_dir = argv[1],
						     .data_dir = argv[2],
						     .state_dir = argv[2],
						     .libexec_dir = argv[3],
						     .notice = say},
			      &seat, &err) < 0)
		return fail(&err);
	if (streq(verb, "start"))
		r = seat_ready(seat, &err) < 0 ? fail(&err) : 0;
	else if (streq(verb, "stop"))
		r = seat_machine_stop(seat, &err) < 0 ? fail(&err) : 0;
	else if (streq(verb, "status"))
		r = do_status(seat, &err);
	else if (streq(verb, "exec") && argc > 5)
		r = do_exec(seat, argv + 5, &err);
	else if (streq(verb, "spawn") && argc > 6)
		r = do_spawn(seat, argv + 5, &err);
	else if (streq(verb, "connect") && argc > 5)
		r = do_connect(seat, argv[5], &err);
	seat_close(seat);
	return r;
}
