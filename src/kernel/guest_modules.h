/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules that a microVM's initramfs carries, in the order they are wanted. A leading "?" marks one that a kernel
 * may lack. What an image's command needs beyond these is not loadable in the guest: its root is the image, which has
 * other modules or none.
 */
#ifndef KERNEL_GUEST_MODULES_H
#define KERNEL_GUEST_MODULES_H

#include <stddef.h>

#define GUEST_MODULES                                                                                                  \
	(const char *const[])                                                                                          \
	{                                                                                                              \
		"virtio_pci", "vmw_vsock_virtio_transport", "erofs", "overlay", "virtio_blk", "?virtio_pmem",          \
			"?nd_pmem", "?virtio_console", "?virtio_net", "?virtio_balloon", "?virtio_mem", "?virtio-rng", \
			"?fuse", "?virtiofs", NULL                                                                     \
	}

#endif
