/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting other programs: no handler of the caller runs in the child, and only the descriptors named here survive the
 * exec. For the library: process_detach, process_run and process_fork raise no SIGCHLD and leave no child that another
 * part of the process could reap by accident.
 */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

struct process_options {
	const char *const *argv; /* argv[0] is looked up in PATH unless it has a slash */
	const char *const *env;	 /* NULL: the caller's */
	const char *cwd;	 /* NULL: the caller's */
	int fds[3];		 /* become 0, 1, 2; -1: /dev/null */
	/* Further descriptors, kept under these numbers; all other descriptors are closed. */
	const int *keep;
	size_t num_keep;
	bool new_session;
	/* A signal to the child when the thread that started it ends, 0: none. Only for process_start (a child, not an
	 * orphan). */
	int death_signal;
};

/*
 * Starts a child of this process: wait for it with process_wait, or by its pidfd (*ret_pidfd, may be NULL). Its end
 * raises SIGCHLD, as any program's does: for programs of our own. An exec that fails is this call's error. Returns the
 * pid.
 */
pid_t process_start(const struct process_options *o, int *ret_pidfd, struct sm_error *err) MUST_CHECK;
/* The wait status, or -errno. Blocks. */
int process_wait(pid_t pid, int *ret_status);

/* Starts an orphan (double fork, own session): nobody needs to reap it. Returns its pid. */
pid_t process_detach(const struct process_options *o, struct sm_error *err) MUST_CHECK;

/*
 * A forked child without SIGCHLD for work that must not happen in this process: as fork(2), 0 in the child, which may
 * only make async-signal-safe calls and must end with _exit. Wait with process_wait.
 */
pid_t process_fork(void);

/* Closes all descriptors but the standard three and these, which it sorts: for a child of few that does not exec. */
void process_close_others(int *keep, size_t num_keep);

/* Runs to the end, at most timeout_ms (then it is killed: -ETIMEDOUT); appends up to max bytes of stdout and, if merge,
 * stderr to out (may be NULL). *ret_status is a wait status. fds[1] and fds[2] of the options are not used. */
int process_run(const struct process_options *o, int timeout_ms, bool merge, size_t max, struct buf *out,
		int *ret_status, struct sm_error *err) MUST_CHECK;

/* The caller's environment as far as programs of ours that outlive him need it: what else is in it, a password say, is
 * not theirs to carry. A list to free, of strings that are not; NULL: no memory. */
const char **process_plain_env(void);

#endif
