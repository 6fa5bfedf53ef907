/* SPDX-License-Identifier: Apache-2.0 */
/* Watching the host's directories for VMs in a machine: a role of the keeper's program. See watchers.c. */
#ifndef KEEPER_HOSTWATCH_H
#define KEEPER_HOSTWATCH_H

#include "base/error.h"

/* Until the VM has ended: 0, or -errno when it could not begin. link_fd: connected to the keeper, HELLO not yet said.
 * sources: the directories of its mounts, in their order. */
int hostwatch_run(int link_fd, const char *const *sources, unsigned count) MUST_CHECK;
/* For VMs of a share group, handed over on the socket (watchgroup.h), until there has been none for a while. */
int hostwatch_serve_group(int listener, const char *socket, const char *lock) MUST_CHECK;

#endif
