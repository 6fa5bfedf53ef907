/* SPDX-License-Identifier: Apache-2.0 */
/* A regular file that has its name only when it is complete: it is written beside, under a temporary one. */
#ifndef GUEST_NEWFILE_H
#define GUEST_NEWFILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct newfile {
	int fd; /* to be written; the caller may take it */
	char *path, *temporary;
};

/* Where path is a symbolic link, the file that it names is the one to be replaced; what is no regular file is not.
 * make_dirs: and the directories on the way. On failure (-errno) newfile_done is still due. */
int newfile_begin(struct newfile *f, const char *path, bool make_dirs, mode_t mode) MUST_CHECK;
int newfile_commit(struct newfile *f) MUST_CHECK;
void newfile_done(struct newfile *f);

#endif
