/* SPDX-License-Identifier: Apache-2.0 */
/* What comes with a command: files before it, commands behind it (sm_exec_options), as a proto_exec has them. */
#ifndef LIB_STAGED_H
#define LIB_STAGED_H

#include "lib/lib.h"

int staged_check(const struct sm_exec_options *o, struct sm_error *err) MUST_CHECK;
/* Both vectors are to be freed; NULL: no memory, or none asked for. */
char **staged_files(const struct sm_exec_options *o);
char **staged_chain(const struct sm_exec_options *o);
/* The contents of all files. */
int staged_contents(const struct sm_exec_options *o, struct buf *ret) MUST_CHECK;

#endif
