/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by blk.c (requests and queue) and its two engines, blk_worker.c and blk_uring.c. */
#ifndef VIRTIO_BLK_INTERNAL_H
#define VIRTIO_BLK_INTERNAL_H

#include <sys/uio.h>

#include "base/loop.h"
#include "virtio/blk_chain.h"

#define BLK_MAX_SEGMENTS 16 /* of one discard or write-zeroes request */
#define BLK_MAX_EXTENTS 8   /* of one read through io_uring */

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };

struct blk_segment {
	uint64_t off, len; /* bytes */
	bool unmap;
};

/* One request on its way through an engine. Checked and copied out of the ring; iov points into guest memory. */
struct blk_request {
	struct blk_request *next; /* an engine's list */
	enum blk_op op;
	uint16_t head;
	bool windows;	     /* the status byte, too, only by system call */
	uint64_t off, len;   /* bytes */
	struct iovec status; /* one byte of the guest's */
	int result;	     /* 0 or -errno, when done */

	/* io_uring: */
	bool new_blocks, marked; /* a write of blocks new to the top; its bits are being written */
	unsigned waiting;	 /* completions to come */
	struct iovec *slices;	 /* iov cut at extents; NULL: not needed */
	uint64_t expect[BLK_MAX_EXTENTS];

	unsigned num_segments;
	struct blk_segment segments[BLK_MAX_SEGMENTS];
	unsigned num_iov;
	struct iovec iov[]; /* exactly len bytes */
};

/* A request is done: in the event loop, or in the thread that waits for it. */
typedef void (*blk_done_fn)(void *arg, struct blk_request *req);

/* The worker thread: requests one by one, in order. */
struct blk_worker;
struct blk_worker_options {
	blk_done_fn done;
	void (*batch)(void *arg);
	void *arg;
	void (*thread)(void *arg); /* called by the thread before anything else; NULL allowed */
	void *thread_arg;
};
int blk_worker_new(struct blk_chain *chain, struct loop *loop, const struct blk_worker_options *options,
		   struct blk_worker **ret) MUST_CHECK;
struct blk_worker *blk_worker_free(struct blk_worker *w); /* after a drain */
void blk_worker_submit(struct blk_worker *w, struct blk_request *req);
/* Waits until nothing is left, and calls done for all of it. */
void blk_worker_drain(struct blk_worker *w);

/* The ring. */
struct blk_uring;
int blk_uring_new(struct blk_chain *chain, struct loop *loop, blk_done_fn done, void (*batch)(void *arg), void *arg,
		  struct blk_uring **ret) MUST_CHECK;
struct blk_uring *blk_uring_free(struct blk_uring *u); /* after a drain */
/* Queues a request; false: this one needs the worker. */
bool blk_uring_submit(struct blk_uring *u, struct blk_request *req);
/* Tells the kernel about what was queued, and takes what is done already; -EAGAIN: some of it must be told again later.
 */
int blk_uring_kick(struct blk_uring *u);
void blk_uring_drain(struct blk_uring *u);
/* The result of a request that came out of the ring half done: to be done once more, by the worker. */
#define BLK_REDO (-4096)

#endif
