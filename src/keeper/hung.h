/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a keeper that hangs: see hung.c. */
#ifndef KEEPER_HUNG_H
#define KEEPER_HUNG_H

#include <stdint.h>

#include "base/error.h"

/* Kills who listens on this socket, unless it answers by then. 0: it has answered, is gone or was killed; or -errno. */
int hung_end(const char *socket, uint64_t patience_ns) MUST_CHECK;

#endif
