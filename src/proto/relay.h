/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins one channel of a server-side link (towards a client) to one channel of a client-side link (towards the agent),
 * so that the keeper and the machine daemon pass execs and byte pipes through without understanding them.
 *
 * Back-pressure: bytes are acknowledged to their sender only when they have been sent on within the receiver's credit.
 * So a relay holds at most one window for each stream and a reader that stops stops the writer.
 *
 * A relay takes the two channels over (mux_set_handler): the owners' callbacks hear nothing of them until it ends. It
 * frees itself when it ends: when both channels are closed, when one of the links is freed or aborted (the other
 * channel is then closed with -ECONNRESET), or, with keep_far, when the near side goes (the far channel is then given
 * back).
 */
#ifndef PROTO_RELAY_H
#define PROTO_RELAY_H

#include "proto/mux.h"

struct relay;

/* All optional. "near" is the server-side link's channel (our client's), "far" the client-side one (the agent's). */
struct relay_hooks {
	/* The far side accepted an open (relay_open only), before it is passed on. */
	void (*opened)(void *arg, struct relay *r, struct cursor reply);
	/* Bytes from far, before they are passed on. Must not block for long. */
	void (*data)(void *arg, struct relay *r, unsigned stream, const uint8_t *p, size_t len);
	/* An event from far (PROTO_EV_EXIT ...), before it is passed on. */
	void (*event)(void *arg, struct relay *r, struct cursor event);
	/* An event from near (signal, resize), before it is passed on. */
	void (*near_event)(void *arg, struct relay *r, struct cursor event);
	/*
	 * The relay has ended and r is not valid any more. far_left: the far channel is still open and the caller's
	 * again (keep_far, and the near side left): its handler is the link owner's, its user pointer is the one given
	 * to relay_join's caller before. Else code is the far side's closing code (-ECONNRESET when a link went).
	 */
	void (*ended)(void *arg, struct relay *r, bool far_left, int code);
	/* Bytes from near, before they are passed on. */
	void (*near_data)(void *arg, struct relay *r, size_t len);
};

/*
 * near has received `open` for channel near_ch: opens service with these request bytes on far and passes everything
 * both ways, beginning with the OPENED or CLOSE. On failure (-errno; far's channels are used up, no memory) near_ch is
 * still the caller's, who should mux_close it. hooks may be NULL, is not copied, must outlive the relay.
 */
int relay_open(struct mux *near, uint32_t near_ch, struct mux *far, uint16_t service, const void *request, size_t len,
	       const struct relay_hooks *hooks, void *arg, struct relay **ret) MUST_CHECK;

/*
 * Both channels are open already (near_ch: mux_opened was called): an attach. What the near side sends on stream 0 is
 * passed on; its EOF on stream 0 too, unless keep_far. keep_far: when near closes or its link goes, far lives on and is
 * handed back by `ended`. Bytes from far that the caller has not yet given back by mux_consumed stay the caller's to
 * give back.
 */
int relay_join(struct mux *near, uint32_t near_ch, struct mux *far, uint32_t far_ch, bool keep_far,
	       const struct relay_hooks *hooks, void *arg, struct relay **ret) MUST_CHECK;

/* From now on as if keep_far had been given. */
void relay_keep_far(struct relay *r);

/* Ends it now: near is closed with code and text; far is closed too, or handed back with keep_far. `ended` is called.
 */
void relay_end(struct relay *r, int code, const char *text);

uint32_t relay_near_channel(const struct relay *r);
uint32_t relay_far_channel(const struct relay *r);

#endif
