/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's working set: the pages that a machine restored from it writes before its command runs.
 *
 * Each such page otherwise costs up to three exits: a read maps the file's page, the write after it makes a copy, and
 * the copy is mapped. The first machine that is restored notes them in a file beside the snapshot; later ones have the
 * copies made in a few large calls before the guest runs. A hint and no more: without it, or with one that is damaged
 * or of another snapshot, the guest sees the same memory.
 */
#ifndef VMM_WORKINGSET_H
#define VMM_WORKINGSET_H

#include <stdint.h>

#include "vmm/ram.h"

/* More than this is not noted and not believed: 16 MiB. */
#define WORKINGSET_MAX_PAGES 4096u

/* Writes what has been written of the chunks that came from a file to fd (empty); returns the number of pages, which is
 * 0 when there is nothing worth noting and fd stays empty, or -errno. */
int workingset_note(const struct ram *ram, int fd) MUST_CHECK;
/* Sets the bit of each chunk of a RAM of this size that the file has pages of. 0 or -errno, as below. */
int workingset_chunks(int fd, uint64_t size, uint8_t *bits) MUST_CHECK;
/* Makes the copies; returns how many pages, or -errno: -EBADMSG if the file is none for this RAM. Before the guest
 * runs. */
int workingset_apply(const struct ram *ram, int fd) MUST_CHECK;

#endif
