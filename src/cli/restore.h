/* SPDX-License-Identifier: Apache-2.0 */
/* A new VM that goes on from a snapshot: restore, and run --snapshot. */
#ifndef CLI_RESTORE_H
#define CLI_RESTORE_H

#include "cli/cli.h"

struct restore_values {
	bool interactive, detach, keep, rm;
	const char *name, *hostname, *outcome;
	struct opt_list labels;
};

/* Starts it and, unless it is detached, stays with its command. Returns the exit status. */
int restore_vm(struct cli *cli, const struct restore_values *v, const char *snapshot);

#endif
