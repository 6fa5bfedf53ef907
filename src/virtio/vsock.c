/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock: queues, packets, and who connects to whom. See vsock.h; connections are in vsock_conn.c.
 *
 * The transmit queue is always drained, whatever the state of the receive queue, as section 5.10.6.5.1 demands: a
 * packet costs at most one bit in its connection, or a place in the ring of strays. So neither queue waits for the
 * other.
 */
#include "virtio/vsock.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "virtio/vsock_internal.h"

#define CONNECT_TIMEOUT_NS (20 * 1000000000ULL)
#define FIRST_PORT 0x40000000U
#define PUMP_BUDGET 256U /* packets before other devices get their turn */
#define TURN_PACKETS 16U /* packets of one connection before the next gets its turn */
#define PAYLOAD_MAX (64 * 1024U)
#define HDR_SIZE ((uint32_t)sizeof(struct virtio_vsock_hdr))

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, NUM_QUEUES };

/* ---- to the guest ---- */

static struct virtio_vsock_hdr header(struct vsock_conn *c, uint16_t op, uint32_t flags, uint32_t len)
{
	c->told = c->forwarded;
	c->pending &= ~(unsigned)PENDING_CREDIT_UPDATE; /* every header carries it */
	return (struct virtio_vsock_hdr){
		.src_cid = htole64(VIRTIO_VSOCK_HOST_CID),
		.dst_cid = htole64(c->vsock->options.cid),
		.src_port = htole32(c->host_port),
		.dst_port = htole32(c->guest_port),
		.len = htole32(len),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM),
		.op = htole16(op),
		.flags = htole32(flags),
		.buf_alloc = htole32(c->alloc),
		.fwd_cnt = htole32(c->forwarded),
	};
}

/* A packet without payload that c owes, in the order that a peer expects them. False: none. */
static bool control_packet(struct vsock_conn *c, struct virtio_vsock_hdr *hdr)
{
	static const struct {
		unsigned pending;
		uint16_t op;
	} kinds[] = {
		{PENDING_RST, VIRTIO_VSOCK_OP_RST},
		{PENDING_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		{PENDING_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		{PENDING_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		{PENDING_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
		/* Data never comes after the end of data: SEND is set once everything was sent. */
		{PENDING_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!(c->pending & kinds[i].pending))
			continue;
		c->pending &= ~kinds[i].pending;
		*hdr = header(c, kinds[i].op, kinds[i].pending == PENDING_SHUTDOWN ? c->shut_host : 0, 0);
		return true;
	}
	return false;
}

static void request_sent(struct vsock_conn *c)
{
	c->deadline_ns = time_now_ns() + CONNECT_TIMEOUT_NS;
	if (!c->vsock->timer_armed)
		loop_timer_at(c->vsock->timer, c->deadline_ns);
	c->vsock->timer_armed = true;
}

/* The next packet of c into the chain: its bytes, 0 if c has none now, -errno if the chain cannot be written. */
static int conn_packet(struct vsock_conn *c, const struct virtq_chain *chain)
{
	struct virtio_vsock_hdr hdr;
	struct iovec room[64];
	uint32_t len = 0;
	bool owed = control_packet(c, &hdr);

	if (!owed) {
		uint32_t most = (uint32_t)MIN(chain->len_write - HDR_SIZE, PAYLOAD_MAX);
		int n = virtq_iov_slice(chain->write, chain->num_write, HDR_SIZE, most, room, ARRAY_SIZE(room));

		len = n > 0 ? vsock_conn_fetch(c, room, (unsigned)n, most) : 0;
		if (len)
			hdr = header(c, VIRTIO_VSOCK_OP_RW, 0, len);
		else
			owed = control_packet(c, &hdr); /* the fetch may have asked for credit, or ended it all */
	}
	if (!len && !owed)
		return 0;
	if (virtq_chain_write(chain, 0, &hdr, sizeof(hdr)) < 0)
		return -EFAULT;
	if (hdr.op == htole16(VIRTIO_VSOCK_OP_REQUEST))
		request_sent(c);
	if (hdr.op == htole16(VIRTIO_VSOCK_OP_RST))
		vsock_conn_free(c);
	return (int)(HDR_SIZE + len);
}

/* The next packet of anybody: its bytes, 0 if there is none. */
static int next_packet(struct vsock *v, const struct virtq_chain *chain)
{
	if (v->stray_count) {
		const struct virtio_vsock_hdr *hdr = &v->strays[v->stray_head];

		v->stray_head = (v->stray_head + 1) % VSOCK_STRAYS;
		v->stray_count--;
		return virtq_chain_write(chain, 0, hdr, sizeof(*hdr)) < 0 ? -EFAULT : (int)HDR_SIZE;
	}
	while (v->ready_head) {
		struct vsock_conn *c = v->ready_head;
		bool rotate = ++c->turn >= TURN_PACKETS && c->ready_next;
		int n;

		if (rotate) {
			vsock_conn_unready(c);
			vsock_conn_owe(c, 0);
			continue;
		}
		n = conn_packet(c, chain);
		if (n)
			return n;
		vsock_conn_unready(c);
	}
	return 0;
}

/* Takes a receive buffer: 1, 0 if there is none (the next one will kick), -1 broken. */
static int take_buffer(struct vsock *v)
{
	struct virtqueue *vq = &v->dev.queues[QUEUE_RX];
	int r;

	do {
		r = virtq_pop(vq, &v->rx_chain);
	} while (r == 0 && virtq_enable_notify(vq));
	if (r == 1 && !v->rx_chain.num_read && v->rx_chain.len_write > HDR_SIZE)
		return 1;
	if (r == 0)
		return 0;
	virtio_device_broken(&v->dev, "bad receive buffer");
	return -1;
}

void vsock_pump(struct vsock *v)
{
	struct virtio_device *dev = &v->dev;
	struct virtqueue *vq = &dev->queues[QUEUE_RX];
	unsigned left = PUMP_BUDGET;

	if (!dev->active || dev->broken)
		return;
	virtq_disable_notify(vq);
	while (v->stray_count || v->ready_head) {
		int n;

		if (!left--) {
			if (dev->irq.again)
				dev->irq.again(dev->irq.arg, QUEUE_RX);
			break;
		}
		if (take_buffer(v) <= 0)
			break;
		n = next_packet(v, &v->rx_chain);
		if (n == 0) {
			virtq_unpop(vq);
			break;
		}
		/* A buffer that cannot be written (its window is gone) goes back empty; its packet is lost, as its
		 * page. */
		virtq_push(vq, v->rx_chain.head, n < 0 ? 0 : (uint32_t)n);
	}
	virtio_device_signal(dev, QUEUE_RX);
}

/* ---- from the guest ---- */

/* Owes a reset to a packet that belongs to no connection. */
static void reset_stray(struct vsock *v, const struct virtio_vsock_hdr *in)
{
	if (v->stray_count == VSOCK_STRAYS) {
		v->strays_dropped++;
		return;
	}
	v->strays[(v->stray_head + v->stray_count++) % VSOCK_STRAYS] = (struct virtio_vsock_hdr){
		.src_cid = in->dst_cid,
		.dst_cid = htole64(v->options.cid),
		.src_port = in->dst_port,
		.dst_port = in->src_port,
		.type = in->type,
		.op = htole16(VIRTIO_VSOCK_OP_RST),
	};
	v->stats.resets++;
}

/* A descriptor for the guest's connection to a host port: the one expected, or an end of a new pair. -1: refused. */
static int accept_fd(struct vsock *v, uint32_t port)
{
	int pair[2];

	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_EXPECTED; i++)
		if (v->expected[i].fd >= 0 && v->expected[i].port == port)
			return TAKE_FD(v->expected[i].fd);
	if (!v->options.connect || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	if (v->options.connect(v->options.arg, port, pair[1]) < 0) {
		fd_close(pair[0]);
		return -1;
	}
	return pair[0];
}

static void take_credit(struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	c->peer_alloc = le32toh(hdr->buf_alloc);
	c->peer_fwd = le32toh(hdr->fwd_cnt);
	if (!vsock_conn_credit(c))
		return;
	c->asked_credit = false;
	if (c->readable)
		vsock_conn_owe(c, 0);
}

static void on_request(struct vsock *v, const struct virtio_vsock_hdr *hdr)
{
	uint32_t host_port = le32toh(hdr->dst_port), guest_port = le32toh(hdr->src_port);
	struct vsock_conn *c = NULL;
	int fd = v->count < v->max ? accept_fd(v, host_port) : -1;

	if (fd >= 0)
		c = vsock_conn_new(v, host_port, guest_port, fd, VSOCK_OPEN);
	if (!c) {
		reset_stray(v, hdr);
		return;
	}
	vsock_conn_owe(c, PENDING_RESPONSE);
	take_credit(c, hdr);
}

static void on_connecting(struct vsock_conn *c, const struct virtio_vsock_hdr *hdr)
{
	if (le16toh(hdr->op) != VIRTIO_VSOCK_OP_RESPONSE || !c->deadline_ns) {
		vsock_conn_abort(c);
		return;
	}
	c->state = VSOCK_OPEN;
	vsock_conn_owe(c, 0); /* edges may have come before */
	take_credit(c, hdr);
}

static void on_open(struct vsock_conn *c, const struct virtio_vsock_hdr *hdr, const struct virtq_chain *chain)
{
	uint32_t len = le32toh(hdr->len);

	take_credit(c, hdr);
	switch (le16toh(hdr->op)) {
	case VIRTIO_VSOCK_OP_RW:
		if (len > chain->len_read - HDR_SIZE)
			vsock_conn_abort(c);
		else if (len)
			vsock_conn_receive(c, chain, HDR_SIZE, len);
		return;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		vsock_conn_shutdown(c, le32toh(hdr->flags));
		return;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		return;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		vsock_conn_owe(c, PENDING_CREDIT_UPDATE);
		return;
	default:
		vsock_conn_abort(c);
		return;
	}
}

static int transmit(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct vsock *v = (struct vsock *)dev;
	struct virtio_vsock_hdr hdr;
	struct vsock_conn *c;
	uint16_t op;

	if (virtq_chain_read(chain, 0, &hdr, sizeof(hdr)) < 0)
		return -EPROTO;
	op = le16toh(hdr.op);
	if (le64toh(hdr.src_cid) != v->options.cid || le64toh(hdr.dst_cid) != VIRTIO_VSOCK_HOST_CID ||
	    le16toh(hdr.type) != VIRTIO_VSOCK_TYPE_STREAM) {
		if (op != VIRTIO_VSOCK_OP_RST)
			reset_stray(v, &hdr);
		return 0;
	}
	c = vsock_conn_find(v, le32toh(hdr.dst_port), le32toh(hdr.src_port));
	if (op == VIRTIO_VSOCK_OP_RST) {
		if (c)
			vsock_conn_drain(c);
	} else if (!c) {
		if (op == VIRTIO_VSOCK_OP_REQUEST)
			on_request(v, &hdr);
		else
			reset_stray(v, &hdr);
	} else if (c->state == VSOCK_CONNECTING) {
		on_connecting(c, &hdr);
	} else if (c->state == VSOCK_OPEN) {
		on_open(c, &hdr, chain);
	}
	return 0;
}

/* ---- the device ---- */

static int send_event(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct vsock *v = (struct vsock *)dev;
	struct virtio_vsock_event event = {.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};

	if (!v->event_pending)
		return -EAGAIN;
	if (chain->num_read || chain->len_write < sizeof(event))
		return -EPROTO;
	v->event_pending = false;
	return virtq_chain_write(chain, 0, &event, sizeof(event)) < 0 ? 0 : (int)sizeof(event);
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct vsock *v = (struct vsock *)dev;

	if (queue == QUEUE_TX)
		virtio_device_drain(dev, queue, &v->chain, transmit);
	if (queue == QUEUE_EVENT)
		virtio_device_drain(dev, queue, &v->chain, send_event);
	else
		vsock_pump(v);
}

/* Requests that the guest has not answered in time. */
static void timed_out(struct loop *loop, struct loop_source *src, void *arg)
{
	struct vsock *v = arg;
	uint64_t now = time_now_ns(), next = 0;

	for (struct vsock_conn *c = v->all; c; c = c->all_next) {
		if (c->state != VSOCK_CONNECTING || !c->deadline_ns)
			continue;
		if (c->deadline_ns <= now)
			vsock_conn_abort(c);
		else if (!next || c->deadline_ns < next)
			next = c->deadline_ns;
	}
	v->timer_armed = next != 0;
	loop_timer_at(v->timer, next);
	vsock_pump(v);
}

static void drop_all(struct vsock *v)
{
	struct vsock_conn *next;

	for (struct vsock_conn *c = v->all; c; c = next) {
		next = c->all_next;
		if (c->state != VSOCK_DRAINING)
			vsock_conn_drain(c);
	}
	v->stray_count = 0;
}

static void reset(struct virtio_device *dev)
{
	struct vsock *v = (struct vsock *)dev;

	drop_all(v);
	v->event_pending = false;
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct vsock *v = (struct vsock *)dev;
	struct virtio_vsock_config config = {.guest_cid = htole64(v->options.cid)};

	virtio_config_copy(p, off, len, &config, sizeof(config));
}

/* Connections do not survive a snapshot: only the port counter does, so that a port is not used again at once. */
static int save(struct virtio_device *dev, struct buf *out)
{
	struct vsock *v = (struct vsock *)dev;

	return buf_put_u32(out, v->next_port);
}

static int load(struct virtio_device *dev, struct cursor *in)
{
	struct vsock *v = (struct vsock *)dev;
	uint32_t port = cursor_u32(in);

	v->next_port = MAX(port, FIRST_PORT);
	v->event_pending = true;
	return 0;
}

static void vsock_free(struct virtio_device *dev)
{
	struct vsock *v = (struct vsock *)dev;

	while (v->all)
		vsock_conn_free(v->all);
	loop_remove(v->timer);
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_EXPECTED; i++)
		fd_close(v->expected[i].fd);
	free(v);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.save = save,
	.load = load,
	.free = vsock_free,
};

int virtio_vsock_new(struct mem *mem, struct loop *loop, const struct virtio_vsock_options *options,
		     struct virtio_device **ret)
{
	struct vsock *v;
	int r;

	if (options->cid <= VIRTIO_VSOCK_HOST_CID || options->cid == UINT32_MAX)
		return -EINVAL;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	r = loop_add_timer(loop, timed_out, v, &v->timer);
	if (r < 0) {
		free(v);
		return r;
	}
	v->options = *options;
	v->max = options->max_connections ? options->max_connections : 4096;
	v->next_port = FIRST_PORT;
	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_EXPECTED; i++)
		v->expected[i].fd = -1;
	v->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_VSOCK_,
		.offered = VIRTIO_DEVICE_FEATURES,
		.config_size = sizeof(struct virtio_vsock_config),
		.num_queues = NUM_QUEUES,
		.queue_size_max = 256,
		.mem = mem,
		.loop = loop,
	};
	*ret = &v->dev;
	return 0;
}

int virtio_vsock_join(struct virtio_device *dev, uint32_t guest_port, int fd)
{
	struct vsock *v = (struct vsock *)dev;
	struct vsock_conn *c;

	if (v->count >= v->max) {
		fd_close(fd);
		return -ENOSPC;
	}
	do {
		if (++v->next_port < FIRST_PORT || v->next_port == UINT32_MAX)
			v->next_port = FIRST_PORT;
	} while (vsock_conn_find(v, v->next_port, guest_port));
	c = vsock_conn_new(v, v->next_port, guest_port, fd, VSOCK_CONNECTING);
	if (!c)
		return -ENOMEM;
	vsock_conn_owe(c, PENDING_REQUEST);
	vsock_pump(v);
	return 0;
}

int virtio_vsock_expect(struct virtio_device *dev, uint32_t port, int fd)
{
	struct vsock *v = (struct vsock *)dev;

	for (unsigned i = 0; i < VIRTIO_VSOCK_MAX_EXPECTED; i++) {
		if (v->expected[i].fd >= 0 && v->expected[i].port != port)
			continue;
		fd_close(v->expected[i].fd);
		v->expected[i].fd = fd;
		v->expected[i].port = port;
		return 0;
	}
	fd_close(fd);
	return -ENOSPC;
}

static struct vsock_conn *find_quiet(struct vsock *v, uint32_t port)
{
	struct vsock_conn *c = v->all;

	while (c && (c->host_port != port || !vsock_conn_is_quiet(c)))
		c = c->all_next;
	return c;
}

void virtio_vsock_keep(struct virtio_device *dev, uint32_t port, struct virtio_vsock_kept *ret)
{
	struct vsock *v = (struct vsock *)dev;
	const struct vsock_conn *c = find_quiet(v, port);

	*ret = (struct virtio_vsock_kept){0};
	if (!c || v->count != 1 || v->event_pending)
		return;
	*ret = (struct virtio_vsock_kept){.set = true,
					  .host_port = c->host_port,
					  .guest_port = c->guest_port,
					  .peer_alloc = c->peer_alloc,
					  .peer_fwd = c->peer_fwd,
					  .sent = c->sent,
					  .alloc = c->alloc,
					  .received = c->received,
					  .forwarded = c->forwarded,
					  .told = c->told,
					  .pending = c->pending,
					  .asked_credit = c->asked_credit};
}

int virtio_vsock_revive(struct virtio_device *dev, const struct virtio_vsock_kept *kept, int fd)
{
	struct vsock *v = (struct vsock *)dev;
	struct vsock_conn *c = vsock_conn_new(v, kept->host_port, kept->guest_port, fd, VSOCK_OPEN);

	if (!c)
		return -ENOMEM;
	c->peer_alloc = kept->peer_alloc;
	c->peer_fwd = kept->peer_fwd;
	c->sent = kept->sent;
	c->alloc = kept->alloc;
	c->received = kept->received;
	c->forwarded = kept->forwarded;
	c->told = kept->told;
	c->asked_credit = kept->asked_credit;
	if (kept->pending)
		vsock_conn_owe(c, kept->pending);
	v->event_pending = false;
	return 0;
}

int virtio_vsock_rejoin(struct virtio_device *dev, uint32_t port, int fd)
{
	struct vsock *v = (struct vsock *)dev;
	struct vsock_conn *c = find_quiet(v, port);

	if (c && vsock_conn_swap(c, fd) == 0)
		return 0;
	if (c) {
		vsock_conn_abort(c);
		vsock_pump(v);
		return -ENOMEM;
	}
	for (c = v->all; c; c = c->all_next)
		if (c->host_port == port && c->state == VSOCK_OPEN)
			vsock_conn_abort(c);
	vsock_pump(v);
	return virtio_vsock_expect(dev, port, fd);
}

void virtio_vsock_stats(struct virtio_device *dev, struct virtio_vsock_stats *ret)
{
	struct vsock *v = (struct vsock *)dev;

	*ret = v->stats;
	ret->connections = v->count;
}

void virtio_vsock_transport_reset(struct virtio_device *dev)
{
	struct vsock *v = (struct vsock *)dev;

	drop_all(v);
	v->event_pending = true;
	if (dev->active && !dev->broken)
		notify(dev, QUEUE_EVENT);
}

const int virtio_vsock_syscalls[] = {SYS_socketpair, SYS_sendmsg,	SYS_recvmsg, SYS_shutdown, SYS_close,
				     SYS_epoll_ctl,  SYS_mmap,		SYS_munmap,  SYS_brk,	   SYS_mremap,
				     SYS_madvise,    SYS_clock_gettime, -1};
