/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one error model. Fallible functions return 0 (or a count) or -errno. Control-plane functions also
 * take a last `struct sm_error *err` (NULL allowed) that is filled where the failure happens and gathers
 * context on the way up:
 *
 *	if (fd < 0)
 *		return error_sys(err, errno, "open %s", path);
 *	r = layer_convert(...);
 *	if (r < 0)
 *		return error_wrap(err, r, "layer %s", digest);
 *
 * All return the negated code, so that a failing call is one line.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "supermachine.h"

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Fills *err with a kind, a positive errno and a message; returns -code. */
int error_set(struct sm_error *err, enum sm_error_kind kind, int code, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* A failed system call: kind from errno (ENOENT: NOT_FOUND, EEXIST: EXISTS, else IO); appends ": strerror". */
int error_sys(struct sm_error *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "context: " before the message that a callee left (or before strerror(-r) when it left none); returns r. */
int error_wrap(struct sm_error *err, int r, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
