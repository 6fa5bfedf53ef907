/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coherence of the host's directories, the guest's side. Linux 6.1's virtio-fs has no way for the host to say that
 * something changed, so the monitor tells the agent (proto/refresh.h), and the agent makes this kernel
 * ask again by system calls of its own: fuse/watch.h says which.
 * The sender is trusted as the host is; a record that breaks the rules of proto/refresh.h ends the connection.
 */
#ifndef GUEST_REFRESH_H
#define GUEST_REFRESH_H

#include "proto/refresh.h"

/* One of them. base: the mount of the device (O_PATH); proc: a /proc of this kernel. 0 or -errno. */
int refresh_apply(int base, int proc, enum refresh_what what, const char *path);
/* Serves a connection until it ends. 0 at its end, -EPROTO, -errno. */
int refresh_serve(int base, int proc, int fd);
/* Starts a process that connects to the host and serves. Its pid or -errno; the agent reaps it like any other. */
int refresh_start(int base, int proc);

#endif
