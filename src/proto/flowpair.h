/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both directions of a channel joined to descriptors: a byte pipe; or one direction alone, a file. It ends when all
 * that was begun has ended, or something failed.
 *
 * Its callbacks for the channel's mux take the pair as their argument; who owns the pair has `opened` and `closed` of
 * his own, and finds himself again by flow_pair_owner.
 */
#ifndef PROTO_FLOWPAIR_H
#define PROTO_FLOWPAIR_H

#include "proto/flow.h"

struct flow_pair {
	struct inflow in;
	struct outflow out;
	bool in_open, out_open; /* not ended yet */
	bool together;		/* the end of one direction is the end of both */
	bool resets; /* a peer that resets is a failure also while it is written to; else it may yet be read */
	bool left;   /* flow_pair_left was called */
	bool busy;   /* the flows call back from deep inside: it ends from the outermost call */
	int error;
	/* Not before all calls into the pair have returned, so it may free it; if it does not, perhaps again. */
	void (*ended)(struct flow_pair *p);
};

#define flow_pair_owner(type, member, pair) ((type *)(void *)((char *)(uintptr_t)(pair)-offsetof(type, member)))

/* Nothing is begun; what comes from there is dropped until something is. */
void flow_pair_init(struct flow_pair *p, struct flow_channel from, void (*ended)(struct flow_pair *p));
/* All three take fd (non-blocking unless regular), also on failure. None calls `ended`: flow_pair_settle does, once
 * what is to be begun has been. */
int flow_pair_in(struct flow_pair *p, struct flow_channel from, int fd, bool regular) MUST_CHECK;
int flow_pair_out(struct flow_pair *p, struct flow_channel to, int fd, bool regular) MUST_CHECK;
/* A socket: both directions, with a shutdown(2) for the end of what came. to.stream and from.stream are the channel's.
 */
int flow_pair_join(struct flow_pair *p, struct flow_channel from, struct flow_channel to, int fd) MUST_CHECK;
/* After anything happened that the pair was not told of. */
void flow_pair_settle(struct flow_pair *p);
/* The other side of the channel is gone: no more is read, and what came is written to its end; or code says why not. */
void flow_pair_left(struct flow_pair *p, int code);
/* It has ended well, but what it has sent last may still be on its way: the other side is the one to close the channel.
 */
bool flow_pair_lingers(const struct flow_pair *p);
/* Of the descriptor, while one direction is open; -1. */
int flow_pair_fd(const struct flow_pair *p);
/* Without a word. */
void flow_pair_done(struct flow_pair *p);

/* struct mux_callbacks */
void flow_pair_on_data(void *pair, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len);
void flow_pair_on_eof(void *pair, uint32_t ch, void *user, unsigned stream);
void flow_pair_on_writable(void *pair, uint32_t ch, void *user, unsigned stream);

#endif
