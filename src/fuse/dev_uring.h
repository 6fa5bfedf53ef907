/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The /dev/fuse door's second way for requests, where the kernel has it (Linux 6.14, fuse.enable_uring): one queue per
 * CPU, whose threads stay on that CPU, and one system call that takes an answer and brings the next request. INIT,
 * forgets and notifications go through the descriptor as ever.
 *
 * Once INIT has agreed to it the kernel holds everything back until each queue has a thread. So all that can fail is
 * done before: threads, rings and memory are there when INIT is answered.
 */
#ifndef FUSE_DEV_URING_H
#define FUSE_DEV_URING_H

#include <sys/uio.h>

#include "fuse/newer.h"
#include "fuse/session.h"

struct dev_uring;

/* What the threads ask of the door. */
struct dev_uring_port {
	void (*gone)(void *arg);   /* the mount is gone */
	void (*settle)(void *arg); /* waits a moment for forgets that are under way */
	void *arg;
};

/* NULL: not in this way (the kernel has it off, has no io_uring for us, or there are too many CPUs). */
struct dev_uring *dev_uring_new(void);
/* INIT has been answered: the threads register with the kernel and serve. */
void dev_uring_begin(struct dev_uring *u, struct fuse_session *session, int fd, const struct dev_uring_port *port);
/* Ends the threads; one that serves ends after it. NULL allowed; returns NULL. */
struct dev_uring *dev_uring_free(struct dev_uring *u);
/* Requests that came in this way. */
uint64_t dev_uring_requests(const struct dev_uring *u);

/* The parts of a request as they stand in a ring's memory: 0, or -EPROTO when its lengths do not agree. */
int dev_uring_parts(struct newer_uring_header *h, void *payload, size_t room, struct iovec ret[3]) MUST_CHECK;

#endif
