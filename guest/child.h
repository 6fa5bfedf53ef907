/* SPDX-License-Identifier: Apache-2.0 */
/* What happens in a new process between its creation and the command's first instruction. */
#ifndef GUEST_CHILD_H
#define GUEST_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/stage.h"
#include "guest/users.h"

#define NOFILE_HARD 1048576u /* descriptors that a program may have, and the agent has: the kernel's fs.nr_open */

struct child_plan {
	char *const *argv, *const *env;
	const char *cwd;
	bool make_cwd; /* if it is missing */
	const struct user *user;
	int fds[3];
	struct stage stage;
	bool tty;		     /* fds[0] becomes the controlling terminal */
	bool console;		     /* and /dev/console */
	bool mount_proc;	     /* the first process of a PID namespace: gives the container its /proc */
	bool own_cgroup_view;	     /* its cgroup is the root of what it sees */
	bool hold;		     /* executes nothing: child_hold */
	bool limits;		     /* sets a container's resource limits */
	char *const *more_limits[2]; /* on top of these: the container's and the command's (proto_rlimit); NULL: none */
	uint64_t ignored;	     /* the signals that the agent ignores, 1 << (number - 1) */
	int proc_fd;		     /* the agent's /proc, or -1 */
	int report_fd;		     /* close-on-exec: the child writes its pid, then, on failure, a child_failure */
};

struct child_failure {
	int32_t status; /* 126 or 127 */
	int32_t error;	/* -errno: a file that comes with it could not be written; status is nothing then */
	char text[240];
};

/* In the child: what the plan says. Never returns. */
void child_run(const struct child_plan *plan) __attribute__((noreturn));

#endif
