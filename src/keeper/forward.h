/* SPDX-License-Identifier: Apache-2.0 */
/* Ports of the host that lead into a VM: the keeper's other role. See forward.c. */
#ifndef KEEPER_FORWARD_H
#define KEEPER_FORWARD_H

#include "base/error.h"

#define FORWARD_MAX 64 /* ports a VM */

struct forward_port {
	int fd; /* listening */
	uint16_t guest_port;
};

/* Until the VM has ended: 0, or -errno when it could not begin. link_fd: connected to the keeper, HELLO not yet said.
 */
int forward_run(int link_fd, const struct forward_port *ports, unsigned count) MUST_CHECK;

#endif
