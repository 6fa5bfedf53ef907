/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a FUSE connection on a directory of this host and taking it away again, as root or through fusermount3.
 * Internal to the room. */
#ifndef FUSE_DEV_MOUNT_H
#define FUSE_DEV_MOUNT_H

#include "base/error.h"

/*
 * The directory to mount on, as an absolute path without links: malloc'ed. A mount of ours whose server has died is
 * cleared away on the way; one that is alive is -EBUSY, a dead one of somebody else's -ENOTCONN.
 */
int dev_mountpoint(const char *path, char **ret, struct sm_error *err) MUST_CHECK;
/* A descriptor of /dev/fuse, connected to a mount there. source: as /proc/mounts shows it. */
int dev_mount(const char *mountpoint, const char *source, bool allow_other, bool read_only,
	      struct sm_error *err) MUST_CHECK;
/* Takes it away; what is in use is written back first and then detached. */
void dev_unmount(const char *mountpoint);

#endif
