/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The posix backend's inode table. Internal to the room.
 *
 * A node is an inode of the host, known by device, number and time of birth. A lookup costs it no descriptor: its file
 * is found again beneath its parent, by name, and its identity checked. Descriptors (O_PATH) are held for what is used
 * as a directory or opened, as many as the budget allows; where a file system tells no time of birth, a number alone
 * might be another file's by then, so there each lookup holds one, too. When the budget takes a descriptor away, a file
 * handle takes its place where the host lets us open those.
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

/* What a look at a host file told: its attributes as they are there, and when it was made (0: unknown). */
struct posix_seen {
	struct stat st;
	int64_t birth;
	uint64_t view; /* of a directory that a link led to (posix_follow.c): which link; else 0 */
	bool refused;  /* a link that led somewhere, where the peer's user may not go */
};

/* State of contents by which a change is noticed. */
struct posix_version {
	struct timespec mtime, ctime;
	off_t size;
	bool sure; /* a change right after would show */
};

/* Owner and mode that the peer set (FUSE_POSIX_CALLER), or that it set none, as of a change time. */
struct posix_kept {
	struct timespec ctime;
	bool any;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t rdev;
};

struct posix_handle {
	uint32_t size;
	int type;
	uint8_t bytes[POSIX_HANDLE_MAX];
};

/* An open file; a handle of the backend's is a pointer to one. */
struct posix_file {
	struct posix_file *next; /* the node's others */
	int fd;
	int direct_fd;	/* the same with O_DIRECT; -1: none */
	uint32_t flags; /* as the peer gave them */
	bool append;
	uint8_t access;	  /* PROT_READ, PROT_WRITE: as it is open */
	uint32_t without; /* atomic: what posix_fs.capabilities was when it was seen to have none */
};

struct posix_node {
	struct posix_node *id_next, *key_next;	/* hash chains */
	struct posix_node *lru_prev, *lru_next; /* those with a descriptor, oldest first */
	uint64_t id, refs;			/* refs: the peer's lookups */
	uint32_t children;			/* nodes that have this one as parent */
	uint32_t pins, opens;			/* uses of fd; open handles */
	int fd;					/* O_PATH, or any; -1: not held */
	mode_t type;				/* S_IFMT part on the host; never changes for an inode */
	dev_t dev;
	ino_t ino;
	int64_t birth;
	uint64_t view; /* a directory reached through a link, or beneath such a one, is a node of its own; else 0 */
	bool refused;  /* see struct posix_seen */
	bool restored; /* from a snapshot: by number alone it is nothing; `handle` is for comparison, not to be opened
			*/
	struct posix_node *parent; /* counted in its children; NULL for the root */
	char *name;		   /* under the parent, as last seen */
	/* the rest is there when it was needed */
	struct posix_handle *handle;
	struct posix_version *shown; /* what the peer may have cached of the contents */
	struct posix_kept *kept;
	struct posix_file *files; /* open ones */
};

#define POSIX_ID_RANGES 16

struct posix_id_range {
	uint32_t peer, host, count;
};

struct posix_id_list {
	unsigned n;
	struct posix_id_range v[POSIX_ID_RANGES];
};

struct posix_ids {
	struct posix_id_list users, groups;
};

struct posix_fs {
	struct sm_fs_backend be; /* first */
	struct fuse_posix_options options;
	struct posix_ids ids;  /* FUSE_POSIX_RANGES */
	uint32_t capabilities; /* atomic: counts, from 1, how often the peer gave some to a file */
	uid_t uid;
	gid_t gid;
	uint64_t
		generation; /* of its node ids: no other backend has it, unless that goes on from this one's snapshot */
	bool same_root;	    /* its root is the one that it was in the snapshot that it goes on from */
	bool by_handle;	    /* open_by_handle_at works on the root's file system; atomic: may turn out to be refused */
	bool fine_times;    /* the host's kernel never gives two changes that were looked at between them one time */
	uint64_t plain;	    /* 1 + number of a device without user attributes, 0: none met; atomic */
	int mount_fd;	    /* for open_by_handle_at */
	int proc_fd;	    /* /proc, -1: none */
	pthread_mutex_t lock;
	struct posix_node *root, **by_id, **by_key, *lru_first, *lru_last;
	uint64_t num_buckets, num_nodes, most_nodes, next_id, num_fds, num_open, reopened;
	uint64_t listed; /* bytes of listings (posix_listing.h); atomic */
};

static inline struct posix_fs *posix_fs_of(struct sm_fs_backend *be)
{
	return (struct posix_fs *)be;
}

static inline struct posix_file *posix_file_of(uint64_t fh)
{
	return (struct posix_file *)(uintptr_t)fh;
}

/* Owners and modes are kept beside the files: those of the host's are the server's business. */
static inline bool posix_keeps(const struct posix_fs *fs)
{
	return fs->options.ids == FUSE_POSIX_CALLER;
}

/* security.* and trusted.* of the peer's are kept under other names. */
static inline bool posix_maps_xattrs(const struct posix_fs *fs)
{
	return fs->options.ids != FUSE_POSIX_SAME || fs->options.xattrs == FUSE_POSIX_XATTRS_MAPPED;
}

static inline bool posix_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* posix.c */
extern const struct sm_fs_ops posix_ops;

int posix_table_init(struct posix_fs *fs);
void posix_table_done(struct posix_fs *fs);

/* Looks at a name under a directory, or (name "") at a descriptor; links are not followed. 0 or -errno. */
int posix_see(int fd, const char *name, struct posix_seen *ret) MUST_CHECK;
/* The file as it is at this moment, also where the host has it from another (FUSE, NFS) and believes for a while what
 * it last heard. 0 or -errno. */
int posix_see_now(int fd, struct stat *ret) MUST_CHECK;

/* A descriptor of the node's file (O_PATH, or any), pinned; -ESTALE when the file is gone. */
int posix_fd_get(struct posix_fs *fs, uint64_t id, struct posix_node **ret_node) MUST_CHECK;
/* The same without a descriptor, for a caller that has one of the file: 0. */
int posix_node_pin(struct posix_fs *fs, uint64_t id, struct posix_node **ret_node) MUST_CHECK;
void posix_fd_put(struct posix_fs *fs, struct posix_node *node);
/* Looks at a node's file with as little as it takes: no descriptor is made for it. */
int posix_node_see(struct posix_fs *fs, uint64_t id, struct posix_seen *ret, struct posix_kept *ret_kept) MUST_CHECK;

/*
 * The node of a file just seen under a parent: adds one lookup reference. fd: an O_PATH descriptor of it that the node
 * may keep (taken over in any case), or -1. kept: what is known of owner and mode (FUSE_POSIX_CALLER), or NULL. 0 with
 * its id, or -errno.
 */
int posix_node_enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd,
		     const struct posix_seen *seen, const struct posix_kept *kept, uint64_t *ret_id) MUST_CHECK;
/* What is known of the owner of the file seen, if it is known to be so still. */
bool posix_node_kept(struct posix_fs *fs, const struct posix_seen *seen, struct posix_kept *ret);
void posix_node_keep(struct posix_fs *fs, struct posix_node *node, const struct posix_kept *kept);
void posix_node_forget(struct posix_fs *fs, uint64_t id, uint64_t count);
void posix_node_forget_all(struct posix_fs *fs);
/* A rename through this server: the file seen now has that name. */
void posix_node_renamed(struct posix_fs *fs, struct posix_node *parent, const char *name,
			const struct posix_seen *seen);
/* Open handles keep a node alive. file: NULL for a directory's. */
int posix_node_opened(struct posix_fs *fs, uint64_t id, struct posix_file *file);
void posix_node_closed(struct posix_fs *fs, uint64_t id, struct posix_file *file);
/* True if the peer was shown this very version before; it has been shown it now. */
bool posix_node_shown(struct posix_fs *fs, uint64_t id, const struct stat *st);
/* The same without showing it anything. */
bool posix_node_unchanged(struct posix_fs *fs, uint64_t id, const struct stat *st);
/* True if a version that it was shown is known for certain: only then can there be an unchanged one. */
bool posix_node_sure(struct posix_fs *fs, const struct posix_node *node);

/* posix_stat.c: what the peer is shown of a host file, and the reverse. */
/* The owner and mode kept with the file behind a descriptor (any kind). */
void posix_read_kept(struct posix_fs *fs, int fd, const struct stat *st, struct posix_kept *ret);
/* Turns the host's attributes into those that the peer is to see. */
void posix_apply_kept(const struct posix_fs *fs, const struct posix_kept *kept, struct stat *st);
/* Both of the above, by what the node knows already if it does. fd: of the file. */
void posix_show(struct posix_fs *fs, struct posix_node *node, int fd, struct stat *st);
/* Keeps owner, mode and device number for the peer; -EOPNOTSUPP where no attribute can be kept. */
int posix_keep(struct posix_fs *fs, int fd, const struct stat *shown);
/* posix_ids.c */
int posix_ids_parse(const char *text, struct posix_ids *ret) MUST_CHECK;
/* The host's numbers of the peer's; false: it has none. Either may be NULL. */
bool posix_ids_to_host(const struct posix_fs *fs, uint32_t *uid, uint32_t *gid);
/* Owners that are the host's as the peer sees them. */
void posix_ids_show(const struct posix_fs *fs, struct stat *st);
/* The mode that the host's file gets when the peer wants `mode`. */
mode_t posix_host_mode(const struct posix_fs *fs, mode_t mode);
/* True when a change of the file right after `st` was taken could not leave the same times behind. */
bool posix_times_tell(const struct posix_fs *fs, const struct stat *st);

/* "/proc/self/fd/N" */
struct posix_proc {
	char path[32];
};
struct posix_proc posix_proc_path(int fd);
/* open(2) of the file behind an O_PATH descriptor. */
int posix_reopen(const struct posix_fs *fs, int fd, int flags);

/* posix.c: finds `name` under a directory and fills the entry with a reference; -ENOENT. A link leads to its target
 * under FUSE_POSIX_FOLLOW. */
int posix_find(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
	       const char *name, struct sm_fs_entry *ret);
/* The same of what is seen there already; a link is a link. */
int posix_find_seen(struct posix_fs *fs, struct posix_node *parent, int parent_fd, const char *name,
		    const struct posix_seen *seen, struct sm_fs_entry *ret);
/* posix_follow.c: posix_find of a name that was seen to be a link. */
int posix_follow(struct posix_fs *fs, const struct sm_fs_caller *who, struct posix_node *parent, int parent_fd,
		 const char *name, const struct posix_seen *link, struct sm_fs_entry *ret);
/* Why the link could not be followed: always an error. */
int posix_follow_readlink(struct posix_fs *fs, uint64_t id);
/* An entry of what is seen already; takes fd over, -1: none. kept: NULL unless posix_keeps. */
int posix_enter(struct posix_fs *fs, struct posix_node *parent, const char *name, int fd, const struct posix_seen *seen,
		const struct posix_kept *kept, struct sm_fs_entry *ret);

/* posix_make.c */
int posix_symlink(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		  const char *target, struct sm_fs_entry *ret);
int posix_mknod(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret);
int posix_mkdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		uint32_t mode, struct sm_fs_entry *ret);
int posix_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, const char *name,
		 uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
int posix_tmpfile(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent_id, uint32_t mode,
		  uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);

/* posix_file.c */
int posix_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint32_t flags,
	       struct sm_fs_open *ret);
/* Opens the file behind a pinned node and enters it as a handle. */
int posix_open_node(struct posix_fs *fs, struct posix_node *node, int path_fd, uint32_t flags, struct sm_fs_open *ret);
/* Enters a descriptor just opened as a handle; fd stays the caller's on failure. */
int posix_open_done(struct posix_fs *fs, uint64_t id, int fd, uint32_t flags, const struct stat *st,
		    struct sm_fs_open *ret);
int posix_host_flags(uint32_t flags);
ssize_t posix_read(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const struct iovec *iov, int count,
		   uint64_t off);
ssize_t posix_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh,
		    const struct iovec *iov, int count, uint64_t off, uint32_t flags);
void posix_release(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool flock_release, uint64_t owner);
int posix_fsync(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only);
int posix_syncfs(struct sm_fs_backend *be, uint64_t id);
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
/* fd: of the file, any kind. */
void posix_drop_capabilities(const struct posix_fs *fs, int fd);
/* The same of an open file whose contents change: costs nothing from the second time on. */
void posix_written(const struct posix_fs *fs, struct posix_file *file);
/* posix_dir.c */
int posix_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, struct sm_fs_open *ret);
int posix_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t id, uint64_t fh, uint64_t off,
		  bool plus, sm_fs_add_dirent add, void *arg);
void posix_releasedir(struct sm_fs_backend *be, uint64_t id, uint64_t fh);
int posix_fsyncdir(struct sm_fs_backend *be, uint64_t id, uint64_t fh, bool data_only);
/* Counts an open handle against max_open: 0 or -ENFILE; and back. */
int posix_open_count(struct posix_fs *fs);
void posix_open_uncount(struct posix_fs *fs);

#endif
