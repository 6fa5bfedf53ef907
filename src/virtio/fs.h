/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs (virtio 1.2 section 5.11) without a share: the device has a tag and queues, and answers every FUSE request
 * that wants an answer with an error, so that a mount of the tag fails at FUSE_INIT with ENODEV instead of hanging.
 */
#ifndef VIRTIO_FS_H
#define VIRTIO_FS_H

#include "virtio/device.h"

struct virtio_fs_options {
	const char *name; /* kept, not copied */
	const char *tag;  /* 1 to 36 bytes, copied */
};

int virtio_fs_new(struct mem *mem, struct loop *loop, const struct virtio_fs_options *options,
		  struct virtio_device **ret) MUST_CHECK; /* 0, -ENOMEM, -EINVAL */

extern const int virtio_fs_syscalls[]; /* system calls at run time, ends with -1 */

#endif
