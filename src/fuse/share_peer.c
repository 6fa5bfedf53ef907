/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a shared tree: it is greeted, its lanes serve, and in the end it is freed with all that it held. A lane
 * has a thread and a socket of packets, whose other end is the client's; or, inline, this side's: its packets then
 * come from the client's stream, and the answers go there. See share_peer.h.
 */
#include "fuse/share_peer.h"

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
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/share_inline.h"

#define HELLO_MS 10000
#define NEED_DESCRIPTORS (1ULL << SHARE_WATCH | 1ULL << SHARE_MAP)
#define STACK_SIZE (1 * MIB) /* a backend of somebody else's runs on it */

/* Threads of the server's take no signals, and make files with the modes that the clients say. */
int share_start_thread(pthread_t *ret, void *(*run)(void *), void *arg, bool detached)
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

static void note_cut_off(struct peer *p)
{
	pthread_mutex_lock(&p->server->lock);
	p->server->past.cut_off++;
	pthread_mutex_unlock(&p->server->lock);
}

static int answer_inline(struct lane *lane, const struct buf *packet, uint32_t bulk)
{
	struct share_frame f = {
		.lane = (uint32_t)(lane - lane->peer->lanes), .packet = (uint32_t)packet->len, .bulk = bulk};
	int r;

	/* Before the client can know it. */
	__atomic_store_n(&lane->busy, false, __ATOMIC_RELEASE);
	pthread_mutex_lock(&lane->peer->sending);
	r = share_frame_send(lane->peer->sock, &f, packet->data, lane->mem);
	pthread_mutex_unlock(&lane->peer->sending);
	return r;
}

static int answer(struct lane *lane, struct share_call *call, int64_t result)
{
	struct buf b = {0};
	int r;

	buf_put_u64(&b, (uint64_t)result);
	buf_put_u32(&b, call->bulk);
	if (result >= 0)
		buf_put(&b, call->values.data, call->values.len);
	if (b.error || call->values.error)
		r = -ENOMEM;
	else if (lane->peer->inlined)
		r = answer_inline(lane, &b, call->bulk);
	else
		r = fd_send(lane->sock, b.data, b.len, &call->out_fd, result >= 0 && call->out_fd >= 0);
	buf_done(&b);
	return r;
}

/* No descriptor comes with an inline request, or goes with its answer. */
static int64_t serve_call(struct lane *lane, struct share_call *call)
{
	if (lane->peer->inlined && call->rq.bulk != lane->bulk) {
		call->broken = true;
		return -EPROTO;
	}
	if (lane->peer->inlined && (1ULL << (call->rq.op & 63) & NEED_DESCRIPTORS))
		return -EOPNOTSUPP;
	return share_call_serve(call);
}

/* What came with the request is its memory now; the other is for what comes while its answer is on the way. */
static void swap_memory(struct lane *lane)
{
	uint8_t *mem = lane->mem;

	lane->mem = lane->next;
	lane->next = mem;
}

/* One request: false at the client's end. */
static bool serve_one(struct lane *lane)
{
	struct share_client *c = &lane->peer->client;
	struct share_call call = {.client = c, .out_fd = -1};
	uint8_t packet[SHARE_PACKET];
	size_t none = 0;
	int64_t result;
	ssize_t n = fd_recv(lane->sock, packet, sizeof(packet), NULL, &none);
	bool good;

	if (n <= 0)
		return false;
	if (lane->next)
		swap_memory(lane);
	call.mem = lane->mem;
	call.args = cursor_of(packet, (size_t)n);
	share_get_request(&call.args, &call.rq);
	result = serve_call(lane, &call);
	__atomic_fetch_add(&c->requests, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->errors, result < 0, __ATOMIC_RELAXED);
	good = !call.broken && answer(lane, &call, result) == 0;
	if (call.broken)
		note_cut_off(lane->peer);
	share_call_done(&call);
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

/* *ret_mem: memory of the client's, who cannot take it away again; memfd -1: of our own. */
static int map_memory(int memfd, uint8_t **ret_mem)
{
	int seals = memfd < 0 ? F_SEAL_SHRINK : fcntl(memfd, F_GET_SEALS);
	struct stat st = {.st_size = SHARE_BULK};
	void *mem;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || (memfd >= 0 && fstat(memfd, &st) < 0) || st.st_size != SHARE_BULK)
		return -EPROTO;
	mem = mmap(NULL, SHARE_BULK, PROT_READ | PROT_WRITE, memfd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED,
		   memfd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	*ret_mem = mem;
	return 0;
}

/* *ret_other: the socket's other end. */
static int lane_open(struct lane *lane, int memfd, int *ret_other)
{
	int r = map_memory(memfd, &lane->mem), sock[2];

	if (r == 0 && lane->peer->inlined)
		r = map_memory(-1, &lane->next);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
		return -errno;
	lane->sock = sock[0];
	*ret_other = sock[1];
	return 0;
}

static void lane_close(struct lane *lane)
{
	if (lane->running)
		pthread_join(lane->thread, NULL);
	if (lane->mem)
		munmap(lane->mem, SHARE_BULK);
	if (lane->next)
		munmap(lane->next, SHARE_BULK);
	fd_close(lane->sock);
	fd_close(lane->feed);
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
	uint64_t ops = share_ops_mask(&p->server->ops);
	struct buf b = {0};
	int r;

	buf_put_u32(&b, SHARE_MAGIC);
	buf_put_u32(&b, SHARE_VERSION);
	buf_put_u32(&b, p->num_lanes);
	buf_put_u32(&b, p->inlined ? SHARE_INLINE : 0);
	buf_put_u64(&b, p->inlined ? ops & ~NEED_DESCRIPTORS : ops);
	r = b.error ? b.error : fd_send(p->sock, b.data, b.len, fds, p->inlined ? 0 : p->num_lanes);
	buf_done(&b);
	return r;
}

/* Lanes with the client's memory, inline with our own: they are there and run afterwards, or -errno. */
static int start_lanes(struct peer *p, const int *memory, unsigned count)
{
	int fds[SHARE_MAX_LANES], r = 0;

	memset(fds, 0xff, sizeof(fds));
	for (unsigned i = 0; i < count && r == 0; i++) {
		struct lane *lane = &p->lanes[p->num_lanes++];

		*lane = (struct lane){.peer = p, .sock = -1, .feed = -1};
		r = lane_open(lane, p->inlined ? -1 : memory[i], &fds[i]);
	}
	if (r == 0)
		r = welcome(p, fds);
	for (unsigned i = 0; i < p->num_lanes; i++) {
		if (p->inlined)
			p->lanes[i].feed = fds[i];
		else
			fd_close(fds[i]); /* the client's */
	}
	for (unsigned i = 0; i < p->num_lanes && r == 0; i++) {
		r = share_start_thread(&p->lanes[i].thread, lane_run, &p->lanes[i], false);
		p->lanes[i].running = r == 0;
	}
	return r;
}

/* From the stream, as much as is asked for: false at the client's end, or ours. */
static bool take(struct peer *p, void *to, size_t len)
{
	uint8_t *at = to;

	while (len) {
		size_t none = 0;
		ssize_t n = wait_for_peer(p, -1) ? fd_recv(p->sock, at, len, NULL, &none) : 0;

		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

static int greet(struct peer *p)
{
	int memory[SHARE_MAX_LANES], r = -EPROTO;
	size_t num_memory = ARRAY_SIZE(memory);
	uint8_t hello[SHARE_HELLO];
	struct cursor c = cursor_of(hello, sizeof(hello));
	uint32_t lanes, flags;
	ssize_t n;

	if (!wait_for_peer(p, HELLO_MS))
		return -EPROTO;
	n = fd_recv(p->sock, hello, sizeof(hello), memory, &num_memory);
	if (n == sizeof(hello) && cursor_u32(&c) == SHARE_MAGIC && cursor_u32(&c) == SHARE_VERSION) {
		lanes = cursor_u32(&c);
		flags = cursor_u32(&c);
		p->inlined = !num_memory && flags & SHARE_INLINE;
		if (lanes && lanes <= SHARE_MAX_LANES && (p->inlined || lanes == num_memory))
			r = start_lanes(p, memory, lanes);
	}
	for (size_t i = 0; i < num_memory; i++)
		fd_close(memory[i]);
	return r;
}

/* A request of the stream's into its lane, which has to be free: false at the client's end, or ours. */
static bool feed_one(struct peer *p)
{
	uint8_t head[SHARE_HEAD], packet[SHARE_PACKET];
	struct share_frame f;
	struct lane *lane;

	if (!take(p, head, sizeof(head)))
		return false;
	if (share_frame_get(head, p->num_lanes, &f) < 0 ||
	    __atomic_exchange_n(&p->lanes[f.lane].busy, true, __ATOMIC_ACQ_REL)) {
		note_cut_off(p);
		return false;
	}
	lane = &p->lanes[f.lane];
	lane->bulk = f.bulk;
	return take(p, packet, f.packet) && take(p, lane->next, f.bulk) &&
	       fd_send(lane->feed, packet, f.packet, NULL, 0) == 0;
}

void share_peer_free(struct peer *p)
{
	struct share_server *s = p->server;

	__atomic_store_n(&p->client.ended, true, __ATOMIC_RELEASE);
	shutdown(p->sock, SHUT_RDWR); /* an answer that nobody reads */
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
	pthread_mutex_destroy(&p->sending);
	pthread_mutex_lock(&s->lock);
	s->num_peers--;
	pthread_cond_broadcast(&s->gone);
	pthread_mutex_unlock(&s->lock);
	free(p);
}

static void until_the_end(struct peer *p)
{
	char byte;

	while (p->inlined && feed_one(p))
		;
	/* Nothing more is said where the lanes have sockets: a client that does is none. */
	if (!p->inlined && wait_for_peer(p, -1) && recv(p->sock, &byte, 1, MSG_DONTWAIT) > 0)
		note_cut_off(p);
}

void *share_peer_run(void *arg)
{
	struct peer *p = arg;

	/* The lanes' threads inherit it: modes are the client's to choose. */
	if (unshare(CLONE_FS) == 0)
		umask(0);
	if (greet(p) == 0)
		until_the_end(p);
	share_peer_free(p);
	return NULL;
}
