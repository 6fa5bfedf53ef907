/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Setting the wall clock at the other end of a link. What is sent is late by as much as it is on its way, and on a busy
 * host that can be long, so one that was answered late is sent again. The other end takes no step back for one that was
 * later than another: so the best of all counts.
 */
#ifndef PROTO_CLOCKSYNC_H
#define PROTO_CLOCKSYNC_H

#include "proto/mux.h"

struct clocksync {
	uint32_t ch; /* 0: none is on its way */
	unsigned tries;
	uint64_t sent_ns;
};
/* seed: fresh entropy to go along, or NULL. 0 or -errno. */
int clocksync_begin(struct clocksync *s, struct mux *m, const uint8_t *seed) MUST_CHECK;
/* To be told of each channel that closes: true if it was this one's. */
bool clocksync_closed(struct clocksync *s, struct mux *m, uint32_t ch, int code);

#endif
