/* SPDX-License-Identifier: Apache-2.0 */
/* The library's end of the daemon's socket: finds the daemon or starts it, sends one request, gathers the answer. */
#ifndef MACHINE_CLIENT_H
#define MACHINE_CLIENT_H

#include "machine/wire.h"

#define MACHINE_EMULATOR "qemu-system-x86_64" /* found by PATH */

/* Where the machine of this seat is; strings stay the seat's. */
struct machine_place {
	const char *runtime_dir, *data_dir, *state_dir, *libexec_dir;
	void (*notice)(void *arg, const char *line);
	void *notice_arg;
	const char *reason; /* why there is a machine at all, for the notice of a start; may be "" */
};

/*
 * Sends the request and waits for OK (its payload appended to reply, which may be NULL). Returns the connected socket,
 * which from then on is what wire.h says, or -errno. start: a daemon that does not run is started, else -ECONNREFUSED.
 */
int machine_request(const struct machine_place *place, enum wire_type type, const struct buf *payload, bool start,
		    struct buf *reply, struct sm_error *err) MUST_CHECK;

#endif
