/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM that has a share of the CPUs: a cgroup of its monitor's own, below the one that its keeper is in, which is that
 * of whoever started it. The caller's group has processes, so nothing but a threaded group may be beneath it; the
 * processor's controller is one that such groups can have, and the monitor is born into it, all of its threads. It
 * takes a group that this user may divide: one that was delegated to him (Documentation/admin-guide/cgroup-v2.rst).
 *
 * It goes with the keeper. For one that is killed, the VM's directory has the file `cgroup` with its path, and whoever
 * finds the VM dead removes it (cpu_group_sweep); in the machine its agent does that (guest/cgroup.c).
 */
#ifndef KEEPER_CPUGROUP_H
#define KEEPER_CPUGROUP_H

#include <limits.h>
#include <stdbool.h>

#include "base/error.h"

struct cpu_group {
	int fd; /* its directory, to start the monitor in; -1: there is none */
	char path[PATH_MAX];
};

/*
 * Makes it, with this limit, in thousandths of a CPU. ours: all groups here are the product's own (the machine's), so
 * the one above is told to hand the controller on. SM_ERROR_UNSUPPORTED: there is no group to make it in.
 */
int cpu_group_make(struct cpu_group *g, const char *id, unsigned limit, bool ours, struct sm_error *err) MUST_CHECK;
/* 0: none. 0 or -errno. */
int cpu_group_limit(const struct cpu_group *g, unsigned limit) MUST_CHECK;
/* When the monitor is gone; -1 in fd is nothing to do. False: there is somebody in it still. */
bool cpu_group_remove(struct cpu_group *g);

/* The file in the VM's directory, for the next who looks. */
int cpu_group_note(const struct cpu_group *g, int dirfd) MUST_CHECK;
void cpu_group_forget(int dirfd);
/* Removes the group of a VM that has no keeper any more, if its directory names one. */
void cpu_group_sweep(int dirfd, const char *id);

#endif
