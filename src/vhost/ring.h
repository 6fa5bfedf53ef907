/* SPDX-License-Identifier: Apache-2.0 */
/* One virtqueue of a vhost-user device and the thread that serves it. Internal to the room. */
#ifndef VHOST_RING_H
#define VHOST_RING_H

#include <pthread.h>

#include "fuse/session.h"
#include "virtio/queue.h"

struct ring {
	struct virtqueue vq;
	uint64_t user_desc, user_avail, user_used; /* as the front end names them; set by SET_VRING_ADDR */
	uint32_t base;
	bool has_address, enabled, running;
	bool lazy;	      /* the hiprio queue: nobody waits for its answers */
	bool stopping;	      /* atomic */
	int kick, call, stop; /* eventfds, -1: none */
	struct fuse_session *session;
	pthread_t thread;
	/* the thread's own */
	unsigned unsignalled; /* answers pushed without an interrupt so far */
	uint64_t unsignalled_bytes;
	uint64_t spin_ns; /* how long it looks for more before it sleeps */
	uint64_t broken;  /* metric: chains that broke the rules */
};

void ring_init(struct ring *r, struct fuse_session *session);
/* Starts the thread on an activated queue; 0 or -errno. No-op while it runs. */
int ring_start(struct ring *r) MUST_CHECK;
/* Stops and joins it; what was taken has been answered. */
void ring_stop(struct ring *r);
void ring_done(struct ring *r);

#endif
