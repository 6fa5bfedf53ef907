/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop. See loop.h. Removed sources are only marked dead and freed after the batch of events in hand has been
 * walked, so a callback may remove any source, also one whose event comes later in the same batch.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

#define BATCH 64

struct loop_source {
	struct loop *loop;
	struct loop_source *next, **link;
	int fd; /* -1: a timer */
	bool registered, dead;
	uint64_t when_ns; /* timers: 0 disarmed */
	loop_fn fn;
	loop_timer_fn timer_fn;
	void *arg;
};

struct loop {
	int epoll;
	struct loop_source *sources, *dead;
	struct loop_source *timers; /* apart: every round walks them, and descriptors may be many */
	bool stopped;
	int code;
	void (*enter)(void *);
	void (*leave)(void *);
	void *guard;
};

int loop_new(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		int r = -errno;

		free(loop);
		return r;
	}
	*ret = loop;
	return 0;
}

static void free_dead(struct loop *loop)
{
	while (loop->dead) {
		struct loop_source *src = loop->dead;

		loop->dead = src->next;
		free(src);
	}
}

struct loop *loop_free(struct loop *loop)
{
	if (!loop)
		return NULL;
	while (loop->sources)
		loop_remove(loop->sources);
	while (loop->timers)
		loop_remove(loop->timers);
	free_dead(loop);
	fd_close(loop->epoll);
	free(loop);
	return NULL;
}

static struct loop_source *source_new(struct loop *loop, int fd, void *arg)
{
	struct loop_source *src = calloc(1, sizeof(*src)), **list = fd < 0 ? &loop->timers : &loop->sources;

	if (!src)
		return NULL;
	src->loop = loop;
	src->fd = fd;
	src->arg = arg;
	src->next = *list;
	src->link = list;
	if (src->next)
		src->next->link = &src->next;
	*list = src;
	return src;
}

int loop_add(struct loop *loop, int fd, uint32_t events, loop_fn fn, void *arg, struct loop_source **ret)
{
	struct loop_source *src = source_new(loop, fd, arg);
	int r;

	if (!src)
		return -ENOMEM;
	src->fn = fn;
	r = loop_modify(src, events);
	if (r < 0) {
		loop_remove(src);
		return r;
	}
	if (ret)
		*ret = src;
	return 0;
}

int loop_modify(struct loop_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};
	int op = src->registered ? (events ? EPOLL_CTL_MOD : EPOLL_CTL_DEL) : EPOLL_CTL_ADD;

	if (!src->registered && !events)
		return 0;
	if (epoll_ctl(src->loop->epoll, op, src->fd, &ev) < 0)
		return -errno;
	src->registered = events != 0;
	return 0;
}

struct loop_source *loop_remove(struct loop_source *src)
{
	if (!src || src->dead)
		return NULL;
	if (src->fd >= 0)
		loop_modify(src, 0);
	src->dead = true;
	*src->link = src->next;
	if (src->next)
		src->next->link = src->link;
	src->next = src->loop->dead;
	src->loop->dead = src;
	return NULL;
}

int loop_add_timer(struct loop *loop, loop_timer_fn fn, void *arg, struct loop_source **ret)
{
	struct loop_source *src = source_new(loop, -1, arg);

	if (!src)
		return -ENOMEM;
	src->timer_fn = fn;
	*ret = src;
	return 0;
}

void loop_timer_at(struct loop_source *timer, uint64_t when_ns)
{
	timer->when_ns = when_ns;
}

/* Milliseconds until the next timer, at most `timeout_ms` (-1: for ever); rounds up so that a timer has passed when we
 * wake. */
static int next_timeout(struct loop *loop, int timeout_ms)
{
	uint64_t soonest = 0, now;

	for (struct loop_source *s = loop->timers; s; s = s->next)
		if (s->when_ns && (!soonest || s->when_ns < soonest))
			soonest = s->when_ns;
	if (!soonest)
		return timeout_ms;
	now = time_now_ns();
	if (soonest <= now)
		return 0;
	soonest = (soonest - now + 999999) / 1000000;
	if (soonest > INT32_MAX)
		soonest = INT32_MAX;
	return timeout_ms >= 0 && (uint64_t)timeout_ms < soonest ? timeout_ms : (int)soonest;
}

/* Fires what is due. A callback may change the list, so the walk starts again after each; a timer that a callback arms
 * for the past waits for the next round. */
static void run_timers(struct loop *loop)
{
	uint64_t now = time_now_ns();
	bool fired;

	do {
		fired = false;
		for (struct loop_source *s = loop->timers; s; s = s->next) {
			if (!s->when_ns || s->when_ns > now)
				continue;
			s->when_ns = 0;
			s->timer_fn(loop, s, s->arg);
			fired = true;
			break;
		}
	} while (fired && !loop->stopped);
}

void loop_set_guard(struct loop *loop, void (*enter)(void *), void (*leave)(void *), void *arg)
{
	loop->enter = enter;
	loop->leave = leave;
	loop->guard = arg;
}

static void guard_enter(struct loop *loop)
{
	if (loop->enter)
		loop->enter(loop->guard);
}

static void guard_leave(struct loop *loop)
{
	if (loop->leave)
		loop->leave(loop->guard);
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
	struct epoll_event events[BATCH];
	int n;

	guard_enter(loop);
	timeout_ms = next_timeout(loop, timeout_ms);
	guard_leave(loop);
	n = epoll_wait(loop->epoll, events, BATCH, timeout_ms);
	if (n < 0 && errno != EINTR)
		return -errno;
	guard_enter(loop);
	for (int i = 0; i < n; i++) {
		struct loop_source *src = events[i].data.ptr;

		if (!src->dead && src->registered)
			src->fn(loop, src, events[i].events, src->arg);
	}
	run_timers(loop);
	free_dead(loop);
	guard_leave(loop);
	return 0;
}

int loop_run(struct loop *loop)
{
	loop->stopped = false;
	while (!loop->stopped) {
		int r = loop_run_once(loop, -1);

		if (r < 0)
			return r;
	}
	return loop->code;
}

void loop_stop(struct loop *loop, int code)
{
	loop->stopped = true;
	loop->code = code;
}
