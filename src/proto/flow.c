/* SPDX-License-Identifier: Apache-2.0 */
/* Streams joined to descriptors. See flow.h. */
#include "proto/flow.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define CHUNK 65536u
#define CHUNKS_A_TURN 8 /* then others have their turn */
#define TTY_EOF "\x04"

static void outflow_end(struct outflow *f, int error)
{
	f->src = loop_remove(f->src);
	f->fd = fd_close(f->fd);
	if (!f->discard)
		mux_send_eof(f->to.mux, f->to.ch, f->to.stream);
	if (f->end)
		f->end(f->arg, error);
}

/* One read and send. 1: more may be there, 0: nothing now, -1: no credit, -2: ended. */
static int outflow_step(struct outflow *f)
{
	uint8_t chunk[CHUNK];
	size_t room = f->held	   ? 0
		      : f->discard ? sizeof(chunk)
				   : MIN(mux_credit(f->to.mux, f->to.ch, f->to.stream), sizeof(chunk));
	ssize_t n;

	room = MIN(room, f->left);
	if (f->held || (!room && f->left))
		return -1;
	n = f->left ? read_gathered(f->fd, chunk, room) : 0;
	if (n < 0 && errno == EINTR)
		return 1;
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0) {
		/* A terminal whose last process has gone reads as EIO. */
		outflow_end(f, n < 0 && errno != EIO ? -errno : 0);
		return -2;
	}
	f->left -= (uint64_t)n;
	if (!f->discard)
		mux_send(f->to.mux, f->to.ch, f->to.stream, chunk, (size_t)n);
	return 1;
}

static int outflow_run(struct outflow *f, int steps)
{
	int r = 1;

	if (f->fd < 0)
		return -2;
	while (r > 0 && steps-- > 0)
		r = outflow_step(f);
	/* After its end it may have been freed. */
	if (r != -2 && f->src)
		loop_modify(f->src, r == -1 ? 0 : EPOLLIN);
	return r;
}

static void outflow_ready(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	outflow_run(arg, CHUNKS_A_TURN);
}

int outflow_begin(struct outflow *f, struct flow_channel to, int fd, bool regular, flow_end_fn end, void *arg)
{
	int r = 0;

	*f = (struct outflow){.to = to, .fd = fd, .regular = regular, .left = UINT64_MAX, .end = end, .arg = arg};
	if (!regular)
		r = loop_add(to.loop, fd, EPOLLIN, outflow_ready, f, &f->src);
	if (r < 0)
		f->fd = fd_close(f->fd);
	return r;
}

void outflow_writable(struct outflow *f)
{
	/* A file ends its turn by the full output queue, and goes on when that has drained. */
	outflow_run(f, f->regular ? INT32_MAX : CHUNKS_A_TURN);
}

bool outflow_drain(struct outflow *f)
{
	int r = outflow_run(f, INT32_MAX);

	return r == 0 || r == -2;
}

void outflow_hold(struct outflow *f)
{
	f->held = true;
	if (f->src)
		loop_modify(f->src, 0);
}

void outflow_release(struct outflow *f, struct flow_channel to)
{
	f->held = false;
	f->to = to;
	if (f->src)
		loop_modify(f->src, EPOLLIN);
}

void outflow_done(struct outflow *f)
{
	f->src = loop_remove(f->src);
	f->fd = fd_close(f->fd);
}

/* The peer may send as much again, unless it was another that had sent these. */
static void give_credit(struct inflow *f, size_t len)
{
	size_t foreign = MIN(len, f->foreign);

	f->foreign -= foreign;
	if (len > foreign)
		mux_consumed(f->from.mux, f->from.ch, f->from.stream, len - foreign);
}

static void inflow_end(struct inflow *f, int error)
{
	size_t dropped = f->pending.len;

	f->src = loop_remove(f->src);
	if (f->shut)
		shutdown(f->fd, SHUT_WR);
	f->fd = fd_close(f->fd);
	buf_done(&f->pending);
	give_credit(f, dropped);
	if (f->end)
		f->end(f->arg, error);
}

/* Writes from p; returns how much was taken, or -errno that ends the flow. */
static ssize_t write_some(int fd, const uint8_t *p, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, p + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static void inflow_flush(struct inflow *f)
{
	ssize_t n;

	if (f->held)
		return;
	n = write_some(f->fd, f->pending.data, f->pending.len);
	if (n < 0) {
		inflow_end(f, (int)n);
		return;
	}
	if (n > 0) {
		buf_consume(&f->pending, (size_t)n);
		give_credit(f, (size_t)n);
	}
	if (f->pending.len)
		return;
	if (f->got_eof && f->tty) {
		/* Said once; the terminal stays open for its output. */
		(void)!write(f->fd, TTY_EOF, 1);
		f->got_eof = false;
	}
	if (f->got_eof)
		inflow_end(f, 0);
	else if (f->src)
		loop_modify(f->src, 0);
}

static void inflow_ready(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct inflow *f = arg;

	/* A pipe whose readers have all gone reports an error even while nothing waits; the write says which. */
	inflow_flush(f);
}

int inflow_begin(struct inflow *f, struct flow_channel from, int fd, bool regular, flow_end_fn end, void *arg)
{
	int r = 0;

	*f = (struct inflow){.from = from, .fd = fd, .regular = regular, .end = end, .arg = arg};
	if (!regular)
		r = loop_add(from.loop, fd, 0, inflow_ready, f, &f->src);
	if (r < 0)
		f->fd = fd_close(f->fd);
	return r;
}

void inflow_data(struct inflow *f, const uint8_t *p, size_t len)
{
	ssize_t n = 0;

	if (f->fd >= 0 && !f->pending.len && !f->held)
		n = write_some(f->fd, p, len);
	if (f->fd < 0 || n < 0) {
		mux_consumed(f->from.mux, f->from.ch, f->from.stream, len);
		if (f->fd >= 0)
			inflow_end(f, (int)n);
		return;
	}
	if (n > 0)
		mux_consumed(f->from.mux, f->from.ch, f->from.stream, (size_t)n);
	if ((size_t)n == len)
		return;
	if (buf_put(&f->pending, p + n, len - (size_t)n) < 0)
		inflow_end(f, -ENOMEM);
	else if (f->src && !f->held)
		loop_modify(f->src, EPOLLOUT);
}

void inflow_eof(struct inflow *f)
{
	f->got_eof = true;
	if (f->fd >= 0 && !f->pending.len)
		inflow_flush(f);
}

void inflow_hold(struct inflow *f)
{
	f->held = true;
	if (f->src)
		loop_modify(f->src, 0);
}

void inflow_release(struct inflow *f, struct flow_channel from)
{
	if (f->from.ch != from.ch || f->from.mux != from.mux)
		f->foreign = f->pending.len;
	f->held = false;
	f->from = from;
	if (f->fd >= 0)
		inflow_flush(f);
	if (f->fd >= 0 && f->src && f->pending.len)
		loop_modify(f->src, EPOLLOUT);
}

void inflow_done(struct inflow *f)
{
	f->src = loop_remove(f->src);
	f->fd = fd_close(f->fd);
	buf_done(&f->pending);
}
