/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue's thread. It drains all that is available with the driver's kicks off, answers in place, and interrupts once
 * for what it found waiting: a driver that fills the queue costs one kick and one interrupt for many requests.
 *
 * A driver that sends one request after another, each when the last is answered, costs three changes of thread a
 * request: to this one, to the front end that raises the interrupt, and to the CPU that slept meanwhile. The first is
 * saved by looking for the next request for a short while before sleeping, kicks still off; how long is learnt: it
 * grows while requests come in that time and falls to nothing when they do not.
 *
 * Nobody waits for what the hiprio queue carries (forgets): it is drained once a millisecond while there is something,
 * without kicks, and its interrupts come when a quarter of the queue is answered, or nothing more came.
 */
#include "vhost/ring.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define SPIN_MIN_NS 20000u
#define SPIN_MAX_NS 200000u
#define LAZY_MS 1
#define SIGNAL_BYTES (128u << 10) /* of data answered: then the driver has enough to do, do not let it wait */

void ring_init(struct ring *r, struct fuse_session *session)
{
	*r = (struct ring){.kick = -1, .call = -1, .stop = -1, .session = session};
}

static void interrupt(struct ring *r)
{
	uint64_t one = 1;

	r->unsignalled = 0;
	r->unsignalled_bytes = 0;
	/* An eventfd whose counter is full is raised already. */
	if (r->call >= 0 && virtq_should_signal(&r->vq) && write(r->call, &one, sizeof(one)) < 0)
		return;
}

static bool stopping(const struct ring *r)
{
	return __atomic_load_n(&r->stopping, __ATOMIC_ACQUIRE);
}

enum drained { DRAINED_NONE, DRAINED_SOME, DRAINED_BROKEN };

/* Interrupts for what has been pushed if somebody may wait for it and nothing more is there to be answered first. */
static void interrupt_if_due(struct ring *r)
{
	if (!r->unsignalled)
		return;
	if (r->lazy ? r->unsignalled >= r->vq.size / 4u
		    : !virtq_pending(&r->vq) || r->unsignalled_bytes >= SIGNAL_BYTES)
		interrupt(r);
}

/* Serves what is available, kicks off. A stop is heard between any two: a driver can lay its rings over one another so
 * that each answer makes a new request. */
static enum drained drain(struct ring *r, struct virtq_chain *chain)
{
	enum drained ret = DRAINED_NONE;
	int got = 0;

	while (!stopping(r) && (got = virtq_pop(&r->vq, chain)) > 0) {
		ssize_t n = fuse_session_serve(r->session, chain->read, (int)chain->num_read, chain->write,
					       (int)chain->num_write);

		virtq_push(&r->vq, chain->head, n > 0 ? (uint32_t)n : 0);
		r->unsignalled++;
		r->unsignalled_bytes += chain->len_read + (n > 0 ? (uint64_t)n : 0);
		interrupt_if_due(r);
		ret = DRAINED_SOME;
	}
	if (got < 0) {
		r->broken++;
		interrupt(r);
		log_warn("vhost", "the driver broke its queue; it is not served any more");
		return DRAINED_BROKEN;
	}
	return ret;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Looks for the next request for as long as has been worth it of late. True: there is one (or a stop). */
static bool spin(struct ring *r)
{
	uint64_t end;

	if (!r->spin_ns)
		return false;
	/* The CPU goes first to whom our interrupt woke. */
	for (end = now_ns() + r->spin_ns; !virtq_pending(&r->vq) && !stopping(r); sched_yield())
		if (now_ns() >= end)
			return false;
	return true;
}

/* After a sleep of `slept` ns that a kick ended: would looking longer have saved it? */
static void learn(struct ring *r, uint64_t slept)
{
	if (slept + r->spin_ns > SPIN_MAX_NS)
		r->spin_ns = r->spin_ns > SPIN_MIN_NS ? r->spin_ns / 2 : 0;
	else if (r->spin_ns < SPIN_MAX_NS)
		r->spin_ns = r->spin_ns ? r->spin_ns * 2 : SPIN_MIN_NS;
	if (r->spin_ns > SPIN_MAX_NS)
		r->spin_ns = SPIN_MAX_NS;
}

/* Sleeps until a kick or a stop; ms < 0: for any time. */
static void sleep_for(struct ring *r, int ms, bool broken)
{
	struct pollfd fds[2] = {{.fd = r->stop, .events = POLLIN}, {.fd = r->kick, .events = POLLIN}};
	uint64_t count;

	if (poll(fds, broken ? 1 : 2, ms) > 0 && fds[1].revents & POLLIN && read(r->kick, &count, sizeof(count)) < 0)
		return; /* another was quicker, or it was none: what is in the queue counts */
}

/* Nothing is available: waits until there is something. */
static void wait_for_more(struct ring *r)
{
	uint64_t t0;

	if (r->lazy && r->unsignalled) {
		struct pollfd stop = {.fd = r->stop, .events = POLLIN};

		poll(&stop, 1, LAZY_MS);
		if (virtq_pending(&r->vq) || stopping(r))
			return;
		interrupt(r);
	}
	if (!r->lazy && spin(r))
		return;
	if (virtq_enable_notify(&r->vq)) {
		virtq_disable_notify(&r->vq);
		return;
	}
	t0 = now_ns();
	sleep_for(r, -1, false);
	learn(r, now_ns() - t0);
	virtq_disable_notify(&r->vq);
}

static void *ring_run(void *arg)
{
	struct ring *r = arg;
	struct virtq_chain *chain = malloc(sizeof(*chain));
	enum drained last = chain ? DRAINED_NONE : DRAINED_BROKEN;

	virtq_disable_notify(&r->vq);
	while (!stopping(r)) { /* requests may have come before the kick was set: look first */
		if (last != DRAINED_BROKEN)
			last = drain(r, chain);
		if (last == DRAINED_BROKEN)
			sleep_for(r, -1, true);
		else if (last == DRAINED_NONE)
			wait_for_more(r);
	}
	interrupt(r);
	free(chain);
	return NULL;
}

int ring_start(struct ring *r)
{
	int e;

	if (r->running)
		return 0;
	r->stop = eventfd(0, EFD_CLOEXEC);
	if (r->stop < 0)
		return -errno;
	r->stopping = false;
	e = pthread_create(&r->thread, NULL, ring_run, r);
	if (e) {
		r->stop = fd_close(r->stop);
		return -e;
	}
	r->running = true;
	return 0;
}

void ring_stop(struct ring *r)
{
	uint64_t one = 1;

	if (!r->running)
		return;
	__atomic_store_n(&r->stopping, true, __ATOMIC_RELEASE);
	while (write(r->stop, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(r->thread, NULL);
	r->stop = fd_close(r->stop);
	r->running = false;
	r->base = r->vq.last_avail;
}

void ring_done(struct ring *r)
{
	ring_stop(r);
	r->kick = fd_close(r->kick);
	r->call = fd_close(r->call);
}
