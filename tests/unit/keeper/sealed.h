/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of processes that are sealed. */
#ifndef TEST_SEALED_H
#define TEST_SEALED_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fileio.h"

/* By what the kernel says of it. */
static inline void assert_sealed(pid_t pid)
{
	_free_ char *text = NULL;
	char path[32];
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	assert_int_equal(read_file_at(AT_FDCWD, path, 65536, &text, &len), 0);
	assert_non_null(strstr(text, "\nNoNewPrivs:\t1\n"));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* whose calls are on no list */
	assert_non_null(strstr(text, "\nSeccomp:\t2\n"));
#endif
}

#endif
