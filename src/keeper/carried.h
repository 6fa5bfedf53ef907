/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection of the monitor's to a file system that a program serves on the host, where the VM is in a machine:
 * bytes that a process there (hostshare.c) carries. It has a channel open to us, which we accept when the monitor wants
 * a connection; it connects then, or closes the channel, and opens another for the next. The keeper understands nothing
 * of what goes through.
 */
#ifndef KEEPER_CARRIED_H
#define KEEPER_CARRIED_H

#include "keeper/join.h"

struct carried {
	struct loop *loop;
	int fd;		 /* the monitor's connection, for which there is no channel yet; -1: none */
	struct mux *mux; /* with a channel that waits; NULL: none */
	uint32_t ch;
	bool gone; /* the process on the host is: nobody will come */
	struct join join;
	void (*refused)(void *arg, int error); /* nobody serves on the host: -errno */
	void *arg;
};

#define CARRIED_INIT                                                                                                   \
	{                                                                                                              \
		.fd = -1, .join = JOIN_INIT                                                                            \
	}

/* A new connection, in place of the one before: the monitor's end, or -errno. It may come to nothing: then it ends. */
int carried_new(struct carried *c) MUST_CHECK;
/* The host offers to carry one. -EBUSY: it does so already. */
int carried_offer(struct carried *c, struct mux *mux, uint32_t ch) MUST_CHECK;
void carried_done(struct carried *c);

#endif
