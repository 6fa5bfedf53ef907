/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's counters for a client: asked for once however many want them, and passed on as the monitor wrote them.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "keeper/keeper.h"

int counters_ask(struct keeper *k, struct mux *near, uint32_t ch)
{
	struct counters *c = &k->counters;
	int r;

	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->mon.started)
		return -EAGAIN;
	if (c->n == COUNTERS_WAITING)
		return -EBUSY;
	r = c->n ? 0 : monitor_count(k);
	if (r == 0)
		c->v[c->n++] = (struct counters_wait){near, ch};
	return r;
}

void counters_came(struct keeper *k, const char *text, size_t len)
{
	struct counters *c = &k->counters;
	_cleanup_(buf_done) struct buf b = {0};
	int r = buf_put(&b, text, len);

	while (c->n) {
		struct counters_wait w = c->v[--c->n];

		if (r == 0)
			mux_opened(w.near, w.ch, &b);
		mux_close(w.near, w.ch, r, "");
	}
}

void counters_client_gone(struct keeper *k, const struct mux *near, uint32_t ch)
{
	struct counters *c = &k->counters;

	for (unsigned i = c->n; i-- > 0;)
		if (c->v[i].near == near && (!ch || c->v[i].ch == ch))
			c->v[i] = c->v[--c->n];
}
