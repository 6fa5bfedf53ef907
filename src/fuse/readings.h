/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that are read without having been opened. A peer whose OPENDIR is answered ENOSYS
 * (FUSE_NO_OPENDIR_SUPPORT) never opens or closes one, keeps what it has listed until the directory's times or its own
 * changes say otherwise, and so lists a directory again without any request. Its READDIRs name a directory and an
 * offset alone, while backends work on open directories: here is which of those such a request goes on with.
 *
 * An offset that no reading has come to (the oldest gives way to a new one; a peer is restored from a snapshot) is gone
 * to in a new reading.
 */
#ifndef FUSE_READINGS_H
#define FUSE_READINGS_H

#include <pthread.h>

#include "base/error.h"
#include "supermachine.h"

#define FUSE_READINGS 64U /* begun and not yet at their ends */

struct fuse_reading {
	uint64_t nodeid, fh; /* fh: the backend's */
	uint64_t at;	     /* the offset that was come to */
	uint32_t flags;	     /* enum sm_fs_open_flags */
};

struct fuse_readings {
	pthread_mutex_t lock;
	unsigned count;				 /* atomic */
	struct fuse_reading list[FUSE_READINGS]; /* oldest first */
};

struct fuse_session;

void readings_init(struct fuse_readings *r);
void readings_done(struct fuse_readings *r);
void readings_close_all(struct fuse_session *s);
/* The peer has forgotten the node. */
void readings_forget(struct fuse_session *s, uint64_t nodeid);

/* One that has come to that offset, or a new one: the caller's until reading_put. 0 or the backend's error. */
int reading_take(struct fuse_session *s, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t offset,
		 struct fuse_reading *ret) MUST_CHECK;
/* over: to be closed, not kept for the rest. */
void reading_put(struct fuse_session *s, const struct fuse_reading *reading, bool over);

#endif
