/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE session: turns request bytes into calls of a backend and its answers into reply bytes. It knows no transport:
 * every door (the virtio-fs queue, a vhost-user socket, /dev/fuse) hands it the request and the room for the reply as
 * iovecs, and file data goes straight between those and the backend. Protocol 7.31 and later, as Linux 6.1 to 6.18
 * speak it (linux/fuse.h).
 *
 * The peer is hostile: sizes, names, handles and node ids in a request may be anything. What breaks a rule gets an
 * error reply; only a request without a whole header gets none.
 *
 * Thread rules: fuse_session_serve may be called from many threads at once. An INIT is served alone: until it has been
 * answered every other request is refused with EIO.
 */
#ifndef FUSE_SESSION_H
#define FUSE_SESSION_H

#include "base/error.h"
#include "fuse/audit.h"
#include "fuse/backing.h"
#include "fuse/dax.h"
#include "supermachine.h"

#define FUSE_SESSION_MAX_WRITE (1u << 20)
#define FUSE_SESSION_MAX_HANDLES (1u << 20)

struct fuse_session;

struct fuse_session_options {
	uint32_t max_write;   /* bytes a WRITE or READ may carry; 0: 1 MiB. A multiple of 4096 */
	uint32_t max_handles; /* open files and directories at once; 0: 2^20. Beyond: -EMFILE */
	bool writeback;	      /* let the peer cache writes (only where nobody else writes the tree) */
	bool read_only;	      /* every changing request is answered -EROFS without asking the backend */
	/* Watch what the peer caches, where the backend can (watch.h). The door has to run fuse_session_watch. */
	bool watch;
	/* Lets the kernel move file data itself where the backend gives descriptors (dax_map); NULL: it does not.
	 * Copied. */
	const struct fuse_backing_port *backing;
	/* A window that the peer maps files through (dax.h); NULL: none. Copied. */
	const struct fuse_dax_port *dax;
	/* Is told what the peer does to files; NULL: nobody is. Copied. */
	const struct fuse_audit_port *audit;
	/* Nobody but the peer changes the tree: what its kernel has cached of a file need not be dropped when the times
	 * are not those that it knew, which would be its own doing. (It may drop a page that it is just writing, and
	 * read it back from before.) */
	bool sole;
	bool over_uring; /* agree to requests by io_uring (dev_uring.h) if the peer offers it */
};

/* What there is to measure. Monotonic counters. */
struct fuse_session_stats {
	uint64_t requests, errors, bytes_read, bytes_written, handles_open;
	uint64_t malformed; /* requests that no kernel would send */
};

/* options may be NULL. The backend stays the caller's and must outlive the session. 0, -ENOMEM, or -EINVAL when it
 * lacks a function that every backend needs. */
int fuse_session_new(struct sm_fs_backend *backend, const struct fuse_session_options *options,
		     struct fuse_session **ret) MUST_CHECK;
/* Releases every handle that the peer left open. No request may be in service. NULL allowed; returns NULL. */
struct fuse_session *fuse_session_free(struct fuse_session *s);

/*
 * Serves one request. in: the request as the peer wrote it; out: room for the reply, header included. Returns the
 * reply's length, 0 when the request has none (FORGET, BATCH_FORGET, INTERRUPT), or -EPROTO when it is too broken to
 * answer (no whole header, a length that is not the request's, no room for a reply header).
 */
ssize_t fuse_session_serve(struct fuse_session *s, const struct iovec *in, int num_in, const struct iovec *out,
			   int num_out);

/* Its watch; NULL: there is none. */
struct watch;
struct watch *fuse_session_watch(struct fuse_session *s);

/* True if INIT agreed to requests by io_uring. */
bool fuse_session_over_uring(const struct fuse_session *s);
/* True after DESTROY, until the next INIT. */
bool fuse_session_ended(struct fuse_session *s);
void fuse_session_get_stats(struct fuse_session *s, struct fuse_session_stats *ret);

#endif
