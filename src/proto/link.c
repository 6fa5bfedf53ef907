/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mux over a descriptor. See link.h. Output is written at once after each batch of input, and from the loop's
 * EPOLLOUT when it was queued elsewhere or the descriptor was full. EPOLLOUT is armed only while something is queued.
 */
#include "proto/link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define READ_SIZE (128u * 1024u)
#define READS_A_TURN 4 /* so that one busy link does not starve the others of the loop */

struct link {
	int fd;
	struct mux *mux;
	struct loop_source *src;
	link_end_fn end;
	void *arg;
	const char *lost_text; /* NULL: the reason itself */
	uint8_t *room;
	bool armed_out, ended, freed, hushed;
	unsigned busy;
};

static struct link *link_destroy(struct link *l)
{
	loop_remove(l->src);
	mux_free(l->mux);
	fd_close(l->fd);
	free(l->room);
	free(l);
	return NULL;
}

struct link *link_free(struct link *l)
{
	if (!l)
		return NULL;
	if (l->busy) {
		l->freed = true;
		return NULL;
	}
	return link_destroy(l);
}

struct mux *link_mux(struct link *l)
{
	return l->mux;
}

void link_set_lost_text(struct link *l, const char *text)
{
	l->lost_text = text;
}

static void arm(struct link *l, bool out)
{
	if (l->ended || l->armed_out == out)
		return;
	l->armed_out = out;
	loop_modify(l->src, EPOLLIN | (out ? EPOLLOUT : 0));
}

static void on_output(void *arg)
{
	struct link *l = arg;

	if (!l->busy && !l->hushed)
		arm(l, true);
}

static void end_link(struct link *l, int r, const char *why)
{
	if (l->ended || l->freed)
		return;
	l->ended = true;
	l->src = loop_remove(l->src);
	mux_abort(l->mux, r < 0 ? r : -ECONNRESET, l->lost_text ? l->lost_text : why);
	if (l->end && !l->freed)
		l->end(l, r, why, l->arg);
}

/* 0, or -errno that ends the link. */
static int write_out(struct link *l)
{
	for (;;) {
		size_t len;
		const uint8_t *p = mux_output(l->mux, &len);
		ssize_t n;

		if (!len || l->hushed)
			return 0;
		n = write(l->fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		mux_output_done(l->mux, (size_t)n);
	}
}

static bool output_left(struct link *l)
{
	size_t len;

	mux_output(l->mux, &len);
	return len > 0;
}

static void leave(struct link *l)
{
	if (--l->busy)
		return;
	if (l->freed)
		link_destroy(l);
	else if (!l->ended)
		arm(l, output_left(l) && !l->hushed);
}

int link_hush(struct link *l, bool hush)
{
	link_flush(l);
	if (l->ended || l->freed)
		return -ENOTCONN;
	if (hush && output_left(l))
		return -EBUSY;
	l->hushed = hush;
	link_flush(l);
	return 0;
}

int link_release(struct link *l)
{
	int fd;

	if (l->busy || l->ended || output_left(l))
		return -EBUSY;
	l->ended = true;
	l->src = loop_remove(l->src);
	mux_abort(l->mux, -ECONNRESET, "the stream begins anew");
	fd = TAKE_FD(l->fd);
	link_destroy(l);
	return fd;
}

void link_flush(struct link *l)
{
	int r;

	if (l->ended || l->freed)
		return;
	l->busy++;
	r = write_out(l);
	if (r < 0)
		end_link(l, r, "cannot write to the peer");
	leave(l);
}

/* Reads and feeds one batch: 1 more may be there, 0 none now, else the link has ended. */
static int read_in(struct link *l)
{
	const char *why = "";
	ssize_t n = read_gathered(l->fd, l->room, READ_SIZE);
	int r;

	if (n < 0) {
		if (errno == EAGAIN || errno == EINTR)
			return 0;
		r = -errno;
		end_link(l, r, "cannot read from the peer");
		return -1;
	}
	if (n == 0) {
		end_link(l, 0, "the peer closed the connection");
		return -1;
	}
	r = mux_feed(l->mux, l->room, (size_t)n, &why);
	if (r < 0) {
		write_out(l); /* what was said before the fault */
		end_link(l, r, why);
		return -1;
	}
	return n == READ_SIZE;
}

static void on_ready(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct link *l = arg;
	int r = 1;

	l->busy++;
	if (events & ~(uint32_t)EPOLLOUT)
		for (int i = 0; i < READS_A_TURN && r > 0 && !l->freed && !l->ended; i++)
			r = read_in(l);
	if (!l->freed && !l->ended) {
		r = write_out(l);
		if (r < 0)
			end_link(l, r, "cannot write to the peer");
	}
	leave(l);
}

int link_new(struct loop *loop, int fd, struct mux *mux, link_end_fn end, void *arg, struct link **ret)
{
	struct link *l = calloc(1, sizeof(*l));
	int r = -ENOMEM;

	if (!l)
		return -ENOMEM;
	l->fd = fd;
	l->mux = mux;
	l->end = end;
	l->arg = arg;
	l->room = malloc(READ_SIZE);
	if (l->room)
		r = fd_set_nonblock(fd, true);
	if (r >= 0) {
		l->armed_out = output_left(l);
		r = loop_add(loop, fd, EPOLLIN | (l->armed_out ? EPOLLOUT : 0), on_ready, l, &l->src);
	}
	if (r < 0) {
		free(l->room);
		free(l);
		return r;
	}
	mux_set_output_hook(mux, on_output, l);
	*ret = l;
	return 0;
}

int link_client(struct loop *loop, int fd, const struct mux_callbacks *callbacks, link_end_fn end, void *arg,
		struct link **ret)
{
	struct mux *mux = NULL;
	int r = mux_new(MUX_CLIENT, callbacks, arg, PROTO_DEFAULT_WINDOW, &mux);

	if (r == 0)
		r = mux_hello(mux, NULL);
	if (r == 0)
		r = link_new(loop, fd, mux, end, arg, ret);
	if (r < 0)
		mux_free(mux);
	return r;
}

int link_drain(struct link *l, int timeout_ms)
{
	uint64_t until = time_now_ns() + (uint64_t)timeout_ms * 1000000u;

	for (;;) {
		struct pollfd p = {.fd = l->fd, .events = POLLOUT};
		uint64_t now;
		int r;

		if (l->ended || l->freed)
			return -ENOTCONN;
		r = write_out(l);
		if (r < 0 || !output_left(l))
			return r;
		now = time_now_ns();
		if (now >= until)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((until - now) / 1000000u) + 1) < 0 && errno != EINTR)
			return -errno;
	}
}
