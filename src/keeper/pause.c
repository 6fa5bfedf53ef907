/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that a user pauses. The monitor holds its vCPUs and its clock, so that whatever the guest itself times goes on
 * where it was; what is timed here is put off by as long.
 */
#include "keeper/keeper.h"

#include <errno.h>

#include "base/util.h"

int pause_request(struct keeper *k, bool pause)
{
	struct pause *p = &k->pause;
	int r;

	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->main_open)
		return -EAGAIN;
	if (p->under_way || k->saving.stage != SAVING_NOTHING || k->forced != SM_REASON_NONE)
		return -EBUSY;
	if (p->on == pause)
		return -EALREADY;
	r = monitor_pause(k, pause);
	p->under_way = r == 0;
	return r;
}

static void hold_limit(struct keeper *k)
{
	uint64_t now = time_now_ns();

	k->pause.time_left = !k->time_limit_at ? 0 : k->time_limit_at > now ? k->time_limit_at - now : 1;
	k->time_limit_at = 0;
	loop_timer_at(k->time_limit, 0);
}

static void release_limit(struct keeper *k)
{
	if (!k->pause.time_left)
		return;
	k->time_limit_at = time_now_ns() + k->pause.time_left;
	k->pause.time_left = 0;
	loop_timer_at(k->time_limit, k->time_limit_at);
}

void pause_done(struct keeper *k, bool paused)
{
	struct pause *p = &k->pause;

	if (spare_paused(k))
		return;
	p->under_way = false;
	if (p->on != paused) {
		p->on = paused;
		if (paused) {
			hold_limit(k);
		} else {
			release_limit(k);
			agent_sync_clock(k);
		}
		events_note(k, paused ? "pause" : "unpause", NULL);
	}
	server_pause_done(k);
}
