/* SPDX-License-Identifier: Apache-2.0 */
/* See inward.h. What goes with the process needs no tidying. */
#include "keeper/inward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "proto/flowpair.h"
#include "proto/messages.h"

#define MAX_CONNECTIONS 500u
#define AGAIN_NS 500000000ull /* a VM that is paused takes nothing */

struct inward {
	struct loop *loop;
	struct mux *mux;
	const struct port_text *port;
	struct visitor *awaited; /* has an ACCEPT at the agent */
	unsigned num;
	struct loop_source *again;
	bool paused; /* asks again at `again` */
	bool over;   /* the agent accepts nothing there any more */
};

/* A connection of the guest's. */
struct visitor {
	struct inward *w;
	uint32_t ch;
	int fd; /* until it is connected; -1 */
	struct loop_source *connecting;
	bool opened, joined, early_eof;
	struct buf early; /* what came before it was connected: at most a window */
	struct flow_pair pair;
};

static void ask(struct inward *w);

static void visitor_end(struct visitor *v, int code)
{
	struct inward *w = v->w;

	loop_remove(v->connecting);
	fd_close(v->fd);
	flow_pair_done(&v->pair);
	buf_done(&v->early);
	if (!mux_lost(w->mux)) {
		mux_set_handler(w->mux, v->ch, NULL, NULL);
		mux_close(w->mux, v->ch, code, NULL);
	}
	if (w->awaited == v)
		w->awaited = NULL;
	free(v);
	w->num--;
	ask(w);
}

static void pair_ended(struct flow_pair *p)
{
	if (!flow_pair_lingers(p))
		visitor_end(flow_pair_owner(struct visitor, pair, p), p->error);
}

/* ------------------------------------------------------------------------------------------ this host */

static int connect_tcp(const struct port_text *p)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(p->host_port)};
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(p->host_port)};
	bool v4 = inet_pton(AF_INET, p->address, &a4.sin_addr) == 1;
	_fd_ int fd = -1;
	int one = 1;

	if (!v4 && inet_pton(AF_INET6, p->address, &a6.sin6_addr) != 1)
		return -EINVAL;
	fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, v4 ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6, v4 ? sizeof(a4) : sizeof(a6)) < 0 &&
	    errno != EINPROGRESS)
		return -errno;
	return TAKE_FD(fd);
}

static void join(struct visitor *v)
{
	struct flow_channel to = {v->w->loop, v->w->mux, v->ch, 0}, from = {v->w->loop, v->w->mux, v->ch, 1};
	struct flow_pair *p = &v->pair;

	v->joined = true;
	p->error = flow_pair_join(p, from, to, TAKE_FD(v->fd));
	p->busy = true;
	if (p->error == 0 && v->early.len)
		inflow_data(&p->in, v->early.data, v->early.len);
	if (p->error == 0 && v->early_eof)
		inflow_eof(&p->in);
	p->busy = false;
	buf_done(&v->early);
	flow_pair_settle(p);
}

static void on_connected(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct visitor *v = arg;
	int r = socket_error(v->fd);

	v->connecting = loop_remove(v->connecting);
	if (r < 0)
		visitor_end(v, r);
	else
		join(v);
}

/* ------------------------------------------------------------------------------------------ the guest */

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct visitor *v = flow_pair_owner(struct visitor, pair, arg);
	struct inward *w = v->w;
	const struct port_text *p = w->port;
	int r;

	v->opened = true;
	w->awaited = NULL;
	ask(w);
	v->fd = p->host_path ? unix_connect_nonblock(p->host_path) : connect_tcp(p);
	r = v->fd < 0 ? v->fd : loop_add(w->loop, v->fd, EPOLLOUT, on_connected, v, &v->connecting);
	if (r < 0)
		visitor_end(v, r);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct visitor *v = flow_pair_owner(struct visitor, pair, arg);

	if (v->joined)
		flow_pair_on_data(arg, ch, user, stream, p, len);
	else if (buf_put(&v->early, p, len) < 0)
		visitor_end(v, -ENOMEM);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct visitor *v = flow_pair_owner(struct visitor, pair, arg);

	v->early_eof = true;
	if (v->joined)
		flow_pair_on_eof(arg, ch, user, stream);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct visitor *v = flow_pair_owner(struct visitor, pair, arg);

	if (v->joined)
		flow_pair_on_writable(arg, ch, user, stream);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct visitor *v = flow_pair_owner(struct visitor, pair, arg);

	if (v->joined) {
		flow_pair_left(&v->pair, code);
		return;
	}
	if (!v->opened && (code == -EHOSTDOWN || code == -EAGAIN)) {
		v->w->paused = true;
		loop_timer_at(v->w->again, time_now_ns() + AGAIN_NS);
	} else {
		v->w->over |= !v->opened;
	}
	visitor_end(v, 0);
}

static const struct mux_callbacks visitor_callbacks = {
	.opened = on_opened,
	.data = on_data,
	.eof = on_eof,
	.writable = on_writable,
	.closed = on_closed,
};

static void ask(struct inward *w)
{
	struct proto_connect at = {.path = w->port->guest_path, .port = w->port->guest_port};
	char loopback[] = "127.0.0.1";
	_cleanup_(buf_done) struct buf b = {0};
	struct visitor *v;

	if (w->awaited || w->paused || w->over || w->num >= MAX_CONNECTIONS || mux_lost(w->mux))
		return;
	v = calloc(1, sizeof(*v));
	if (!v)
		return;
	*v = (struct visitor){.w = w, .fd = -1};
	flow_pair_init(&v->pair, (struct flow_channel){.loop = w->loop, .mux = w->mux}, pair_ended);
	at.host = at.path ? NULL : loopback;
	if (proto_connect_encode(&b, &at) < 0 || mux_open(w->mux, PROTO_ACCEPT, &b, NULL, &v->ch) < 0) {
		free(v);
		return;
	}
	mux_set_handler(w->mux, v->ch, &visitor_callbacks, &v->pair);
	w->awaited = v;
	w->num++;
}

static void on_again(struct loop *loop, struct loop_source *src, void *arg)
{
	struct inward *w = arg;

	w->paused = false;
	ask(w);
}

int inward_new(struct loop *loop, struct mux *mux, const struct port_text *port, struct inward **ret)
{
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	**ret = (struct inward){.loop = loop, .mux = mux, .port = port};
	return loop_add_timer(loop, on_again, *ret, &(*ret)->again);
}

void inward_begin(struct inward *w)
{
	ask(w);
}
