/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a link that speaks the frame protocol (frame.h): a state machine without sockets. Feed it what was read,
 * write out what it has queued. It enforces the peer's credit, channel states and lengths; a violation is -EPROTO and
 * the link is dead.
 *
 * The owner's loop:	read -> mux_feed (callbacks run inside)	;  mux_output -> write -> mux_output_done
 * The callbacks may call any mux_send_* function, but not mux_free.
 */
#ifndef PROTO_MUX_H
#define PROTO_MUX_H

#include "proto/frame.h"

struct mux;

enum mux_role { MUX_CLIENT, MUX_SERVER };

/* All optional (NULL: ignored). ch is the channel's number; user is the pointer given by mux_set_user for that channel.
 */
struct mux_callbacks {
	void (*hello)(void *arg, struct cursor *attributes, uint16_t version);
	/* server: a client opened a channel. Answer, now or later, with mux_opened or mux_close. */
	void (*open)(void *arg, uint32_t ch, uint16_t service, struct cursor *request);
	/* client: our open was accepted. */
	void (*opened)(void *arg, uint32_t ch, void *user, struct cursor *reply);
	/* The callee must in time call mux_consumed(ch, stream, len) for what it has disposed of: that grants new
	 * credit. */
	void (*data)(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len);
	void (*eof)(void *arg, uint32_t ch, void *user, unsigned stream);
	void (*event)(void *arg, uint32_t ch, void *user, struct cursor *event);
	/* More credit for this stream came in (mux_credit tells how much there is now). */
	void (*writable)(void *arg, uint32_t ch, void *user, unsigned stream);
	/* The peer closed its half (code 0 or -errno, text may be ""). If we have not closed yet we must, by mux_close.
	 */
	void (*closed)(void *arg, uint32_t ch, void *user, int code, const char *text);
};

int mux_new(enum mux_role role, const struct mux_callbacks *cb, void *arg, uint32_t window,
	    struct mux **ret) MUST_CHECK;
/* Channels that have a handler of their own (mux_set_handler) get closed(-ECONNRESET); the mux's callbacks are not
 * called. */
struct mux *mux_free(struct mux *m);

/* The link is lost: calls `closed` for every channel that the peer has not closed; from then on every send is -ENOENT.
 * Once. */
void mux_abort(struct mux *m, int code, const char *text);
bool mux_lost(const struct mux *m); /* aborted, being freed, or cut off for a violation */

/* fn is called when output becomes non-empty (from within any mux call), so that someone may write it out. */
void mux_set_output_hook(struct mux *m, void (*fn)(void *arg), void *arg);

/* Queues our HELLO; attributes may be NULL. */
int mux_hello(struct mux *m, const struct buf *attributes);
bool mux_ready(const struct mux *m); /* the peer's HELLO has come */

/* Bytes from the peer: 0, or -EPROTO (with *why a static string) after which the link must be dropped. */
int mux_feed(struct mux *m, const void *p, size_t len, const char **why) MUST_CHECK;

/* What is queued for the peer; after writing n of them call mux_output_done. */
const uint8_t *mux_output(struct mux *m, size_t *ret_len);
void mux_output_done(struct mux *m, size_t n);

/* client: opens a channel; returns its number through *ret_ch. */
int mux_open(struct mux *m, uint16_t service, const struct buf *request, void *user, uint32_t *ret_ch) MUST_CHECK;
/* server: accepts. reply may be NULL. */
int mux_opened(struct mux *m, uint32_t ch, const struct buf *reply);
void mux_set_arg(struct mux *m, void *arg); /* of the callbacks, from now on */
void mux_set_user(struct mux *m, uint32_t ch, void *user);
void *mux_user(struct mux *m, uint32_t ch); /* NULL if there is no such channel */

/*
 * This channel's opened/data/eof/event/writable/closed go to cb with arg instead of the mux's own; NULL: back to the
 * mux's. cb is not copied. -ENOENT if there is no such channel.
 */
int mux_set_handler(struct mux *m, uint32_t ch, const struct mux_callbacks *cb, void *arg);
enum mux_role mux_role(const struct mux *m);

/*
 * How much it is wise to send on this stream now, in bytes (0 also when the channel is gone): the peer's credit, and
 * less when much is queued already; `writable` follows in both cases. A producer that asks first queues at most
 * MUX_OUTPUT_HIGH in all.
 */
#define MUX_OUTPUT_HIGH (256u * 1024u)
size_t mux_credit(struct mux *m, uint32_t ch, unsigned stream);
/* Queues data, at most the peer's credit: -EAGAIN (nothing queued) beyond it, -ENOENT if the channel is gone. */
int mux_send(struct mux *m, uint32_t ch, unsigned stream, const void *p, size_t len);
int mux_send_eof(struct mux *m, uint32_t ch, unsigned stream);
int mux_send_event(struct mux *m, uint32_t ch, const struct buf *event);
/* We have disposed of len bytes received on this stream: grants credit back (batched). */
void mux_consumed(struct mux *m, uint32_t ch, unsigned stream, size_t len);
int mux_close(struct mux *m, uint32_t ch, int code, const char *text);

#endif
