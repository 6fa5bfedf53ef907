/* SPDX-License-Identifier: Apache-2.0 */
/* Signals to commands, above all to the one that is PID 1 of its namespace. See exec.h. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/exec.h"

#define BLOCKED_NS 10000000u
#define BLOCKED_LOOKS 20u

/* True if this bit is set in one of the status file's signal masks. */
static bool mask_has(const char *status, const char *name, int sig)
{
	const char *line = strstr(status, name);

	return line && (strtoull(line + strlen(name), NULL, 16) >> (sig - 1) & 1);
}

enum fate { LIVES, DIES, BLOCKS };

/* What the process would do about this signal if it were not PID 1: DIES if it leaves it to its default action, and
 * that is to end. */
static enum fate fate_of(struct agent *a, pid_t pid, int sig)
{
	char path[32];
	_free_ char *status = NULL;

	if (sig == SIGCHLD || sig == SIGCONT || sig == SIGURG || sig == SIGWINCH || sig == SIGSTOP || sig == SIGTSTP ||
	    sig == SIGTTIN || sig == SIGTTOU)
		return LIVES;
	snprintf(path, sizeof(path), "%d/status", (int)pid);
	if (a->proc_fd < 0 || read_file_at(a->proc_fd, path, 65536, &status, NULL) < 0)
		return LIVES;
	if (mask_has(status, "\nSigIgn:", sig) || mask_has(status, "\nSigCgt:", sig))
		return LIVES;
	return mask_has(status, "\nSigBlk:", sig) ? BLOCKS : DIES;
}

/*
 * The kernel does not let PID 1 of a namespace die of a signal that it has no handler for; so a plain `sleep 100` would
 * not heed Ctrl-C. We carry out the default action, and report it as what it was. A signal that is blocked may be so
 * for a moment only (a shell that is about to fork): then we look again.
 */
static void act_for_init(struct exec *e, int sig)
{
	enum fate fate = e->reaped || e->pid != e->a->init_pid ? LIVES : fate_of(e->a, e->pid, sig);

	if (fate == DIES) {
		e->forced_signal = sig;
		kill(e->pid, SIGKILL);
	}
	e->blocked_signal = fate == BLOCKS && e->looks++ < BLOCKED_LOOKS ? sig : 0;
	if (e->blocked_signal && e->look_again)
		loop_timer_at(e->look_again, time_now_ns() + BLOCKED_NS);
}

static void on_look_again(struct loop *loop, struct loop_source *src, void *arg)
{
	struct exec *e = arg;

	act_for_init(e, e->blocked_signal);
}

static void signal_init(struct exec *e, int sig)
{
	if (e->pid != e->a->init_pid || sig == SIGKILL)
		return;
	e->looks = 0;
	if (!e->look_again && loop_add_timer(e->a->loop, on_look_again, e, &e->look_again) < 0)
		e->look_again = NULL;
	act_for_init(e, sig);
}

/* To the command's process group. */
void exec_deliver(struct exec *e, int sig)
{
	if (e->reaped)
		return;
	/* First, so that a handler which is just being installed makes no difference: the signal would have come before
	 * it. */
	signal_init(e, sig);
	if (kill(-e->pid, sig) < 0)
		kill(e->pid, sig);
}

/*
 * The terminal turns its interrupt and quit keys into signals by itself; only PID 1 of the namespace would not die of
 * them. So that is seen to here, if it is the one in the foreground.
 */
void exec_heed_keys(struct exec *e, const uint8_t *p, size_t len)
{
	struct termios t;
	int sig = 0;

	if (e->pid != e->a->init_pid || e->out[0].fd < 0 || tcgetattr(e->out[0].fd, &t) < 0 || !(t.c_lflag & ISIG))
		return;
	if (memchr(p, t.c_cc[VINTR], len))
		sig = SIGINT;
	else if (memchr(p, t.c_cc[VQUIT], len))
		sig = SIGQUIT;
	if (sig && tcgetpgrp(e->out[0].fd) == e->pid)
		signal_init(e, sig);
}
