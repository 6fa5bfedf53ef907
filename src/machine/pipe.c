/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's socket as one end of a byte pipe in the machine. Bytes from the socket are read only as far as the agent's
 * credit goes; bytes from the agent wait in `out` (at most the window) until the socket takes them, and are
 * acknowledged then.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "machine/daemon.h"
#include "proto/messages.h"

struct pipe {
	struct daemon *d;
	struct mux *mux; /* NULL: the link is lost */
	uint32_t ch;
	int fd;
	struct loop_source *src;
	struct buf out;
	bool opened, in_eof; /* in_eof: nothing more comes from the socket */
	bool agent_eof, closing;
	pipe_open_fn done;
	void *arg;
};

static void destroy(struct pipe *p, int code)
{
	if (p->mux && !mux_lost(p->mux)) {
		mux_set_handler(p->mux, p->ch, NULL, NULL);
		mux_close(p->mux, p->ch, code, NULL);
	}
	loop_remove(p->src);
	fd_close(p->fd);
	buf_done(&p->out);
	daemon_busy(p->d, -1);
	free(p);
}

/*
 * What to wait for on the socket. EPOLLPRI never comes on a unix socket: it stands for "only a hang-up". Without credit
 * not even that is asked for, since what the client sent before it hung up cannot be read yet.
 */
static void rearm(struct pipe *p)
{
	uint32_t events = 0;

	if (p->in_eof || p->closing)
		events |= EPOLLPRI;
	else if (mux_credit(p->mux, p->ch, 0))
		events |= EPOLLIN;
	if (p->out.len)
		events |= EPOLLOUT;
	loop_modify(p->src, events);
}

/* Writes what waits: 0, or -errno when the socket is dead. */
static int drain(struct pipe *p)
{
	while (p->out.len) {
		ssize_t n = send(p->fd, p->out.data, p->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		buf_consume(&p->out, (size_t)n);
		if (p->mux && !mux_lost(p->mux))
			mux_consumed(p->mux, p->ch, 1, (size_t)n);
	}
	if (p->agent_eof)
		shutdown(p->fd, SHUT_WR);
	return 0;
}

/* Reads as far as credit goes: 0, or -errno when the socket is dead. */
static int fill(struct pipe *p)
{
	uint8_t piece[65536];
	size_t room = MIN(mux_credit(p->mux, p->ch, 0), sizeof(piece));
	ssize_t n;

	if (!room || p->in_eof)
		return 0;
	n = recv(p->fd, piece, room, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0) {
		p->in_eof = true;
		return mux_send_eof(p->mux, p->ch, 0);
	}
	return mux_send(p->mux, p->ch, 0, piece, (size_t)n);
}

/* After anything happened. The pipe may be gone when this returns. */
static void settle(struct pipe *p, int r)
{
	if (r < 0 || (p->closing && !p->out.len))
		destroy(p, r < 0 ? -ECONNRESET : 0);
	else
		rearm(p);
}

static void on_socket(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct pipe *p = arg;
	int r = 0;

	if (events & EPOLLERR)
		r = -ECONNRESET;
	if (r == 0 && (events & (EPOLLOUT | EPOLLHUP)))
		r = drain(p);
	if (r == 0 && !p->closing && (events & (EPOLLIN | EPOLLHUP)))
		r = fill(p);
	/* Both directions are over on its side, and nothing can be told to it any more. */
	if (r == 0 && (events & EPOLLHUP) && p->in_eof)
		r = -EPIPE;
	settle(p, r);
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct pipe *p = arg;
	int r = fd_set_nonblock(p->fd, true);

	p->opened = true;
	p->done(p->arg, 0, "");
	if (r >= 0)
		r = loop_add(p->d->loop, p->fd, EPOLLIN, on_socket, p, &p->src);
	if (r < 0)
		destroy(p, r);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *data, size_t len)
{
	struct pipe *p = arg;
	int r = stream == 1 ? buf_put(&p->out, data, len) : -EPROTO;

	settle(p, r < 0 ? r : drain(p));
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct pipe *p = arg;

	p->agent_eof = true;
	settle(p, drain(p));
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	rearm(arg);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct pipe *p = arg;

	if (!p->opened) {
		p->done(p->arg, code < 0 ? code : -ECONNREFUSED, text);
		p->fd = -1;
		destroy(p, 0);
		return;
	}
	if (mux_lost(p->mux)) {
		p->mux = NULL;
		destroy(p, 0);
		return;
	}
	/* The last bytes still go to the socket; the channel itself is done with. */
	mux_set_handler(p->mux, p->ch, NULL, NULL);
	mux_close(p->mux, p->ch, 0, NULL);
	p->mux = NULL;
	p->closing = p->agent_eof = true;
	settle(p, drain(p));
}

static const struct mux_callbacks callbacks = {
	.opened = on_opened,
	.data = on_data,
	.eof = on_eof,
	.writable = on_writable,
	.closed = on_closed,
};

int pipe_open(struct daemon *d, int fd, const struct buf *request, pipe_open_fn done, void *arg, struct pipe **ret)
{
	struct mux *mux = daemon_agent(d);
	struct pipe *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	*p = (struct pipe){.d = d, .mux = mux, .fd = fd, .done = done, .arg = arg};
	r = mux_open(mux, PROTO_CONNECT, request, p, &p->ch);
	if (r < 0) {
		free(p);
		return r;
	}
	mux_set_handler(mux, p->ch, &callbacks, p);
	daemon_busy(d, 1);
	*ret = p;
	return 0;
}

static void nobody(void *arg, int r, const char *why)
{
}

void pipe_cancel(struct pipe *p)
{
	p->done = nobody;
	p->arg = NULL;
	destroy(p, -ECANCELED);
}
