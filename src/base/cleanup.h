/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cleanup attributes for locals. `_fd_ int fd = -1;` closes at the end of the scope, `_free_ char *p = NULL;`
 * frees; TAKE_FD/TAKE_PTR hand the value on. Use these for locals, goto-cleanup only in multi-step
 * constructors, and never both in one function.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

/* Closes and keeps errno; a negative descriptor is nothing to close. Returns -1 to assign back. */
static inline int fd_close(int fd)
{
	if (fd >= 0) {
		int saved = errno;

		close(fd);
		errno = saved;
	}
	return -1;
}

static inline void cleanup_fd(int *fd)
{
	fd_close(*fd);
}

#define _free_ __attribute__((cleanup(cleanup_free)))
#define _fd_ __attribute__((cleanup(cleanup_fd)))
#define _cleanup_(f) __attribute__((cleanup(f)))

#define TAKE_FD(fd)                                                                                                    \
	({                                                                                                             \
		int _t = (fd);                                                                                         \
		(fd) = -1;                                                                                             \
		_t;                                                                                                    \
	})
#define TAKE_PTR(p)                                                                                                    \
	({                                                                                                             \
		__typeof__(p) _t = (p);                                                                                \
		(p) = NULL;                                                                                            \
		_t;                                                                                                    \
	})

#endif
