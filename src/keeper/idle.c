/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that nobody uses is stopped, suspended or killed when that has lasted long enough.
 *
 * It is in use while a client is attached, has a command run or copies files (`busy`), and at the moment in which a
 * byte goes over a port, a detached command is begun or signalled, or somebody begins to wait for it (`since`). Only
 * looking is no use: states, statistics, logs. What the VM does by itself counts by the CPU time that it takes, so a
 * build in the background keeps it up and a server that waits does not. All that is looked at a few times within the
 * limit, so the limit comes late by an eighth at most.
 */
#include "keeper/keeper.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/util.h"

#define LOOKS 8 /* within the limit */
#define SECOND_NS 1000000000ull
#define SHORTEST_NS (10 * 1000000ull)
#define LONGEST_NS (60 * SECOND_NS)
#define CPU_SHARE 10 /* a VM that takes less than a tenth of one CPU, or of its share of one, does nothing */
/* Before it is suspended its ports are told, so that no connection is just being made. */
#define SETTLE_NS (200 * 1000000ull)

static uint64_t interval(const struct keeper *k)
{
	return MIN(MAX(k->rec.idle_ns / LOOKS, SHORTEST_NS), LONGEST_NS);
}

/* What its vCPUs and its monitor's threads have taken so far. */
static uint64_t cpu_time(const struct keeper *k)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(k->mon.pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

/* Since the last look. */
static bool works(struct keeper *k, uint64_t now)
{
	struct idle *i = &k->idle;
	uint64_t cpu = cpu_time(k), used = cpu - MIN(i->cpu_ns, cpu), passed = now - i->looked_ns;
	unsigned may = k->rec.cpu_limit ? MIN(k->rec.cpu_limit, 1000u) : 1000u;

	i->cpu_ns = cpu;
	i->looked_ns = now;
	return used > passed / 1000 * may / CPU_SHARE;
}

/* Somebody came meanwhile. */
static void take_back(struct keeper *k)
{
	if (k->idle.announced && k->saving.stage == SAVING_NOTHING)
		server_tell_started(k);
	k->idle.announced = false;
}

static void act(struct keeper *k)
{
	char message[96];
	int r;

	snprintf(message, sizeof(message), "nobody had used it for %g s", (double)k->rec.idle_ns / 1e9);
	switch (k->rec.on_idle) {
	case SM_ON_IDLE_KILL:
		keeper_end(k, SM_REASON_IDLE, SIGKILL, "%s", message);
		return;
	case SM_ON_IDLE_SUSPEND:
		r = snapshot_request(k, NULL, 0);
		k->saving.idle = r == 0;
		if (r < 0) {
			log_warn("keeper", "%s, and it cannot be suspended: %s", message, strerror(-r));
			take_back(k);
		}
		return;
	case SM_ON_IDLE_STOP:
		keeper_stop_gently(k, SM_REASON_IDLE, k->rec.stop_signal, KEEPER_GRACE_NS, message);
		return;
	}
}

static void on_look(struct loop *loop, struct loop_source *src, void *arg)
{
	struct keeper *k = arg;
	uint64_t now = time_now_ns();
	bool working = works(k, now);

	if (k->phase != PHASE_MAIN || k->forced != SM_REASON_NONE)
		return;
	if (working || k->idle.busy || k->pause.on || k->pause.under_way || k->saving.stage != SAVING_NOTHING)
		idle_touch(k);
	if (now - MIN(k->idle.since, now) < k->rec.idle_ns) {
		take_back(k);
	} else if (k->rec.on_idle == SM_ON_IDLE_SUSPEND && !k->idle.announced) {
		k->idle.announced = true;
		server_tell_suspending(k);
		loop_timer_at(src, now + SETTLE_NS);
		return;
	} else {
		idle_touch(k); /* if it cannot be done, it is tried again */
		act(k);
	}
	loop_timer_at(src, now + interval(k));
}

int idle_begin(struct keeper *k)
{
	int r = 0;

	if (!k->rec.idle_ns)
		return 0;
	if (!k->idle.timer)
		r = loop_add_timer(k->loop, on_look, k, &k->idle.timer);
	if (r < 0)
		return r;
	idle_touch(k);
	works(k, time_now_ns());
	loop_timer_at(k->idle.timer, time_now_ns() + interval(k));
	return 0;
}
