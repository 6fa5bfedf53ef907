/* SPDX-License-Identifier: Apache-2.0 */
/* What a PID 1 in an initramfs does in both roles: the first mounts, the kernel's modules. */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include "guest/agent.h"

/* /proc, /sys and /dev of the initramfs; opens the agent's own view of the first two. */
void boot_mounts(struct agent *a);
/*
 * Loads the modules that /modules lists, in its order, until the one named `last` (NULL: all) is in; *pos is where to
 * go on. Their files are removed: the initramfs is memory. A module that fails is logged and passed over; what needs it
 * will say so.
 */
void boot_modules(size_t *pos, const char *last);
void boot_protect_self(struct agent *a); /* from the kernel's search for victims when memory is short */
void boot_loopback_up(void);

#endif
