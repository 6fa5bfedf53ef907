/* SPDX-License-Identifier: Apache-2.0 */
/* The layers of a VM's disk, in its directory; disk.c says how they come to be. */
#ifndef KEEPER_DISK_H
#define KEEPER_DISK_H

#include <stdbool.h>

#include "base/error.h"

#define DISK_MERGE_FROM 4 /* layers of a VM's own */

unsigned disk_layers(int dirfd);
/* Its top is another VM's too, which goes on with it (lib/ended.c). */
bool disk_is_lent(int dirfd);
/* An empty file that is to be the next top: a descriptor. */
int disk_new_top(int dirfd) MUST_CHECK;
/* Makes the top a layer and puts that one in its place; what writes to the old one is to go on in it. And takes that
 * back. */
int disk_freeze(int dirfd, unsigned layers) MUST_CHECK;
void disk_unfreeze(int dirfd, unsigned layers);
/* Goes back to these layers, under an empty top; nothing writes to it. */
int disk_reset(int dirfd, unsigned layers) MUST_CHECK;
/*
 * Of a VM that does not run: the uppermost of these layers goes into the one below it, by the monitor's program, where
 * there are DISK_MERGE_FROM that are nobody else's, the first `inherited` left aside. True: the layers without it are
 * the whole disk; it is still there. Whatever hinders it, the disk is what it was.
 */
bool disk_merge(int dirfd, const char *vmm, unsigned layers, unsigned inherited);

#endif
