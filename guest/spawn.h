/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the processes of commands, in the container's PID namespace.
 *
 * The namespace: the image's command is PID 1 of its own PID namespace, as under runc or crun, so `ps` shows it as 1,
 * it adopts its orphans, its end kills all. Later commands are born into the namespace. A command that comes while
 * there is no namespace, and is not the image's own, has it made first, with a process of the agent's as PID 1 that
 * only reaps. The agent itself stays outside and is not seen. It costs one clone flag for the main command, and two
 * setns calls for the others.
 */
#ifndef GUEST_SPAWN_H
#define GUEST_SPAWN_H

#include "guest/agent.h"
#include "guest/child.h"

/* cgroup_fd: the group to be born in, -1: the agent's own. Returns the pid (> 0) or -errno. */
pid_t spawn(struct agent *a, struct child_plan *plan, bool main, int cgroup_fd);
/* A child has ended: if it was PID 1 of the namespace, there is none any more. True if it was a holder, which is
 * nobody's exec. */
bool spawn_reaped(struct agent *a, pid_t pid);
/* Makes a first PID namespace and ends it: the kernel then has what all others of its depth share. */
void spawn_ahead(struct agent *a);
/* Makes the namespace and ends it: what the first of a kind takes longer for is done then. */
void spawn_rehearse(struct agent *a);
/* Kills the whole namespace. */
void spawn_kill_namespace(struct agent *a);

#endif
