/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch of shared directories whose events the host has (proto/hostwatch.h): the monitor's end of the stream, for
 * the thread that runs the watch (share_watch.c).
 *
 * In a machine the kernel here believes what it was told of the host's files for 0.1 s. So whatever comes is held back
 * for a little longer: by then this kernel asks again, and a look at the files finds what the event was about. The same
 * holds for the answer that a directory is watched, after which nothing older is looked at.
 */
#ifndef VMM_SHARE_REMOTE_H
#define VMM_SHARE_REMOTE_H

#include "base/error.h"

struct share_remote;
struct watch;
struct watch_stale;

/* fd: taken, on success. 0 or -ENOMEM. */
int share_remote_new(int fd, struct watch *watch, struct share_remote **ret) MUST_CHECK;
struct share_remote *share_remote_free(struct share_remote *r); /* NULL allowed, here and below; returns NULL */

/* For poll: what to wait for (-1: it has ended) and for how long at most, in ms. */
int share_remote_fd(const struct share_remote *r);
short share_remote_events(struct share_remote *r);
int share_remote_timeout(const struct share_remote *r, int most);

/* Does all that can be done now. */
void share_remote_step(struct share_remote *r, void (*stale)(void *arg, const struct watch_stale *), void *arg);

#endif
