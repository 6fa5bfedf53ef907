/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vsock connection: its descriptor, its buffer, its credit. States are in vsock_internal.h.
 *
 * Descriptors are registered edge-triggered: `readable` remembers an edge until a read finds nothing more, so no
 * epoll_ctl follows the traffic, but where a reader is slow. Bytes from the guest go straight from its buffers into the
 * descriptor; only what that refuses is kept, in a ring of the size of the credit that we gave, so it always fits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "virtio/vsock_internal.h"

#define DIRECT_IOV 64
#define EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

static struct vsock_conn **bucket(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
	uint32_t h = (host_port * 0x9e3779b1U) ^ (guest_port * 0x85ebca6bU);

	return &v->buckets[(h ^ h >> 16) % VSOCK_BUCKETS];
}

struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *c = *bucket(v, host_port, guest_port);

	while (c && (c->host_port != host_port || c->guest_port != guest_port))
		c = c->hash_next;
	return c;
}

static void unhash(struct vsock_conn *c)
{
	struct vsock_conn **p = bucket(c->vsock, c->host_port, c->guest_port);

	while (*p && *p != c)
		p = &(*p)->hash_next;
	if (*p)
		*p = c->hash_next;
}

void vsock_conn_unready(struct vsock_conn *c)
{
	struct vsock *v = c->vsock;

	if (!c->on_ready)
		return;
	c->on_ready = false;
	if (c->ready_prev)
		c->ready_prev->ready_next = c->ready_next;
	else
		v->ready_head = c->ready_next;
	if (c->ready_next)
		c->ready_next->ready_prev = c->ready_prev;
	else
		v->ready_tail = c->ready_prev;
}

void vsock_conn_owe(struct vsock_conn *c, unsigned pending)
{
	struct vsock *v = c->vsock;

	c->pending |= pending;
	if (c->on_ready || c->state == VSOCK_DRAINING)
		return;
	c->on_ready = true;
	c->turn = 0;
	c->ready_next = NULL;
	c->ready_prev = v->ready_tail;
	if (v->ready_tail)
		v->ready_tail->ready_next = c;
	else
		v->ready_head = c;
	v->ready_tail = c;
}

static void close_fd(struct vsock_conn *c)
{
	c->source = loop_remove(c->source);
	c->fd = fd_close(c->fd);
	c->readable = false;
}

void vsock_conn_free(struct vsock_conn *c)
{
	struct vsock *v = c->vsock;

	if (c->state != VSOCK_DRAINING)
		unhash(c);
	vsock_conn_unready(c);
	close_fd(c);
	*c->all_link = c->all_next;
	if (c->all_next)
		c->all_next->all_link = c->all_link;
	v->count--;
	free(c->buffer);
	free(c);
}

void vsock_conn_abort(struct vsock_conn *c)
{
	close_fd(c);
	c->fill = 0;
	c->state = VSOCK_ZOMBIE;
	c->pending = 0;
	c->vsock->stats.resets++;
	vsock_conn_owe(c, PENDING_RST);
}

/* Our side takes no more of the guest's bytes: the reader is gone. */
static void stop_writing(struct vsock_conn *c)
{
	c->forwarded += c->fill;
	c->fill = 0;
	if (c->state != VSOCK_OPEN || (c->shut_host & VIRTIO_VSOCK_SHUTDOWN_RCV))
		return;
	c->shut_host |= VIRTIO_VSOCK_SHUTDOWN_RCV;
	vsock_conn_owe(c, PENDING_SHUTDOWN);
}

static void stop_reading(struct vsock_conn *c)
{
	c->eof = true;
	c->readable = false;
	if (c->state != VSOCK_OPEN || (c->shut_host & VIRTIO_VSOCK_SHUTDOWN_SEND))
		return;
	c->shut_host |= VIRTIO_VSOCK_SHUTDOWN_SEND;
	vsock_conn_owe(c, PENDING_SHUTDOWN);
}

/* Credit goes back in halves of the buffer, so that a stream costs few packets of its own. */
static void credit_back(struct vsock_conn *c, uint32_t n)
{
	c->forwarded += n;
	c->vsock->stats.bytes_from_guest += n;
	if (c->state == VSOCK_OPEN && c->forwarded - c->told >= c->alloc / 2)
		vsock_conn_owe(c, PENDING_CREDIT_UPDATE);
}

/* Writes iov to the descriptor: bytes taken, 0 if it takes none now, -errno. */
static ssize_t send_iov(struct vsock_conn *c, struct iovec *iov, unsigned n)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
	ssize_t r = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (r >= 0)
		return r;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/* Listens for room only while something waits for it: otherwise each read of the peer's would wake us. */
static void set_want_out(struct vsock_conn *c, bool want)
{
	if (want == c->want_out || !c->source)
		return;
	c->want_out = want;
	(void)loop_modify(c->source, EVENTS | (want ? EPOLLOUT : 0));
}

/* Once all that the guest sent is delivered, passes its shutdown on, and closes what is over. True if c was freed. */
static bool settle(struct vsock_conn *c)
{
	if (c->fill)
		return false;
	if (c->state == VSOCK_DRAINING) {
		vsock_conn_free(c);
		return true;
	}
	if (c->state != VSOCK_OPEN)
		return false;
	if ((c->shut_guest & VIRTIO_VSOCK_SHUTDOWN_SEND) && !c->wr_shut && c->fd >= 0) {
		c->wr_shut = true;
		(void)shutdown(c->fd, SHUT_WR);
	}
	if (c->shut_guest == VSOCK_SHUT_BOTH) {
		/* The guest waits for this answer to its close (section 5.10.6.6). */
		close_fd(c);
		c->state = VSOCK_ZOMBIE;
		c->pending = 0;
		vsock_conn_owe(c, PENDING_RST);
		return false;
	}
	if (c->eof && (c->wr_shut || (c->shut_host & VIRTIO_VSOCK_SHUTDOWN_RCV)))
		close_fd(c);
	return false;
}

/* Delivers what is kept. True if c was freed. */
static bool flush(struct vsock_conn *c)
{
	while (c->fill && c->fd >= 0) {
		uint32_t first = MIN(c->fill, c->alloc - c->head);
		struct iovec iov[2] = {{c->buffer + c->head, first}, {c->buffer, c->fill - first}};
		ssize_t n = send_iov(c, iov, iov[1].iov_len ? 2 : 1);

		if (n == 0)
			return false;
		if (n < 0) {
			stop_writing(c);
			break;
		}
		c->head = (c->head + (uint32_t)n) % c->alloc;
		c->fill -= (uint32_t)n;
		credit_back(c, (uint32_t)n);
	}
	set_want_out(c, false);
	return settle(c);
}

static void on_event(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct vsock_conn *c = arg;
	struct vsock *v = c->vsock;

	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->hangup = true;
	if (events & (EPOLLHUP | EPOLLERR))
		c->gone = true;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		c->readable = !c->eof;
		if (c->state == VSOCK_OPEN)
			vsock_conn_owe(c, 0);
	}
	if (c->state == VSOCK_DRAINING && (events & (EPOLLHUP | EPOLLERR)))
		c->fill = 0;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
		/* Where bytes are still to be read, their end says both at once. */
		if (c->gone && c->eof && c->state == VSOCK_OPEN && !c->wr_shut)
			stop_writing(c);
		flush(c);
	}
	vsock_pump(v);
}

struct vsock_conn *vsock_conn_new(struct vsock *v, uint32_t host_port, uint32_t guest_port, int fd,
				  enum vsock_state state)
{
	struct vsock_conn *c = calloc(1, sizeof(*c)), **b = bucket(v, host_port, guest_port);

	if (!c || loop_add(v->dev.loop, fd, EVENTS, on_event, c, &c->source) < 0) {
		free(c);
		fd_close(fd);
		return NULL;
	}
	c->vsock = v;
	c->fd = fd;
	c->host_port = host_port;
	c->guest_port = guest_port;
	c->state = state;
	c->alloc = v->count < VSOCK_MANY ? VSOCK_BUFFER : VSOCK_BUFFER_SMALL;
	c->hash_next = *b;
	*b = c;
	c->all_next = v->all;
	c->all_link = &v->all;
	if (v->all)
		v->all->all_link = &c->all_next;
	v->all = c;
	v->count++;
	v->stats.opened++;
	return c;
}

bool vsock_conn_is_quiet(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->fd >= 0 && !c->fill && !c->eof && !c->wr_shut && !c->shut_guest &&
	       !c->shut_host && !(c->pending & ~(unsigned)(PENDING_CREDIT_UPDATE | PENDING_CREDIT_REQUEST));
}

int vsock_conn_swap(struct vsock_conn *c, int fd)
{
	int r;

	close_fd(c);
	c->hangup = c->gone = c->want_out = false;
	r = loop_add(c->vsock->dev.loop, fd, EVENTS, on_event, c, &c->source);
	if (r < 0)
		fd_close(fd);
	else
		c->fd = fd;
	return r;
}

void vsock_conn_drain(struct vsock_conn *c)
{
	if (!c->fill || c->fd < 0) {
		vsock_conn_free(c);
		return;
	}
	unhash(c);
	vsock_conn_unready(c);
	c->pending = 0;
	c->state = VSOCK_DRAINING;
	(void)shutdown(c->fd, SHUT_RD);
	flush(c);
}

/* Keeps payload that the descriptor did not take; the credit check has made sure that it fits. */
static int keep(struct vsock_conn *c, const struct virtq_chain *chain, uint64_t off, uint32_t len)
{
	if (!c->buffer)
		c->buffer = malloc(c->alloc);
	if (!c->buffer)
		return -ENOMEM;
	while (len) {
		uint32_t tail = (c->head + c->fill) % c->alloc, n = MIN(len, c->alloc - tail);
		int r = virtq_chain_read(chain, off, c->buffer + tail, n);

		if (r < 0)
			return r;
		c->fill += n;
		off += n;
		len -= n;
	}
	return 0;
}

void vsock_conn_receive(struct vsock_conn *c, const struct virtq_chain *chain, uint64_t off, uint32_t len)
{
	struct iovec iov[DIRECT_IOV];
	ssize_t done = 0;
	int n;

	if (len > c->alloc - (c->received - c->forwarded) || (c->shut_guest & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		vsock_conn_abort(c);
		return;
	}
	c->received += len;
	if (c->fd < 0 || (c->shut_host & VIRTIO_VSOCK_SHUTDOWN_RCV)) {
		credit_back(c, len); /* sent before the guest heard that nobody reads: dropped */
		return;
	}
	n = c->fill ? -EBUSY : virtq_iov_slice(chain->read, chain->num_read, off, len, iov, DIRECT_IOV);
	if (n > 0)
		done = send_iov(c, iov, (unsigned)n);
	if (done == -EFAULT) {
		vsock_conn_abort(c); /* the payload lay in a window whose file is gone */
		return;
	}
	if (done < 0) {
		stop_writing(c);
		credit_back(c, len);
		return;
	}
	if (done)
		credit_back(c, (uint32_t)done);
	if ((uint32_t)done == len)
		return;
	if (keep(c, chain, off + (uint64_t)done, len - (uint32_t)done) < 0)
		vsock_conn_abort(c);
	else
		set_want_out(c, true);
}

void vsock_conn_shutdown(struct vsock_conn *c, uint32_t flags)
{
	c->shut_guest |= flags & VSOCK_SHUT_BOTH;
	if ((c->shut_guest & VIRTIO_VSOCK_SHUTDOWN_RCV) && c->fd >= 0 && !c->eof) {
		/* Writers on the host's side learn that nobody reads. */
		(void)shutdown(c->fd, SHUT_RD);
		c->eof = true;
		c->readable = false;
	}
	settle(c);
}

uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	uint32_t in_flight = c->sent - c->peer_fwd;

	return in_flight < c->peer_alloc ? c->peer_alloc - in_flight : 0;
}

uint32_t vsock_conn_fetch(struct vsock_conn *c, const struct iovec *iov, unsigned n, uint32_t room)
{
	uint32_t want = MIN(room, vsock_conn_credit(c));
	struct iovec part[DIRECT_IOV];
	struct msghdr msg = {.msg_iov = part};
	ssize_t got;
	int parts;

	if (c->state != VSOCK_OPEN || !c->readable)
		return 0;
	if (!want) {
		if (!c->asked_credit)
			vsock_conn_owe(c, PENDING_CREDIT_REQUEST);
		c->asked_credit = true;
		return 0;
	}
	parts = virtq_iov_slice(iov, n, 0, want, part, DIRECT_IOV);
	if (parts < 0)
		return 0;
	msg.msg_iovlen = (size_t)parts;
	do {
		got = recvmsg(c->fd, &msg, MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN) {
		c->readable = false;
		return 0;
	}
	if (got < 0 && errno == EFAULT) {
		vsock_conn_abort(c); /* the guest's buffer lay in a window whose file is gone */
		return 0;
	}
	if (got <= 0) {
		stop_reading(c);
		if (got < 0 || (c->gone && !c->wr_shut))
			stop_writing(c);
		settle(c);
		return 0;
	}
	/* A short read emptied the socket, so the next edge tells of more; but an end already told of comes only once.
	 */
	if ((uint32_t)got < want && !c->hangup)
		c->readable = false;
	c->sent += (uint32_t)got;
	c->vsock->stats.bytes_to_guest += (uint64_t)got;
	return (uint32_t)got;
}
