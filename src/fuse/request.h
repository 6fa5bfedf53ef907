/* SPDX-License-Identifier: Apache-2.0 */
/* One request in service: what the operation files (ops_*.c) share. Internal to the room. */
#ifndef FUSE_REQUEST_H
#define FUSE_REQUEST_H

#include <linux/fuse.h>

#include "base/cursor.h"
#include "fuse/backing.h"
#include "fuse/dax.h"
#include "fuse/handles.h"
#include "fuse/newer.h"
#include "fuse/readings.h"
#include "fuse/session.h"
#include "fuse/watch.h"

enum session_state { STATE_NEW, STATE_INIT, STATE_READY, STATE_ENDED };

#define SESSION_MINOR 45u
#define SESSION_LEAST_MINOR 31u

struct fuse_session {
	struct sm_fs_backend *be;
	const struct sm_fs_ops *ops; /* own_ops */
	struct sm_fs_ops own_ops;    /* the backend's, as far as its header knew them */
	struct fuse_session_options options;
	struct fuse_handles handles;
	struct fuse_readings readings;
	struct watch *watch;	      /* NULL: none */
	struct backing *backing;      /* NULL: data always comes through here */
	struct dax *dax;	      /* NULL: no window */
	struct fuse_audit_port audit; /* note NULL: nobody is told */
	uint64_t features;	      /* agreed INIT flags; written by INIT alone */
	uint32_t minor;
	int state;			 /* enum session_state, atomic */
	struct fuse_session_stats stats; /* atomic members */
};

struct fuse_request {
	struct fuse_session *s;
	struct fuse_in_header h;
	struct sm_fs_caller who;
	bool herald;	    /* it was the herald's (herald.c): nothing has been done */
	bool long_name;	    /* request_name has found one of more than 255 bytes */
	struct cursor args; /* what follows the header; for WRITE only its fixed part */
	const struct iovec *in, *out;
	int num_in, num_out;
	size_t in_len, out_len; /* whole lengths, headers included */
	uint64_t pinned[2];	/* handles to unpin when the request is done */
	unsigned num_pinned;
};

/* Handlers return the length of the payload they wrote behind the reply header, or -errno, or this: */
#define FUSE_NO_REPLY ((ssize_t)INT32_MIN)

typedef ssize_t (*fuse_handler)(struct fuse_request *rq);

/* A fixed-size argument: the next sizeof(T) bytes copied into *p; false when they are not there. */
bool request_arg(struct fuse_request *rq, void *p, size_t size);
/* A file name: NUL-terminated, not empty, no '/', not "." or "..", at most 255 bytes; NULL otherwise. */
const char *request_name(struct fuse_request *rq);
/* The error when there was none. */
ssize_t request_no_name(const struct fuse_request *rq);
/* The backend's handle behind a peer's one, pinned until the request is done (at most two a request): 0 or -EBADF. */
int request_handle(struct fuse_request *rq, uint64_t handle, uint64_t nodeid, bool is_dir, uint64_t *ret_fh) MUST_CHECK;
/* Writes a whole fixed-size reply: its length, or -EIO when the peer left no room. */
ssize_t request_reply(struct fuse_request *rq, const void *p, size_t len);
/* Puts bytes at an offset of the payload. */
ssize_t request_put(struct fuse_request *rq, size_t offset, const void *p, size_t len);
/* Room for payload, in bytes. */
size_t request_room(const struct fuse_request *rq);

/* True if the peer opens no directories (readings.h). */
static inline bool session_opens_no_directories(const struct fuse_session *s)
{
	return s->features & FUSE_NO_OPENDIR_SUPPORT;
}

/* What is taken of the features that a peer offers. */
uint64_t session_wanted_features(const struct fuse_session *s);
/* An open file of the backend's is given up. */
void session_release(struct fuse_session *s, uint64_t nodeid, uint64_t fh, bool flock_release, uint64_t owner);
/* An open directory of the backend's is. */
static inline void session_releasedir(struct fuse_session *s, uint64_t nodeid, uint64_t fh)
{
	if (s->ops->releasedir)
		s->ops->releasedir(s->be, nodeid, fh);
}

void attr_from_stat(struct fuse_session *s, uint64_t nodeid, const struct stat *st, bool submount,
		    struct fuse_attr *ret);
void entry_out_from(struct fuse_session *s, const struct sm_fs_entry *e, struct fuse_entry_out *ret);
void set_valid(uint64_t ns, uint64_t *ret_s, uint32_t *ret_ns);

/*
 * The answer to a look-up, or to what made a name. Gives back the reference of an entry whose reply could not be
 * written, so that no node is held for ever.
 */
ssize_t reply_entry(struct fuse_request *rq, const struct watch_mark *mark, const char *name, struct sm_fs_entry *e);

/* herald.c: true if the request is the herald's; then *ret is its answer, and nothing else may be done with it. */
bool herald_serves(struct fuse_request *rq, bool changes, ssize_t *ret);

/* audit.c: tells of a request that was served. args: what follows its header; r: what its handler returned. */
void audit_served(struct fuse_request *rq, struct cursor args, ssize_t r);

/* ops_node.c */
ssize_t op_lookup(struct fuse_request *rq);
ssize_t op_forget(struct fuse_request *rq);
ssize_t op_batch_forget(struct fuse_request *rq);
ssize_t op_getattr(struct fuse_request *rq);
ssize_t op_statx(struct fuse_request *rq);
ssize_t op_setattr(struct fuse_request *rq);
ssize_t op_readlink(struct fuse_request *rq);
ssize_t op_symlink(struct fuse_request *rq);
ssize_t op_mknod(struct fuse_request *rq);
ssize_t op_mkdir(struct fuse_request *rq);
ssize_t op_unlink(struct fuse_request *rq);
ssize_t op_rmdir(struct fuse_request *rq);
ssize_t op_rename(struct fuse_request *rq);
ssize_t op_rename2(struct fuse_request *rq);
ssize_t op_link(struct fuse_request *rq);
ssize_t op_statfs(struct fuse_request *rq);
ssize_t op_getxattr(struct fuse_request *rq);
ssize_t op_listxattr(struct fuse_request *rq);
ssize_t op_setxattr(struct fuse_request *rq);
ssize_t op_removexattr(struct fuse_request *rq);
ssize_t op_syncfs(struct fuse_request *rq);
/* ops_file.c */
ssize_t op_open(struct fuse_request *rq);
ssize_t op_create(struct fuse_request *rq);
ssize_t op_tmpfile(struct fuse_request *rq);
ssize_t op_read(struct fuse_request *rq);
ssize_t op_write(struct fuse_request *rq);
ssize_t op_flush(struct fuse_request *rq);
ssize_t op_release(struct fuse_request *rq);
ssize_t op_fsync(struct fuse_request *rq);
ssize_t op_getlk(struct fuse_request *rq);
ssize_t op_setlk(struct fuse_request *rq);
ssize_t op_setlkw(struct fuse_request *rq);
ssize_t op_fallocate(struct fuse_request *rq);
ssize_t op_lseek(struct fuse_request *rq);
ssize_t op_copy_file_range(struct fuse_request *rq);
ssize_t op_copy_file_range_64(struct fuse_request *rq);
/* dax.c */
ssize_t op_setupmapping(struct fuse_request *rq);
ssize_t op_removemapping(struct fuse_request *rq);
/* ops_dir.c */
ssize_t op_opendir(struct fuse_request *rq);
ssize_t op_readdir(struct fuse_request *rq);
ssize_t op_readdirplus(struct fuse_request *rq);
ssize_t op_releasedir(struct fuse_request *rq);
ssize_t op_fsyncdir(struct fuse_request *rq);

#endif
