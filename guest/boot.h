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
/*
 * The rest of the list in a child process, while the agent goes on: those until `last`, then, at low priority, all
 * others. The result is for boot_modules_wait (which takes it, and returns -1) to wait until `last` is in. *ret_pid:
 * the child, when there is one.
 */
int boot_modules_behind(size_t pos, const char *last, pid_t *ret_pid);
int boot_modules_wait(int fd);
/* From the kernel's search for victims when memory is short; and makes it polite to those it serves. */
void boot_protect_self(struct agent *a);
void boot_loopback_up(void);
/* Of a copy: its network device, if there is one, gets an address by lot. After the kernel has been reseeded. */
void boot_renew_address(void);

#endif
