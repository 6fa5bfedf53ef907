/* SPDX-License-Identifier: Apache-2.0 */
/* A command whose streams, signals and terminal are this process's. See session.c. */
#ifndef CLI_SESSION_H
#define CLI_SESSION_H

#include "cli/cli.h"

struct session {
	struct cli *cli;
	pthread_t thread;
	bool running; /* the thread is */
	int wake;     /* eventfd: something has changed for the thread */
	int signals;  /* signalfd */
	int keys[2];  /* pipe by which typed bytes go through the thread, which looks for the detach keys; else -1 */
	bool tty;     /* the command has a terminal */
	void *saved;  /* struct termios: how our terminal was */
	struct sm_vm
		*owned; /* it would end with this process: the keys let go of it, too; set before session_started */
	/* Both threads, by lock: */
	pthread_mutex_t lock;
	struct sm_exec *exec; /* NULL until the command runs: signals then end this process */
	bool raw;	      /* our terminal is in raw mode */
	bool ending, detached;
	unsigned interrupts;
};

/* Blocks the signals to be passed on and starts the thread that takes them. Call it before the library starts threads.
 * On failure nothing is left to end. */
int session_begin(struct session *s, struct cli *cli, struct sm_error *err);
/* Fills in the terminal and the descriptors of *o. detachable: ctrl-p ctrl-q lets go of the terminal. */
int session_streams(struct session *s, bool interactive, bool tty, bool detachable, struct sm_exec_options *o,
		    struct sm_error *err);
/* From now on signals and size changes go to the command, and the terminal is raw. */
void session_started(struct session *s, struct sm_exec *exec);
/* Pumps until the end and restores the terminal. 0 with *ret, -ECANCELED when the keys let go, or -errno. */
int session_wait(struct session *s, struct sm_exec *exec, struct sm_outcome *ret, struct sm_error *err);
/* Whether that was because the keys let go, which is said then. vm: what is left behind, as the user names it; NULL:
 * no more than the terminal. */
bool session_was_left(const struct session *s, int r, const char *vm);
/* Ends the thread and restores the terminal. Signals stay blocked. */
void session_end(struct session *s);

/* Looks for ctrl-p ctrl-q in what was typed: copies what goes on to the command to out (room for len + 1) and returns
 * its length. *held: a ctrl-p is held back, across calls. */
size_t session_keys(bool *held, const char *in, size_t len, char *out, bool *detach);

#endif
