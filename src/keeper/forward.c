/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-keeper --forward: a process beside a VM, on the host whatever the VM runs in, which accepts connections
 * on the host's ports and carries each over a CONNECT channel of the keeper's to a port in the guest. It has no more
 * than the sockets that the library opened: the listening ones and one connected to the keeper; and it ends with the
 * VM.
 *
 * Both ends of a connection are hostile: each direction holds at most one window, a reader that stops stops its writer,
 * and beyond MAX_CONNECTIONS new ones wait in the kernel's queue.
 */
#include "keeper/forward.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/loop.h"
#include "base/util.h"
#include "keeper/wire.h"
#include "proto/flow.h"
#include "proto/link.h"

#define MAX_CONNECTIONS 2000u /* well below PROTO_MAX_CHANNELS */
#define ACCEPTS_A_TURN 64
#define PAUSE_NS 100000000ull /* after the process or the host ran out of descriptors */

struct forward;

struct listener {
	struct forward *f;
	struct loop_source *src;
	int fd;
	uint16_t port; /* in the guest */
};

struct connection {
	struct forward *f;
	struct connection *next, **prev;
	uint32_t ch;
	int fd;
	uint16_t port;
	bool second; /* the guest's IPv4 loopback refused; its IPv6 one is asked */
	struct inflow in;
	struct outflow out;
	bool opened, in_open, out_open, busy;
	int error;
};

struct forward {
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	struct listener listeners[FORWARD_MAX];
	unsigned num_listeners;
	struct connection *connections;
	unsigned num_connections;
	uint32_t wait_ch;
	struct loop_source *pause;
	bool started, paused;
};

static void listen_again(struct forward *f);

/* --------------------------------------------------------------------------------------- connections */

static void connection_free(struct connection *c)
{
	struct forward *f = c->f;

	inflow_done(&c->in);
	outflow_done(&c->out);
	fd_close(c->fd);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	free(c);
	if (f->num_connections-- == MAX_CONNECTIONS)
		listen_again(f);
}

/* The peer sees a reset, not an orderly end. */
static void reset(struct connection *c)
{
	const struct linger now = {.l_onoff = 1};
	int fd = c->fd >= 0 ? c->fd : c->in.fd >= 0 ? c->in.fd : c->out.fd;

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

static void connection_end(struct connection *c, int code)
{
	if (c->error)
		reset(c);
	if (!mux_lost(c->f->mux)) {
		mux_set_handler(c->f->mux, c->ch, NULL, NULL);
		mux_close(c->f->mux, c->ch, code, NULL);
	}
	connection_free(c);
}

/* After anything happened, from the outermost call: the flows call back from deep inside. */
static void settle(struct connection *c)
{
	if (!c->busy && (c->error || !(c->in_open || c->out_open)))
		connection_end(c, c->error);
}

static void in_ended(void *arg, int error)
{
	struct connection *c = arg;

	c->in_open = false;
	/* A peer that reads no more is no failure: its own words may go on. */
	if (error && error != -EPIPE)
		c->error = error;
	settle(c);
}

static void out_ended(void *arg, int error)
{
	struct connection *c = arg;

	c->out_open = false;
	if (error)
		c->error = error;
	settle(c);
}

static const struct mux_callbacks connection_callbacks;

static int ask_guest(struct connection *c)
{
	char v4[] = "127.0.0.1", v6[] = "::1";
	struct proto_connect x = {.host = c->second ? v6 : v4, .port = c->port};
	_cleanup_(buf_done) struct buf b = {0};
	int r = proto_connect_encode(&b, &x);

	if (r == 0)
		r = mux_open(c->f->mux, PROTO_CONNECT, &b, NULL, &c->ch);
	return r < 0 ? r : mux_set_handler(c->f->mux, c->ch, &connection_callbacks, c);
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct connection *c = arg;
	struct flow_channel to = {c->f->loop, c->f->mux, ch, 0}, from = {c->f->loop, c->f->mux, ch, 1};
	int out = fcntl(c->fd, F_DUPFD_CLOEXEC, 3), r = 0;

	c->opened = c->busy = c->in_open = c->out_open = true;
	if (out < 0) {
		r = -EMFILE;
	} else {
		r = inflow_begin(&c->in, from, TAKE_FD(c->fd), false, in_ended, c);
		c->in.shut = true;
		if (r == 0)
			r = outflow_begin(&c->out, to, out, false, out_ended, c);
		else
			fd_close(out);
	}
	if (r < 0)
		c->error = r;
	c->busy = false;
	settle(c);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct connection *c = arg;

	c->busy = true;
	inflow_data(&c->in, p, len);
	c->busy = false;
	settle(c);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct connection *c = arg;

	c->busy = true;
	inflow_eof(&c->in);
	c->busy = false;
	settle(c);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct connection *c = arg;

	c->busy = true;
	outflow_writable(&c->out);
	c->busy = false;
	settle(c);
}

/* The guest's last bytes may still wait for the peer. */
static void close_opened(struct connection *c, int code)
{
	c->busy = true;
	if (code)
		c->error = code;
	else if (c->in_open && !c->in.got_eof)
		inflow_eof(&c->in);
	outflow_done(&c->out);
	c->out_open = false;
	c->busy = false;
	settle(c);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct connection *c = arg;

	if (c->opened) {
		close_opened(c, code);
		return;
	}
	if (code == -ECONNREFUSED && !c->second && !mux_lost(c->f->mux)) {
		mux_set_handler(c->f->mux, ch, NULL, NULL);
		mux_close(c->f->mux, ch, 0, NULL);
		c->second = true;
		if (ask_guest(c) == 0)
			return;
	}
	c->error = code ? code : -ECONNREFUSED;
	connection_end(c, 0);
}

static const struct mux_callbacks connection_callbacks = {
	.opened = on_opened,
	.data = on_data,
	.eof = on_eof,
	.writable = on_writable,
	.closed = on_closed,
};

/* Takes fd. */
static void connection_new(struct forward *f, int fd, uint16_t port)
{
	struct connection *c = calloc(1, sizeof(*c));
	int one = 1;

	if (!c) {
		fd_close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*c = (struct connection){.f = f, .fd = fd, .port = port, .next = f->connections, .prev = &f->connections};
	c->in.fd = c->out.fd = -1;
	if (c->next)
		c->next->prev = &c->next;
	f->connections = c;
	f->num_connections++;
	if (ask_guest(c) < 0) {
		c->error = -ECONNREFUSED;
		reset(c);
		connection_free(c);
	}
}

/* ---------------------------------------------------------------------------------------- listening */

/* Until there is room again: who comes waits in the kernel's queue. */
static void listen_not(struct forward *f)
{
	for (unsigned i = 0; i < f->num_listeners; i++)
		loop_modify(f->listeners[i].src, 0);
}

static void listen_again(struct forward *f)
{
	for (unsigned i = 0; f->started && !f->paused && i < f->num_listeners; i++)
		loop_modify(f->listeners[i].src, EPOLLIN);
}

static void on_pause_over(struct loop *loop, struct loop_source *src, void *arg)
{
	struct forward *f = arg;

	f->paused = false;
	if (f->num_connections < MAX_CONNECTIONS)
		listen_again(f);
}

static void on_listener(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct listener *l = arg;
	struct forward *f = l->f;

	for (int i = 0; i < ACCEPTS_A_TURN; i++) {
		int fd;

		if (f->num_connections >= MAX_CONNECTIONS) {
			listen_not(f);
			return;
		}
		fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
			f->paused = true;
			listen_not(f);
			loop_timer_at(f->pause, time_now_ns() + PAUSE_NS);
			return;
		}
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd >= 0)
			connection_new(f, fd, l->port);
	}
}

/* ------------------------------------------------------------------------------------- the VM's life */

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct forward *f = arg;
	struct keeper_news news;

	if (ch != f->wait_ch || keeper_news_decode(event, &news) < 0)
		return;
	if (news.kind == KEEPER_ENDED) {
		loop_stop(f->loop, 0);
	} else if (!f->started) {
		/* Before that the agent connects to nothing. */
		f->started = true;
		listen_again(f);
	}
}

static void on_wait_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct forward *f = arg;

	mux_close(f->mux, ch, 0, NULL);
	if (ch == f->wait_ch)
		loop_stop(f->loop, 0);
}

static const struct mux_callbacks link_callbacks = {.event = on_event, .closed = on_wait_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	loop_stop(((struct forward *)arg)->loop, 0);
}

static int begin(struct forward *f, int link_fd, const struct forward_port *ports, unsigned count)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_wait w = {0};
	int r = loop_new(&f->loop);

	if (r == 0)
		r = loop_add_timer(f->loop, on_pause_over, f, &f->pause);
	for (unsigned i = 0; r == 0 && i < count; i++) {
		struct listener *l = &f->listeners[i];

		*l = (struct listener){.f = f, .fd = ports[i].fd, .port = ports[i].guest_port};
		r = fd_set_nonblock(l->fd, true);
		if (r == 0)
			r = loop_add(f->loop, l->fd, 0, on_listener, l, &l->src);
		f->num_listeners++;
	}
	if (r == 0)
		r = mux_new(MUX_CLIENT, &link_callbacks, f, PROTO_DEFAULT_WINDOW, &f->mux);
	if (r == 0)
		r = link_new(f->loop, link_fd, f->mux, on_link_end, f, &f->link);
	if (r == 0)
		r = mux_hello(f->mux, NULL);
	if (r == 0)
		r = keeper_wait_encode(&b, &w);
	return r < 0 ? r : mux_open(f->mux, PROTO_KEEPER_WAIT, &b, NULL, &f->wait_ch);
}

/* Two descriptors a connection. What the host does not grant is waited for (on_listener). */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)(2 * MAX_CONNECTIONS + FORWARD_MAX + 64));
	setrlimit(RLIMIT_NOFILE, &limit);
}

int forward_run(int link_fd, const struct forward_port *ports, unsigned count)
{
	struct forward f = {0};
	int r;

	raise_limit();
	r = begin(&f, link_fd, ports, count);

	if (r == 0)
		r = loop_run(f.loop);
	/* The ports are free from here on; what goes with the process needs no tidying. */
	return r;
}
