/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon backend's requests over a stream without descriptors (share_proto.h). There is one stream and no thread of
 * its own: of those that wait for an answer one reads, for all of them, and when it has its own it lets another.
 */
#include <errno.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/daemon_conn.h"
#include "fuse/share_inline.h"

static bool take(int sock, void *to, size_t len)
{
	uint8_t *at = to;

	while (len) {
		size_t none = 0;
		ssize_t n = fd_recv(sock, at, len, NULL, &none);

		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

/* The next answer, into the call that waits for it, whose thread stays where it is until `answered`. NULL: there is
 * none, and will be none. */
static struct daemon_call *read_answer(struct daemon_conn *c)
{
	uint8_t head[SHARE_HEAD];
	struct daemon_call *call;
	struct share_frame f;

	if (!take(c->sock, head, sizeof(head)) || share_frame_get(head, c->num_lanes, &f) < 0)
		return NULL;
	pthread_mutex_lock(&c->receiving);
	call = c->waiting[f.lane];
	c->waiting[f.lane] = NULL;
	pthread_mutex_unlock(&c->receiving);
	if (!call || !take(c->sock, call->packet, f.packet) || !take(c->sock, call->lane->mem, f.bulk))
		return NULL;
	call->bulk = f.bulk;
	call->in = cursor_of(call->packet, f.packet);
	return call;
}

/* Waits, or reads what others wait for, until the answer is there or the stream is at its end. */
static void await_answer(struct daemon_conn *c, struct daemon_call *call)
{
	pthread_mutex_lock(&c->receiving);
	while (!call->answered && !c->ended) {
		struct daemon_call *other;

		if (c->reading) {
			pthread_cond_wait(&c->arrived, &c->receiving);
			continue;
		}
		c->reading = true;
		pthread_mutex_unlock(&c->receiving);
		other = read_answer(c);
		pthread_mutex_lock(&c->receiving);
		c->reading = false;
		if (other)
			other->answered = true;
		else
			c->ended = true;
		pthread_cond_broadcast(&c->arrived);
	}
	pthread_mutex_unlock(&c->receiving);
}

int daemon_inline_exchange(struct daemon_call *call)
{
	struct daemon_conn *c = call->conn;
	struct share_frame f = {.lane = call->number, .packet = (uint32_t)call->out.len, .bulk = call->out_bulk};
	int r;

	call->answered = false;
	pthread_mutex_lock(&c->receiving);
	c->waiting[call->number] = call;
	pthread_mutex_unlock(&c->receiving);
	pthread_mutex_lock(&c->sending);
	r = share_frame_send(c->sock, &f, call->out.data, call->lane->mem);
	pthread_mutex_unlock(&c->sending);
	/* Somebody may be reading into this call: only at the stream's end does nobody. */
	if (r < 0)
		(void)daemon_call_break(call);
	await_answer(c, call);
	return call->answered ? 0 : daemon_call_break(call);
}
