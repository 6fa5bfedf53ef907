/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (virtio 1.2 section 2.7), device side: hostile rings in, checked chains out.
 *
 * Every descriptor is copied once and checked once here: inside guest memory, right direction, no loop, no more than
 * queue-size descriptors, one level of indirection. A device sees only iovecs of host addresses. An iovec over
 * a window region may fault when its file shrank: use it in system calls only (struct virtq_chain.windows says so).
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "mem/mem.h"

#define VIRTQ_MAX_SIZE 1024

struct virtqueue {
	/* Written by the driver before DRIVER_OK, through the transport; frozen after. */
	uint16_t size;
	bool ready;
	uint64_t desc, avail, used; /* guest-physical */

	/* Valid while the device is active: translated once at activation (rings must be in RAM). */
	struct mem *mem;
	bool event_idx, indirect;
	void *desc_host, *avail_host, *used_host;
	uint16_t last_avail, used_idx, signalled_used;
	bool signalled_valid;
};

/* One request. readable: from the guest to us; writable: from us to the guest. */
struct virtq_chain {
	uint16_t head;
	bool windows; /* some iovec lies in a window: system calls only */
	unsigned num_read, num_write;
	uint64_t len_read, len_write; /* sums; at most UINT32_MAX each */
	struct iovec *read, *write;
	struct iovec iov[VIRTQ_MAX_SIZE + 2]; /* storage: read ones first, then write ones */
};

/* Translates and checks the rings; 0 or -EINVAL. Called by the transport at DRIVER_OK. */
int virtq_activate(struct virtqueue *vq, struct mem *mem, bool event_idx, bool indirect) MUST_CHECK;

/* The next available chain: 1 with *chain filled, 0 if none, -EPROTO if the guest broke the rules. */
int virtq_pop(struct virtqueue *vq, struct virtq_chain *chain) MUST_CHECK;
/* Puts back what was popped last (nothing of it was used). */
void virtq_unpop(struct virtqueue *vq);
/* Gives a chain back with `written` bytes in its writable part. */
void virtq_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/* Asks the driver for no kicks / for a kick on the next buffer. After enabling, the caller must look again:
 * returns true if buffers came in meanwhile. */
void virtq_disable_notify(struct virtqueue *vq);
bool virtq_enable_notify(struct virtqueue *vq);
/* True if a pop would find something (or a broken ring); from any thread while the queue is active. */
bool virtq_pending(const struct virtqueue *vq);
/* True if the driver wants an interrupt for what has been pushed since the last call. */
bool virtq_should_signal(struct virtqueue *vq);

extern const int virtq_syscalls[]; /* system calls of queues and chains at run time, ends with -1 */

/* Helpers for copying out of and into chains by plain memory; they go through a system call for windows. */
/* Copies len bytes at offset `off` of the readable part; 0 or -EPROTO (short) or -EFAULT. */
int virtq_chain_read(const struct virtq_chain *c, uint64_t off, void *p, size_t len) MUST_CHECK;
int virtq_chain_write(const struct virtq_chain *c, uint64_t off, const void *p, size_t len) MUST_CHECK;

/* The part [off, off + len) of an iovec array, in out[0 .. max): how many entries it took, or -EPROTO where in is
 * shorter or max too small. */
int virtq_iov_slice(const struct iovec *in, unsigned n, uint64_t off, uint64_t len, struct iovec *out,
		    unsigned max) MUST_CHECK;

/* Copies into an iovec array at `off`, by system call if `windows`; 0, -EPROTO (short) or -EFAULT. */
int virtq_iov_write(const struct iovec *iov, unsigned n, uint64_t off, const void *p, size_t len,
		    bool windows) MUST_CHECK;

#endif
