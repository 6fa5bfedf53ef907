/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of one channel stream, joined to a descriptor. An outflow reads the descriptor within the peer's
 * credit; an inflow writes what came, keeps what the descriptor does not take yet (at most one window) and gives credit
 * as it is written.
 */
#ifndef PROTO_FLOW_H
#define PROTO_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"
#include "proto/mux.h"

struct flow_channel {
	struct loop *loop;
	struct mux *mux;
	uint32_t ch;
	unsigned stream;
};

/* Called once: nothing more will come (out), all is written or the reader is gone (in). */
typedef void (*flow_end_fn)(void *arg, int error);

struct outflow {
	struct flow_channel to;
	struct loop_source *src;
	int fd;	       /* -1: ended or never begun */
	bool regular;  /* a file: always readable, not for epoll */
	bool discard;  /* nobody reads: what comes is thrown away */
	bool held;     /* nothing is read at present; the channel may be gone */
	uint64_t left; /* at most so many bytes more */
	flow_end_fn end;
	void *arg;
};

/* Takes fd (non-blocking unless regular), also on failure (then it is closed). */
int outflow_begin(struct outflow *f, struct flow_channel to, int fd, bool regular, flow_end_fn end,
		  void *arg) MUST_CHECK;
void outflow_writable(struct outflow *f); /* from the channel's `writable` */
/* Reads what is there now, as far as credit goes. True: the descriptor has nothing more at present, or has ended. */
bool outflow_drain(struct outflow *f);
void outflow_done(struct outflow *f);
/* Stops until outflow_release, by which the channel may be another. */
void outflow_hold(struct outflow *f);
void outflow_release(struct outflow *f, struct flow_channel to);

struct inflow {
	struct flow_channel from;
	struct loop_source *src;
	int fd; /* -1: ended or never begun: what comes is dropped */
	struct buf pending;
	bool got_eof, regular;
	bool held;	  /* nothing is written at present; the channel may be gone */
	uint64_t foreign; /* bytes of pending that came on a channel which is gone: no credit is due for them */
	bool shut;	  /* at EOF shutdown(2) the sending half; else close */
	bool tty;	  /* EOF is the terminal's end-of-file character, and the descriptor stays open */
	flow_end_fn end;
	void *arg;
};

int inflow_begin(struct inflow *f, struct flow_channel from, int fd, bool regular, flow_end_fn end,
		 void *arg) MUST_CHECK;
void inflow_data(struct inflow *f, const uint8_t *p, size_t len);
void inflow_eof(struct inflow *f);
void inflow_done(struct inflow *f);
void inflow_hold(struct inflow *f);
void inflow_release(struct inflow *f, struct flow_channel from);

#endif
