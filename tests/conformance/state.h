/* SPDX-License-Identifier: Apache-2.0 */
/* What main.c and conf.c share. */
#ifndef CONFORMANCE_STATE_H
#define CONFORMANCE_STATE_H

#include <stdbool.h>

struct state {
	unsigned passed, failed, skipped; /* atomic: a mapping shared with all children */
	bool verbose, times;
	unsigned patience; /* time limits are multiplied by it; 0: 1 */
	char skip[512];	   /* ",group,group,": left out */
	char only[128];	   /* count and print checks with this in their name or group alone; "": all */
};

void state_set(struct state *s);
void state_enter(const char *group);

#endif
