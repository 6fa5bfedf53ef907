/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose data the kernel moves itself (FUSE_PASSTHROUGH, /dev/fuse alone): which nodes are open in that way, and
 * under which backing id. The kernel wants all open files of one inode to be of one kind, with one id.
 */
#ifndef FUSE_BACKING_H
#define FUSE_BACKING_H

#include <pthread.h>

#include "base/error.h"

/* Given by the door: makes a backing id of a descriptor (> 0, or -errno), and takes one back. */
struct fuse_backing_port {
	int (*open)(void *arg, int fd);
	void (*close)(void *arg, uint32_t id);
	void *arg;
};

struct backing;

/* NULL: out of memory. */
struct backing *backing_new(const struct fuse_backing_port *port);
struct backing *backing_free(struct backing *b);
/* One more open file of the node; fd: of it, -1: the backend gives none. The id, or 0: not in this way. */
uint32_t backing_opened(struct backing *b, uint64_t nodeid, int fd);
/* One less. */
void backing_closed(struct backing *b, uint64_t nodeid);

#endif
