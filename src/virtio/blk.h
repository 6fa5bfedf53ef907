/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.2 section 5.2) over a blk_chain: read, write, flush, discard, write-zeroes, get-id.
 *
 * No request blocks the event loop: the plain engine is one worker thread a disk; the io_uring engine submits from the
 * loop, and leaves to the same worker what needs several dependent steps. Thread, ring and eventfds are made by the
 * constructor, so before the monitor is sealed. Requests may complete in any order, as the standard allows; a flush
 * covers what was completed before it was made available.
 */
#ifndef VIRTIO_BLK_H
#define VIRTIO_BLK_H

#include "virtio/blk_chain.h"
#include "virtio/device.h"

enum virtio_blk_engine {
	VIRTIO_BLK_AUTO, /* io_uring if this host lets us, else plain */
	VIRTIO_BLK_PLAIN,
	VIRTIO_BLK_URING, /* constructor fails with -ENOSYS, -EPERM, ... where it is not available */
};

struct virtio_blk_options {
	const char *name;	 /* kept, not copied */
	struct blk_chain *chain; /* taken over on success; NULL: an idle disk of size 0, without worker or ring */
	bool read_only;		 /* an idle one: what it is to be restored as */
	bool replaceable;	 /* what is saved of it may be restored as another disk, or as an idle one */
	const char *serial;	 /* up to 20 bytes, copied; NULL: empty */
	enum virtio_blk_engine engine;
	/*
	 * A request failed: called in the event loop with a positive errno (ENOSPC and EDQUOT: the host's disk is full)
	 * once the guest has been told; not for requests that a reset threw away. May be called often; NULL allowed.
	 */
	void (*failed)(void *arg, int error);
	void (*thread)(void *arg); /* called by the device's thread before anything else; NULL allowed */
	void *arg;
};

int virtio_blk_new(struct mem *mem, struct loop *loop, const struct virtio_blk_options *options,
		   struct virtio_device **ret, struct sm_error *err) MUST_CHECK;

/* Has the disk go on in a new top (blk_chain_push); in a paused machine. fd stays the caller's, and open. */
int virtio_blk_push(struct virtio_device *dev, int fd, struct sm_error *err) MUST_CHECK;

/* Has the disk forget what was written since then (blk_chain_renew); of a device that was reset. */
int virtio_blk_renew(struct virtio_device *dev) MUST_CHECK;

struct virtio_blk_stats {
	uint64_t reads, writes, flushes, discards, errors; /* requests */
	uint64_t bytes_read, bytes_written;
	bool uring;
};
void virtio_blk_stats(struct virtio_device *dev, struct virtio_blk_stats *ret);

extern const int virtio_blk_syscalls[]; /* event loop and vCPU threads (a reset waits for requests), ends with -1 */
extern const int
	virtio_blk_worker_syscalls[]; /* the worker thread, which inherits the filter of its maker: allow both */

#endif
