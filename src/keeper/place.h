/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that several have in common is found by its socket in the runtime directory, whose name is a hash of all
 * that makes two of them different, and started, with the socket listening already, where nobody answers: under a lock
 * which it takes, too, before it ends for lack of clients. So whoever holds the lock and can connect is served.
 */
#ifndef KEEPER_PLACE_H
#define KEEPER_PLACE_H

#include "base/buf.h"

#define PLACE_KEY_MAX 2048

struct place {
	char socket[4096], lock[4096];
};

/* key: text, shorter than PLACE_KEY_MAX. Its lock, taken, or -errno. */
int place_find(const char *runtime_dir, const char *prefix, const struct buf *key, struct place *ret,
	       struct sm_error *err) MUST_CHECK;
/* With the lock: a connected socket to it, or -errno. start makes it, with a socket that listens: 0 or -errno. */
int place_connect(const struct place *at,
		  int (*start)(void *arg, const struct place *at, int listener, struct sm_error *err), void *arg,
		  struct sm_error *err) MUST_CHECK;
/* A program's part of a key: one that was replaced is another one. 0 or -errno. */
int place_put_program(struct buf *key, const char *program) MUST_CHECK;

#endif
