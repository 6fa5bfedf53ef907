/* SPDX-License-Identifier: Apache-2.0 */
/* The blocking client end of the frame protocol. See lib.h. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/lib.h"

#define READ_SIZE 65536

/* -------------------------------------------------------------------------------------- callbacks */

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct call *call = user;

	if (!call)
		return;
	call->opened = true;
	buf_put(&call->reply, reply->p, reply->left);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct conn *conn = arg;

	if (user && conn->data)
		conn->data(conn->arg, user, stream, p, len);
	else
		mux_consumed(conn->mux, ch, stream, len);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct call *call = user;

	if (call)
		call->eof = true;
}

/* An exec's exit, or a keeper's news, by the service. */
static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct cursor again = *event;
	struct call *call = user;
	struct keeper_news news;
	struct proto_event e;

	if (!call)
		return;
	if (call->wants_news) {
		if (keeper_news_decode(event, &news) < 0)
			return;
		if (news.kind == KEEPER_STARTED)
			call->started = true;
		else if (news.kind == KEEPER_ENDED &&
			 vm_exit_parse((const char *)news.record, news.record_len, &call->record, NULL) == 0)
			call->ended = true;
	} else if (proto_event_decode(&again, &e) == 0 && e.kind == PROTO_EV_EXIT) {
		call->exit = e;
		call->has_exit = true;
	}
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct conn *conn = arg;
	struct call *call = user;

	mux_close(conn->mux, ch, 0, "");
	if (!call)
		return;
	call->closed = true;
	call->code = code;
	snprintf(call->text, sizeof(call->text), "%s", text);
}

static const struct mux_callbacks callbacks = {
	.opened = on_opened, .data = on_data, .eof = on_eof, .event = on_event, .closed = on_closed};

/* ------------------------------------------------------------------------------------------- link */

int conn_init(struct conn *conn, int fd, struct sm_error *err)
{
	int r;

	*conn = (struct conn){.fd = fd, .silent_ns = time_now_ns(), .patience_ns = KEEPER_ANSWER_NS};
	r = fd_set_nonblock(fd, true);
	if (r == 0)
		r = mux_new(MUX_CLIENT, &callbacks, conn, PROTO_DEFAULT_WINDOW, &conn->mux);
	if (r == 0)
		r = mux_hello(conn->mux, NULL);
	if (r < 0) {
		conn_done(conn);
		return error_sys(err, -r, "connection");
	}
	return 0;
}

void conn_done(struct conn *conn)
{
	conn->mux = mux_free(conn->mux);
	conn->fd = fd_close(conn->fd);
}

void conn_move(struct conn *to, struct conn *from)
{
	*to = *from;
	mux_set_arg(to->mux, to);
	*from = (struct conn){.fd = -1};
}

void call_done(struct call *call)
{
	buf_done(&call->reply);
}

int conn_call(struct conn *conn, uint16_t service, const struct buf *request, struct call *call)
{
	bool news = service == PROTO_KEEPER_WAIT || service == PROTO_KEEPER_CLAIM;

	*call = (struct call){.wants_news = news};
	return mux_open(conn->mux, service, request, call, &call->ch);
}

static int die(struct conn *conn, int r, const char *why)
{
	if (conn->error == 0) {
		conn->error = r;
		conn->why = why;
		mux_abort(conn->mux, -ECONNRESET, why);
	}
	return conn->error;
}

static int flush(struct conn *conn)
{
	for (;;) {
		size_t len;
		const uint8_t *p = mux_output(conn->mux, &len);
		ssize_t n;

		if (len == 0)
			return 0;
		n = send(conn->fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		mux_output_done(conn->mux, (size_t)n);
	}
}

static int receive(struct conn *conn)
{
	uint8_t chunk[READ_SIZE];
	const char *why = "the connection ended";
	ssize_t n = recv(conn->fd, chunk, sizeof(chunk), 0);
	int r;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : die(conn, -errno, "the connection broke");
	if (n == 0)
		return die(conn, -ECONNRESET, why);
	conn->silent_ns = 0;
	r = mux_feed(conn->mux, chunk, (size_t)n, &why);
	return r < 0 ? die(conn, r, why) : 0;
}

/* A peer that hangs accepts connections all the same. How long this wait may be, or -ETIME. */
static int patience(struct conn *conn, int *timeout_ms)
{
	uint64_t passed = conn->silent_ns ? time_now_ns() - conn->silent_ns : 0;
	uint64_t left = (conn->patience_ns - MIN(passed, conn->patience_ns)) / 1000000 + 1;

	if (passed >= conn->patience_ns)
		return die(conn, -ETIME, KEEPER_HANGS);
	if (conn->silent_ns && (*timeout_ms < 0 || (uint64_t)*timeout_ms > left))
		*timeout_ms = (int)left;
	return 0;
}

int conn_step(struct conn *conn, struct pollfd *extra, unsigned n, int timeout_ms)
{
	struct pollfd fds[8];
	size_t queued;
	int r;

	if (conn->error)
		return conn->error;
	r = patience(conn, &timeout_ms);
	if (r < 0)
		return r;
	/* A peer that is gone may still have left its last words: write errors count only when the reading ends. */
	flush(conn);
	mux_output(conn->mux, &queued);
	n = MIN(n, (unsigned)ARRAY_SIZE(fds) - 1);
	fds[0] = (struct pollfd){.fd = conn->fd, .events = POLLIN | (queued ? POLLOUT : 0)};
	for (unsigned i = 0; i < n; i++)
		fds[i + 1] = extra[i];
	r = poll(fds, n + 1, timeout_ms);
	if (r < 0 && errno != EINTR)
		return -errno;
	for (unsigned i = 0; i < n; i++)
		extra[i].revents = r > 0 ? fds[i + 1].revents : 0;
	if (r <= 0)
		return 0;
	if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
		r = receive(conn);
		if (r < 0)
			return r;
	}
	flush(conn);
	return 0;
}

/* ------------------------------------------------------------------------------------------ calls */

/* Of what the other side has answered. */
static enum sm_error_kind kind_of(int code)
{
	switch (code) {
	case EPROTO:
	case EPIPE:
		return SM_ERROR_GUEST;
	case ESRCH:
	case EBUSY:
	case EAGAIN:
	case EALREADY:
	case EHOSTDOWN:
	case ESHUTDOWN:
		return SM_ERROR_STATE;
	case ENOENT:
		return SM_ERROR_NOT_FOUND;
	case EINVAL:
		return SM_ERROR_INVALID;
	case EOPNOTSUPP:
	case ENOSYS:
		return SM_ERROR_UNSUPPORTED;
	case E2BIG:
	case EMFILE:
		return SM_ERROR_LIMIT;
	case EUSERS:
		return SM_ERROR_BUSY;
	default:
		return SM_ERROR_IO;
	}
}

int call_error(const struct conn *conn, const struct call *call, const char *what, struct sm_error *err)
{
	int code = call->code < 0 ? -call->code : EPIPE;

	if (conn->error == -ETIME)
		return error_set(err, SM_ERROR_TIMEOUT, ETIME, "%s: %s", what, conn->why);
	if (conn->error && (!call->closed || call->code == -ECONNRESET))
		return error_set(err, SM_ERROR_STATE, ECONNRESET, "%s: %s", what,
				 conn->why ? conn->why : "connection lost");
	return error_set(err, kind_of(code), code == EUSERS ? EBUSY : code, "%s: %s", what,
			 call->text[0] ? call->text : strerror(code));
}

int conn_await_open(struct conn *conn, struct call *call, const char *what, struct sm_error *err)
{
	return conn_await_open_within(conn, call, UINT64_MAX, what, err);
}

int conn_await_open_within(struct conn *conn, struct call *call, uint64_t limit_ns, const char *what,
			   struct sm_error *err)
{
	uint64_t start = time_now_ns(), passed;

	while (!call->opened && !call->closed) {
		passed = time_now_ns() - start;
		if (passed >= limit_ns && conn->error == 0)
			return error_set(err, SM_ERROR_TIMEOUT, ETIME, "%s: " KEEPER_HANGS, what);
		if (conn_step(conn, NULL, 0,
			      limit_ns == UINT64_MAX
				      ? -1
				      : (int)MIN((limit_ns - MIN(passed, limit_ns)) / 1000000 + 1, 3600000ull)) < 0)
			break;
	}
	if (call->opened && (!call->closed || call->code == 0))
		return 0;
	return call_error(conn, call, what, err);
}
