/* SPDX-License-Identifier: Apache-2.0 */
/* A command's handle: its connection, and what other threads ask of it. See exec.c and pump.c. */
#ifndef LIB_EXEC_H
#define LIB_EXEC_H

#include <poll.h>

#include "lib/collect.h"
#include "lib/lib.h"

#define EXEC_QUEUE 32 /* signals not yet sent; more are refused */

struct exec_output {
	int fd;		     /* the caller's, -1: none */
	int own;	     /* a non-blocking description of the same pipe, -1: none */
	bool socket, broken; /* broken: nobody reads any more */
	int error;	     /* why, where that is not that the reader went away; a positive errno */
	struct buf pending;  /* received, not yet written, not yet given credit for */
	struct collect kept; /* without fd: for sm_exec_collect */
};

#define EXEC_POLLS 5 /* descriptors that the pump waits for, beside its connection */

/* What sm_exec_fd's epoll instance waits for (exec_async.c). */
struct exec_watched {
	int fd; /* a duplicate, -1: nothing */
	uint32_t events;
};

struct sm_exec {
	struct sm_client *client;
	char id[VM_ID_DIGITS + 1]; /* "": a command in the machine */
	struct conn conn;
	struct call call; /* the command's channel */
	struct call wait; /* attach: the VM's end */
	uint32_t number;  /* of a detached command; 0: it is not one */
	bool attach, stdin_open, stdin_done, waited, prepared;
	bool joined; /* the command is not this client's: it goes on when nobody reads here any more */
	int left;    /* which has happened: a positive errno */
	int epoll;   /* -1: nobody asked for it */
	struct exec_watched watched[EXEC_POLLS + 1];
	int stdin_fd;
	struct buf input; /* instead of stdin_fd, sent up to input_at */
	size_t input_at;
	struct buf staged; /* sent before all input, up to staged_at: the contents of its files */
	size_t staged_at;
	int cancel_fd; /* the caller's, -1: none */
	bool cancelled;
	struct exec_output out[2];
	/* lock: what other threads ask for, until the pump takes it; wake is an eventfd */
	pthread_mutex_t lock;
	int wake;
	int signals[EXEC_QUEUE];
	unsigned num_signals;
	bool resized, detached;
	uint16_t rows, cols;
};

/* NULL: no memory, or no descriptor. Its connection is to be made. */
struct sm_exec *exec_new(struct sm_client *c, const char *id, const struct sm_exec_options *o);
void exec_set_data_handler(struct sm_exec *x);

/* pump.c: until the command's channel is closed and its output written. 0, -ECANCELED (detached), or -errno. */
int exec_pump(struct sm_exec *x, struct sm_error *err) MUST_CHECK;
/* One turn of it, without waiting. */
int exec_turn(struct sm_exec *x, struct sm_error *err) MUST_CHECK;
/* All is known and written: for sm_vm_attach, that is the VM's end, too. */
bool exec_finished(const struct sm_exec *x);
/* 0 wake, 1 stdin, 2 stdout, 3 stderr, 4 cancel: what it waits for, fd -1: nothing. */
void exec_polls(struct sm_exec *x, struct pollfd fds[EXEC_POLLS]);
/* From any thread: the pump, or who waits for the epoll instance, looks again. */
void exec_wake(struct sm_exec *x);
void exec_on_data(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len);

#endif
