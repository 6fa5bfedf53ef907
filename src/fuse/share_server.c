/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of a shared tree: the socket, the clients, their lanes. What the requests are is share_ops.c. See
 * share_server.h.
 *
 * Threads: one accepts; one for each client greets it, starts a thread for each of its lanes, and waits until the
 * client or the server ends it, then for those, and gives up what the client held.
 */
#include "fuse/share_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/share_client.h"

#define HELLO_MS 10000
#define STACK_SIZE (1 * MIB) /* a backend of somebody else's runs on it */

struct lane {
	struct peer *peer;
	int sock, memfd;
	uint8_t *mem;
	bool running;
	pthread_t thread;
};

struct peer {
	struct share_server *server;
	struct peer *next; /* under the server's lock */
	int sock, end_fd;  /* end_fd: an eventfd, a lane wants the client's end */
	struct share_client client;
	unsigned num_lanes;
	struct lane lanes[SHARE_MAX_LANES];
};

struct share_server {
	struct sm_fs_backend *be;
	struct sm_fs_ops ops; /* the backend's, as far as its header knew them */
	bool read_only;
	char *path;
	int listener, stop_fd;
	bool accepting;
	pthread_t thread;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t gone;  /* a client is */
	struct peer *peers;
	unsigned num_peers;
	bool stopping;
	struct share_server_stats past; /* of clients that are gone */
};

/* Threads of the server's take no signals, and make files with the modes that the clients say. */
static int start_thread(pthread_t *ret, void *(*run)(void *), void *arg, bool detached)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int r;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_attr_setdetachstate(&attr, detached ? PTHREAD_CREATE_DETACHED : PTHREAD_CREATE_JOINABLE);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(ret, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return r;
}

/* ---------------------------------------------------------------------------------------------- a lane */

static int answer(struct lane *lane, struct share_call *call, int64_t result)
{
	struct buf b = {0};
	int r;

	buf_put_u64(&b, (uint64_t)result);
	buf_put_u32(&b, call->bulk);
	if (result >= 0)
		buf_put(&b, call->values.data, call->values.len);
	r = b.error || call->values.error
		    ? -ENOMEM
		    : fd_send(lane->sock, b.data, b.len, &call->out_fd, result >= 0 && call->out_fd >= 0);
	buf_done(&b);
	return r;
}

/* One request: false at the client's end. */
static bool serve_one(struct lane *lane)
{
	struct share_client *c = &lane->peer->client;
	struct share_call call = {.client = c, .mem = lane->mem, .in_fd = -1, .out_fd = -1};
	uint8_t packet[SHARE_PACKET];
	size_t num_fds = 1;
	int64_t result;
	ssize_t n = fd_recv(lane->sock, packet, sizeof(packet), &call.in_fd, &num_fds);
	bool good;

	if (n <= 0)
		return false;
	call.args = cursor_of(packet, (size_t)n);
	share_get_request(&call.args, &call.rq);
	result = share_call_serve(&call);
	__atomic_fetch_add(&c->requests, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->errors, result < 0, __ATOMIC_RELAXED);
	good = !call.broken && answer(lane, &call, result) == 0;
	if (call.broken) {
		pthread_mutex_lock(&lane->peer->server->lock);
		lane->peer->server->past.cut_off++;
		pthread_mutex_unlock(&lane->peer->server->lock);
	}
	share_call_done(&call);
	if (num_fds)
		fd_close(call.in_fd);
	return good;
}

static void *lane_run(void *arg)
{
	struct lane *lane = arg;

	while (!__atomic_load_n(&lane->peer->client.ended, __ATOMIC_ACQUIRE) && serve_one(lane))
		;
	(void)eventfd_write(lane->peer->end_fd, 1);
	return NULL;
}

/* Its socket's other end and its memory, for the client, in fds. */
static int lane_open(struct lane *lane, int fds[2])
{
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		return -errno;
	lane->sock = sock[0];
	fds[0] = sock[1];
	fds[1] = memfd_create("lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	lane->memfd = fds[1];
	/* Nobody can shrink it under the other's feet. */
	if (lane->memfd < 0 || ftruncate(lane->memfd, SHARE_BULK) < 0 ||
	    fcntl(lane->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	lane->mem = mmap(NULL, SHARE_BULK, PROT_READ | PROT_WRITE, MAP_SHARED, lane->memfd, 0);
	if (lane->mem == MAP_FAILED) {
		lane->mem = NULL;
		return -errno;
	}
	return 0;
}

static void lane_close(struct lane *lane)
{
	if (lane->running)
		pthread_join(lane->thread, NULL);
	if (lane->mem)
		munmap(lane->mem, SHARE_BULK);
	fd_close(lane->memfd);
	fd_close(lane->sock);
}

/* --------------------------------------------------------------------------------------------- a client */

/* Waits until the client or the server wants the end, or ms are over (-1: never): true when there is something to read
 * from the client. */
static bool wait_for_peer(struct peer *p, int ms)
{
	struct pollfd fds[3] = {{.fd = p->sock, .events = POLLIN | POLLRDHUP},
				{.fd = p->server->stop_fd, .events = POLLIN},
				{.fd = p->end_fd, .events = POLLIN}};
	int n;

	do
		n = poll(fds, ARRAY_SIZE(fds), ms);
	while (n < 0 && errno == EINTR);
	return n > 0 && !fds[1].revents && !fds[2].revents && fds[0].revents & POLLIN;
}

static int welcome(struct peer *p, const int *fds)
{
	struct buf b = {0};
	int r;

	buf_put_u32(&b, SHARE_MAGIC);
	buf_put_u32(&b, SHARE_VERSION);
	buf_put_u32(&b, p->num_lanes);
	buf_put_u32(&b, 0);
	buf_put_u64(&b, share_ops_mask(&p->server->ops));
	r = b.error ? b.error : fd_send(p->sock, b.data, b.len, fds, 2 * p->num_lanes);
	buf_done(&b);
	return r;
}

/* Hello and welcome: the lanes are there and run afterwards, or -errno. */
static int greet(struct peer *p)
{
	uint8_t hello[SHARE_HELLO];
	struct cursor c = cursor_of(hello, sizeof(hello));
	int fds[2 * SHARE_MAX_LANES], r = 0;
	uint32_t lanes;

	memset(fds, 0xff, sizeof(fds));
	if (!wait_for_peer(p, HELLO_MS) || recv(p->sock, hello, sizeof(hello), MSG_DONTWAIT) != sizeof(hello))
		return -EPROTO;
	if (cursor_u32(&c) != SHARE_MAGIC || cursor_u32(&c) != SHARE_VERSION)
		return -EPROTO;
	lanes = cursor_u32(&c);
	lanes = MIN(MAX(lanes, 1), SHARE_MAX_LANES);
	for (unsigned i = 0; i < lanes && r == 0; i++) {
		struct lane *lane = &p->lanes[p->num_lanes++];

		*lane = (struct lane){.peer = p, .sock = -1, .memfd = -1};
		r = lane_open(lane, &fds[2 * i]);
	}
	if (r == 0)
		r = welcome(p, fds);
	for (unsigned i = 0; i < p->num_lanes; i++)
		fd_close(fds[2 * i]); /* the client's; the memory's is the lane's, too */
	for (unsigned i = 0; i < p->num_lanes && r == 0; i++) {
		r = start_thread(&p->lanes[i].thread, lane_run, &p->lanes[i], false);
		p->lanes[i].running = r == 0;
	}
	return r;
}

static void peer_free(struct peer *p)
{
	struct share_server *s = p->server;

	__atomic_store_n(&p->client.ended, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < p->num_lanes; i++)
		if (p->lanes[i].sock >= 0)
			shutdown(p->lanes[i].sock, SHUT_RDWR);
	for (unsigned i = 0; i < p->num_lanes; i++)
		lane_close(&p->lanes[i]);
	pthread_mutex_lock(&s->lock);
	for (struct peer **at = &s->peers; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	s->past.requests += p->client.requests;
	s->past.errors += p->client.errors;
	pthread_mutex_unlock(&s->lock);
	share_client_done(&p->client);
	fd_close(p->sock);
	fd_close(p->end_fd);
	pthread_mutex_lock(&s->lock);
	s->num_peers--;
	pthread_cond_broadcast(&s->gone);
	pthread_mutex_unlock(&s->lock);
	free(p);
}

static void *peer_run(void *arg)
{
	struct peer *p = arg;

	/* The lanes' threads inherit it: modes are the client's to choose. */
	if (unshare(CLONE_FS) == 0)
		umask(0);
	if (greet(p) == 0)
		while (wait_for_peer(p, -1)) {
			char byte;

			if (recv(p->sock, &byte, 1, MSG_DONTWAIT) <= 0)
				break;
			/* Nothing more is said there: a client that does is none. */
			pthread_mutex_lock(&p->server->lock);
			p->server->past.cut_off++;
			pthread_mutex_unlock(&p->server->lock);
			break;
		}
	peer_free(p);
	return NULL;
}

int share_server_add(struct share_server *s, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));
	pthread_t thread;
	int r;

	if (!p) {
		fd_close(fd);
		return -ENOMEM;
	}
	p->server = s;
	p->sock = fd;
	p->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = p->end_fd < 0 ? -errno : share_client_init(&p->client, s->be, &s->ops, s->read_only);
	if (r < 0) {
		fd_close(p->end_fd);
		fd_close(fd);
		free(p);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	r = s->stopping ? -ECANCELED : s->num_peers >= SHARE_MAX_CLIENTS ? -EMFILE : 0;
	p->next = s->peers;
	s->peers = p;
	s->num_peers++;
	pthread_mutex_unlock(&s->lock);
	if (r == 0)
		r = start_thread(&thread, peer_run, p, true);
	if (r < 0)
		peer_free(p);
	return r;
}

/* ---------------------------------------------------------------------------------------------- the server */

static void *server_run(void *arg)
{
	struct share_server *s = arg;
	struct pollfd p[2] = {{.fd = s->stop_fd, .events = POLLIN}, {.fd = s->listener, .events = POLLIN}};

	for (;;) {
		int sock;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents)
			break;
		sock = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		/* Out of descriptors, or of room for clients: the client sees the end of its connection, or waits. */
		if (sock < 0 || share_server_add(s, sock) < 0)
			poll(p, 1, 10);
	}
	return NULL;
}

int share_server_start(struct sm_fs_backend *be, int fd, const struct share_server_options *options,
		       struct share_server **ret, struct sm_error *err)
{
	struct share_server *s = calloc(1, sizeof(*s));
	const char *path = options ? options->path : NULL;
	int r = s ? 0 : -ENOMEM;

	if (!s) {
		fd_close(fd);
		return error_sys(err, ENOMEM, "shared tree");
	}
	s->listener = fd;
	s->be = be;
	s->read_only = options && options->read_only;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->gone, NULL);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	s->path = path ? strdup(path) : NULL;
	if (s->stop_fd < 0)
		r = -errno;
	else if (path && !s->path)
		r = -ENOMEM;
	else if (!be->ops || be->ops->size < offsetof(struct sm_fs_ops, dax_map) || !be->ops->lookup ||
		 !be->ops->getattr || !be->ops->readdir || !be->ops->read)
		r = -EINVAL;
	if (r == 0) {
		memcpy(&s->ops, be->ops, MIN(be->ops->size, sizeof(s->ops)));
		r = fd >= 0 ? start_thread(&s->thread, server_run, s, false) : 0;
		s->accepting = r == 0 && fd >= 0;
	}
	if (r < 0) {
		share_server_stop(s);
		return error_sys(err, -r, "shared tree%s%s", path ? " on " : "", path ? path : "");
	}
	*ret = s;
	return 0;
}

struct share_server *share_server_stop(struct share_server *s)
{
	if (!s)
		return NULL;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_mutex_unlock(&s->lock);
	if (s->stop_fd >= 0)
		(void)eventfd_write(s->stop_fd, 1);
	if (s->accepting)
		pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock);
	while (s->num_peers)
		pthread_cond_wait(&s->gone, &s->lock);
	pthread_mutex_unlock(&s->lock);
	if (s->path)
		unlink(s->path);
	fd_close(s->listener);
	fd_close(s->stop_fd);
	pthread_cond_destroy(&s->gone);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s);
	return NULL;
}

void share_server_get_stats(struct share_server *s, struct share_server_stats *ret)
{
	pthread_mutex_lock(&s->lock);
	*ret = s->past;
	ret->clients = s->num_peers;
	for (const struct peer *p = s->peers; p; p = p->next) {
		struct share_client *c = (struct share_client *)&p->client;

		ret->requests += __atomic_load_n(&c->requests, __ATOMIC_RELAXED);
		ret->errors += __atomic_load_n(&c->errors, __ATOMIC_RELAXED);
		pthread_mutex_lock(&c->lock);
		ret->nodes += c->refs.count;
		pthread_mutex_unlock(&c->lock);
		ret->handles += __atomic_load_n(&c->handles.used, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&s->lock);
}
