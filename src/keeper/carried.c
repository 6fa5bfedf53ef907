/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that a process on the host carries. See carried.h. */
#include "keeper/carried.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

static void on_ended(void *arg, int code)
{
	struct carried *c = arg;

	if (code < 0 && c->refused)
		c->refused(c->arg, code);
}

/* Both sides are there. */
static void try_begin(struct carried *c)
{
	struct mux *mux = c->mux;

	if (c->fd < 0 || !mux)
		return;
	c->mux = NULL;
	mux_opened(mux, c->ch, NULL);
	join_begin(&c->join, c->loop, mux, c->ch, TAKE_FD(c->fd), on_ended, c);
}

int carried_new(struct carried *c)
{
	int pair[2];

	if (c->gone)
		return -ENOTCONN;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	c->join.ended = NULL;
	join_end(&c->join);
	fd_close(c->fd);
	c->fd = pair[0];
	try_begin(c);
	return pair[1];
}

static void on_waiting_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct carried *c = arg;
	struct mux *mux = c->mux;

	c->mux = NULL;
	c->gone = true;
	c->fd = fd_close(c->fd);
	if (mux && !mux_lost(mux)) {
		mux_set_handler(mux, ch, NULL, NULL);
		mux_close(mux, ch, 0, "");
	}
}

static const struct mux_callbacks waiting = {.closed = on_waiting_closed};

int carried_offer(struct carried *c, struct mux *mux, uint32_t ch)
{
	if (c->mux)
		return -EBUSY;
	c->gone = false;
	c->mux = mux;
	c->ch = ch;
	mux_set_handler(mux, ch, &waiting, c);
	try_begin(c);
	return 0;
}

void carried_done(struct carried *c)
{
	c->join.ended = NULL;
	join_end(&c->join);
	c->fd = fd_close(c->fd);
	if (c->mux)
		mux_set_handler(c->mux, c->ch, NULL, NULL);
	c->mux = NULL;
}
