/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a running machine with a short pause. Guest memory is private to this process, so a copy of the process
 * (fork) has it as it was at that moment, for as long as it likes: the machine stands still for its state alone, and
 * the copy, which has this process's filter and no vCPUs, writes the files while the machine goes on. What of a branch
 * differs from a base is written in the pause if it is little.
 */
#ifndef VMM_SAVER_H
#define VMM_SAVER_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/snapshot.h"

struct loop_source;

struct saver_options {
	bool stay; /* the machine stands still afterwards, too, as one that was paused */
	struct snapshot_memory memory;
	bool unsynced; /* the files need not be on the disk of the host: nobody is to find them after a power cut */
};

struct saver {
	bool busy;		 /* a copy is at it */
	int report;		 /* where it says how it went */
	struct loop_source *src; /* of that */
};

/*
 * In the loop, with the lock held. fds: two empty files (state, memory), and the new top of the writable disk or -1;
 * what is taken over becomes -1. control_frozen follows when the machine goes on (or stays), unless that failed, and in
 * any case control_saved in the end.
 */
void saver_start(struct vm *vm, int fds[3], const struct saver_options *o);

#endif
