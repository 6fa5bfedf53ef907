/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record of what the guest does to the host's files through its mounts: a line of JSON for each (fuse/audit.h),
 * appended to a file that the keeper has opened.
 */
#ifndef VMM_SHARE_AUDIT_H
#define VMM_SHARE_AUDIT_H

#include "fuse/audit.h"
#include "vmm/config.h"

struct share_audit;

/* backends: of cfg's mounts, posix ones, which stay the caller's. NULL: no memory. */
struct share_audit *share_audit_new(const struct vmm_config *cfg, struct sm_fs_backend *const *backends);
struct share_audit *share_audit_free(struct share_audit *a);
/* For the session over all of them (fuse/mux.h). */
struct fuse_audit_port share_audit_port(struct share_audit *a);

#endif
