/* SPDX-License-Identifier: Apache-2.0 */
/* A file system in service, as the public header's handle. Internal to fs*.c. */
#ifndef LIB_FS_H
#define LIB_FS_H

#include "fuse/auditlog.h"
#include "fuse/dev_fuse.h"
#include "fuse/posix.h"
#include "fuse/share_server.h"
#include "lib/lib.h"
#include "vhost/server.h"

/* One of them is there. */
struct sm_fs_server {
	struct fuse_dev *dev;
	struct vhost_server *vhost;
	struct share_server *share;
	/* Of a mount, what is done by it is written down; NULL: it is not. */
	struct audit_log *audit;
	char *audit_source, *audit_mount;
	int audit_fd;
};

#endif
