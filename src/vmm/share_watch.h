/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coherence of shared directories: a thread that runs the session's watch (fuse/watch.h) and tells the guest's agent,
 * by a stream that the guest joins at a port of its own, what others changed on the host. The records are those of
 * proto/refresh.h. An agent that does not keep up is told that anything may have changed.
 */
#ifndef VMM_SHARE_WATCH_H
#define VMM_SHARE_WATCH_H

#include "base/error.h"

struct vm;
struct share_watch;
struct watch;

/* host_fd: the stream to a process that watches for this one (share_remote.h), which is taken; -1: there is none.
 * *ret_guest: the guest's end of the stream, to be expected at REFRESH_PORT. The thread seals itself (as a server
 * of vm) before anything else. */
int share_watch_start(struct vm *vm, struct watch *watch, int host_fd, struct share_watch **ret, int *ret_guest,
		      struct sm_error *err) MUST_CHECK;
/* The guest goes on from a snapshot: it is told of all that is not as it knows it, and then that this is all
 * (REFRESH_CAUGHT_UP). */
void share_watch_compare(struct share_watch *s);
struct share_watch *share_watch_stop(struct share_watch *s); /* NULL allowed; returns NULL */

/* Its system calls beside a server's, -1 at the end. */
extern const int share_watch_syscalls[];

#endif
