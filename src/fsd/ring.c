/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue's thread. It drains all that is available with the driver's kicks off, answers in place, and interrupts once
 * a batch: a driver that fills the queue costs one kick and one interrupt for many requests.
 */
#include "fsd/ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

void ring_init(struct ring *r, struct fuse_session *session)
{
	*r = (struct ring){.kick = -1, .call = -1, .stop = -1, .session = session};
}

static void interrupt(struct ring *r)
{
	uint64_t one = 1;

	/* An eventfd whose counter is full is raised already. */
	if (r->call >= 0 && virtq_should_signal(&r->vq) && write(r->call, &one, sizeof(one)) < 0)
		return;
}

enum drained { DRAINED_ALL, DRAINED_SOME, DRAINED_BROKEN };

/*
 * Serves what is available, but not for ever: a driver can lay its rings over one another so that each answer makes a
 * new request, and the thread must still hear a stop. After a broken ring nothing more is served.
 */
static enum drained drain(struct ring *r, struct virtq_chain *chain)
{
	unsigned left = 4 * VIRTQ_MAX_SIZE;

	do {
		int got = 0;

		virtq_disable_notify(&r->vq);
		while (left && (got = virtq_pop(&r->vq, chain)) > 0) {
			left--;
			ssize_t n = fuse_session_serve(r->session, chain->read, (int)chain->num_read, chain->write,
						       (int)chain->num_write);

			virtq_push(&r->vq, chain->head, n > 0 ? (uint32_t)n : 0);
			if (chain->num_write) /* a forget waits for nobody: its interrupt can come with the next */
				interrupt(r);
		}
		if (got < 0) {
			r->broken++;
			log_warn("fsd", "the driver broke its queue; it is not served any more");
			return DRAINED_BROKEN;
		}
	} while (left && virtq_enable_notify(&r->vq));
	interrupt(r);
	return left ? DRAINED_ALL : DRAINED_SOME;
}

static void *ring_run(void *arg)
{
	struct ring *r = arg;
	struct virtq_chain *chain = malloc(sizeof(*chain));
	struct pollfd fds[2] = {{.fd = r->stop, .events = POLLIN}, {.fd = r->kick, .events = POLLIN}};
	/* Requests may have come before the kick was set. */
	enum drained last = chain ? drain(r, chain) : DRAINED_BROKEN;

	for (;;) {
		uint64_t count;

		if (poll(fds, last == DRAINED_BROKEN ? 1 : 2, last == DRAINED_SOME ? 0 : -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		if (last == DRAINED_BROKEN)
			continue;
		if (fds[1].revents & POLLIN && read(r->kick, &count, sizeof(count)) < 0 && errno != EAGAIN)
			continue;
		if (last == DRAINED_SOME || fds[1].revents & POLLIN)
			last = drain(r, chain);
	}
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
