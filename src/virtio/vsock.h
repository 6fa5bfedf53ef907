/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2 section 5.10), streams: guest sockets joined to host descriptors (unix stream sockets, in
 * either direction), with credit flow control both ways, half-close, and a reset for everything that breaks the rules.
 * No connection holds more than its fixed buffer, so a peer that does not read stops its own stream and nothing else.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include "virtio/device.h"

#define VIRTIO_VSOCK_HOST_CID 2

struct virtio_vsock_options {
	const char *name;	  /* kept, not copied */
	uint32_t cid;		  /* the guest's: 3 .. UINT32_MAX - 1 */
	unsigned max_connections; /* 0: 4096; more are refused with a reset */
	/*
	 * The guest connected to a host port that nobody expects: `fd` is the host's end (a unix stream socket,
	 * CLOEXEC, the callee's from now on, also when it refuses). 0 accepts, a negative errno resets the guest's
	 * connection. NULL: all are refused. In the event loop.
	 */
	int (*connect)(void *arg, uint32_t port, int fd);
	void *arg;
};

int virtio_vsock_new(struct mem *mem, struct loop *loop, const struct virtio_vsock_options *options,
		     struct virtio_device **ret) MUST_CHECK; /* 0, -ENOMEM, -EINVAL */

/*
 * Connects to a port in the guest and joins fd (a stream socket, made non-blocking, taken over in every case) to it.
 * Bytes flow once the guest accepts; where it refuses, is reset, or has not answered after 20 s, fd is closed. Before
 * the guest's driver is up, the request waits for it. -ENOSPC: too many connections, -ENOMEM.
 */
int virtio_vsock_join(struct virtio_device *dev, uint32_t guest_port, int fd) MUST_CHECK;

#define VIRTIO_VSOCK_MAX_EXPECTED 2
/* The guest's first connection to host port `port` is joined to fd (taken over in every case); later ones go to
 * `connect`. -ENOSPC: as many ports are expected already. */
int virtio_vsock_expect(struct virtio_device *dev, uint32_t port, int fd) MUST_CHECK;

/*
 * A connection of the guest's to a host port as the guest knows it, so that it can go on after a load of the device's
 * state that was taken at the same time. set: there was one, nothing was under way on it, and there was no other.
 */
struct virtio_vsock_kept {
	bool set;
	uint32_t host_port, guest_port;
	uint32_t peer_alloc, peer_fwd, sent;
	uint32_t alloc, received, forwarded, told;
	unsigned pending;
	bool asked_credit;
};
void virtio_vsock_keep(struct virtio_device *dev, uint32_t port, struct virtio_vsock_kept *ret);
/* After the load: it goes on with fd, and the guest is told of no reset. fd is taken over in every case. -ENOMEM. */
int virtio_vsock_revive(struct virtio_device *dev, const struct virtio_vsock_kept *kept, int fd) MUST_CHECK;
/*
 * The guest's connection to this host port goes on with fd (taken over in every case); what its old descriptor still
 * had for the guest is lost. One that has something under way is reset, and fd is expected. Errors as
 * virtio_vsock_expect.
 */
int virtio_vsock_rejoin(struct virtio_device *dev, uint32_t port, int fd) MUST_CHECK;

struct virtio_vsock_stats {
	unsigned connections;
	uint64_t opened, resets, bytes_to_guest, bytes_from_guest;
};
void virtio_vsock_stats(struct virtio_device *dev, struct virtio_vsock_stats *ret);

/* Closes every connection on the host's side and sends the guest TRANSPORT_RESET (after a restore). */
void virtio_vsock_transport_reset(struct virtio_device *dev);

extern const int virtio_vsock_syscalls[]; /* system calls at run time, ends with -1 */

#endif
