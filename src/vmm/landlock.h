/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: confines the calling thread, and all it starts from then on, to what lies beneath some directories. Needs
 * no privilege but no_new_privs; only ever takes away.
 */
#ifndef VMM_LANDLOCK_H
#define VMM_LANDLOCK_H

#include <stdbool.h>

#include "base/error.h"

struct landlock_share {
	int fd; /* a directory or a regular file; O_PATH will do */
	bool read_only;
	bool devices; /* device files may be made */
};

/* 0; -EOPNOTSUPP when this kernel has no Landlock that can tell renames between directories (5.19), or -errno. */
int landlock_confine(const struct landlock_share *shares, unsigned count, struct sm_error *err) MUST_CHECK;

#endif
