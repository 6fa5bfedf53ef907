/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cgroup for each command: so that all of it can be killed, whatever sessions it has made, and so that a kill for
 * lack of memory is known to be one. Everything here does nothing, harmlessly, where there is no cgroup2 tree.
 */
#ifndef GUEST_CGROUP_H
#define GUEST_CGROUP_H

#include "guest/agent.h"

/* Takes this mount of cgroup2 as the tree, and turns on accounting of memory and processes. 0 or -errno. */
int cgroup_use(struct agent *a, const char *path);
/* Has the first group that cgroup_make will give made already: the kernel then does for it, and for the first group at
 * all, what it would do when a command begins. */
void cgroup_make_ahead(struct agent *a);
/* A new group: its directory's descriptor, or -1; *ret_id names it. */
int cgroup_make(struct agent *a, uint32_t *ret_id);
/* Kills every process in it. False if there is none such, or the kernel cannot. */
bool cgroup_kill(int fd);
/* How many of its processes the kernel killed for lack of memory. */
uint64_t cgroup_oom_kills(int fd);
/* Closes and removes; if processes are left in it, some later call removes it. */
void cgroup_remove(struct agent *a, int fd, uint32_t id);

/* All processes of all groups stand still (0 when the last of them does, -ETIMEDOUT when one does not within
 * limit_ns: then none is held), or run again. -EOPNOTSUPP: there are no groups. */
int cgroup_hold_all(struct agent *a, bool hold, uint64_t limit_ns) MUST_CHECK;

#endif
