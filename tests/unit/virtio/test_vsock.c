/* SPDX-License-Identifier: Apache-2.0 */
/* The vsock device: connections both ways, credit, ends of streams, and a guest that breaks every rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/virtio_vsock.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/vsock.h"

#define ALL UINT64_MAX
#define CID 7
#define HDR_SIZE sizeof(struct virtio_vsock_hdr)
#define TX (RAM_BASE + 0x100000)
#define RX_SIZE 4096U

struct guest {
	struct driver d;
	struct virtio_device *dev;
	int accepted[8]; /* descriptors that the callback got, newest last */
	unsigned num_accepted;
	uint32_t accepted_port;
	int refuse;	  /* what the callback answers */
	uint64_t rx[256]; /* where each receive buffer's descriptor points */
	/* The last packet received: */
	struct virtio_vsock_hdr in;
	uint8_t data[RX_SIZE];
};

static int on_connect(void *arg, uint32_t port, int fd)
{
	struct guest *g = arg;

	if (g->refuse) {
		close(fd);
		return g->refuse;
	}
	g->accepted_port = port;
	g->accepted[g->num_accepted++ % 8] = fd;
	return 0;
}

/* Gives the device one more receive buffer. */
static void give_buffer(struct guest *g)
{
	struct driver_queue *q = &g->d.queues[0];
	uint16_t at = q->next_desc;
	struct driver_buf bufs[] = {{0, HDR_SIZE, true}, {0, RX_SIZE - HDR_SIZE, true}};

	if (!g->rx[at])
		g->rx[at] = driver_alloc(&g->d, RX_SIZE, 16);
	bufs[0].addr = g->rx[at];
	bufs[1].addr = g->rx[at] + HDR_SIZE;
	driver_chain(&g->d, 0, bufs, 2);
}

static struct guest *guest_start(unsigned buffers, unsigned max)
{
	struct virtio_vsock_options o = {.name = "vsock", .cid = CID, .max_connections = max, .connect = on_connect};
	struct guest *g = calloc(1, sizeof(*g));

	o.arg = g;
	driver_init(&g->d);
	assert_int_equal(virtio_vsock_new(&g->d.mem, g->d.loop, &o, &g->dev), 0);
	driver_attach(&g->d, g->dev);
	assert_true(driver_start(&g->d, ALL));
	for (unsigned i = 0; i < buffers; i++)
		give_buffer(g);
	driver_kick(&g->d, 0);
	return g;
}

static struct guest *guest_new(void)
{
	return guest_start(64, 0);
}

static void guest_free(struct guest *g)
{
	driver_done(&g->d);
	free(g);
}

static unsigned connections(struct guest *g)
{
	struct virtio_vsock_stats s;

	virtio_vsock_stats(g->dev, &s);
	return s.connections;
}

static struct virtio_vsock_hdr packet(uint32_t src, uint32_t dst, uint16_t op)
{
	return (struct virtio_vsock_hdr){.src_cid = CID,
					 .dst_cid = 2,
					 .src_port = src,
					 .dst_port = dst,
					 .type = VIRTIO_VSOCK_TYPE_STREAM,
					 .op = op,
					 .buf_alloc = 65536};
}

static void send_hdr(struct guest *g, struct virtio_vsock_hdr hdr, const void *data, uint32_t len)
{
	struct driver_buf bufs[] = {{TX, HDR_SIZE, false}, {TX + HDR_SIZE, len, false}};

	memcpy(driver_at(&g->d, TX), &hdr, sizeof(hdr));
	if (len)
		memcpy(driver_at(&g->d, TX + HDR_SIZE), data, len);
	driver_chain(&g->d, 1, bufs, len ? 2 : 1);
	driver_kick(&g->d, 1);
	assert_true(driver_used(&g->d, 1, NULL, NULL));
}

static void send_op(struct guest *g, uint32_t src, uint32_t dst, uint16_t op, uint32_t flags)
{
	struct virtio_vsock_hdr hdr = packet(src, dst, op);

	hdr.flags = flags;
	send_hdr(g, hdr, NULL, 0);
}

static void send_data(struct guest *g, uint32_t src, uint32_t dst, const void *p, uint32_t len)
{
	struct virtio_vsock_hdr hdr = packet(src, dst, VIRTIO_VSOCK_OP_RW);

	hdr.len = len;
	send_hdr(g, hdr, p, len);
}

static void take(struct guest *g, uint16_t head, uint32_t len)
{
	assert_true(len >= HDR_SIZE && len <= RX_SIZE);
	memcpy(&g->in, driver_at(&g->d, g->rx[head]), HDR_SIZE);
	memcpy(g->data, driver_at(&g->d, g->rx[head] + HDR_SIZE), len - HDR_SIZE);
	assert_int_equal(g->in.len, len - HDR_SIZE);
	assert_int_equal(g->in.dst_cid, CID);
	give_buffer(g);
	driver_kick(&g->d, 0);
}

/* The next packet for the guest, which must be this. */
static void expect_op(struct guest *g, uint16_t op)
{
	uint16_t head;
	uint32_t len;

	if (!driver_wait(&g->d, 0, &head, &len))
		fail_msg("no packet, expected op %u", op);
	take(g, head, len);
	if (g->in.op != op)
		fail_msg("packet with op %u, not %u", g->in.op, op);
}

static void expect_silence(struct guest *g)
{
	driver_spin(&g->d, 5);
	assert_false(driver_used(&g->d, 0, NULL, NULL));
}

/* The guest connects to a host port: the host's end. */
static int connect_out(struct guest *g, uint32_t src, uint32_t dst)
{
	send_op(g, src, dst, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(g->in.src_port, dst);
	assert_int_equal(g->in.dst_port, src);
	assert_int_equal(g->in.src_cid, 2);
	assert_int_equal(g->accepted_port, dst);
	return g->accepted[(g->num_accepted - 1) % 8];
}

static void test_guest_connects(void **state)
{
	struct guest *g = guest_new();
	uint64_t cid;
	char text[64] = {0};
	int fd;

	driver_config(&g->d, 0, &cid, 8);
	assert_int_equal(cid, CID);
	fd = connect_out(g, 5000, 99);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(g->in.buf_alloc >= 65536);
	send_data(g, 5000, 99, "hello", 5);
	assert_int_equal(read(fd, text, sizeof(text)), 5);
	assert_string_equal(text, "hello");
	assert_int_equal(write(fd, "answer", 6), 6);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->in.len, 6);
	assert_memory_equal(g->data, "answer", 6);
	assert_int_equal(g->in.fwd_cnt, 5);
	/* The guest closes: it gets its reset, the host its end of file. */
	send_op(g, 5000, 99, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(read(fd, text, sizeof(text)), 0);
	assert_int_equal(connections(g), 0);
	close(fd);
	guest_free(g);
}

static void test_refused(void **state)
{
	struct guest *g = guest_new();

	g->refuse = -EPERM;
	send_op(g, 5000, 99, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(g->in.src_port, 99);
	assert_int_equal(g->in.dst_port, 5000);
	assert_int_equal(connections(g), 0);
	guest_free(g);
}

static void test_expected_first_connection(void **state)
{
	struct guest *g = guest_new();
	int pair[2], fd;
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(virtio_vsock_expect(g->dev, 1024, pair[0]), 0);
	send_op(g, 1, 1024, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(g->num_accepted, 0);
	send_data(g, 1, 1024, "x", 1);
	assert_int_equal(read(pair[1], &c, 1), 1);
	fd = connect_out(g, 2, 1024); /* the second goes the common way */
	close(fd);
	close(pair[1]);
	guest_free(g);
}

/* The host connects: REQUEST, RESPONSE, bytes. */
static void test_host_connects(void **state)
{
	struct guest *g = guest_new();
	uint32_t port;
	int pair[2];
	char text[16] = {0};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(virtio_vsock_join(g->dev, 80, pair[0]), 0);
	assert_int_equal(write(pair[1], "early", 5), 5); /* before the guest has accepted */
	expect_op(g, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(g->in.dst_port, 80);
	port = g->in.src_port;
	expect_silence(g);
	send_op(g, 80, port, VIRTIO_VSOCK_OP_RESPONSE, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(g->data, "early", 5);
	send_data(g, 80, port, "reply", 5);
	assert_int_equal(read(pair[1], text, sizeof(text)), 5);
	/* The host closes: the guest hears that both directions ended, and answers with a reset. */
	close(pair[1]);
	expect_op(g, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(g->in.flags, 3);
	send_op(g, 80, port, VIRTIO_VSOCK_OP_RST, 0);
	assert_int_equal(connections(g), 0);
	expect_silence(g);
	/* The next one has another port. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(virtio_vsock_join(g->dev, 80, pair[0]), 0);
	expect_op(g, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_not_equal(g->in.src_port, port);
	send_op(g, 80, g->in.src_port, VIRTIO_VSOCK_OP_RST, 0); /* nobody listens */
	assert_int_equal(read(pair[1], text, 1), 0);
	assert_int_equal(connections(g), 0);
	close(pair[1]);
	guest_free(g);
}

/* A join before the driver is there waits for it. */
static void test_join_before_the_driver(void **state)
{
	struct virtio_vsock_options o = {.name = "vsock", .cid = CID};
	struct guest *g = calloc(1, sizeof(*g));
	int pair[2];

	driver_init(&g->d);
	assert_int_equal(virtio_vsock_new(&g->d.mem, g->d.loop, &o, &g->dev), 0);
	driver_attach(&g->d, g->dev);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(virtio_vsock_join(g->dev, 80, pair[0]), 0);
	assert_true(driver_start(&g->d, ALL));
	give_buffer(g);
	driver_kick(&g->d, 0);
	expect_op(g, VIRTIO_VSOCK_OP_REQUEST);
	close(pair[1]);
	guest_free(g);
}

static void test_half_close(void **state)
{
	struct guest *g = guest_new();
	int fd = connect_out(g, 1, 2);
	char text[16];

	/* The guest has said all: the host reads its end, and still answers. */
	send_data(g, 1, 2, "question", 8);
	send_op(g, 1, 2, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	assert_int_equal(read(fd, text, sizeof(text)), 8);
	assert_int_equal(read(fd, text, sizeof(text)), 0);
	assert_int_equal(write(fd, "answer", 6), 6);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	close(fd);
	expect_op(g, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_true(g->in.flags & VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_op(g, 1, 2, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(connections(g), 0);

	/* The other way round. */
	fd = connect_out(g, 1, 2);
	assert_int_equal(write(fd, "last", 4), 4);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	expect_op(g, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(g->in.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_data(g, 1, 2, "more", 4);
	assert_int_equal(read(fd, text, sizeof(text)), 4);
	send_op(g, 1, 2, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	close(fd);
	/* The guest no longer reads: the host's writes fail. */
	fd = connect_out(g, 1, 2);
	send_op(g, 1, 2, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV);
	assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	close(fd);
	guest_free(g);
}

/* Bytes that the host's reader has yet to take survive the guest's close, reset, and the reset of the device. */
static void test_tail_is_delivered(void **state)
{
	for (unsigned how = 0; how < 3; how++) {
		struct guest *g = guest_new();
		int fd = connect_out(g, 1, 2), small = 4096;
		uint8_t *data = malloc(65536);
		size_t sent = 0, got = 0;

		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
		for (unsigned i = 0; i < 4; i++) {
			memset(data, (int)i, 60000);
			send_data(g, 1, 2, data, 60000);
			sent += 60000;
		}
		if (how == 0)
			send_op(g, 1, 2, VIRTIO_VSOCK_OP_SHUTDOWN, 3);
		else if (how == 1)
			send_op(g, 1, 2, VIRTIO_VSOCK_OP_RST, 0);
		else
			driver_set_status(&g->d, 0);
		for (;;) {
			ssize_t n = recv(fd, data, 65536, MSG_DONTWAIT);

			if (n == 0)
				break;
			if (n > 0) {
				assert_int_equal(data[0], got / 60000);
				got += (size_t)n;
			}
			driver_spin(&g->d, 0);
		}
		assert_int_equal(got, sent);
		driver_spin(&g->d, 2);
		close(fd);
		free(data);
		guest_free(g);
	}
}

/* Host to guest: never more than the guest has room for; an update lets it go on. */
static void test_credit_towards_the_guest(void **state)
{
	struct guest *g = guest_new();
	struct virtio_vsock_hdr hdr = packet(1, 2, VIRTIO_VSOCK_OP_REQUEST);
	uint8_t data[10000];
	uint32_t got = 0;
	int fd;

	hdr.buf_alloc = 1000;
	send_hdr(g, hdr, NULL, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RESPONSE);
	fd = g->accepted[0];
	memset(data, 5, sizeof(data));
	assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->in.len, 1000);
	expect_op(g, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	expect_silence(g);
	for (got = 1000; got < 10000; got += 1000) {
		hdr = packet(1, 2, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		hdr.buf_alloc = 1000;
		hdr.fwd_cnt = got;
		send_hdr(g, hdr, NULL, 0);
		expect_op(g, VIRTIO_VSOCK_OP_RW);
		assert_int_equal(g->in.len, 1000);
		expect_op(g, VIRTIO_VSOCK_OP_CREDIT_REQUEST); /* it cannot know that this was all */
	}
	expect_silence(g);
	/* A guest that says it has taken more than it was sent gets nothing, and breaks nothing. */
	assert_int_equal(write(fd, "x", 1), 1);
	hdr.fwd_cnt = got + 5000;
	send_hdr(g, hdr, NULL, 0);
	hdr.buf_alloc = 0;
	hdr.fwd_cnt = got;
	send_hdr(g, hdr, NULL, 0);
	driver_spin(&g->d, 5);
	while (driver_used(&g->d, 0, NULL, NULL))
		;
	assert_int_equal(connections(g), 1);
	close(fd);
	guest_free(g);
}

/* Guest to host: what it may send is bounded by what the host's reader takes; more than that ends the connection. */
static void test_credit_towards_the_host(void **state)
{
	struct guest *g = guest_new();
	uint8_t data[32768];
	uint32_t alloc, sent = 0;
	ssize_t n;
	size_t got = 0;
	int fd = connect_out(g, 1, 2);

	alloc = g->in.buf_alloc;
	memset(data, 6, sizeof(data));
	/* Nobody reads: as much as was promised plus what the socket holds. */
	for (;;) {
		struct virtio_vsock_hdr hdr = packet(1, 2, VIRTIO_VSOCK_OP_CREDIT_REQUEST);

		send_hdr(g, hdr, NULL, 0);
		expect_op(g, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		assert_int_equal(g->in.buf_alloc, alloc);
		if (alloc - (sent - g->in.fwd_cnt) < sizeof(data))
			break;
		send_data(g, 1, 2, data, sizeof(data));
		sent += sizeof(data);
		assert_true(sent < 16 * MIB);
	}
	assert_true(sent >= alloc);
	expect_silence(g);
	/* As it is read, credit comes back by itself. */
	while (got < sent) {
		n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
		if (n > 0)
			got += (size_t)n;
		driver_spin(&g->d, 0);
	}
	expect_op(g, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	while (g->in.fwd_cnt != sent && alloc - (sent - g->in.fwd_cnt) < alloc / 2)
		expect_op(g, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	/* One byte too many. */
	for (sent = g->in.fwd_cnt;;) {
		uint16_t head;
		uint32_t len;

		send_data(g, 1, 2, data, sizeof(data));
		if (!driver_used(&g->d, 0, &head, &len))
			continue;
		take(g, head, len);
		if (g->in.op == VIRTIO_VSOCK_OP_RST)
			break;
	}
	close(fd);
	assert_int_equal(connections(g), 0);
	assert_false(driver_broken(&g->d));
	guest_free(g);
}

/* Megabytes both ways at once, with the receive queue as the bottleneck; every byte in its place. */
static void test_bulk(void **state)
{
	struct guest *g = guest_start(8, 0);
	int fd = connect_out(g, 1, 2);
	const uint64_t total = 4 * MIB;
	uint64_t out = 0, in = 0, host_in = 0, host_out = 0;
	uint32_t fwd = 0, alloc = g->in.buf_alloc, peer_fwd = 0;
	uint8_t data[8192];

	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	while (in < total || host_in < total) {
		uint16_t head;
		uint32_t len;
		ssize_t n;

		for (unsigned i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)((host_out + i) % 251);
		n = host_out < total ? write(fd, data, MIN(sizeof(data), total - host_out)) : 0;
		host_out += n > 0 ? (uint64_t)n : 0;
		if (out < total && alloc - (uint32_t)(out - peer_fwd) >= 4000) {
			struct virtio_vsock_hdr hdr = packet(1, 2, VIRTIO_VSOCK_OP_RW);

			hdr.len = (uint32_t)MIN(4000, total - out);
			hdr.fwd_cnt = fwd;
			for (unsigned i = 0; i < hdr.len; i++)
				data[i] = (uint8_t)((out + i) % 253);
			send_hdr(g, hdr, data, hdr.len);
			out += hdr.len;
		}
		driver_spin(&g->d, 0);
		while (driver_used(&g->d, 0, &head, &len)) {
			take(g, head, len);
			peer_fwd = g->in.fwd_cnt;
			for (unsigned i = 0; i < g->in.len; i++)
				if (g->data[i] != (in + i) % 251)
					fail_msg("wrong byte for the guest");
			in += g->in.len;
			fwd += g->in.len;
			if (g->in.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST || fwd % 32768 < 4096) {
				struct virtio_vsock_hdr hdr = packet(1, 2, VIRTIO_VSOCK_OP_CREDIT_UPDATE);

				hdr.fwd_cnt = fwd;
				send_hdr(g, hdr, NULL, 0);
			}
		}
		while ((n = read(fd, data, sizeof(data))) > 0) {
			for (unsigned i = 0; i < n; i++)
				if (data[i] != (host_in + i) % 253)
					fail_msg("wrong byte for the host");
			host_in += (uint64_t)n;
		}
	}
	close(fd);
	guest_free(g);
}

static void test_rule_breakers(void **state)
{
	struct guest *g = guest_new();
	struct virtio_vsock_hdr hdr;
	char text[16];
	int fd;

	/* Packets that belong to nothing. */
	uint16_t ops[] = {0,
			  VIRTIO_VSOCK_OP_RESPONSE,
			  VIRTIO_VSOCK_OP_RW,
			  VIRTIO_VSOCK_OP_SHUTDOWN,
			  VIRTIO_VSOCK_OP_CREDIT_UPDATE,
			  VIRTIO_VSOCK_OP_CREDIT_REQUEST,
			  8,
			  0xffff};

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		send_op(g, 10, 20, ops[i], 0);
		expect_op(g, VIRTIO_VSOCK_OP_RST);
		assert_int_equal(g->in.src_port, 20);
		assert_int_equal(g->in.dst_port, 10);
	}
	send_op(g, 10, 20, VIRTIO_VSOCK_OP_RST, 0);
	expect_silence(g); /* a reset is not answered */
	/* Another's address, another type. */
	hdr = packet(1, 2, VIRTIO_VSOCK_OP_REQUEST);
	hdr.dst_cid = 3;
	send_hdr(g, hdr, NULL, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	hdr = packet(1, 2, VIRTIO_VSOCK_OP_REQUEST);
	hdr.src_cid = 1000;
	send_hdr(g, hdr, NULL, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	hdr = packet(1, 2, VIRTIO_VSOCK_OP_REQUEST);
	hdr.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	send_hdr(g, hdr, NULL, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(g->in.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	assert_int_equal(g->num_accepted, 0);
	/* Nonsense within a connection: it ends, for both. */
	for (size_t i = 0; i < 5; i++) {
		fd = connect_out(g, 1, 2);
		hdr = packet(1, 2,
			     i == 0   ? VIRTIO_VSOCK_OP_REQUEST
			     : i == 1 ? VIRTIO_VSOCK_OP_RESPONSE
			     : i == 2 ? 99
				      : VIRTIO_VSOCK_OP_RW);
		hdr.len = i == 3 ? 100 : i == 4 ? UINT32_MAX : 0; /* more than the packet carries */
		send_hdr(g, hdr, NULL, 0);
		expect_op(g, VIRTIO_VSOCK_OP_RST);
		assert_int_equal(read(fd, text, 1), 0);
		close(fd);
		assert_int_equal(connections(g), 0);
	}
	/* Data after the end of data. */
	fd = connect_out(g, 1, 2);
	send_op(g, 1, 2, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	send_data(g, 1, 2, "x", 1);
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	close(fd);
	/* An answer to nothing asked, while we ask something else. */
	assert_false(driver_broken(&g->d));
	guest_free(g);
}

static void test_bad_chains(void **state)
{
	struct guest *g = guest_new();
	struct driver_buf short_packet = {TX, HDR_SIZE - 1, false}, bad_buffer = {TX, 64, false};
	struct driver_buf tiny_buffer = {TX, HDR_SIZE, true};

	driver_chain(&g->d, 1, &short_packet, 1);
	driver_kick(&g->d, 1);
	assert_true(driver_broken(&g->d));
	guest_free(g);
	for (unsigned i = 0; i < 2; i++) {
		g = guest_start(0, 0);
		driver_chain(&g->d, 0, i ? &tiny_buffer : &bad_buffer, 1);
		send_op(g, 10, 20, VIRTIO_VSOCK_OP_RW, 0);
		assert_true(driver_broken(&g->d));
		guest_free(g);
	}
}

/* A flood of packets that all want a reset, with nowhere to put it: bounded, and over once there is room. */
static void test_flood_of_strays(void **state)
{
	struct guest *g = guest_start(0, 0);
	uint16_t head;
	uint32_t len;

	for (unsigned i = 0; i < 5000; i++)
		send_op(g, i, 20, VIRTIO_VSOCK_OP_RW, 0);
	for (unsigned i = 0; i < 16; i++)
		give_buffer(g);
	driver_kick(&g->d, 0);
	for (unsigned i = 0; i < 256; i++) {
		assert_true(driver_wait(&g->d, 0, &head, &len));
		take(g, head, len);
		assert_int_equal(g->in.op, VIRTIO_VSOCK_OP_RST);
		assert_int_equal(g->in.dst_port, i);
	}
	expect_silence(g);
	close(connect_out(g, 1, 2));
	guest_free(g);
}

static void test_many_connections(void **state)
{
	const unsigned count = 2000;
	struct rlimit limit = {4 * count + 100, 4 * count + 100};
	struct guest *g = guest_start(64, count);
	int *fds = calloc(count, sizeof(*fds));
	char c;

	if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
		free(fds);
		guest_free(g);
		skip();
	}
	for (unsigned i = 0; i < count; i++)
		fds[i] = connect_out(g, 10000 + i, 5);
	send_op(g, 9999, 5, VIRTIO_VSOCK_OP_REQUEST, 0); /* one more than allowed */
	expect_op(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(connections(g), count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(write(fds[i], "a", 1), 1);
	for (unsigned i = 0; i < count; i++) {
		expect_op(g, VIRTIO_VSOCK_OP_RW);
		send_data(g, g->in.dst_port, 5, "b", 1);
	}
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(read(fds[i], &c, 1), 1);
		assert_int_equal(c, 'b');
		close(fds[i]);
	}
	for (unsigned i = 0; i < count; i++) {
		expect_op(g, VIRTIO_VSOCK_OP_SHUTDOWN);
		send_op(g, g->in.dst_port, 5, VIRTIO_VSOCK_OP_RST, 0);
	}
	assert_int_equal(connections(g), 0);
	free(fds);
	guest_free(g);
}

/* Connections die with the device's reset, and with a transport reset, of which the guest is told. */
static void test_resets(void **state)
{
	struct guest *g = guest_new();
	struct driver_buf event = {TX + 0x1000, 4, true};
	int fd = connect_out(g, 1, 2);
	uint32_t len;
	char c;

	driver_chain(&g->d, 2, &event, 1);
	driver_kick(&g->d, 2);
	assert_false(driver_used(&g->d, 2, NULL, NULL));
	memset(driver_at(&g->d, TX + 0x1000), 0xff, 4);
	virtio_vsock_transport_reset(g->dev);
	assert_true(driver_used(&g->d, 2, NULL, &len));
	assert_int_equal(len, 4);
	assert_int_equal(*(uint32_t *)driver_at(&g->d, TX + 0x1000), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
	fd = connect_out(g, 1, 2);
	driver_set_status(&g->d, 0);
	assert_int_equal(read(fd, &c, 1), 0);
	assert_int_equal(connections(g), 0);
	close(fd);
	guest_free(g);
}

/* After a snapshot the guest is told that its connections are gone. */
static void test_restore(void **state)
{
	struct guest *g = guest_new(), *h;
	struct driver_buf event = {TX + 0x1000, 4, true};
	struct virtio_vsock_options o = {.name = "vsock", .cid = CID, .connect = on_connect};
	struct buf out = {0};
	struct cursor in;
	uint32_t len;
	int fd = connect_out(g, 1, 2);

	driver_chain(&g->d, 2, &event, 1);
	driver_kick(&g->d, 2);
	assert_int_equal(virtio_pci_save(g->d.pci, &out), 0);
	h = calloc(1, sizeof(*h));
	o.arg = h;
	driver_init(&h->d);
	assert_int_equal(virtio_vsock_new(&h->d.mem, h->d.loop, &o, &h->dev), 0);
	driver_attach(&h->d, h->dev);
	memcpy(h->d.ram, g->d.ram, RAM_SIZE);
	memcpy(h->d.queues, g->d.queues, sizeof(h->d.queues));
	memcpy(h->rx, g->rx, sizeof(h->rx));
	h->d.brk = g->d.brk;
	in = cursor_of(out.data, out.len);
	assert_int_equal(virtio_pci_load(h->d.pci, &in), 0);
	virtio_pci_restart(h->d.pci);
	assert_true(driver_used(&h->d, 2, NULL, &len));
	assert_int_equal(len, 4);
	close(connect_out(h, 3, 4));
	buf_done(&out);
	close(fd);
	guest_free(g);
	guest_free(h);
}

static int rejoined(struct guest *g, uint32_t port, bool reset)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(virtio_vsock_rejoin(g->dev, port, pair[0]), 0);
	if (reset)
		expect_op(g, VIRTIO_VSOCK_OP_RST);
	return pair[1];
}

/* Its connection goes on with another descriptor, in the middle of its streams, and the guest hears nothing of it. */
static void test_goes_on_with_another_descriptor(void **state)
{
	struct guest *g = guest_new();
	int fd = connect_out(g, 1, 1024), next;
	char text[8] = {0};

	send_data(g, 1, 1024, "abc", 3);
	next = rejoined(g, 1024, false);
	expect_silence(g);
	assert_int_equal(read(fd, text, 8), 3);
	assert_int_equal(read(fd, text, 8), 0);
	send_data(g, 1, 1024, "de", 2);
	assert_int_equal(read(next, text, 8), 2);
	assert_int_equal(write(next, "answer", 6), 6);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->in.fwd_cnt, 5);
	close(fd);
	/* One that the guest is about to end is reset, and what it makes then is expected. */
	send_op(g, 1, 1024, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
	fd = rejoined(g, 1024, true);
	assert_int_equal(read(next, text, 8), 0);
	send_op(g, 2, 1024, VIRTIO_VSOCK_OP_REQUEST, 0);
	expect_op(g, VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(g->num_accepted, 1);
	send_data(g, 2, 1024, "x", 1);
	assert_int_equal(read(fd, text, 8), 1);
	close(fd);
	close(next);
	guest_free(g);
}

/* Back to what it was: its numbers too, whatever the connection has done since; and no word of a reset. */
static void test_is_revived(void **state)
{
	struct guest *g = guest_new();
	struct driver_buf event = {TX + 0x1000, 4, true};
	struct virtio_vsock_kept kept, other;
	uint8_t *ram = malloc(RAM_SIZE);
	struct driver_queue queues[3];
	struct buf out = {0};
	char text[8] = {0};
	struct cursor in;
	int pair[2], fd;

	driver_chain(&g->d, 2, &event, 1);
	driver_kick(&g->d, 2);
	virtio_vsock_keep(g->dev, 1024, &kept);
	assert_false(kept.set);
	fd = connect_out(g, 1, 1024);
	send_data(g, 1, 1024, "abc", 3);
	virtio_vsock_keep(g->dev, 1024, &kept);
	assert_true(kept.set && kept.received == 3 && kept.sent == 0 && kept.peer_alloc == 65536);
	assert_int_equal(virtio_pci_save(g->d.pci, &out), 0);
	memcpy(queues, g->d.queues, sizeof(queues));
	memcpy(ram, g->d.ram, RAM_SIZE);

	send_data(g, 1, 1024, "later", 5);
	assert_int_equal(write(fd, "answer", 6), 6);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	close(connect_out(g, 2, 99));
	virtio_vsock_keep(g->dev, 1024, &other); /* of two only one could go on */
	assert_false(other.set);

	virtio_pci_reset(g->d.pci);
	memcpy(g->d.ram, ram, RAM_SIZE);
	in = cursor_of(out.data, out.len);
	assert_int_equal(virtio_pci_load(g->d.pci, &in), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(virtio_vsock_revive(g->dev, &kept, pair[0]), 0);
	memcpy(g->d.queues, queues, sizeof(queues));
	virtio_pci_restart(g->d.pci);
	assert_false(driver_used(&g->d, 2, NULL, NULL));
	assert_int_equal(connections(g), 1);
	send_data(g, 1, 1024, "de", 2);
	assert_int_equal(read(pair[1], text, 8), 2);
	assert_int_equal(write(pair[1], "12", 2), 2);
	expect_op(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->in.fwd_cnt, 5);
	assert_int_equal(g->in.src_port, 1024);
	assert_int_equal(g->in.dst_port, 1);
	buf_done(&out);
	close(pair[1]);
	close(fd);
	free(ram);
	guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest_connects),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_expected_first_connection),
		cmocka_unit_test(test_host_connects),
		cmocka_unit_test(test_join_before_the_driver),
		cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_tail_is_delivered),
		cmocka_unit_test(test_credit_towards_the_guest),
		cmocka_unit_test(test_credit_towards_the_host),
		cmocka_unit_test(test_bulk),
		cmocka_unit_test(test_rule_breakers),
		cmocka_unit_test(test_bad_chains),
		cmocka_unit_test(test_flood_of_strays),
		cmocka_unit_test(test_many_connections),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_goes_on_with_another_descriptor),
		cmocka_unit_test(test_is_revived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
