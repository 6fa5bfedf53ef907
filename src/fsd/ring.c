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

/* Serves what is available; false when the driver broke the ring, which is then left alone. */
static bool drain(struct ring *r, struct virtq_chain *chain)
{
	do {
		int got;

		virtq_disable_notify(&r->vq);
		while ((got = virtq_pop(&r->vq, chain)) > 0) {
			ssize_t n = fuse_session_serve(r->session, chain->read, (int)chain->num_read, chain->write,
						       (int)chain->num_write);

			virtq_push(&r->vq, chain->head, n > 0 ? (uint32_t)n : 0);
			if (chain->num_write) /* a forget waits for nobody: its interrupt can come with the next */
				interrupt(r);
		}
		if (got < 0) {
			r->broken++;
			log_warn("fsd", "the driver broke its queue; it is not served any more");
			return false;
		}
	} while (virtq_enable_notify(&r->vq));
	interrupt(r);
	return true;
}

static void *ring_run(void *arg)
{
	struct ring *r = arg;
	struct virtq_chain *chain = malloc(sizeof(*chain));
	struct pollfd fds[2] = {{.fd = r->stop, .events = POLLIN}, {.fd = r->kick, .events = POLLIN}};
	bool alive = chain && drain(r, chain); /* requests may have come before the kick was set */

	for (;;) {
		uint64_t count;

		if (poll(fds, alive ? 2 : 1, -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		if (alive && fds[1].revents & POLLIN && read(r->kick, &count, sizeof(count)) == sizeof(count))
			alive = drain(r, chain);
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
