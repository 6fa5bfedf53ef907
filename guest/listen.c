/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports and sockets of the guest that lead to the host: LISTEN and ACCEPT. The keeper says where to listen, and nobody
 * in the guest has a part in that, or in where it leads. A connection is accepted when there is an ACCEPT for it; until
 * then it waits in the kernel's queue.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/agent.h"

#define BACKLOG 1024
#define MAX_WAITING 16

struct listener {
	struct listener *next;
	struct agent *a;
	uint32_t ch;
	char *path; /* NULL: port */
	uint16_t port;
	int fds[2]; /* both loopbacks; -1: none */
	struct loop_source *srcs[2];
	uint32_t waiting[MAX_WAITING]; /* channels of ACCEPTs */
	unsigned num_waiting;
};

static void listener_free(struct listener *l)
{
	struct listener **link = &l->a->listeners;

	while (*link && *link != l)
		link = &(*link)->next;
	if (*link)
		*link = l->next;
	for (unsigned i = 0; i < l->num_waiting; i++) {
		mux_set_handler(l->a->mux, l->waiting[i], NULL, NULL);
		agent_refuse(l->a, l->waiting[i], -ECONNABORTED, "nothing listens there any more");
	}
	for (unsigned i = 0; i < 2; i++) {
		loop_remove(l->srcs[i]);
		fd_close(l->fds[i]);
	}
	if (l->path && l->fds[0] >= 0)
		unlink(l->path);
	free(l->path);
	free(l);
}

void listen_abandon_all(struct agent *a)
{
	while (a->listeners)
		listener_free(a->listeners);
}

static struct listener *find(struct agent *a, const struct proto_connect *at)
{
	for (struct listener *l = a->listeners; l; l = l->next)
		if (at->path ? l->path && streq(l->path, at->path) : !l->path && l->port == at->port)
			return l;
	return NULL;
}

/* ------------------------------------------------------------------------------------------ ACCEPT */

static void arm(struct listener *l)
{
	for (unsigned i = 0; i < 2; i++)
		if (l->srcs[i])
			loop_modify(l->srcs[i], l->num_waiting ? EPOLLIN : 0);
}

static uint32_t take_waiting(struct listener *l, unsigned i)
{
	uint32_t ch = l->waiting[i];

	memmove(&l->waiting[i], &l->waiting[i + 1], (--l->num_waiting - i) * sizeof(*l->waiting));
	mux_set_handler(l->a->mux, ch, NULL, NULL);
	return ch;
}

static void accept_from(struct listener *l, int fd)
{
	int one = 1;

	while (l->num_waiting) {
		int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (peer < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (peer < 0)
			break;
		if (!l->path)
			setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		tunnel_join(l->a, take_waiting(l, 0), peer, false);
	}
}

static void on_ready(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct listener *l = arg;

	accept_from(l, l->fds[src == l->srcs[1]]);
	arm(l);
}

static void on_waiting_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct listener *l = arg;

	for (unsigned i = 0; i < l->num_waiting; i++)
		if (l->waiting[i] == ch)
			take_waiting(l, i);
	mux_close(l->a->mux, ch, 0, NULL);
	arm(l);
}

static const struct mux_callbacks waiting_callbacks = {.closed = on_waiting_closed};

void accept_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_connect at;
	struct listener *l;
	int r = proto_connect_decode(request, &at);

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed ACCEPT request");
		return;
	}
	l = find(a, &at);
	proto_connect_done(&at);
	if (!l || l->num_waiting == MAX_WAITING) {
		agent_refuse(a, ch, l ? -EMFILE : -ESRCH, l ? "enough wait there already" : "nothing listens there");
		return;
	}
	l->waiting[l->num_waiting++] = ch;
	mux_set_handler(a->mux, ch, &waiting_callbacks, l);
	arm(l);
}

/* ------------------------------------------------------------------------------------------ LISTEN */

static int listen_tcp(uint16_t port, bool v6)
{
	struct sockaddr_in a4 = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 a6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	_fd_ int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4, v6 ? sizeof(a6) : sizeof(a4)) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Everybody in the guest may connect. */
static int listen_unix(const char *path)
{
	int fd = unix_listen_again(path, BACKLOG), r = fd;

	if (fd >= 0)
		r = fd_set_nonblock(fd, true);
	if (r == 0 && chmod(path, 0666) < 0)
		r = -errno;
	if (fd >= 0 && r < 0)
		fd_close(fd);
	return r < 0 ? r : fd;
}

static int begin(struct listener *l)
{
	int r;

	l->fds[0] = l->path ? listen_unix(l->path) : listen_tcp(l->port, false);
	if (l->fds[0] < 0)
		return l->fds[0];
	r = loop_add(l->a->loop, l->fds[0], 0, on_ready, l, &l->srcs[0]);
	if (r < 0 || l->path)
		return r;
	l->fds[1] = listen_tcp(l->port, true);
	if (l->fds[1] == -EADDRINUSE)
		return -EADDRINUSE;
	return l->fds[1] < 0 ? 0 : loop_add(l->a->loop, l->fds[1], 0, on_ready, l, &l->srcs[1]);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct listener *l = arg;
	struct agent *a = l->a;

	mux_set_handler(a->mux, ch, NULL, NULL);
	listener_free(l);
	mux_close(a->mux, ch, 0, NULL);
}

static const struct mux_callbacks listener_callbacks = {.closed = on_closed};

void listen_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_connect at;
	struct listener *l;
	int r = proto_connect_decode(request, &at);

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed LISTEN request");
		return;
	}
	l = find(a, &at) ? NULL : calloc(1, sizeof(*l));
	r = l ? 0 : -EADDRINUSE;
	if (l) {
		*l = (struct listener){.next = a->listeners,
				       .a = a,
				       .ch = ch,
				       .path = TAKE_PTR(at.path),
				       .port = at.port,
				       .fds = {-1, -1}};
		a->listeners = l;
		r = begin(l);
	}
	if (r < 0 && l && l->path)
		agent_refuse(a, ch, r, "%s: %s", l->path, strerror(-r));
	else if (r < 0)
		agent_refuse(a, ch, r, "port %u of the guest: %s", at.port, strerror(-r));
	proto_connect_done(&at);
	if (r < 0 && l)
		listener_free(l);
	if (r < 0)
		return;
	mux_set_handler(a->mux, ch, &listener_callbacks, l);
	mux_opened(a->mux, ch, NULL);
}
