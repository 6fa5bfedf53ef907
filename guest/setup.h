/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of SETUP: the root file system, the container's mounts, its /etc files. Paths are below `root`, the overlay
 * before it is /. */
#ifndef GUEST_SETUP_H
#define GUEST_SETUP_H

#include "guest/agent.h"

#define SETUP_ROOT "/container"
#define SETUP_WRITABLE "/writable" /* the writable layer's file system */

/* disks.c: the image, the writable layer and the overlay of them on SETUP_ROOT. */
int disks_mount(struct agent *a, const struct proto_setup *s, struct sm_error *err) MUST_CHECK;

/* layers.c: keeps the two directories open, for what the VM changes of the lower one. */
int layers_keep(struct agent *a, const char *target, const char *lower, const char *upper,
		struct sm_error *err) MUST_CHECK;

/* mounts.c */
int mounts_make(struct agent *a, struct sm_error *err) MUST_CHECK;
/* Makes SETUP_ROOT the root of the agent and of all that it starts. */
int mounts_enter(struct sm_error *err) MUST_CHECK;

/*
 * shares.c: the directories of the host. They are opened while the agent's own root is still there, and put on their
 * targets once the container's is the root, so that links on the way mean what they mean in the container.
 */
#define MAX_SHARES 64
struct shares {
	int trees[MAX_SHARES]; /* detached mounts */
	unsigned num;
};
int shares_open(struct agent *a, const struct proto_setup *s, struct shares *ret, struct sm_error *err) MUST_CHECK;
int shares_attach(const struct proto_setup *s, const struct shares *shares, struct sm_error *err) MUST_CHECK;
void shares_done(struct shares *shares);

/* etcfiles.c: hosts, resolv.conf and hostname, each mounted over the image's own. */
int etc_files_make(const struct proto_setup *s, struct sm_error *err) MUST_CHECK;

#endif
