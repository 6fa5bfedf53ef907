/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket of this process's joined to a channel of a link, both ways, understanding nothing of what goes through. When
 * either ends so does the other, at once: both are streams of records, of which half of one is of no use.
 */
#ifndef KEEPER_JOIN_H
#define KEEPER_JOIN_H

#include "proto/flowpair.h"

struct join {
	struct mux *mux; /* NULL: nothing is joined */
	uint32_t ch;
	int code; /* that the other side closed the channel with */
	struct flow_pair pair;
	/* It is over: called once, last of all. code: 0 or -errno of the other side's. */
	void (*ended)(void *arg, int code);
	void *arg;
};

#define JOIN_INIT                                                                                                      \
	{                                                                                                              \
		.mux = NULL                                                                                            \
	}

/* The channel is open (a server: mux_opened was called) and is the join's from now on, as is fd; both in any case.
 * After a failure the join is over, and `ended` was called. */
void join_begin(struct join *j, struct loop *loop, struct mux *mux, uint32_t ch, int fd,
		void (*ended)(void *arg, int code), void *arg);
/* Ends it, if there is one. */
void join_end(struct join *j);

#endif
