/* SPDX-License-Identifier: Apache-2.0 */
/* Where this process's cgroup of version 2 is to be found as a directory, and what those of VMs are called. */
#ifndef BASE_CGROUP_H
#define BASE_CGROUP_H

#include <limits.h>

/* A VM's own group has this name, and the VM's id: made by its keeper, swept by the machine's agent, too. */
#define CGROUP_VM_PREFIX "supermachine-"

/*
 * From the texts of /proc/self/cgroup and /proc/self/mountinfo, which others may have had a hand in: names of cgroups
 * and mount points are anybody's choice. 0 or -errno: -ENOENT, there is none; -EXDEV, no mount shows it; -ENAMETOOLONG.
 * The path is what the texts say: whoever opens it looks at what it is (cgroup_open).
 */
int cgroup_path(const char *self, const char *mountinfo, char path[static PATH_MAX]);

/* A directory that is a cgroup of version 2 for certain: a descriptor, or -errno (-ENOTDIR: it is something else). */
int cgroup_open(const char *path);

#endif
