/* SPDX-License-Identifier: Apache-2.0 */
/* File systems that programs on the host serve, for a VM in a machine: the keeper's fourth role. See hostshare.c. */
#ifndef KEEPER_HOSTSHARE_H
#define KEEPER_HOSTSHARE_H

#include <stdint.h>

#include "base/error.h"

struct hostshare_place {
	uint8_t number;	    /* of the mount, as the monitor counts */
	const char *socket; /* that the program listens on */
};

/* Until the VM has ended: 0, or -errno when it could not begin. link_fd: connected to the keeper, HELLO not yet said.
 */
int hostshare_run(int link_fd, const struct hostshare_place *places, unsigned count) MUST_CHECK;

#endif
