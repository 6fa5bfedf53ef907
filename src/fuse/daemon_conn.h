/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon backend's connection: lanes, and a request's way through one. Internal to daemon*.c. */
#ifndef FUSE_DAEMON_CONN_H
#define FUSE_DAEMON_CONN_H

#include <pthread.h>

#include "base/error.h"
#include "fuse/share_proto.h"

#define DAEMON_EPOCH_SHIFT 48 /* in a node id: of the connection that it is from */
#define DAEMON_ID_MASK ((1ULL << DAEMON_EPOCH_SHIFT) - 1)

/* Where a request's bulk lies, whichever connection it goes over: a server's successor is given the same memory. */
struct daemon_lane {
	int memfd;
	uint8_t *mem; /* SHARE_BULK bytes, shared with the server */
	bool busy;
};

struct daemon_conn {
	int sock;
	uint64_t epoch; /* 1 to 255, in place */
	uint64_t ops;	/* that the server has, by enum share_op */
	unsigned num_lanes, users;
	bool dead;
	uint64_t feed;		    /* atomic: what is watched comes by this one (watch.h); 0: none so far */
	int lanes[SHARE_MAX_LANES]; /* sockets; inline: -1 */
	/* Inline (daemon_inline.c): */
	bool inlined;
	pthread_mutex_t sending, receiving; /* receiving guards all below */
	pthread_cond_t arrived;
	bool reading, ended;			      /* somebody reads; there are no more answers */
	struct daemon_call *waiting[SHARE_MAX_LANES]; /* by lane, for an answer that has not begun to come */
};

struct daemon {
	struct sm_fs_backend be; /* first */
	struct sm_fs_ops ops;
	bool read_only;
	/* Where another connection comes from; NULL: nowhere. */
	int (*connect)(void *arg, struct sm_error *err);
	void (*done)(void *arg); /* NULL: nothing to do */
	void *arg;
	unsigned num_lanes;
	pthread_mutex_t lock; /* guards all below, and a conn's lists */
	struct daemon_lane lanes[SHARE_MAX_LANES];
	pthread_cond_t free;	  /* a lane is */
	struct daemon_conn *conn; /* NULL: never was one again */
	uint64_t epochs;	  /* so far */
	uint64_t retry_at;	  /* time_now_ns: no connection is tried before */
};

/* A request on its way. */
struct daemon_call {
	struct daemon *d;
	struct daemon_conn *conn;
	struct daemon_lane *lane;
	unsigned number; /* the lane's */
	int sock;	 /* the lane's; inline: -1 */
	struct buf out;
	uint32_t out_bulk;
	uint8_t packet[SHARE_PACKET];
	struct cursor in; /* the answer's values */
	uint32_t bulk;	  /* of the answer, at most SHARE_BULK, in lane->mem: to be copied before it is looked at */
	int fd;		  /* that came with it, -1: none; the caller's */
	bool harmless;	  /* it may be asked again of another server */
	bool answered;	  /* inline; under the connection's lock */
};

/* The memory of this many lanes. daemon_lanes_done also after a failure. */
int daemon_lanes_init(struct daemon *d, unsigned lanes) MUST_CHECK;
void daemon_lanes_done(struct daemon *d);
/* Says hello on a connected socket, which is taken in any case. */
int daemon_conn_open(struct daemon *d, int sock, struct daemon_conn **ret, struct sm_error *err) MUST_CHECK;
void daemon_conn_free(struct daemon_conn *c);

/*
 * Takes a lane, waiting for one if need be, and begins a request for a node: 0, -ENOTCONN without a server, -ESTALE
 * when the node is from another connection. After success daemon_call_end.
 */
int daemon_call_begin(struct daemon_call *call, struct sm_fs_backend *be, enum share_op op,
		      const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh, uint32_t bulk) MUST_CHECK;
/* A node id of the peer's as the server knows it, for an argument: 0 or -ESTALE. */
int daemon_call_node(struct daemon_call *call, uint64_t nodeid, uint64_t *ret) MUST_CHECK;
/*
 * Sends it and waits for the answer: its result; when the connection ended over it, -ESTALE if it is harmless, on which
 * the kernel looks the path up anew, else -EIO.
 */
int64_t daemon_call_run(struct daemon_call *call) MUST_CHECK;
void daemon_call_end(struct daemon_call *call);
/* The server broke the protocol: its connection is given up. Returns -EIO. */
int daemon_call_break(struct daemon_call *call);

/* daemon_inline.c: there and back; the answer's packet in call->in, how much bulk came with it in call->bulk. 0 or
 * -EIO.
 */
int daemon_inline_exchange(struct daemon_call *call) MUST_CHECK;

#endif
