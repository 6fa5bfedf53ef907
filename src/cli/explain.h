/* SPDX-License-Identifier: Apache-2.0 */
/* What `explain` says of a VM: sentences, each of which rests on something recorded. */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include <stdio.h>

#include "supermachine.h"

/* What the events of a VM's last run come to. Zero-initialise; explain_event takes each event in order. */
struct explain_events {
	unsigned kills, pauses, ooms, execs, failed_execs;
	int last_signal;	      /* that `kill` sent; 0: none */
	int64_t paused_at, paused_ns; /* since when, if it is; for how long before */
};

void explain_event(struct explain_events *x, const struct sm_event *e);

/* The sentences, a line each. */
void explain_put(FILE *f, const struct sm_vm_info *vm, const struct explain_events *x, int64_t now_ns);

/* The last `lines` lines of text below a heading, made harmless; nothing of an empty text. */
void explain_tail(FILE *f, const char *heading, char *text, unsigned lines);

#endif
