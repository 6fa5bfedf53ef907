/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of the agent for tests: starts the agent as PID 1 of a PID and mount namespace, on one end of a socket pair,
 * and waits for what it asked, always with a time limit.
 */
#ifndef TESTS_AGENT_CLIENT_H
#define TESTS_AGENT_CLIENT_H

#include <sys/types.h>

#include "base/loop.h"
#include "proto/link.h"
#include "proto/messages.h"

struct client {
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	pid_t pid;
	int fd;	   /* the link's, which owns it */
	int ended; /* 1: the link has */
};

/* One channel and all that came on it. */
struct call {
	struct client *c;
	uint32_t ch;
	struct buf out[3];			   /* [0]: the OPENED reply */
	bool opened, closed, eof[3], exited, hold; /* hold: what comes is not acknowledged */
	int code;
	char text[1100];
	struct proto_event exit;
	/* What to send on stream 0, then EOF. */
	const uint8_t *in;
	size_t in_len, in_sent;
	bool in_eof;
};

/* False: namespaces are not to be had here (not root), the test should skip. extra: further arguments, NULL-terminated.
 */
bool client_start(struct client *c, const char *const *extra);
/* Closes the link and waits for the agent's exit status (a wait status). */
int client_stop(struct client *c);

void call_open(struct client *c, struct call *k, uint16_t service, const struct buf *request);
void call_exec(struct client *c, struct call *k, const struct proto_exec *x);
void call_signal(struct call *k, int sig);
void call_resize(struct call *k, unsigned rows, unsigned cols);
void call_feed(struct call *k, const void *p, size_t len); /* then EOF */
/* Runs the loop until *flag, at most so long; false on time-out or a lost link. */
bool client_until(struct client *c, const bool *flag, unsigned ms);
void client_turn(struct client *c, unsigned ms); /* runs the loop for so long */
void call_done(struct call *k);

/* The whole of one command: sh -c script. Returns the exit status, -1 on any failure. out may be NULL. */
int client_sh(struct client *c, const char *script, struct call *k);

#endif
