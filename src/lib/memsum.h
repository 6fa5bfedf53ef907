/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums of the files of a snapshot, of which most is memory. See memsum.c. */
#ifndef LIB_MEMSUM_H
#define LIB_MEMSUM_H

#include <stdint.h>

#include "base/error.h"

#define MEMSUM_DIGITS 16

/* 0 or -errno. Reads what is not a hole. */
int memsum_file(int dir, const char *name, char ret[static MEMSUM_DIGITS + 1]) MUST_CHECK;

#endif
