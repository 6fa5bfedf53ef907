/* SPDX-License-Identifier: Apache-2.0 */
/* A command's handle: its connection, and what other threads ask of it. See exec.c and pump.c. */
#ifndef LIB_EXEC_H
#define LIB_EXEC_H

#include "lib/lib.h"

#define EXEC_QUEUE 32 /* signals not yet sent; more are refused */

struct exec_output {
	int fd;		     /* the caller's, -1: none */
	int own;	     /* a non-blocking description of the same pipe, -1: none */
	bool socket, broken; /* broken: nobody reads any more */
	struct buf pending;  /* received, not yet written, not yet given credit for */
};

struct sm_exec {
	struct sm_client *client;
	char id[VM_ID_DIGITS + 1]; /* "": a command in the machine */
	struct conn conn;
	struct call call; /* the command's channel */
	struct call wait; /* attach: the VM's end */
	bool attach, stdin_open, stdin_done, waited;
	int stdin_fd;
	struct exec_output out[2];
	/* lock: what other threads ask for, until the pump takes it; wake is an eventfd */
	pthread_mutex_t lock;
	int wake;
	int signals[EXEC_QUEUE];
	unsigned num_signals;
	bool resized, detached;
	uint16_t rows, cols;
};

/* pump.c: until the command's channel is closed and its output written. 0, -ECANCELED (detached), or -errno. */
int exec_pump(struct sm_exec *x, struct sm_error *err) MUST_CHECK;
void exec_on_data(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len);

#endif
