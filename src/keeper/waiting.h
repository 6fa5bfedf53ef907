/* SPDX-License-Identifier: Apache-2.0 */
/* The ports of a suspended VM: whoever connects to one wakes it. See waiting.c. */
#ifndef KEEPER_WAITING_H
#define KEEPER_WAITING_H

#include <stdint.h>

#include "base/error.h"
#include "keeper/forward.h"

/*
 * In the VM's directory, while somebody waits: a socket that whoever starts the VM takes the listening sockets from.
 * Each comes with a struct waiting_port, in the record's order; the byte WAITING_DONE back says that they are served.
 */
#define WAITING_SOCKET "ports.sock"
#define WAITING_DONE 'd'
struct waiting_port {
	uint32_t left; /* that follow this one */
	uint32_t guest_port;
};

struct waiting {
	const char *dir;   /* the VM's */
	const char *waker; /* a program that resumes the VM that is its argument */
};

/* Until the VM is suspended no more: 0 or -errno; WAITING_HANDED_OVER: its sockets are another's now. At once if it is
 * not suspended. ports: those that lead to the guest. */
#define WAITING_HANDED_OVER 1
int waiting_run(const struct waiting *w, const struct forward_port *ports, unsigned count) MUST_CHECK;

#endif
