/* SPDX-License-Identifier: Apache-2.0 */
/* The time to stop, for stop and restart. */
#ifndef CLI_STOP_H
#define CLI_STOP_H

#include "cli/cli.h"

struct stop_values {
	const char *time;
};
#define STOP_OPT(stop)                                                                                                 \
	{                                                                                                              \
		't', "time", OPT_TEXT, (stop) + offsetof(struct stop_values, time), "TIME",                            \
			"how long it may take to end by itself (default 10s; a bare number: seconds)"                  \
	}

/* Grace for sm_vm_stop. 0, or an exit status after having said what is wrong. */
int stop_grace(struct cli *cli, const struct stop_values *v, uint64_t *ret);

#endif
