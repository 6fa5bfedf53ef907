/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's unix socket: clients, their connections and channels, what all of them are told. See wire.h. */
#include "keeper/client.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define LISTEN_BACKLOG 1024
#define OWN_FDS 512u /* what the keeper has beside its clients: the monitor's files, logs, watches */
/*
 * Beyond args.clients a client is late: it may look at the VM and end it, and is told what is in its way if it wants
 * more. Late ones have a limit of their own, and a moment each; who comes after them waits in the kernel's queue.
 */
#define MAX_LATE 64
#define LATE_NS (10 * 1000000000ull)

static void client_free(struct client *c)
{
	if (c->k->attach_client == c)
		c->k->attach_client = NULL;
	if (c->k->pause.client == c)
		c->k->pause.client = NULL;
	if (c->k->saving.client == c)
		c->k->saving.client = NULL;
	if (c->k->rewinding.client == c)
		c->k->rewinding.client = NULL;
	if (c->k->spare.client == c)
		spare_client_gone(c->k);
	branch_drop(c->k, c, 0);
	snapshot_copied(c->k, c, 0);
	execs_client_gone(c->k, link_mux(c->link), 0);
	counters_client_gone(c->k, link_mux(c->link), 0);
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	(*(c->late ? &c->k->num_late : &c->k->num_clients))--;
	c->late = loop_remove(c->late);
	if (c->k->listen_src)
		loop_modify(c->k->listen_src, EPOLLIN); /* there is room again */
	while (c->waiters) {
		struct waiter *w = c->waiters;

		c->waiters = w->next;
		free(w);
	}
	link_free(c->link);
	free(c);
}

/* -------------------------------------------------------------------------------------- callbacks */

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct client *c = arg;
	int r = client_serve(c, ch, service, request);

	if (r < 0)
		mux_close(link_mux(c->link), ch, r, client_refusal(service, r));
}

static void drop_waiter(struct client *c, uint32_t ch)
{
	for (struct waiter **w = &c->waiters, *dead; (dead = *w); w = &(*w)->next) {
		bool owner = dead->owner;

		if (dead->ch != ch)
			continue;
		*w = dead->next;
		free(dead);
		if (owner)
			keeper_end(c->k, SM_REASON_CLIENT_GONE, 0, "the program that ran it went away");
		return;
	}
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct client *c = arg;

	mux_close(link_mux(c->link), ch, 0, "");
	if (c->k->attach_client == c && c->k->attach_ch == ch)
		c->k->attach_client = NULL;
	if (c->k->pause.client == c && c->k->pause.ch == ch)
		c->k->pause.client = NULL;
	if (c->k->saving.client == c && c->k->saving.ch == ch)
		c->k->saving.client = NULL;
	if (c->k->rewinding.client == c && c->k->rewinding.ch == ch)
		c->k->rewinding.client = NULL;
	if (c->k->spare.client == c && c->k->spare.ch == ch)
		spare_client_gone(c->k);
	branch_drop(c->k, c, ch);
	snapshot_copied(c->k, c, ch);
	execs_client_gone(c->k, link_mux(c->link), ch);
	counters_client_gone(c->k, link_mux(c->link), ch);
	drop_waiter(c, ch);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct client *c = arg;

	mux_consumed(link_mux(c->link), ch, stream, len);
}

/* The only stream that says so is who has copied volumes, and is told that they were held until now. */
static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct client *c = arg;

	if (snapshot_copied(c->k, c, ch))
		mux_send_eof(link_mux(c->link), ch, 1);
}

static const struct mux_callbacks client_callbacks = {
	.open = on_open, .data = on_data, .eof = on_eof, .closed = on_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	if (r < 0 && r != -ECONNRESET && r != -EPIPE)
		log_info("keeper", "client cut off: %s", why);
	client_free(arg);
}

static bool peer_allowed(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && (cred.uid == geteuid() || cred.uid == 0);
}

static void on_late(struct loop *loop, struct loop_source *src, void *arg)
{
	struct client *c = arg;

	if (c->waiters)
		loop_timer_at(src, time_now_ns() + LATE_NS);
	else
		client_free(c);
}

static int client_new(struct keeper *k, int fd, bool late)
{
	struct client *c = calloc(1, sizeof(*c));
	struct mux *mux = NULL;
	int r;

	if (!c)
		return -ENOMEM;
	c->k = k;
	r = mux_new(MUX_SERVER, &client_callbacks, c, PROTO_DEFAULT_WINDOW, &mux);
	if (r == 0 && late)
		r = loop_add_timer(k->loop, on_late, c, &c->late);
	if (r == 0)
		r = link_new(k->loop, fd, mux, on_link_end, c, &c->link);
	if (r < 0) {
		loop_remove(c->late);
		mux_free(mux);
		free(c);
		return r;
	}
	c->next = k->clients;
	c->prev = &k->clients;
	if (c->next)
		c->next->prev = &c->next;
	k->clients = c;
	(*(late ? &k->num_late : &k->num_clients))++;
	if (late)
		loop_timer_at(c->late, time_now_ns() + LATE_NS);
	return mux_hello(mux, NULL);
}

static int accept_client(struct keeper *k, int listener, bool late)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r;

	if (fd < 0)
		return -errno;
	r = peer_allowed(fd) ? client_new(k, fd, late) : -EPERM;
	if (r < 0)
		fd_close(fd);
	return r;
}

/* Whoever cannot be taken waits, until a client goes (client_free). */
static void on_accept(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;
	int r = accept_client(k, k->listen_fd, k->num_clients >= k->max_clients);

	if (k->clients && (r == -EMFILE || r == -ENFILE || k->num_late >= MAX_LATE))
		loop_modify(k->listen_src, 0);
}

static int listen_on(const char *path)
{
	mode_t old = umask(0077);
	int fd;

	unlink(path); /* of a keeper that was killed; the library lets only one start */
	fd = unix_listen(path, LISTEN_BACKLOG);
	umask(old);
	if (fd >= 0)
		fd_set_nonblock(fd, true);
	return fd;
}

/* ------------------------------------------------------------------------------------ before the VM starts */

static void stop_early(struct keeper *k)
{
	char path[PATH_MAX];

	if (k->early_fd >= 0 && wire_early_socket(k->args.socket, path) == 0)
		unlink(path);
	k->early_src = loop_remove(k->early_src);
	k->early_fd = fd_close(k->early_fd);
}

static void on_early(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;

	if (accept_client(k, k->early_fd, false) == 0)
		stop_early(k);
}

int server_start_early(struct keeper *k, struct sm_error *err)
{
	char path[PATH_MAX];
	int r = wire_early_socket(k->args.socket, path);

	if (r == 0)
		r = k->early_fd = listen_on(path);
	if (r >= 0)
		r = loop_add(k->loop, k->early_fd, EPOLLIN, on_early, k, &k->early_src);
	return r < 0 ? error_sys(err, -r, "listen beside %s", k->args.socket) : 0;
}

/* ------------------------------------------------------------------------------------ for vm.c */

/* The descriptors that the host grants may be fewer than all clients want. */
static unsigned most_clients(unsigned want)
{
	uint64_t have = fd_limit_raise(want + MAX_LATE + OWN_FDS);
	uint64_t own = MIN((uint64_t)MAX_LATE + OWN_FDS, have / 2);

	return (unsigned)MIN(want, have - own);
}

int server_start(struct keeper *k, struct sm_error *err)
{
	int r;

	k->max_clients = most_clients(k->args.clients);
	k->listen_fd = listen_on(k->args.socket);
	if (k->listen_fd < 0)
		return error_sys(err, -k->listen_fd, "listen on %s", k->args.socket);
	r = loop_add(k->loop, k->listen_fd, EPOLLIN, on_accept, k, &k->listen_src);
	return r < 0 ? error_sys(err, -r, "listen on %s", k->args.socket) : 0;
}

static void tell(struct keeper *k, enum keeper_news_kind kind)
{
	for (struct client *c = k->clients; c; c = c->next)
		for (struct waiter *w = c->waiters; w; w = w->next)
			client_news(c, w->ch, kind);
}

void server_tell_started(struct keeper *k)
{
	tell(k, KEEPER_STARTED);
}

void server_tell_suspending(struct keeper *k)
{
	for (struct client *c = k->clients; c; c = c->next)
		for (struct waiter *w = c->waiters; w; w = w->next)
			if (w->forwards)
				client_news(c, w->ch, KEEPER_SUSPENDING);
}

/* After this nobody can connect: who tries finds exit.json written. */
void server_tell_ended(struct keeper *k)
{
	if (k->attach_client)
		mux_close(link_mux(k->attach_client->link), k->attach_ch, -ESRCH, "the VM has ended");
	k->attach_client = NULL;
	if (k->spare.client)
		mux_close(link_mux(k->spare.client->link), k->spare.ch, -ESRCH, "the spare has ended");
	k->spare.client = NULL;
	if (k->rewinding.client)
		mux_close(link_mux(k->rewinding.client->link), k->rewinding.ch, -ESRCH, "the VM has ended");
	k->rewinding.client = NULL;
	k->listen_src = loop_remove(k->listen_src);
	if (k->listen_fd >= 0)
		unlink(k->args.socket);
	k->listen_fd = fd_close(k->listen_fd);
	stop_early(k);
	tell(k, KEEPER_ENDED);
}

void server_attach_pending(struct keeper *k)
{
	struct client *c = k->attach_client;
	int r;

	if (!c)
		return;
	k->attach_client = NULL;
	r = agent_attach(k, link_mux(c->link), k->attach_ch, &k->attach);
	if (r < 0)
		mux_close(link_mux(c->link), k->attach_ch, r, strerror(-r));
}

bool server_drained(struct keeper *k)
{
	for (struct client *c = k->clients; c; c = c->next) {
		size_t len;

		mux_output(link_mux(c->link), &len);
		if (len)
			return false;
	}
	return true;
}

void server_done(struct keeper *k)
{
	while (k->clients)
		client_free(k->clients);
	stop_early(k);
	k->listen_src = loop_remove(k->listen_src);
	if (k->listen_fd >= 0)
		unlink(k->args.socket);
	k->listen_fd = fd_close(k->listen_fd);
}
