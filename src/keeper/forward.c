/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-keeper --forward: a process beside a VM, on the host whatever the VM runs in, which accepts connections
 * on the host's ports and carries each over a CONNECT channel of the keeper's to a port in the guest; and those of
 * guest's ports to the host (inward.c). It has no more than the sockets that the library opened: the listening ones and
 * one connected to the keeper; and it ends with the VM. When that is suspended, it waits with the sockets for somebody
 * who wants it (waiting.c).
 *
 * Both ends of a connection are hostile: each direction holds at most one window, a reader that stops stops its writer,
 * and beyond MAX_CONNECTIONS new ones wait in the kernel's queue.
 */
#include "keeper/forward.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/loop.h"
#include "base/util.h"
#include "keeper/inward.h"
#include "keeper/waiting.h"
#include "keeper/wire.h"
#include "proto/flowpair.h"
#include "proto/link.h"

#define MAX_CONNECTIONS 2000u /* well below PROTO_MAX_CHANNELS */
#define ACCEPTS_A_TURN 64
#define PAUSE_NS 100000000ull /* after the process or the host ran out of descriptors */

struct forward;

struct listener {
	struct forward *f;
	struct loop_source *src;
	int fd;
	const struct port_text *at;
	struct stat st; /* a socket of a path: what it was when it was opened */
};

struct connection {
	struct forward *f;
	struct connection *next, **prev;
	uint32_t ch;
	int fd;
	const struct port_text *at;
	bool second; /* the guest's IPv4 loopback refused; its IPv6 one is asked */
	struct flow_pair pair;
	bool opened;
};

struct forward {
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	struct listener listeners[FORWARD_MAX];
	unsigned num_listeners;
	struct inward *inwards[FORWARD_MAX];
	unsigned num_inwards;
	struct connection *connections;
	unsigned num_connections;
	uint32_t wait_ch;
	struct loop_source *pause;
	bool started, paused; /* the VM takes connections; they wait for descriptors */
};

static void listen_again(struct forward *f);

/* --------------------------------------------------------------------------------------- connections */

static void connection_free(struct connection *c)
{
	struct forward *f = c->f;

	flow_pair_done(&c->pair);
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
	int fd = c->fd >= 0 ? c->fd : flow_pair_fd(&c->pair);

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

/* code: for the guest's side. */
static void connection_end(struct connection *c, int code)
{
	if (c->pair.error)
		reset(c);
	if (!mux_lost(c->f->mux)) {
		mux_set_handler(c->f->mux, c->ch, NULL, NULL);
		mux_close(c->f->mux, c->ch, code, NULL);
	}
	connection_free(c);
}

static void pair_ended(struct flow_pair *p)
{
	if (!flow_pair_lingers(p))
		connection_end(flow_pair_owner(struct connection, pair, p), p->error);
}

static const struct mux_callbacks connection_callbacks;

static int ask_guest(struct connection *c)
{
	char v4[] = "127.0.0.1", v6[] = "::1";
	char *path = c->at->guest_path;
	struct proto_connect x = {.host = path ? NULL : c->second ? v6 : v4, .path = path, .port = c->at->guest_port};
	_cleanup_(buf_done) struct buf b = {0};
	int r = proto_connect_encode(&b, &x);

	if (r == 0)
		r = mux_open(c->f->mux, PROTO_CONNECT, &b, NULL, &c->ch);
	return r < 0 ? r : mux_set_handler(c->f->mux, c->ch, &connection_callbacks, &c->pair);
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct connection *c = flow_pair_owner(struct connection, pair, arg);
	struct flow_channel to = {c->f->loop, c->f->mux, ch, 0}, from = {c->f->loop, c->f->mux, ch, 1};

	c->opened = true;
	c->pair.error = flow_pair_join(&c->pair, from, to, TAKE_FD(c->fd));
	flow_pair_settle(&c->pair);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct connection *c = flow_pair_owner(struct connection, pair, arg);

	if (c->opened) {
		/* The guest's last bytes may still wait for the peer. */
		flow_pair_left(&c->pair, code);
		return;
	}
	if (code == -ECONNREFUSED && !c->second && !c->at->guest_path && !mux_lost(c->f->mux)) {
		mux_set_handler(c->f->mux, ch, NULL, NULL);
		mux_close(c->f->mux, ch, 0, NULL);
		c->second = true;
		if (ask_guest(c) == 0)
			return;
	}
	c->pair.error = code ? code : -ECONNREFUSED;
	connection_end(c, 0);
}

static const struct mux_callbacks connection_callbacks = {
	.opened = on_opened,
	.data = flow_pair_on_data,
	.eof = flow_pair_on_eof,
	.writable = flow_pair_on_writable,
	.closed = on_closed,
};

/* Takes fd. */
static void connection_new(struct forward *f, int fd, const struct port_text *at)
{
	struct connection *c = calloc(1, sizeof(*c));
	int one = 1;

	if (!c) {
		fd_close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*c = (struct connection){.f = f, .fd = fd, .at = at, .next = f->connections, .prev = &f->connections};
	flow_pair_init(&c->pair, (struct flow_channel){.loop = f->loop, .mux = f->mux}, pair_ended);
	c->pair.resets = true;
	if (c->next)
		c->next->prev = &c->next;
	f->connections = c;
	f->num_connections++;
	if (ask_guest(c) < 0) {
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
			connection_new(f, fd, l->at);
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
	} else if (news.kind == KEEPER_SUSPENDING) {
		f->started = false;
		listen_not(f);
	} else if (!f->started) {
		/* Before that the agent connects to nothing. */
		f->started = true;
		listen_again(f);
		for (unsigned i = 0; i < f->num_inwards; i++)
			inward_begin(f->inwards[i]);
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

static int add_listener(struct forward *f, const struct forward_port *p)
{
	struct listener *l = &f->listeners[f->num_listeners];
	int r = fd_set_nonblock(p->fd, true);

	*l = (struct listener){.f = f, .fd = p->fd, .at = &p->at};
	if (r == 0 && p->at.host_path && lstat(p->at.host_path, &l->st) < 0)
		r = -errno;
	if (r == 0)
		r = loop_add(f->loop, l->fd, 0, on_listener, l, &l->src);
	f->num_listeners += r == 0;
	return r;
}

static int begin(struct forward *f, int link_fd, const struct forward_port *ports, unsigned count)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_wait w = {.forwards = true};
	int r = loop_new(&f->loop);

	if (r == 0)
		r = loop_add_timer(f->loop, on_pause_over, f, &f->pause);
	for (unsigned i = 0; r == 0 && i < count; i++)
		if (!ports[i].at.reverse)
			r = add_listener(f, &ports[i]);
	if (r == 0)
		r = link_client(f->loop, link_fd, &link_callbacks, on_link_end, f, &f->link);
	if (r == 0)
		f->mux = link_mux(f->link);
	for (unsigned i = 0; r == 0 && i < count; i++)
		if (ports[i].at.reverse)
			r = inward_new(f->loop, f->mux, &ports[i].at, &f->inwards[f->num_inwards++]);
	if (r == 0)
		r = keeper_wait_encode(&b, &w);
	return r < 0 ? r : mux_open(f->mux, PROTO_KEEPER_WAIT, &b, NULL, &f->wait_ch);
}

/* Before they are closed: who finds one that nobody listens on may take its place. */
static void remove_sockets(struct forward *f)
{
	for (unsigned i = 0; i < f->num_listeners; i++) {
		struct listener *l = &f->listeners[i];
		struct stat st;

		if (l->at->host_path && lstat(l->at->host_path, &st) == 0 && st.st_dev == l->st.st_dev &&
		    st.st_ino == l->st.st_ino)
			unlink(l->at->host_path);
	}
}

/* All but the listening sockets. */
static void done(struct forward *f)
{
	f->started = false;
	f->link = link_free(f->link); /* its channels tell their connections */
	while (f->connections) {
		reset(f->connections);
		connection_free(f->connections);
	}
	f->loop = loop_free(f->loop);
}

/* While the VM is suspended nothing of the guest's leads anywhere. */
static int wait_outward(const struct waiting *w, const struct forward_port *ports, unsigned count)
{
	struct forward_port outward[FORWARD_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (!ports[i].at.reverse)
			outward[n++] = ports[i];
	return n ? waiting_run(w, outward, n) : 0;
}

int forward_run(int link_fd, const struct waiting *w, const struct forward_port *ports, unsigned count)
{
	struct forward f = {0};
	int r;

	/* Two descriptors a connection. What the host does not grant is waited for (on_listener). */
	fd_limit_raise(2 * MAX_CONNECTIONS + FORWARD_MAX + 64);
	r = begin(&f, link_fd, ports, count);
	if (r == 0)
		r = loop_run(f.loop);
	if (r == 0) {
		done(&f);
		r = wait_outward(w, ports, count);
	}
	if (r != WAITING_HANDED_OVER)
		remove_sockets(&f);
	return MIN(r, 0);
}
