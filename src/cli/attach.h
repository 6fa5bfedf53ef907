/* SPDX-License-Identifier: Apache-2.0 */
/* Joining a VM's command, for attach, exec attach and start --attach. */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include "cli/session.h"

/* Streams of the VM's command are ours until it ends or the keys let go. Returns the exit status. */
int attach_session(struct cli *cli, struct session *s, struct sm_vm *vm, bool interactive);
/* Joined it: until it ends or the keys let go of it. Closes exec. Returns the exit status. */
int attach_wait(struct cli *cli, struct session *s, struct sm_exec *exec, uint64_t memory, uint64_t disk);

#endif
