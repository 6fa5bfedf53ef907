/* SPDX-License-Identifier: Apache-2.0 */
/* A new VM that goes on from a snapshot: restore, and run --snapshot. */
#ifndef CLI_RESTORE_H
#define CLI_RESTORE_H

#include "cli/cli.h"
#include "cli/mounts.h"
#include "cli/ports.h"

struct restore_values {
	bool interactive, detach, keep, rm;
	bool tty;		    /* of the command */
	char **command;		    /* one more, beside the saved VM's own, which ends with it; NULL: none */
	const char *workdir, *user; /* of the command */
	const char *name, *hostname, *outcome, *on_idle, *audit;
	struct opt_list labels, env, env_file, ports, reverse, volumes;
	uint64_t timeout, ttl, idle, start_timeout, count; /* count 0: 1 */
};

/* For the library, but for what it starts from. */
struct sm_vm_options restore_options(const struct restore_values *v, char **env, const struct cli_ports *ports,
				     const struct cli_mounts *mounts);
#define CLI_TTL_HELP "stop the VM so long after its start, whatever it does"
#define CLI_START_TIMEOUT_HELP "how long it may wait for its turn and for memory to start with (default 5m)"
/* --on-idle, NULL for without; one of the choices of CLI_IDLE_OPTS. */
enum sm_on_idle cli_on_idle(const char *text);
/* The options of a limit on idleness, as part of a list. */
#define CLI_IDLE_OPTS(idle_offset, action_offset)                                                                      \
	{0,                                                                                                            \
	 "idle",                                                                                                       \
	 OPT_DURATION,                                                                                                 \
	 idle_offset,                                                                                                  \
	 "TIME",                                                                                                       \
	 "with -d: do as --on-idle says when nobody has used it for so long (exec, cp, attach, bytes over its ports; " \
	 "or "                                                                                                         \
	 "it works itself)",                                                                                           \
	 1},                                                                                                           \
	{                                                                                                              \
		0, "on-idle", OPT_TEXT, action_offset, "stop|suspend|kill",                                            \
			"what is done with it then (default stop); who wants one that is suspended wakes it",          \
			.choices = "stop|suspend|kill"                                                                 \
	}
/* Of --audit: what is told of, and through what. */
#define CLI_AUDIT_HELP(through)                                                                                        \
	"append a line of JSON for each file of the host that is opened, changed or refused through " through
/* Of -v. */
#define RESTORE_VOLUME_HELP                                                                                            \
	"in place of what was on DST: a mount of the saved VM's keeps its source unless it is named; or NAME:DST, a "  \
	"volume, also where there was none"

/* That several VMs can have all this: 0, or the exit status after a usage error was told. */
int restore_check_count(struct cli *cli, const struct restore_values *v, const struct cli_ports *ports,
			const struct cli_mounts *mounts);

/* Starts it and, unless it is detached, stays with its command. Returns the exit status. */
int restore_vm(struct cli *cli, const struct restore_values *v, const char *snapshot);

#endif
