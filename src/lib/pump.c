/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pump between a command's channel and the caller's descriptors, in the caller's thread.
 *
 * The caller's descriptors keep their flags: others may share them. A pipe is opened once more through /proc for a
 * non-blocking description of our own, a socket is written with MSG_DONTWAIT; files and terminals are written as they
 * are. Credit is granted for what has been written, so a reader that stops stops the command and nothing piles up here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/exec.h"

#define CHUNK 65536

/* ----------------------------------------------------------------------------------------- output */

static void prepare_output(struct exec_output *o)
{
	char path[48];
	struct stat st;

	if (o->fd < 0 || fstat(o->fd, &st) < 0)
		return;
	o->socket = S_ISSOCK(st.st_mode);
	if (S_ISFIFO(st.st_mode)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", o->fd);
		o->own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	}
}

/* Bytes written, -EAGAIN, or another -errno: nobody reads it any more. */
static ssize_t write_some(struct exec_output *o, const void *p, size_t len)
{
	ssize_t n;

	do
		n = o->socket ? send(o->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL)
			      : write(o->own >= 0 ? o->own : o->fd, p, len);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void send_signal(struct sm_exec *x, int signal)
{
	struct proto_event e = {.kind = PROTO_EV_SIGNAL, .signal = signal};
	_cleanup_(buf_done) struct buf b = {0};

	if (proto_event_encode(&b, &e) == 0)
		mux_send_event(x->conn.mux, x->call.ch, &b);
}

/* The reader is gone. A command with a pipe of its own would get SIGPIPE now. */
static void output_broke(struct sm_exec *x, struct exec_output *o, int error)
{
	o->broken = true;
	o->error = error == EPIPE || error == ECONNRESET ? 0 : error;
	if (x->joined) {
		x->left = o == &x->out[0] ? error : 0;
		return;
	}
	if (x->call.opened && !x->call.closed && !x->call.has_exit)
		send_signal(x, SIGPIPE);
}

/* Writes what it can of p; what cannot be written now is the caller's to keep. */
static size_t put(struct sm_exec *x, struct exec_output *o, const uint8_t *p, size_t len)
{
	size_t done = 0;

	while (done < len && !o->broken && o->fd >= 0) {
		ssize_t n = write_some(o, p + done, len - done);

		if (n == -EAGAIN)
			return done;
		if (n < 0)
			output_broke(x, o, (int)-n);
		else
			done += (size_t)n;
	}
	return o->broken || o->fd < 0 ? len : done;
}

void exec_on_data(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len)
{
	struct sm_exec *x = arg;
	struct exec_output *o = stream == 1 || stream == 2 ? &x->out[stream - 1] : NULL;
	size_t done = len;

	if (o && call == &x->call && o->fd < 0)
		collect_put(&o->kept, p, len);
	else if (o && call == &x->call)
		done = o->pending.len ? 0 : put(x, o, p, len);
	/* Without memory for what is in flight it is lost; credit bounds it to one window. */
	if (done < len && buf_put(&o->pending, p + done, len - done) < 0)
		done = len;
	if (done)
		mux_consumed(x->conn.mux, call->ch, stream, done);
}

static void flush_pending(struct sm_exec *x, unsigned i)
{
	struct exec_output *o = &x->out[i];
	size_t n;

	if (!o->pending.len)
		return;
	n = put(x, o, o->pending.data, o->pending.len);
	buf_consume(&o->pending, n);
	if (n)
		mux_consumed(x->conn.mux, x->call.ch, i + 1, n);
}

/* ------------------------------------------------------------------------------------------ input */

static void input_ended(struct sm_exec *x)
{
	x->stdin_done = true;
	mux_send_eof(x->conn.mux, x->call.ch, 0);
}

static bool input_wanted(const struct sm_exec *x)
{
	return x->call.opened && !x->call.closed && x->stdin_open && !x->stdin_done && !x->staged.len &&
	       mux_credit(x->conn.mux, x->call.ch, 0) > 0;
}

static void read_input(struct sm_exec *x)
{
	uint8_t chunk[CHUNK];
	size_t room = MIN(mux_credit(x->conn.mux, x->call.ch, 0), sizeof(chunk));
	ssize_t n = room ? read(x->stdin_fd, chunk, room) : 0;

	if (!room || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	if (n <= 0)
		input_ended(x);
	else if (mux_send(x->conn.mux, x->call.ch, 0, chunk, (size_t)n) < 0)
		x->stdin_done = true;
}

/* As far as there is credit. True: all of it. */
static bool send_bytes(struct sm_exec *x, const struct buf *b, size_t *at)
{
	size_t room;

	while (*at < b->len && (room = mux_credit(x->conn.mux, x->call.ch, 0))) {
		room = MIN(MIN(room, (size_t)CHUNK), b->len - *at);
		if (mux_send(x->conn.mux, x->call.ch, 0, b->data + *at, room) < 0)
			break;
		*at += room;
	}
	return *at == b->len;
}

/* Its files, and, without a descriptor, what the caller gave instead, and the end. */
static void send_given(struct sm_exec *x)
{
	if (!x->call.opened || x->conn.error || x->stdin_done)
		return;
	if (x->staged.len) {
		if (!send_bytes(x, &x->staged, &x->staged_at))
			return;
		buf_done(&x->staged);
	}
	if (x->stdin_open && x->stdin_fd < 0 && send_bytes(x, &x->input, &x->input_at))
		input_ended(x);
}

/* -------------------------------------------------------------------------------------- requests */

/* Before the command runs a signal goes to the keeper, which ends the start. */
static void signal_start(struct sm_exec *x, int signal)
{
	struct keeper_stop s = {.mode = KEEPER_STOP_SIGNAL, .signal = signal};
	_cleanup_(buf_done) struct buf b = {0};
	uint32_t ch;

	if (keeper_stop_encode(&b, &s) == 0 && mux_open(x->conn.mux, PROTO_KEEPER_STOP, &b, NULL, &ch) < 0)
		return;
}

/* What other threads asked for. False: let go. */
static bool take_requests(struct sm_exec *x)
{
	int signals[EXEC_QUEUE];
	unsigned n = 0;
	bool resized, detached;
	uint64_t count;

	if (read(x->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return false;
	pthread_mutex_lock(&x->lock);
	/* A command's own channel takes no signal before it is open; that of a VM can be told by other means. */
	if (x->call.opened || x->attach) {
		n = x->num_signals;
		memcpy(signals, x->signals, n * sizeof(*signals));
		x->num_signals = 0;
	}
	resized = x->resized && x->call.opened;
	if (resized)
		x->resized = false;
	detached = x->detached;
	pthread_mutex_unlock(&x->lock);
	for (unsigned i = 0; i < n; i++) {
		if (x->call.opened)
			send_signal(x, signals[i]);
		else
			signal_start(x, signals[i]);
	}
	if (resized) {
		struct proto_event e = {.kind = PROTO_EV_RESIZE, .rows = x->rows, .cols = x->cols};
		_cleanup_(buf_done) struct buf b = {0};

		if (proto_event_encode(&b, &e) == 0)
			mux_send_event(x->conn.mux, x->call.ch, &b);
	}
	return !detached;
}

/* ------------------------------------------------------------------------------------------- loop */

bool exec_finished(const struct sm_exec *x)
{
	bool ended = x->call.closed && (!x->attach || x->wait.ended || x->wait.closed);

	return (ended || x->conn.error) && !x->out[0].pending.len && !x->out[1].pending.len;
}

void exec_polls(struct sm_exec *x, struct pollfd fds[EXEC_POLLS])
{
	fds[4] = (struct pollfd){.fd = x->cancel_fd, .events = POLLIN};
	fds[0] = (struct pollfd){.fd = x->wake, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = input_wanted(x) ? x->stdin_fd : -1, .events = POLLIN};
	for (int i = 0; i < 2; i++) {
		struct exec_output *o = &x->out[i];

		fds[2 + i] =
			(struct pollfd){.fd = o->pending.len ? (o->own >= 0 ? o->own : o->fd) : -1, .events = POLLOUT};
	}
}

static int step(struct sm_exec *x, int timeout_ms)
{
	struct pollfd fds[EXEC_POLLS];
	int r = 0;

	send_given(x);
	exec_polls(x, fds);
	if (x->conn.error) /* only output is left to write */
		r = poll(fds, EXEC_POLLS, timeout_ms) < 0 && errno != EINTR ? -errno : 0;
	else if (conn_step(&x->conn, fds, EXEC_POLLS, timeout_ms) < 0 && !x->conn.error)
		r = -EIO;
	if (r < 0)
		return r;
	send_given(x); /* it may have room only now, and nothing else would tell */
	/* Opened just now: what was asked for before may be waiting. */
	x->cancelled = fds[4].revents != 0;
	if (!take_requests(x) || x->cancelled)
		return -ECANCELED;
	if (fds[1].revents && input_wanted(x))
		read_input(x);
	for (unsigned i = 0; i < 2; i++)
		if (fds[2 + i].revents)
			flush_pending(x, i);
	return x->left ? -ECANCELED : 0;
}

/* Holds SIGPIPE back from this thread and swallows one that our writes raised. */
static void block_sigpipe(sigset_t *old, bool *was_pending)
{
	sigset_t pipe_set, pending;

	sigemptyset(&pipe_set);
	sigaddset(&pipe_set, SIGPIPE);
	sigemptyset(&pending);
	sigpending(&pending);
	*was_pending = sigismember(&pending, SIGPIPE) == 1;
	pthread_sigmask(SIG_BLOCK, &pipe_set, old);
}

static void restore_sigpipe(const sigset_t *old, bool was_pending)
{
	const struct timespec now = {0};
	sigset_t pipe_set;

	sigemptyset(&pipe_set);
	sigaddset(&pipe_set, SIGPIPE);
	if (!was_pending)
		while (sigtimedwait(&pipe_set, NULL, &now) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

/* Until it is finished; or one step, if it is not to wait. */
static int pump(struct sm_exec *x, bool wait, struct sm_error *err)
{
	sigset_t old;
	bool was_pending;
	int r = 0;

	block_sigpipe(&old, &was_pending);
	if (!x->prepared) {
		prepare_output(&x->out[0]);
		prepare_output(&x->out[1]);
		x->prepared = true;
	}
	if (!wait && !exec_finished(x))
		r = step(x, 0);
	while (wait && r == 0 && !exec_finished(x))
		r = step(x, -1);
	restore_sigpipe(&old, was_pending);
	if (r == -ECANCELED && x->left)
		return error_sys(err, x->left, "the command of VM %s goes on: standard output", x->id);
	if (r == -ECANCELED)
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "%s", x->cancelled ? "cancelled" : "detached");
	return r < 0 ? error_sys(err, -r, "streams of the command") : 0;
}

int exec_pump(struct sm_exec *x, struct sm_error *err)
{
	return pump(x, true, err);
}

int exec_turn(struct sm_exec *x, struct sm_error *err)
{
	return pump(x, false, err);
}
