/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: how many processes may do a thing at once. A directory of files, one a slot, that are locked (flock) by
 * whoever has them, so the kernel gives back what a killed process had and no count can be wrong. One more file is the
 * turn: who has that is first in line, and takes a slot; all others need look at nothing else. Nobody blocks in a lock.
 */
#ifndef BASE_SLOTS_H
#define BASE_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct slots {
	int dir, turn;
	bool first; /* it has the turn */
};

/* Makes the directory if it is missing (not its parents). 0 or -errno; slots_close in any case. */
int slots_open(struct slots *s, const char *path) MUST_CHECK;
void slots_close(struct slots *s); /* what was taken stays taken */

/* 0: it is first, and stays so until it has a slot; -EAGAIN: another is. */
int slots_turn(struct slots *s) MUST_CHECK;
/*
 * By who is first: one of `max` slots, with a note of how much its holder needs of something of which there is `room`
 * (UINT64_MAX: it does not count), and of which the holders of the others may need theirs at any moment. A descriptor,
 * for slots_release when it is no longer needed; -EAGAIN: all are taken; -ENOSPC: there is no room. *ret_held (may be
 * NULL): how many others are taken.
 */
int slots_take(struct slots *s, unsigned max, uint64_t need, uint64_t room, unsigned *ret_held) MUST_CHECK;
/* Also of a descriptor that a child has for a moment, until it is another program. Returns -1. */
int slots_release(int fd);

#endif
