/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by vsock.c (queues and packets) and vsock_conn.c (connections and their descriptors).
 *
 * Life of a connection:
 *	CONNECTING	we asked the guest (REQUEST, pending or sent); RESPONSE -> OPEN; anything else, or 20 s -> gone
 *	OPEN		bytes flow as credit allows; each direction may end by itself (shut_guest, shut_host)
 *	ZOMBIE		our side is closed and the guest has yet to be told: an RST waits for room in its receive queue
 *-> gone DRAINING	the guest is done with it (RST, device reset), and what it had sent still goes to the descriptor
 *-> gone A DRAINING one is no longer known by its ports. Whenever something of a connection waits for the guest's
 *receive queue, it is on the ready list.
 */
#ifndef VIRTIO_VSOCK_INTERNAL_H
#define VIRTIO_VSOCK_INTERNAL_H

#include <linux/virtio_vsock.h>

#include "virtio/vsock.h"

#define VSOCK_BUCKETS 1024U
#define VSOCK_STRAYS 256U		/* resets owed to packets that belong to no connection; more are dropped */
#define VSOCK_BUFFER (256 * 1024U)	/* credit that we give, and so the most that we hold */
#define VSOCK_BUFFER_SMALL (16 * 1024U) /* ... for all but the first VSOCK_MANY connections */
#define VSOCK_MANY 256U
#define VSOCK_SHUT_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

enum vsock_state { VSOCK_CONNECTING, VSOCK_OPEN, VSOCK_ZOMBIE, VSOCK_DRAINING };

/* Packets that wait for room, as bits of vsock_conn.pending; at most one of each is owed. */
enum vsock_pending {
	PENDING_REQUEST = 1 << 0,
	PENDING_RESPONSE = 1 << 1,
	PENDING_CREDIT_UPDATE = 1 << 2,
	PENDING_CREDIT_REQUEST = 1 << 3,
	PENDING_SHUTDOWN = 1 << 4,
	PENDING_RST = 1 << 5,
};

struct vsock;

struct vsock_conn {
	struct vsock *vsock;
	struct vsock_conn *hash_next;		    /* bucket */
	struct vsock_conn *all_next, **all_link;    /* every connection */
	struct vsock_conn *ready_next, *ready_prev; /* while on_ready */
	uint32_t host_port, guest_port;
	enum vsock_state state;
	bool on_ready;
	unsigned pending;

	int fd; /* -1: closed */
	struct loop_source *source;
	bool readable;		       /* as epoll last said; edge-triggered */
	bool hangup;		       /* epoll has said that no more will come after what is there */
	bool gone;		       /* ... and that nobody reads either */
	bool eof;		       /* nothing more will be read from fd */
	uint8_t shut_guest, shut_host; /* VIRTIO_VSOCK_SHUTDOWN_* as each side has said (ours: sent or pending) */
	bool wr_shut;		       /* shutdown(fd, SHUT_WR) is done */
	bool want_out;		       /* EPOLLOUT is asked for: only while something is kept */
	unsigned turn;		       /* packets sent since it came to the head of the ready list */

	/* Host to guest: how much room the guest says it has (its numbers are untrusted: at worst it gets nothing). */
	uint32_t peer_alloc, peer_fwd, sent;
	bool asked_credit;
	/* Guest to host. */
	uint32_t alloc, received, forwarded, told; /* told: `forwarded` as the guest last heard */
	uint8_t *buffer;			   /* of alloc bytes, a ring; NULL until needed */
	uint32_t head, fill;

	uint64_t deadline_ns; /* CONNECTING, once the request is sent; 0: not yet */
};

struct vsock {
	struct virtio_device dev;
	struct virtio_vsock_options options;
	struct vsock_conn *buckets[VSOCK_BUCKETS];
	struct vsock_conn *all, *ready_head, *ready_tail;
	unsigned count, max;
	uint32_t next_port;
	struct {
		int fd; /* -1: none */
		uint32_t port;
	} expected[VIRTIO_VSOCK_MAX_EXPECTED];
	struct virtio_vsock_hdr strays[VSOCK_STRAYS];
	unsigned stray_head, stray_count;
	bool event_pending;	   /* TRANSPORT_RESET */
	struct loop_source *timer; /* for the oldest request that is not answered */
	bool timer_armed;
	struct virtio_vsock_stats stats;
	uint64_t strays_dropped;	    /* metric */
	struct virtq_chain chain, rx_chain; /* two: a callback amid the transmit queue may send */
};

/* vsock_conn.c. The fd is taken over in every case. NULL: no memory, or epoll refuses the descriptor. */
struct vsock_conn *vsock_conn_new(struct vsock *v, uint32_t host_port, uint32_t guest_port, int fd,
				  enum vsock_state state);
/* Goes on with another descriptor, taken over in every case. -errno: epoll refuses it, and c has none. */
int vsock_conn_swap(struct vsock_conn *c, int fd) MUST_CHECK;
/* All that the guest has sent was delivered, and neither side has ended anything. */
bool vsock_conn_is_quiet(const struct vsock_conn *c);
struct vsock_conn *vsock_conn_find(struct vsock *v, uint32_t host_port, uint32_t guest_port);
void vsock_conn_free(struct vsock_conn *c);
/* Has a packet sent (bits of enum vsock_pending, or 0: just look at it) when there is room. */
void vsock_conn_owe(struct vsock_conn *c, unsigned pending);
void vsock_conn_unready(struct vsock_conn *c);
/* Ends it on both sides: closes the descriptor, owes the guest an RST. */
void vsock_conn_abort(struct vsock_conn *c);
/* The guest is gone from it: delivers what it had sent, then frees. */
void vsock_conn_drain(struct vsock_conn *c);
/* Payload from the guest: the chain's readable bytes [off, off + len). Aborts on a breach of credit. */
void vsock_conn_receive(struct vsock_conn *c, const struct virtq_chain *chain, uint64_t off, uint32_t len);
/* The guest ended directions; closes ours where nothing is left to do. May free or abort. */
void vsock_conn_shutdown(struct vsock_conn *c, uint32_t flags);
/* Reads payload for the guest into iov: bytes, or 0 if there is none now. May change what is pending. */
uint32_t vsock_conn_fetch(struct vsock_conn *c, const struct iovec *iov, unsigned n, uint32_t room);
/* How many bytes the guest has room for. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);

/* vsock.c: sends what waits, as far as there is room. */
void vsock_pump(struct vsock *v);

#endif
