/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMs of a share group in the machine have one process on the host that watches their directories. It is found, or
 * started, as a file server is (place.h), and a VM is handed over to it: a connection to the VM's keeper, and its
 * directories.
 */
#ifndef KEEPER_WATCHGROUP_H
#define KEEPER_WATCHGROUP_H

#include "base/error.h"

#define WATCHGROUP_SOURCES 15 /* a VM with more directories has a process of its own */

struct watchgroup {
	const char *program;	 /* supermachine-keeper, absolute */
	const char *runtime_dir; /* the host's */
	const char *group;
};

/* Hands a VM over: link is a connection to its keeper, the caller's. Waits for others that do the same. 0 or -errno. */
int watchgroup_join(const struct watchgroup *g, int link, const char *const *sources, unsigned count,
		    struct sm_error *err) MUST_CHECK;
/* In that process: a VM from a connection. How many sources there are (-1: not there), all the caller's; or -errno. */
int watchgroup_receive(int sock, int *ret_link, int *ret_sources) MUST_CHECK;

#endif
