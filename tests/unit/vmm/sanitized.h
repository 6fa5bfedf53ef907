/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of sealed threads. */
#ifndef TEST_SANITIZED_H
#define TEST_SANITIZED_H

/* A sanitizer's runtime makes calls of its own, on no list. */
static inline void skip_if_sanitized(void)
{
#ifdef __SANITIZE_ADDRESS__
	print_message("skipped: the sanitizer's own system calls are not allowed\n");
	skip();
#endif
}

#endif
