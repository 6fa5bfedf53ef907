/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coherence of the host's directories, the guest's side. Linux 6.1's virtio-fs has no way for the host to say that
 * something changed, so the monitor tells the agent (vsock, REFRESH_PORT of the host), and the agent makes this kernel
 * ask again by system calls of its own: fuse/watch.h says which.
 *
 * A record: u32 length of the rest (little-endian), u8 what, the path below the mount of the device, without a leading
 * slash or NUL. The sender is trusted as the host is; a record that breaks these rules ends the connection.
 */
#ifndef GUEST_REFRESH_H
#define GUEST_REFRESH_H

#include <stddef.h>
#include <stdint.h>

#define REFRESH_PORT 1025
#define REFRESH_MAX 4096 /* length of a record without its first word */

enum refresh_what {
	REFRESH_NAME = 1,     /* it may be absent, new, or another file */
	REFRESH_ATTR = 2,     /* its attributes */
	REFRESH_CONTENTS = 4, /* those and its data */
	REFRESH_ALL = 8,      /* anything may have changed; no path */
};

/* One of them. base: the mount of the device (O_PATH); proc: a /proc of this kernel. 0 or -errno. */
int refresh_apply(int base, int proc, enum refresh_what what, const char *path);
/* Serves a connection until it ends. 0 at its end, -EPROTO, -errno. */
int refresh_serve(int base, int proc, int fd);
/* Starts a process that connects to the host and serves. Its pid or -errno; the agent reaps it like any other. */
int refresh_start(int base, int proc);

#endif
