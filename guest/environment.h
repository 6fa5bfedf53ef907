/* SPDX-License-Identifier: Apache-2.0 */
/* The environment of a command: the image's, then the request's, then what every command may count on. */
#ifndef GUEST_ENVIRONMENT_H
#define GUEST_ENVIRONMENT_H

#include <stdbool.h>

#include "base/error.h"

/*
 * A NULL-terminated vector whose strings are base's and more's (not copied) but for those listed in owned, which are
 * its own. Later assignments win, in the earlier one's place. Strings without "=" are left out.
 */
struct environment {
	char **vars;
	size_t num, room;
	char *owned[2];
};

int environment_make(struct environment *e, char *const *base, char *const *more) MUST_CHECK;
/* PATH, HOME, and on a terminal TERM, where they are not set. */
int environment_defaults(struct environment *e, const char *home, bool tty) MUST_CHECK;
void environment_done(struct environment *e);

#endif
