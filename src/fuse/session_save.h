/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session in a snapshot of its peer: what was agreed to at INIT, which files are open, what is watched. The backend's
 * own tables are the caller's business (posix_save.h); so is what a file handle of the backend's means: `files`.
 *
 * Nobody may be served meanwhile. What is loaded is hostile input.
 */
#ifndef FUSE_SESSION_SAVE_H
#define FUSE_SESSION_SAVE_H

#include "base/buf.h"
#include "base/cursor.h"
#include "fuse/session.h"

struct fuse_session_files {
	/* How a file (no directory) is open. */
	uint32_t (*flags)(void *arg, uint64_t nodeid, uint64_t fh);
	/* Opens it so again; 0 or -errno. */
	int (*open)(void *arg, uint64_t nodeid, bool is_dir, uint32_t flags, uint64_t *ret_fh);
	void *arg;
};

/* -EOPNOTSUPP: of a session with a window. */
int fuse_session_save(struct fuse_session *s, const struct fuse_session_files *files, struct buf *out) MUST_CHECK;
/* Into a new session over a like backend. Before it serves anything fuse_session_reopen has to have been called. 0,
 * -EPROTO, -ENOTSUP, -ENOMEM; after a failure it is of no use. */
int fuse_session_load(struct fuse_session *s, struct cursor *in) MUST_CHECK;
/* Opens what was open. What cannot be is no handle any more: the peer gets -EBADF. files NULL: none of it. */
void fuse_session_reopen(struct fuse_session *s, const struct fuse_session_files *files);

#endif
