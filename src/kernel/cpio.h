/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer of "newc" cpio archives, as the kernel's initramfs unpacker reads them
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Owner, group and times are zero and inode numbers count
 * up, so equal contents give equal bytes.
 */
#ifndef KERNEL_CPIO_H
#define KERNEL_CPIO_H

#include <stdint.h>

#include "base/buf.h"

struct cpio {
	struct buf out;
	uint32_t next_inode;
};

/* Adds one entry; the directories above it are added by the caller, before it. mode has the type bits (S_IFREG,
 * S_IFDIR). */
int cpio_add(struct cpio *c, const char *path, uint32_t mode, const void *data, size_t len) MUST_CHECK;
/* A device node. */
int cpio_add_device(struct cpio *c, const char *path, uint32_t mode, unsigned major, unsigned minor) MUST_CHECK;
/* The end record; pads to 4 KiB. */
int cpio_end(struct cpio *c) MUST_CHECK;
void cpio_done(struct cpio *c);

#endif
