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
/* Serves a connection until it ends. 0 at its end, -EPROTO, -errno. told: gets a byte when the host has told what
 * changed before, -1: nobody waits for that. */
int refresh_serve(int base, int proc, int fd, int told);
/* Starts a process that connects to the host and serves. Its pid or -errno; the agent reaps it like any other. */
int refresh_start(int base, int proc);
/*
 * In a copy of a guest, before anybody uses what this kernel has cached: another such process. Returns when what had
 * changed by then has been asked for. A host that does not say so within the limit: all that can go from the caches
 * goes. 0 or -errno.
 */
int refresh_catch_up(int base, int proc, int limit_ms);

#endif
