/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pumps a mux over one descriptor (socket, virtio port) in an event loop: reads, feeds, writes what is queued.
 * Single-threaded: all calls come from the loop's thread.
 */
#ifndef PROTO_LINK_H
#define PROTO_LINK_H

#include "base/loop.h"
#include "proto/mux.h"

struct link;

/*
 * The link has ended, told once: r is 0 when the peer closed its end, or -errno; why is a static text. Before it, every
 * channel not yet closed got its `closed` callback (mux_abort). The callee may, and normally does, call link_free.
 */
typedef void (*link_end_fn)(struct link *l, int r, const char *why, void *arg);

/*
 * fd is made non-blocking. On success the link owns fd and mux (link_free closes and frees them); on failure both stay
 * the caller's. The link uses mux_set_output_hook: whatever is queued on the mux, from anywhere, is written from the
 * loop soon.
 */
int link_new(struct loop *loop, int fd, struct mux *mux, link_end_fn end, void *arg, struct link **ret) MUST_CHECK;

/* The same with a mux of its own that speaks first: a client's, HELLO said. On failure fd stays the caller's. */
int link_client(struct loop *loop, int fd, const struct mux_callbacks *callbacks, link_end_fn end, void *arg,
		struct link **ret) MUST_CHECK;

/* Safe in any callback, also of its own mux (then carried out when that callback has returned). end is not called. NULL
 * allowed. */
struct link *link_free(struct link *l);

/*
 * Writes what is queued, and from then on nothing, until it is let again: what the other side is to hear last has been
 * said. -EBUSY: not all of it could be written, and nothing is changed; -ENOTCONN.
 */
int link_hush(struct link *l, bool hush) MUST_CHECK;

/*
 * Ends the link as if it was lost, with all of its channels, but leaves the descriptor open, for another link: returns
 * it. -EBUSY, and nothing is changed: from a callback of it, or while there is something left to write.
 */
int link_release(struct link *l) MUST_CHECK;

struct mux *link_mux(struct link *l);

/* What channels are told when the link is lost (a static text), in place of the system's reason. */
void link_set_lost_text(struct link *l, const char *text);

/* Writes what is queued right now as far as the descriptor takes it (also done by the loop). */
void link_flush(struct link *l);

/* Blocks (poll) until all that is queued is written or timeout_ms have passed: for the last words before an exit. 0 or
 * -errno. */
int link_drain(struct link *l, int timeout_ms);

#endif
