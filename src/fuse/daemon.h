/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon backend: a tree that a server in another process serves (share_server.h). Requests go over a lane's
 * socket; the data of files that the server gives descriptors of is moved by this process itself, straight between the
 * file and the request's buffers; other data goes through memory that both share. Where descriptors do not come through
 * everything goes through the stream (share_proto.h).
 *
 * - The server may end at any time: what was under way fails with -EIO, what comes after with -ENOTCONN, for as long as
 * no server listens on the path. Another one that does is used from the next request on: nodes of before are -ESTALE,
 * upon which the peer's kernel looks the names up anew; what was open goes on reading and writing where it has a
 * descriptor, and is -EIO otherwise.
 * - The server is not trusted with this process's memory: its answers are checked as a peer's requests are. What it
 * says about files is believed.
 */
#ifndef FUSE_DAEMON_H
#define FUSE_DAEMON_H

#include "base/error.h"

struct fuse_daemon_options {
	unsigned lanes; /* requests under way at once; 0: 4, at most 8 */
	bool read_only; /* changes are refused here (EROFS), whatever the server would let this client do */
	/* For fuse_daemon_new_with: a connected socket, now and whenever the server is gone, or -errno. From any
	 * thread, one at a time. done: there will be no more of it; NULL: nothing to do. */
	int (*connect)(void *arg, struct sm_error *err);
	void (*done)(void *arg);
	void *arg;
};

/* Connects to a server's socket, now and whenever a new server is there. options may be NULL. */
int fuse_daemon_new(const char *path, const struct fuse_daemon_options *options, struct sm_fs_backend **ret,
		    struct sm_error *err) MUST_CHECK;
/* The same over a connected socket, taken in any case: once its server is gone that is the end. */
int fuse_daemon_new_fd(int fd, const struct fuse_daemon_options *options, struct sm_fs_backend **ret,
		       struct sm_error *err) MUST_CHECK;
/* The same by way of options->connect; done is called in any case, in the end. */
int fuse_daemon_new_with(const struct fuse_daemon_options *options, struct sm_fs_backend **ret,
			 struct sm_error *err) MUST_CHECK;
/* No session may use it any more. NULL allowed; returns NULL. */
struct sm_fs_backend *fuse_daemon_free(struct sm_fs_backend *be);

/* The system calls that it makes once it is made and has no path, ends with -1: for whoever runs it under a filter. */
extern const int fuse_daemon_syscalls[];

#endif
