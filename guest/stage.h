/* SPDX-License-Identifier: Apache-2.0 */
/* The files that come with a command (proto/stage.h), written by its process before it becomes the command: so they are
 * its user's, and relative paths begin where it does. */
#ifndef GUEST_STAGE_H
#define GUEST_STAGE_H

#include <stdint.h>

#include "base/error.h"

struct stage {
	char *const *files;	 /* NULL: none */
	const uint8_t *contents; /* of all of them, or */
	int fd;			 /* where they come from; -1: contents has them */
};

/* Directories on the way are made; a file is there whole or as it was before. 0, or -errno with the path it is about.
 */
int stage_write(const struct stage *s, const char **ret_path) MUST_CHECK;

#endif
