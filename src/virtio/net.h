/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-net (virtio 1.2 section 5.1) with its link down: a network card without a cable. Frames sent are consumed
 * and dropped, none ever arrives, and a guest that asks for anything else on the control queue is refused.
 */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "virtio/device.h"

struct virtio_net_options {
	const char *name; /* kept, not copied */
	uint8_t mac[6];
};

int virtio_net_new(struct mem *mem, struct loop *loop, const struct virtio_net_options *options,
		   struct virtio_device **ret) MUST_CHECK;

extern const int virtio_net_syscalls[]; /* system calls at run time, ends with -1 */

#endif
