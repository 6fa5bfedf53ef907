/* SPDX-License-Identifier: Apache-2.0 */
/* Ports of the host that lead into a VM, and the other way: the keeper's other role. See forward.c. */
#ifndef KEEPER_FORWARD_H
#define KEEPER_FORWARD_H

#include "keeper/porttext.h"

#define FORWARD_MAX 64 /* ports a VM */

struct forward_port {
	int fd; /* listening; -1: it leads from the guest to the host */
	struct port_text at;
};

struct waiting;
/* Until the VM has ended and is not suspended: 0, or -errno when it could not begin. link_fd: connected to the keeper,
 * HELLO not yet said. */
int forward_run(int link_fd, const struct waiting *w, const struct forward_port *ports, unsigned count) MUST_CHECK;

#endif
