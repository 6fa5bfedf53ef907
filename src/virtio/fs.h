/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs (virtio 1.2 section 5.11): the queues of a FUSE session that somebody else serves. The request and the room
 * for its reply are handed over as they lie in guest memory, nothing is copied on the way.
 *
 * With a server the device has threads of its own, which wait for the doorbells themselves (fs_worker.c): no request
 * passes through the event loop, and one that blocks holds up no other. Without one it answers every request that wants
 * an answer with an error, so that a mount of its tag fails at FUSE_INIT with ENODEV instead of hanging.
 *
 * A reset, a save and the end wait for what is being served: afterwards nothing of ours touches guest memory. A reset
 * also ends the session: the next driver's first request is preceded by a DESTROY.
 */
#ifndef VIRTIO_FS_H
#define VIRTIO_FS_H

#include <sys/types.h>

#include "virtio/device.h"

#define VIRTIO_FS_MAX_THREADS 8

struct virtio_fs_options {
	const char *name; /* kept, not copied */
	const char *tag;  /* 1 to 36 bytes, copied */
	/* Serves one request from any of the threads: the length of the reply, 0 for none, or -errno when it was too
	 * broken to answer. NULL: no share. */
	ssize_t (*serve)(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out);
	void (*thread)(void *arg); /* called by each thread before anything else; NULL: nothing to do */
	/*
	 * together: puts the calling thread on the CPU where the guest waits for its answers, and keeps the guest's
	 * thread there too; false if that is not to be had now. Else: lets the guest's thread run wherever it likes.
	 * NULL: never to be had.
	 */
	bool (*pair)(void *arg, bool together);
	/* What the server knows of its session, for a snapshot, and back: 0 or -errno. Nothing is being served. The
	 * bytes are hostile input. NULL: nothing. */
	int (*save)(void *arg, struct buf *out);
	int (*load)(void *arg, struct cursor *in);
	void *arg;
	unsigned threads;	  /* 0: 4 */
	struct virtio_shm window; /* into which the server maps files (section 5.11.6.4); size 0: none */
};

int virtio_fs_new(struct mem *mem, struct loop *loop, const struct virtio_fs_options *options,
		  struct virtio_device **ret) MUST_CHECK; /* 0, -errno */

/*
 * For a snapshot of a guest that stands still: what it has asked for is served to the end, then nothing is until
 * virtio_fs_release. 0, or -ETIMEDOUT: a request does not end.
 */
int virtio_fs_hold(struct virtio_device *dev, uint64_t limit_ns) MUST_CHECK;
void virtio_fs_release(struct virtio_device *dev);

struct virtio_fs_stats {
	uint64_t requests;   /* served */
	uint64_t wakes;	     /* a thread woke up for a doorbell */
	uint64_t polled;     /* requests that were found without a doorbell */
	uint64_t interrupts; /* raised */
	uint64_t deferred;   /* of those, by way of the event loop */
	uint64_t ops[64];    /* served, by FUSE opcode */
};
/* True if the device has a server; then *ret is filled. */
bool virtio_fs_get_stats(struct virtio_device *dev, struct virtio_fs_stats *ret);

/* System calls at run time, end with -1: of the event loop, and of the device's own threads beside the server's. */
extern const int virtio_fs_syscalls[];
extern const int virtio_fs_worker_syscalls[];

#endif
