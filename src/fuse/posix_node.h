/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix backend's inode table. Internal to the room.
 *
 * One mutex guards table, counts and descriptors; system calls on a node's file are made outside it, on a descriptor
 * pinned by posix_fd_get (posix_fd_put lets it go). Only unpinned descriptors are closed for the budget.
 */
#ifndef FUSE_POSIX_NODE_H
#define FUSE_POSIX_NODE_H

#include <fcntl.h>
#include <pthread.h>

#include "fuse/posix.h"

#define POSIX_HANDLE_MAX 64u

struct posix_node {
	struct posix_node *id_next, *key_next;	/* hash chains */
	struct posix_node *lru_prev, *lru_next; /* those with a descriptor, oldest first */
	uint64_t id, refs;			/* refs: the peer's lookups */
	uint32_t children;			/* nodes that have this one as parent */
	uint32_t pins, opens;			/* uses of fd; open handles */
	int fd;					/* O_PATH, -1: not held */
	dev_t dev;
	ino_t ino;
	mode_t type; /* S_IFMT part on the host; never changes for an inode */
	uint32_t handle_size;
	int handle_type;
	uint8_t handle[POSIX_HANDLE_MAX]; /* handle_size 0: the file system has none */
	struct posix_node *parent;	  /* counted in its children; NULL for the root */
	char *name;			  /* under the parent, as last seen */
	/* what this server last showed of a regular file's contents, for close-to-open */
	bool shown;
	struct timespec shown_mtime, shown_ctime;
	off_t shown_size;
};

struct posix_fs {
	struct sm_fs_backend be; /* first */
	struct fuse_posix_options options;
	uid_t uid;
	gid_t gid;
	bool by_handle; /* open_by_handle_at works on the root's file system */
	int mount_fd;	/* for open_by_handle_at */
	pthread_mutex_t lock;
	struct posix_node *root, **by_id, **by_key, *lru_first, *lru_last;
	uint64_t num_buckets, num_nodes, next_id, num_fds, num_open, reopened;
};

static inline struct posix_fs *posix_fs_of(struct sm_fs_backend *be)
{
	return (struct posix_fs *)be;
}

/* posix.c */
extern const struct sm_fs_ops posix_ops;

int posix_table_init(struct posix_fs *fs);
void posix_table_done(struct posix_fs *fs);

/* A descriptor (O_PATH) of the node's file, pinned; -ESTALE when the file is gone. */
int posix_fd_get(struct posix_fs *fs, uint64_t id, struct posix_node **ret_node) MUST_CHECK;
void posix_fd_put(struct posix_fs *fs, struct posix_node *node);

/*
 * The node of a file just found under a parent: takes over fd (O_PATH), adds one lookup reference. 0 with the node
 * pinned (posix_fd_put), or -errno (fd is closed then).
 */
int posix_node_enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd, const struct stat *st,
		     struct posix_node **ret) MUST_CHECK;
void posix_node_forget(struct posix_fs *fs, uint64_t id, uint64_t count);
void posix_node_forget_all(struct posix_fs *fs);
/* A rename through this server: the node's file now has that name. */
void posix_node_renamed(struct posix_fs *fs, struct posix_node *parent, const char *name, dev_t dev, ino_t ino);
/* Open handles keep a node alive. */
void posix_node_opened(struct posix_fs *fs, struct posix_node *node);
void posix_node_closed(struct posix_fs *fs, uint64_t id);

/* posix_stat.c: what the peer is shown of a host file, and the reverse. */
int posix_show(struct posix_fs *fs, int path_fd, struct stat *st);
/* Keeps owner, mode and device number for the peer (FUSE_POSIX_CALLER); -EOPNOTSUPP where no attribute can be kept. */
int posix_keep(struct posix_fs *fs, int path_fd, const struct stat *shown);
/* The mode that the host's file gets when the peer wants `mode`. */
mode_t posix_host_mode(const struct posix_fs *fs, mode_t mode);
/* True for the attribute's own name, which the peer neither sees nor sets. */
bool posix_private_xattr(const char *name);

/* "/proc/self/fd/N" */
struct posix_proc {
	char path[32];
};
struct posix_proc posix_proc_path(int fd);

/* posix_file.c */
int posix_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint32_t flags,
	       struct sm_fs_open *ret);
/* Opens the file behind a pinned node and enters it as a handle. */
int posix_open_node(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t flags, struct sm_fs_open *ret);
/* Enters a descriptor just opened. */
int posix_open_done(struct posix_fs *fs, struct posix_node *node, int fd, struct sm_fs_open *ret);
ssize_t posix_read(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const struct iovec *iov, int count,
		   uint64_t off);
ssize_t posix_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
		    const struct iovec *iov, int count, uint64_t off, bool kill_suidgid);
void posix_release(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool flock_release, uint64_t owner);
int posix_fsync(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only);
int posix_fallocate_op(struct sm_fs_backend *be, uint64_t id, uint64_t fh, int mode, uint64_t off, uint64_t len);
int64_t posix_lseek(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, int whence);
ssize_t posix_copy_file_range(struct sm_fs_backend *be, uint64_t id_in, uint64_t fh_in, uint64_t off_in,
			      uint64_t id_out, uint64_t fh_out, uint64_t off_out, uint64_t len);
int posix_dax_map(struct sm_fs_backend *be, uint64_t id, uint64_t fh, uint64_t off, uint64_t len, int prot,
		  struct sm_fs_map *ret);
int posix_watch(struct sm_fs_backend *be, uint64_t id, int inotify_fd, uint32_t mask);
/* posix_xattr.c */
ssize_t posix_getxattr(struct sm_fs_backend *be, uint64_t id, const char *name, void *value, size_t size);
ssize_t posix_listxattr(struct sm_fs_backend *be, uint64_t id, char *list, size_t size);
int posix_setxattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name,
		   const void *value, size_t size, int flags);
int posix_removexattr(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, const char *name);
/* posix_dir.c */
int posix_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, struct sm_fs_open *ret);
int posix_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh, uint64_t off,
		  bool plus, sm_fs_add_dirent add, void *arg);
void posix_releasedir(struct sm_fs_backend *be, uint64_t id, uint64_t fh);
int posix_fsyncdir(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only);
/* posix.c: finds `name` under a directory and fills the entry with a reference; -ENOENT */
int posix_find(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name,
	       struct sm_fs_entry *ret);
/* Counts an open handle against max_open: 0 or -ENFILE; and back. */
int posix_open_count(struct posix_fs *fs);
void posix_open_uncount(struct posix_fs *fs);

#endif
