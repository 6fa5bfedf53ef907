/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vhost-user door: the back-end side of a vhost-user connection (QEMU docs/interop/vhost-user.rst) for one
 * virtio-fs device, so that any front end (QEMU, another monitor) can mount a backend of ours.
 *
 * The front end is hostile to a point: every message is length-checked, addresses are translated through its memory
 * table, chains through the checked queue. It owns the memory, though: one that truncates its memory file kills this
 * server, and itself with it.
 *
 * Threads: the caller's thread speaks the protocol; each started queue has a thread that serves its requests.
 */
#ifndef VHOST_VHOST_USER_H
#define VHOST_VHOST_USER_H

#include "fuse/session.h"

/* Serves the connection until the front end closes it: 0, or -errno with a message when it broke the protocol. sock
 * stays the caller's. -ECANCELED once stop_fd (-1: none) is readable. */
int vhost_user_serve(int sock, int stop_fd, struct fuse_session *session, struct sm_error *err);

#endif
