/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The /dev/fuse door's way of telling the kernel what others changed: a thread that runs the session's watch and takes
 * what became stale from the kernel's caches (FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE).
 *
 * A thread of its own, because such a notification may wait for a request of the same directory to be answered.
 */
#ifndef FUSE_DEV_NOTIFY_H
#define FUSE_DEV_NOTIFY_H

#include "fuse/session.h"

struct dev_notify;

/* fd: the mount's /dev/fuse descriptor, which must outlive this. *ret NULL: the session has no watch. 0 or -errno. */
int dev_notify_start(struct fuse_session *session, int fd, struct dev_notify **ret) MUST_CHECK;
/* Waits for the thread; only once the mount is gone, or nothing would answer what it may wait for. Returns NULL. */
struct dev_notify *dev_notify_stop(struct dev_notify *n);

#endif
