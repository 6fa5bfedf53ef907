/* SPDX-License-Identifier: Apache-2.0 */
/* Setting the other end's wall clock. See clocksync.h. */
#include "proto/clocksync.h"

#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "proto/messages.h"

#define NEAR_NS 20000000ULL /* answered within this it is near enough */
#define TRIES 20u

static int send_time(struct clocksync *s, struct mux *m, const uint8_t *seed)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct proto_clock c = {0};
	struct timespec now;
	int r;

	if (seed)
		memcpy(c.seed, seed, sizeof(c.seed));
	clock_gettime(CLOCK_REALTIME, &now);
	c.realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	s->sent_ns = time_now_ns();
	s->ch = 0;
	r = proto_clock_encode(&b, &c);
	r = r < 0 ? r : mux_open(m, PROTO_SYNC_CLOCK, &b, NULL, &s->ch);
	explicit_bzero(c.seed, sizeof(c.seed));
	return r;
}

int clocksync_begin(struct clocksync *s, struct mux *m, const uint8_t *seed)
{
	s->tries = 1;
	return send_time(s, m, seed);
}

bool clocksync_closed(struct clocksync *s, struct mux *m, uint32_t ch, int code)
{
	if (!s->ch || s->ch != ch)
		return false;
	s->ch = 0;
	if (code == 0 && time_now_ns() - s->sent_ns > NEAR_NS && s->tries++ < TRIES && send_time(s, m, NULL) < 0)
		s->ch = 0;
	return true;
}
