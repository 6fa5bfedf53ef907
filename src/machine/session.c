/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection: its one request, and what becomes of it (wire.h). A session lives until its socket is closed
 *or handed on to a pipe.
 *
 *	ASKING	the request comes in
 *	WAITING	for the machine to be up (or down, for STOP)
 *	OPENING	the agent was asked to spawn or to connect
 *	LINK	it speaks the frame protocol; link owns the socket
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "machine/daemon.h"
#include "proto/messages.h"
#include "proto/relay.h"

enum session_state { SESSION_ASKING, SESSION_WAITING, SESSION_OPENING, SESSION_LINK };

/* A process that runs in the machine for nobody here: it only counts as busy. */
struct spawned {
	struct daemon *d;
	struct session *asker; /* waits for its pid */
	uint32_t ch;
};

struct session {
	struct session *next, **prev;
	struct daemon *d;
	enum session_state state;
	int fd;
	struct loop_source *src;
	uint8_t head[WIRE_HEADER];
	size_t head_len;
	struct wire_header request;
	struct buf payload;
	struct spawned *spawned;
	struct pipe *pipe;
	struct link *link;
};

static void session_free(struct session *s)
{
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (s->spawned)
		s->spawned->asker = NULL;
	s->src = loop_remove(s->src);
	if (s->pipe)
		pipe_cancel(s->pipe); /* owns fd */
	else if (!s->link)
		fd_close(s->fd);
	link_free(s->link);
	buf_done(&s->payload);
	free(s);
}

/* An answer is small and the socket's buffer empty: what does not fit at once is a client that is not there. */
static int answer(struct session *s, enum wire_type type, const void *p, size_t len)
{
	_cleanup_(buf_done) struct buf b = {0};
	int r = wire_put(&b, type, p, len);

	if (r < 0)
		return r;
	return send(s->fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)b.len ? 0 : -EPIPE;
}

/* The session is gone when these return. */
static void refuse(struct session *s, const struct sm_error *why)
{
	_cleanup_(buf_done) struct buf b = {0};

	if (wire_error_encode(&b, why) == 0)
		answer(s, WIRE_ERROR, b.data, b.len);
	session_free(s);
}

static void refuse_code(struct session *s, int r, const char *what)
{
	struct sm_error e = {0};

	error_sys(&e, -r, "%s", what);
	refuse(s, &e);
}

static void finish_ok(struct session *s, const void *p, size_t len)
{
	answer(s, WIRE_OK, p, len);
	session_free(s);
}

static void answer_status(struct session *s)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct seat_machine_status status;

	daemon_status(s->d, &status);
	wire_status_encode(&b, &status);
	finish_ok(s, b.data, b.len);
}

/* --------------------------------------------------------------------------------------------------- spawned */

static void spawned_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct spawned *sp = arg;
	struct session *s = sp->asker;

	if (!s)
		return;
	s->spawned = NULL;
	sp->asker = NULL;
	finish_ok(s, reply->p, reply->left);
}

static void spawned_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct spawned *sp = arg;

	mux_consumed(link_mux(sp->d->agent), sp->ch, stream, len);
}

static void spawned_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct spawned *sp = arg;
	struct session *s = sp->asker;
	struct mux *mux = daemon_agent(sp->d);

	if (s) {
		struct sm_error e = {0};

		s->spawned = NULL;
		error_set(&e, SM_ERROR_IO, code < 0 ? -code : EIO, "%s", *text ? text : "the machine's agent refused");
		refuse(s, &e);
	}
	if (mux && !mux_lost(mux)) {
		mux_set_handler(mux, ch, NULL, NULL);
		mux_close(mux, ch, 0, NULL);
	}
	daemon_busy(sp->d, -1);
	free(sp);
}

static const struct mux_callbacks spawned_callbacks = {
	.opened = spawned_opened,
	.data = spawned_data,
	.closed = spawned_closed,
};

static void begin_spawn(struct session *s)
{
	struct spawned *sp = calloc(1, sizeof(*sp));
	struct mux *mux = daemon_agent(s->d);
	int r = sp ? mux_open(mux, PROTO_EXEC, &s->payload, sp, &sp->ch) : -ENOMEM;

	if (r < 0) {
		free(sp);
		refuse_code(s, r, "machine");
		return;
	}
	sp->d = s->d;
	sp->asker = s;
	s->spawned = sp;
	s->state = SESSION_OPENING;
	mux_set_handler(mux, sp->ch, &spawned_callbacks, sp);
	daemon_busy(s->d, 1);
}

/* ------------------------------------------------------------------------------------------------------ pipe */

static void pipe_done(void *arg, int r, const char *why)
{
	struct session *s = arg;

	s->pipe = NULL;
	s->src = loop_remove(s->src);
	if (r == 0) {
		answer(s, WIRE_OK, NULL, 0);
		s->fd = -1; /* the pipe's */
		session_free(s);
	} else {
		struct sm_error e = {0};

		error_sys(&e, -r, "%s", why && *why ? why : "in the machine");
		refuse(s, &e);
	}
}

static void begin_pipe(struct session *s)
{
	int r;

	s->state = SESSION_OPENING;
	r = pipe_open(s->d, s->fd, &s->payload, pipe_done, s, &s->pipe);
	if (r < 0)
		refuse_code(s, r, "machine");
}

/* ------------------------------------------------------------------------------------------------------ link */

static void relay_ended(void *arg, struct relay *r, bool far_left, int code)
{
	struct daemon *d = arg;

	d->fresh_at_ns = time_now_ns() + EMULATOR_FILES_STALE_NS;
	daemon_busy(d, -1);
}

static const struct relay_hooks hooks = {.ended = relay_ended};

static void busy_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct session *s = arg;

	/* A link that is being freed has no mux to answer on. */
	if (s->link && !mux_lost(link_mux(s->link))) {
		mux_set_handler(link_mux(s->link), ch, NULL, NULL);
		mux_close(link_mux(s->link), ch, 0, NULL);
	}
	daemon_busy(s->d, -1);
}

static const struct mux_callbacks busy_callbacks = {.closed = busy_closed};

static void link_own_service(struct session *s, uint32_t ch, uint16_t service)
{
	struct mux *mux = link_mux(s->link);
	_cleanup_(buf_done) struct buf b = {0};
	struct seat_machine_status status;

	if (service == PROTO_MACHINE_BUSY) {
		mux_set_handler(mux, ch, &busy_callbacks, s);
		mux_opened(mux, ch, NULL);
		daemon_busy(s->d, 1);
		return;
	}
	if (service == PROTO_MACHINE_STATUS) {
		daemon_status(s->d, &status);
		wire_status_encode(&b, &status);
	}
	mux_opened(mux, ch, &b);
	mux_close(mux, ch, 0, NULL);
	if (service == PROTO_MACHINE_STOP)
		daemon_begin_stop(s->d);
}

static void link_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct session *s = arg;
	struct mux *mux = link_mux(s->link), *agent = daemon_agent(s->d);
	int r;

	if (service == PROTO_MACHINE_BUSY || service == PROTO_MACHINE_STATUS || service == PROTO_MACHINE_STOP) {
		link_own_service(s, ch, service);
		return;
	}
	if (!agent) {
		mux_close(mux, ch, -ECONNRESET, *s->d->died ? s->d->died : "the machine does not run");
		return;
	}
	if (service != PROTO_EXEC && service != PROTO_CONNECT && service != PROTO_STATS && service != PROTO_READ_FILE &&
	    service != PROTO_WRITE_FILE) {
		mux_close(mux, ch, -EOPNOTSUPP, "the machine offers no such service");
		return;
	}
	r = relay_open(mux, ch, agent, service, request->p, request->left, &hooks, s->d, NULL);
	if (r < 0)
		mux_close(mux, ch, r, "the machine has too much to do");
	else
		daemon_busy(s->d, 1);
}

static void link_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct session *s = arg;

	if (!mux_lost(link_mux(s->link)))
		mux_close(link_mux(s->link), ch, 0, NULL);
}

static void link_ended(struct link *l, int r, const char *why, void *arg)
{
	struct session *s = arg;

	if (r < 0)
		log_info("machine", "a client's link: %s (%s)", why, strerror(-r));
	session_free(s);
}

static void begin_link(struct session *s)
{
	static const struct mux_callbacks callbacks = {.open = link_open, .closed = link_closed};
	struct mux *mux;
	int r;

	s->src = loop_remove(s->src);
	r = answer(s, WIRE_OK, NULL, 0);
	if (r == 0)
		r = mux_new(MUX_SERVER, &callbacks, s, PROTO_DEFAULT_WINDOW, &mux);
	if (r < 0) {
		session_free(s);
		return;
	}
	r = mux_hello(mux, NULL);
	if (r == 0)
		r = link_new(s->d->loop, s->fd, mux, link_ended, s, &s->link);
	if (r < 0) {
		mux_free(mux);
		session_free(s);
		return;
	}
	s->state = SESSION_LINK;
}

/* --------------------------------------------------------------------------------------------------- requests */

static void serve(struct session *s)
{
	switch (s->request.type) {
	case WIRE_LINK:
		begin_link(s);
		break;
	case WIRE_CONNECT:
		begin_pipe(s);
		break;
	case WIRE_SPAWN:
		begin_spawn(s);
		break;
	default:
		finish_ok(s, NULL, 0);
	}
}

static void refuse_down(struct session *s)
{
	struct sm_error e = {0};

	error_set(&e, SM_ERROR_STATE, ECONNREFUSED, "the machine does not run");
	refuse(s, &e);
}

/* The request is complete. */
static void decide(struct session *s)
{
	struct daemon *d = s->d;

	s->state = SESSION_WAITING;
	switch (s->request.type) {
	case WIRE_STATUS:
		answer_status(s);
		return;
	case WIRE_STOP:
		daemon_begin_stop(d); /* answered when nothing is left */
		return;
	case WIRE_LINK:
	case WIRE_SPAWN:
	case WIRE_READY:
		break;
	case WIRE_CONNECT:
		if (d->state == DAEMON_DOWN) {
			refuse_down(s);
			return;
		}
		break;
	default:
		refuse_code(s, -EPROTO, "machine: the request");
		return;
	}
	if (d->state == DAEMON_STOPPING) {
		session_free(s); /* unanswered: it will ask a new daemon */
	} else if (daemon_agent(d) && s->request.type == WIRE_LINK && time_now_ns() < d->fresh_at_ns) {
		loop_timer_at(d->fresh_timer, d->fresh_at_ns);
	} else if (daemon_agent(d)) {
		serve(s);
	} else {
		if (*d->died && d->state == DAEMON_DOWN) {
			char line[300];
			int n = snprintf(line, sizeof(line), "the machine had died (%s); starting it again", d->died);

			answer(s, WIRE_NOTICE, line, (size_t)n);
		}
		daemon_want_up(d);
	}
}

/* More of the request: 1 complete, 0 not yet, else -errno. */
static int receive(struct session *s)
{
	for (;;) {
		bool in_head = s->head_len < WIRE_HEADER;
		size_t want = in_head ? WIRE_HEADER - s->head_len : s->request.len - s->payload.len;
		uint8_t piece[4096];
		ssize_t n;

		if (!in_head && !want)
			return 1;
		n = recv(s->fd, in_head ? s->head + s->head_len : piece, in_head ? want : MIN(want, sizeof(piece)),
			 MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (n == 0)
			return -ECONNRESET;
		if (!in_head) {
			if (buf_put(&s->payload, piece, (size_t)n) < 0)
				return -ENOMEM;
			continue;
		}
		s->head_len += (size_t)n;
		if (s->head_len == WIRE_HEADER && wire_header_decode(s->head, &s->request) < 0)
			return -EPROTO;
	}
}

static void on_ready(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct session *s = arg;
	int r;

	if (s->state != SESSION_ASKING) { /* nothing may come now: it hung up, or breaks the rules */
		session_free(s);
		return;
	}
	r = receive(s);
	if (r < 0)
		session_free(s);
	else if (r > 0)
		decide(s);
}

int session_accept(struct daemon *d, int fd)
{
	struct session *s = calloc(1, sizeof(*s));
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int r;

	if (!s) {
		fd_close(fd);
		return -ENOMEM;
	}
	*s = (struct session){.d = d, .fd = fd, .next = d->sessions, .prev = &d->sessions};
	if (s->next)
		s->next->prev = &s->next;
	d->sessions = s;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		r = -errno;
	else if (cred.uid != geteuid() && cred.uid != 0)
		r = -EPERM;
	else
		r = loop_add(d->loop, fd, EPOLLIN, on_ready, s, &s->src);
	if (r < 0)
		session_free(s);
	return r;
}

void sessions_up(struct daemon *d, const struct sm_error *why)
{
	struct session *next;

	for (struct session *s = d->sessions; s; s = next) {
		next = s->next;
		if (s->state != SESSION_WAITING || s->request.type == WIRE_STOP)
			continue;
		if (why)
			refuse(s, why);
		else
			serve(s);
	}
}

void sessions_end(struct daemon *d)
{
	while (d->sessions) {
		struct session *s = d->sessions;

		if (s->state == SESSION_WAITING && s->request.type == WIRE_STOP)
			answer(s, WIRE_OK, NULL, 0);
		if (s->link)
			link_drain(s->link, 100);
		session_free(s);
	}
}

bool sessions_waiting(const struct daemon *d)
{
	for (const struct session *s = d->sessions; s; s = s->next)
		if (s->state == SESSION_WAITING)
			return true;
	return false;
}
