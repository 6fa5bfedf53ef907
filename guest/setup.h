/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of SETUP: the root file system, the container's mounts, its /etc files. Paths are below `root`, the overlay
 * before it is /. */
#ifndef GUEST_SETUP_H
#define GUEST_SETUP_H

#include "guest/agent.h"

#define SETUP_ROOT "/container"

/* disks.c: the image, the writable layer and the overlay of them on SETUP_ROOT. */
int disks_mount(struct agent *a, const struct proto_setup *s, struct sm_error *err) MUST_CHECK;

/* mounts.c */
int mounts_make(struct agent *a, struct sm_error *err) MUST_CHECK;
/* Makes SETUP_ROOT the root of the agent and of all that it starts. */
int mounts_enter(struct sm_error *err) MUST_CHECK;

/* etcfiles.c: hosts, resolv.conf and hostname, each mounted over the image's own. */
int etc_files_make(const struct proto_setup *s, struct sm_error *err) MUST_CHECK;

#endif
