/* SPDX-License-Identifier: Apache-2.0 */
/* A new VM that goes on from a snapshot: restore, and run --snapshot. */
#ifndef CLI_RESTORE_H
#define CLI_RESTORE_H

#include "cli/cli.h"
#include "cli/ports.h"

struct restore_values {
	bool interactive, detach, keep, rm;
	const char *name, *hostname, *outcome;
	struct opt_list labels, env, env_file, ports;
	uint64_t timeout, count; /* count 0: 1 */
};

/* For the library, but for what it starts from. */
struct sm_vm_options restore_options(const struct restore_values *v, char **env, const struct cli_ports *ports);
/* That several VMs can have all this: 0, or the exit status after a usage error was told. */
int restore_check_count(struct cli *cli, const struct restore_values *v, const struct cli_ports *ports);

/* Starts it and, unless it is detached, stays with its command. Returns the exit status. */
int restore_vm(struct cli *cli, const struct restore_values *v, const char *snapshot);

#endif
