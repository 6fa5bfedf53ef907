/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix backend: a directory of the host, and nothing outside it.
 *
 * - Every name is resolved one component at a time, beneath a directory that is already held, never through a symbolic
 * link: no path of the peer's is ever followed by the host's kernel, save that of a link under FUSE_POSIX_FOLLOW, as if
 * the root were the host's. Host devices and fifos are never opened.
 * - A node is known by (device, inode) and, where the file system gives them, its file handle; it holds an O_PATH
 * descriptor only while it is in the budget (max_fds), and finds its file again by handle or by its parent and name,
 * with the identity checked: else -ESTALE, upon which the peer's kernel looks the name up anew.
 * - Coherence: names and attributes are valid for valid_ns; files are cached by the peer as close-to-open demands: what
 * it has cached is kept over an open only if size, mtime and ctime are what they were when this server last showed
 * them.
 */
#ifndef FUSE_POSIX_H
#define FUSE_POSIX_H

#include "supermachine.h"
#include "base/error.h"

/* Who owns what the peer makes. The numbers of enum sm_fs_ids. */
enum fuse_posix_ids {
	/*
	 * Host files belong to the user who runs the server, whatever the peer says. Owners, modes and device numbers
	 * that the peer sets are kept in the extended attribute user.supermachine.stat and shown to it again; files
	 * without it that belong to that user are shown as the peer's root's. Device files are empty regular files on
	 * the host.
	 */
	FUSE_POSIX_CALLER = 0,
	/* The peer's numbers are the host's (needs root to be of use). */
	FUSE_POSIX_SAME = 1,
	/* Owners are shown as they are; what the peer makes is the server's user's, and owners do not change (-EPERM).
	 * No set-id bits (of directories setgid alone), no devices. */
	FUSE_POSIX_NONE = 2,
	/* The peer's numbers are the host's, moved by ranges; what is in none is shown as nobody's (65534), and the
	 * peer makes nothing for it (-EOVERFLOW, chown: -EINVAL). No devices; set-id bits by root's server alone. */
	FUSE_POSIX_RANGES = 3,
};

/* What symbolic links may do. None lets anybody out of the root. */
enum fuse_posix_symlinks {
	/* The numbers of enum sm_fs_symlinks. */
	FUSE_POSIX_OPAQUE = 0, /* shown and made as they are; the peer's kernel resolves them, in its own tree */
	FUSE_POSIX_DENY = 1,   /* neither made (-EPERM) nor seen through (lookup: -EACCES) */
	FUSE_POSIX_FOLLOW = 2, /* what is found at its name is what it leads to, beneath the root: posix_follow.c */
};

/* Extended attributes that are not user.*: see posix_xattr.c. The numbers of enum sm_fs_xattrs. */
enum fuse_posix_xattrs {
	FUSE_POSIX_XATTRS_AUTO = 0, /* the host's with FUSE_POSIX_SAME, else mapped */
	FUSE_POSIX_XATTRS_MAPPED = 1,
};

struct fuse_posix_options {
	enum fuse_posix_ids ids;
	enum fuse_posix_symlinks symlinks;
	enum fuse_posix_xattrs xattrs;
	const char *id_ranges; /* FUSE_POSIX_RANGES: see posix_ids.c; not kept */
	bool read_only;
	bool direct;	   /* what the peer opens with O_DIRECT leaves out the host's cache, too, where its buffers are
			      aligned */
	uint64_t valid_ns; /* 0: every use asks; always so with FUSE_POSIX_FOLLOW */
	unsigned max_fds;  /* O_PATH descriptors held for nodes; 0: 4096, at most a quarter of RLIMIT_NOFILE */
	unsigned max_open; /* files and directories open at once; 0: half of RLIMIT_NOFILE. Beyond: -ENFILE */
};

struct fuse_posix_stats {
	uint64_t nodes, fds, open_files, reopened;
};

/* The text of id_ranges: 0, or -EINVAL, -ERANGE, -E2BIG. */
#define FUSE_POSIX_RANGES_MAX 255
int fuse_posix_check_ranges(const char *text) MUST_CHECK;

/* Serves the tree under `path`, a directory. options may be NULL. */
int fuse_posix_new(const char *path, const struct fuse_posix_options *options, struct sm_fs_backend **ret,
		   struct sm_error *err) MUST_CHECK;
/* The same of a descriptor, O_PATH will do, of a directory or of one regular file, which then is all there is. Takes fd
 * in any case. name: for messages. */
int fuse_posix_new_fd(int fd, const char *name, const struct fuse_posix_options *options, struct sm_fs_backend **ret,
		      struct sm_error *err) MUST_CHECK;
struct sm_fs_backend *fuse_posix_free(struct sm_fs_backend *be);
void fuse_posix_get_stats(struct sm_fs_backend *be, struct fuse_posix_stats *ret);

/* Where a node was last seen, from the root, which is "": "/DIR/NAME". False: it is none, or that is too long. */
bool fuse_posix_place(struct sm_fs_backend *be, uint64_t nodeid, char *ret, size_t size) MUST_CHECK;
/* What it serves, as an absolute path of now. False: it is no posix backend, or that cannot be told. */
bool fuse_posix_source(struct sm_fs_backend *be, char *ret, size_t size) MUST_CHECK;

/* The system calls that the backend makes once it is made, ends with -1: for whoever runs it under a filter. */
extern const int fuse_posix_syscalls[];

#endif
