/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that a host's directory lists, taken at once. For file systems whose own positions in a directory are counts of
 * entries (tmpfs before Linux 6.6): who deletes while listing would go on too far behind there, and leave some out.
 */
#ifndef FUSE_POSIX_LISTING_H
#define FUSE_POSIX_LISTING_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct posix_fs;

struct listing {
	struct buf entries; /* struct dirent, as long as each is; d_off is its number, from 1 */
	size_t *at;	    /* where each begins */
	size_t num, room;
};

/* Whether the directory's own positions do not outlive changes to it. */
bool listing_needed(int dir_fd);
/* Takes it anew from the beginning; -EFBIG: all listings of this backend together would be too large. */
int listing_take(struct posix_fs *fs, struct listing *l, DIR *dir);
/* The entry after that many; NULL: no more. */
const struct dirent *listing_after(const struct listing *l, long num);
void listing_drop(struct posix_fs *fs, struct listing *l);

#endif
