/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console. See console.h.
 *
 * Output never pushes back: Linux spins with a lock held until the device has taken its bytes, so a slow reader of ours
 * would hang the guest. What does not fit the buffer is dropped and counted. The descriptor may be in blocking mode and
 * shared with others: it is written in pieces of at most PIPE_BUF bytes, and only after poll has said that it takes
 * one.
 */
#include "virtio/console.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define BUFFER_SIZE (64 * KIB)
#define CHAIN_MAX MIB /* what one chain may carry; the rest of a longer one is dropped */

enum { QUEUE_RX, QUEUE_TX, NUM_QUEUES };

struct console {
	struct virtio_device dev;
	int output, input;
	struct loop_source *out_source, *in_source; /* NULL: not pollable (a file), or ended */
	void (*tap)(void *arg, const void *p, size_t len);
	void *arg;
	uint8_t buffer[BUFFER_SIZE]; /* [start, start + len) waits for the output, without wrapping */
	size_t start, len;
	uint64_t dropped; /* metric: bytes */
	struct virtq_chain chain;
};

static bool output_ready(const struct console *c)
{
	struct pollfd p = {.fd = c->output, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL));
}

/* Writes what the output takes now; the loop calls again when it takes more. */
static void flush(struct console *c)
{
	while (c->len && c->output >= 0 && output_ready(c)) {
		ssize_t n = write(c->output, c->buffer + c->start, MIN(c->len, PIPE_BUF));

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			/* The reader is gone, or the disk is full: nobody will read it. */
			c->output = -1;
			c->out_source = loop_remove(c->out_source);
			break;
		}
		c->start += (size_t)n;
		c->len -= (size_t)n;
	}
	if (c->output < 0) {
		c->dropped += c->len;
		c->len = 0;
	}
	if (!c->len)
		c->start = 0;
	if (c->out_source)
		(void)loop_modify(c->out_source, c->len ? EPOLLOUT : 0);
}

static void out_event(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	flush(arg);
}

static void append(struct console *c, const void *p, size_t len)
{
	size_t room;

	if (c->tap)
		c->tap(c->arg, p, len);
	if (c->start + c->len + len > BUFFER_SIZE) {
		flush(c);
		memmove(c->buffer, c->buffer + c->start, c->len);
		c->start = 0;
	}
	room = MIN(len, BUFFER_SIZE - c->len);
	memcpy(c->buffer + c->start + c->len, p, room);
	c->len += room;
	c->dropped += len - room;
}

static int transmit(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct console *c = (struct console *)dev;
	uint64_t len = MIN(chain->len_read, CHAIN_MAX);
	uint8_t piece[4096];

	if (chain->num_write)
		return -EPROTO;
	for (uint64_t off = 0; off < len; off += sizeof(piece)) {
		size_t n = MIN(sizeof(piece), len - off);

		if (virtq_chain_read(chain, off, piece, n) < 0)
			break;
		append(c, piece, n);
	}
	return 0;
}

/* One buffer's worth of input; the guest's buffer goes back unused when there is none. */
static int receive(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct console *c = (struct console *)dev;
	uint8_t piece[4096];
	struct pollfd p = {.fd = c->input, .events = POLLIN};
	ssize_t n;

	if (chain->num_read)
		return -EPROTO;
	if (!c->in_source || poll(&p, 1, 0) != 1)
		return -EAGAIN;
	n = read(c->input, piece, MIN(sizeof(piece), chain->len_write));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n <= 0) {
		c->in_source = loop_remove(c->in_source);
		return -EAGAIN;
	}
	return virtq_chain_write(chain, 0, piece, (size_t)n) < 0 ? 0 : (int)n;
}

/* Fills the guest's buffers from the input, and listens for more as long as there is a buffer for it. */
static void feed(struct console *c)
{
	struct virtqueue *vq = &c->dev.queues[QUEUE_RX];

	if (!c->in_source)
		return;
	virtio_device_drain(&c->dev, QUEUE_RX, &c->chain, receive);
	if (c->in_source)
		(void)loop_modify(c->in_source,
				  c->dev.active && !c->dev.broken && virtq_enable_notify(vq) ? EPOLLIN : 0);
}

static void in_event(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	feed(arg);
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct console *c = (struct console *)dev;

	if (queue == QUEUE_TX) {
		virtio_device_drain(dev, queue, &c->chain, transmit);
		flush(c);
	} else {
		feed(c);
	}
}

static void reset(struct virtio_device *dev)
{
	struct console *c = (struct console *)dev;

	if (c->in_source)
		(void)loop_modify(c->in_source, 0);
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	virtio_config_copy(p, off, len, NULL, 0);
}

static void console_free(struct virtio_device *dev)
{
	struct console *c = (struct console *)dev;

	flush(c);
	loop_remove(c->out_source);
	loop_remove(c->in_source);
	free(c);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.free = console_free,
};

int virtio_console_new(struct mem *mem, struct loop *loop, const struct virtio_console_options *options,
		       struct virtio_device **ret)
{
	struct console *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return -ENOMEM;
	c->output = options->output;
	c->input = options->input;
	c->tap = options->tap;
	c->arg = options->arg;
	c->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_CONSOLE_,
		.offered = VIRTIO_DEVICE_FEATURES,
		.num_queues = NUM_QUEUES,
		.queue_size_max = 64,
		.mem = mem,
		.loop = loop,
	};
	if (c->output >= 0)
		r = loop_add(loop, c->output, 0, out_event, c, &c->out_source);
	if (r == 0 && c->input >= 0)
		r = loop_add(loop, c->input, 0, in_event, c, &c->in_source);
	if (r < 0) {
		loop_remove(c->out_source);
		free(c);
		return r;
	}
	*ret = &c->dev;
	return 0;
}

const int virtio_console_syscalls[] = {SYS_poll, SYS_write, SYS_read, SYS_epoll_ctl, -1};
