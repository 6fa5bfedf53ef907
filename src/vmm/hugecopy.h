/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy, on huge pages, of what of a snapshot's memory its machines only read: the guest's kernel above all.
 *
 * A page of a snapshot's file costs a machine an exit when its guest first touches it, 2 MiB of a tmpfs file with huge
 * pages cost one. So the chunks of the memory file that are full, and that no machine of this snapshot writes to before
 * its command runs (workingset.h), are copied to where they are in a file of the same size, which has nothing else. All
 * machines map that one file. As the snapshot's own, it must not change while it is mapped.
 */
#ifndef VMM_HUGECOPY_H
#define VMM_HUGECOPY_H

#include "vmm/ram.h"

/* Fills `out` (empty, on huge pages) from a memory file and the working set of its snapshot; returns how many chunks it
 * has, or -errno. */
int hugecopy_make(int memory, int workingset, int out) MUST_CHECK;
/* Maps what it has over the same chunks of a single memory file; before anything has touched them. Returns how many, or
 * -errno; what is not mapped is the memory file's as before. */
int hugecopy_map(struct ram *ram, int fd) MUST_CHECK;

#endif
