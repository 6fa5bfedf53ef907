/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console (virtio 1.2 section 5.3) with one port: the guest's output goes to a descriptor, which may block or be
 * slow without holding up the event loop; input is optional.
 */
#ifndef VIRTIO_CONSOLE_H
#define VIRTIO_CONSOLE_H

#include "virtio/device.h"

struct virtio_console_options {
	const char *name; /* kept, not copied */
	/*
	 * Output: a pipe, socket, terminal or file, not owned; -1: discarded. Its file status flags are left alone
	 * where they are shared: it is written when epoll says it can take something, and it is never waited for
	 * otherwise.
	 */
	int output;
	int input; /* not owned; -1: none */
	/* Sees the output too, for the last lines of a panic; NULL allowed. */
	void (*tap)(void *arg, const void *p, size_t len);
	void *arg;
};

int virtio_console_new(struct mem *mem, struct loop *loop, const struct virtio_console_options *options,
		       struct virtio_device **ret) MUST_CHECK;

extern const int virtio_console_syscalls[]; /* system calls at run time, ends with -1 */

#endif
