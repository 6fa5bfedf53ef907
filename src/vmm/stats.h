/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of a machine as one JSON object. */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include "base/buf.h"

struct vm;

/* {"event":"stats","exits":{...},"ports":{...},"memory":{...},...}; lock held. */
void stats_format(struct vm *vm, struct buf *out);

#endif
