/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The modules in the initramfs of a microVM, and of the machine, in an order that loads. A leading "?" marks one that
 * not every kernel has as a module. What an image's command needs beyond these is not loadable in the guest: its root
 * is the image, which has other modules or none.
 */
#ifndef KERNEL_GUEST_MODULES_H
#define KERNEL_GUEST_MODULES_H

/* What the agent needs before there is a root. */
#define GUEST_MODULES                                                                                                  \
	"virtio_pci", "virtio_pmem", "nd_pmem", "virtio_blk", "erofs", "overlay", "vmw_vsock_virtio_transport",        \
		"?virtio_rng", "?virtio_console", "?virtio_balloon", "?virtio_mem", "?virtio_net", "?ext4", "?fuse",   \
		"?virtiofs"

/* What the machine needs before it has its root, and what all that runs in it will want (KVM, loops, overlays). */
#define MACHINE_MODULES                                                                                                \
	"virtio_pci", "virtio_console", "virtiofs", "kvm-amd", "?virtio-rng", "?overlay", "?loop", "?erofs", "?tun"

#endif
