/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bundles (sm_bundle): a directory that runs wherever it lies.
 *
 * - supermachine: supermachine-bundled (src/bundle), by the command's name
 * - libexec/: the helpers; static ones as they are, for the others supermachine-bundled by their names
 * - lib/: those others, their loader ("loader") and their libraries
 * - home/data/images/: the images, as a store has them
 * - home/data/kernels/bundled/: the kernel (kernel_copy)
 * - home/data/templates/: the empty disk of the usual size
 *
 * Nothing in it is a path of the host. What has such paths, base snapshots and records of VMs, is made where it is
 * used.
 */
#ifndef LIB_BUNDLE_H
#define LIB_BUNDLE_H

#include "lib/lib.h"

#define BUNDLE_LAUNCHER "supermachine-bundled"
#define BUNDLE_LOADER "loader"

struct bundle {
	struct sm_client *client;
	int dir;	  /* the tree, as it grows */
	const char *path; /* of it */
	struct sm_progress progress;
};

/* A file of the host, links followed, to this place in the tree. One that is there stays. */
int bundle_copy(struct bundle *b, const char *from, const char *to, mode_t mode, struct sm_error *err) MUST_CHECK;
/* bundle_programs.c: supermachine, libexec/ and lib/, which are there and empty. */
int bundle_programs(struct bundle *b, struct sm_error *err) MUST_CHECK;

#endif
