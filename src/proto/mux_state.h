/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mux consists of: shared by mux.c (channels, output, the end) and mux_feed.c (input). Internal to the room.
 *
 * A channel lives from OPEN until both sides have sent CLOSE. Its states, as seen from one end:
 *
 *	opening		OPEN sent (client) or received (server), OPENED not yet. Server may send OPENED or CLOSE, client
 *CLOSE open		data, credit, events, each stream until its EOF local_closed	we have sent CLOSE: nothing more
 *goes out, what still comes in is checked and dropped
 *	peer_closed	the peer has sent CLOSE: nothing more may come in; we owe a CLOSE
 *
 * Callbacks run inside mux_feed and may change any channel, so none is touched after a callback without a new look-up.
 */
#ifndef PROTO_MUX_STATE_H
#define PROTO_MUX_STATE_H

#include "proto/mux.h"

#define MUX_BUCKETS 256u
#define MUX_MAX_EVENT 4096u
#define MUX_MAX_CLOSE_TEXT 1024u

struct stream {
	size_t credit;	   /* what we may send */
	size_t window;	   /* what the peer may send */
	size_t unreported; /* consumed but not yet granted back */
	bool sent_eof, got_eof, starved;
};

struct channel {
	struct channel *next;
	uint32_t id;
	bool opened, local_closed, peer_closed, aborted;
	struct stream streams[PROTO_STREAMS];
	void *user;
	const struct mux_callbacks *cb; /* NULL: the mux's */
	void *cb_arg;
};

struct mux {
	enum mux_role role;
	struct mux_callbacks cb;
	void *arg;
	uint32_t window, peer_window, next_id;
	uint16_t peer_version; /* 0: not known yet */
	bool sent_hello, got_hello, dead;
	size_t num_channels, num_starved;
	struct channel *buckets[MUX_BUCKETS];
	struct buf in; /* a frame that has not come whole */
	struct buf out;
	size_t out_head; /* written part of out */
	/* An upper bound of control bytes queued, in two generations: the older leaves when all that was queued with it
	 * did. */
	size_t control_new, control_old, generation_left;
	void (*hook)(void *);
	void *hook_arg;
};

struct channel *mux_find(struct mux *m, uint32_t id);
/* With the windows of both sides; NULL: no memory. */
struct channel *mux_channel_new(struct mux *m, uint32_t id);
void mux_channel_free(struct mux *m, struct channel *c);
/* Whose callbacks a channel's news go to, and their argument. */
const struct mux_callbacks *mux_callbacks_of(struct mux *m, struct channel *c, void **ret_arg);
void mux_call_writable(struct mux *m, struct channel *c, unsigned stream);

/* Streams that the peer sends on: a client on 0 only, a server on the others. */
static inline bool mux_stream_from_peer(const struct mux *m, unsigned stream)
{
	return stream < PROTO_STREAMS && (m->role == MUX_SERVER) == (stream == 0);
}

static inline bool mux_stream_to_peer(const struct mux *m, unsigned stream)
{
	return stream < PROTO_STREAMS && (m->role == MUX_CLIENT) == (stream == 0);
}

#endif
