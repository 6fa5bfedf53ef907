/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the daemon that sends any bytes, in pieces, over a real socket: session.c and pipe.c in a loop, with a
 * machine that never comes up, and (first byte odd) with one whose agent says any bytes too.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "machine/daemon.h"

struct mux *daemon_agent(struct daemon *d)
{
	return d->state == DAEMON_UP ? link_mux(d->agent) : NULL;
}

void daemon_busy(struct daemon *d, int change)
{
	d->busy = (unsigned)((int)d->busy + change);
}

void daemon_want_up(struct daemon *d)
{
	struct sm_error why = {.kind = SM_ERROR_HOST, .code = ENODEV, .message = "no machine here"};

	if (d->state == DAEMON_DOWN)
		sessions_up(d, &why);
}

void daemon_begin_stop(struct daemon *d)
{
	d->state = DAEMON_STOPPING;
}

void daemon_status(const struct daemon *d, struct seat_machine_status *ret)
{
	*ret = (struct seat_machine_status){.busy = d->busy};
}

static void agent_ended(struct link *l, int r, const char *why, void *arg)
{
	struct daemon *d = arg;

	d->state = DAEMON_DOWN;
	d->agent = NULL;
	link_free(l);
}

static void turn(struct daemon *d)
{
	for (int i = 0; i < 4; i++)
		loop_run_once(d->loop, 0);
}

static int agent_begin(struct daemon *d)
{
	static const struct mux_callbacks callbacks = {0};
	struct mux *mux;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	if (mux_new(MUX_CLIENT, &callbacks, d, PROTO_DEFAULT_WINDOW, &mux) < 0 || mux_hello(mux, NULL) < 0 ||
	    link_new(d->loop, pair[0], mux, agent_ended, d, &d->agent) < 0)
		abort();
	d->state = DAEMON_UP;
	return pair[1];
}

/* Each piece: a byte of length, who speaks (its top bit), the bytes. */
static void converse(struct daemon *d, int client, int agent, const uint8_t *data, size_t size)
{
	while (size > 1) {
		size_t n = MIN((size_t)(data[0] & 0x7f) + 1, size - 1);
		int fd = data[0] & 0x80 && agent >= 0 ? agent : client;

		if (send(fd, data + 1, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN && fd == client)
			return;
		data += n + 1;
		size -= n + 1;
		turn(d);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct daemon d = {.lock = -1, .listen = -1, .state = DAEMON_DOWN};
	int pair[2], agent = -1;

	if (size < 2)
		return 0;
	if (loop_new(&d.loop) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	if (loop_add_timer(d.loop, NULL, NULL, &d.fresh_timer) < 0)
		abort();
	if (data[0] & 1)
		agent = agent_begin(&d);
	if (session_accept(&d, pair[0]) < 0)
		abort();
	converse(&d, pair[1], agent, data + 1, size - 1);
	close(pair[1]);
	turn(&d);
	fd_close(agent);
	turn(&d);
	link_free(TAKE_PTR(d.agent));
	sessions_end(&d);
	if (d.busy)
		abort(); /* something was counted and never given back */
	loop_free(d.loop);
	return 0;
}
