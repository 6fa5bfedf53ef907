/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a shared tree, as its server sees it, and a request of it in service. Internal to share_*.c. */
#ifndef FUSE_SHARE_CLIENT_H
#define FUSE_SHARE_CLIENT_H

#include <pthread.h>

#include "fuse/handles.h"
#include "fuse/share_feed.h"
#include "fuse/share_proto.h"
#include "fuse/share_refs.h"
#include "fuse/share_server.h"

#define SHARE_MAX_LOCKS 4096u /* pairs of handle and owner, of one client */

/* Locks that an owner took through a handle: to be given up with the client. */
struct share_lock {
	uint64_t nodeid, handle, owner;
};

struct share_client {
	struct sm_fs_backend *be;
	const struct sm_fs_ops *ops;
	bool read_only;
	struct share_feeds *feeds; /* the server's; NULL: nothing is watched for it */
	uint64_t feed;		   /* its own: under their lock */
	uint64_t salt;		   /* makes its lock owners others than anybody else's */
	bool ended;		   /* atomic: the connection is over */
	uint64_t requests, errors; /* atomic */
	struct fuse_handles handles;
	pthread_mutex_t lock; /* guards refs and locks */
	struct share_refs refs;
	struct share_lock *locks;
	size_t num_locks;
};

struct share_call {
	struct share_client *client;
	struct share_request rq;
	struct cursor args;
	uint8_t *mem;	   /* the lane's, SHARE_BULK bytes, shared with the client */
	struct buf values; /* of the answer */
	uint32_t bulk;	   /* of the answer */
	int out_fd;	   /* to go with it; the backend's, unless: */
	bool give;	   /* it is ours, to be closed then */
	uint64_t pinned[2];
	unsigned num_pinned;
	bool broken; /* no client of ours sends that */
};

int share_client_init(struct share_client *c, struct sm_fs_backend *be, const struct sm_fs_ops *ops,
		      bool read_only) MUST_CHECK;
/* Gives up all that it holds, frees. Nothing is in service. */
void share_client_done(struct share_client *c);
/* Serves one request: its result. What it pinned stays so until share_call_done. */
int64_t share_call_serve(struct share_call *call);
void share_call_done(struct share_call *call);
/* What a handler returns for what no client of ours sends; no errno, so no backend's. */
#define SHARE_BROKEN (-9999)

/* Handlers: the result of the request. */
typedef int64_t (*share_handler)(struct share_call *call);

/* 0, or -ESTALE for a node that the client does not hold. */
int share_check_node(struct share_call *call, uint64_t nodeid);
/* The backend's handle behind a client's one, pinned until the request is done (at most two): 0 or -EBADF. */
int share_get_handle(struct share_call *call, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh);
/* The handle that the request is about. */
int share_own_handle(struct share_call *call, bool is_dir, uint64_t *ret_fh);
/* A reference that the backend took is the client's from now on; where that cannot be noted it is given back. */
int share_adopt(struct share_call *call, const struct sm_fs_entry *e);
/* A result of at most `room` bytes in the bulk. */
int64_t share_answer_bulk(struct share_call *call, ssize_t n, size_t room);

/* share_files.c */
/* Gives up the locks that a client took. */
void share_unlock_all(struct share_client *c);
int64_t share_do_copy_file_range(struct share_call *call);
int64_t share_do_create(struct share_call *call);
int64_t share_do_fallocate(struct share_call *call);
int64_t share_do_flush(struct share_call *call);
int64_t share_do_fsync(struct share_call *call);
int64_t share_do_getlk(struct share_call *call);
int64_t share_do_lseek(struct share_call *call);
int64_t share_do_map(struct share_call *call);
int64_t share_do_open(struct share_call *call);
int64_t share_do_opendir(struct share_call *call);
int64_t share_do_read(struct share_call *call);
int64_t share_do_readdir(struct share_call *call);
int64_t share_do_release(struct share_call *call);
int64_t share_do_releasedir(struct share_call *call);
int64_t share_do_setlk(struct share_call *call);
int64_t share_do_tmpfile(struct share_call *call);
int64_t share_do_write(struct share_call *call);

/* A bit for each operation that a backend has, by enum share_op. */
uint64_t share_ops_mask(const struct sm_fs_ops *ops);

#endif
