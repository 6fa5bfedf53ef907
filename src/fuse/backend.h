/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file-system interface: what a backend is to the FUSE server (DESIGN: one server, three doors). Names begin with
 * sm_fs_ since this is what a user's own backend implements; it moves into the public header when the library exports
 * it.
 */
#ifndef FUSE_BACKEND_H
#define FUSE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

/* --------------------------------------------------------------------------------------- file systems */

/**
 * A file-system backend: what a FUSE server serves. The same backend works behind every door: a guest's virtio-fs
 * device, a vhost-user socket, the host's own /dev/fuse. The library brings two (in memory, and a directory of the
 * host) and takes yours.
 *
 * Rules for a backend:
 * - Functions return 0 (or a count) or a negated Linux errno. A NULL member is answered as its comment says.
 * - They may be called from several threads at once.
 * - Files are known by node ids, the root by SM_FS_ROOT. A node id stays valid, and means the same file, from the
 * lookup (or readdirplus, create, mkdir, ...) that returned it until forget has been called as often as it was
 * returned.
 * - No length, offset, name or handle from the peer needs checking for memory safety: names are NUL-terminated, not
 * empty, without '/', never "." or "..", at most 255 bytes; offset + size never overflows; a handle is one that open or
 * opendir of this very node returned and that was not released.
 */
struct sm_fs_backend;

#define SM_FS_ROOT 1

/** Who asks: ids as the peer's kernel sees them. The peer has checked permissions (mount option default_permissions).
 */
struct sm_fs_caller {
	uint32_t uid, gid, pid;
	uint32_t umask; /**< For create, mkdir, mknod: to be applied to mode, unless a default ACL takes its place. */
};

/** What a lookup yields. */
struct sm_fs_entry {
	uint64_t
		nodeid; /**< 0 in a successful lookup: the name is absent, and that may be cached for entry_valid_ns. */
	uint64_t generation; /**< Tells two files apart that have had the same nodeid. */
	struct stat attr;
	uint64_t entry_valid_ns; /**< How long the name may be taken for this node without asking. */
	uint64_t attr_valid_ns;	 /**< How long the attributes may. */
	bool submount;		 /**< The root of another file system: st_dev changes here. */
};

/** Which members of a setattr count. */
enum sm_fs_set {
	SM_FS_SET_MODE = 1 << 0,
	SM_FS_SET_UID = 1 << 1,
	SM_FS_SET_GID = 1 << 2,
	SM_FS_SET_SIZE = 1 << 3,
	SM_FS_SET_ATIME = 1 << 4,
	SM_FS_SET_MTIME = 1 << 5,
	SM_FS_SET_ATIME_NOW = 1 << 6,
	SM_FS_SET_MTIME_NOW = 1 << 7,
	SM_FS_SET_CTIME = 1 << 8,
	SM_FS_SET_KILL_SUIDGID = 1 << 9, /**< Drop setuid, setgid (if group-executable) and security.capability. */
};

/** How an open file is to be cached by the peer. */
enum sm_fs_open_flags {
	SM_FS_OPEN_DIRECT_IO = 1 << 0,	/**< No page cache: every read and write asks. */
	SM_FS_OPEN_KEEP_CACHE = 1 << 1, /**< What was cached before this open is still right. */
	SM_FS_OPEN_CACHE_DIR = 1 << 3,	/**< The listing may be cached. */
	SM_FS_OPEN_NOFLUSH = 1 << 5,	/**< close() need not tell. */
	SM_FS_OPEN_PARALLEL_WRITES = 1 << 6,
};

/** An open file or directory. */
struct sm_fs_open {
	uint64_t fh;	/**< The backend's own; given back to it. */
	uint32_t flags; /**< enum sm_fs_open_flags */
};

/** A part of a file as a mapping; the descriptor stays the backend's. */
struct sm_fs_map {
	int fd;
	uint64_t offset, length;
	int protection; /**< PROT_READ, PROT_WRITE: the most that is allowed. */
};

/** An advisory lock (POSIX or flock). */
struct sm_fs_lock {
	uint64_t owner, start, end; /**< Inclusive; end UINT64_MAX: to the end of the file. */
	int type;		    /**< F_RDLCK, F_WRLCK, F_UNLCK */
	uint32_t pid;
	bool flock; /**< A flock(2) lock of the whole file. */
};

/**
 * Adds one directory entry to the answer. next_offset: where a later readdir goes on after this entry. entry: for
 * readdirplus, with a lookup reference taken, or NULL for none. Returns false when the entry did not fit: it was not
 * added, a reference taken for it is still the backend's, and the listing ends here.
 */
typedef bool (*sm_fs_add_dirent)(void *arg, const char *name, uint64_t ino, uint32_t d_type, uint64_t next_offset,
				 const struct sm_fs_entry *entry);

/** The functions of a backend. `size` is sizeof(struct sm_fs_ops) of the header it was compiled with. FUSE opcodes in
 * parentheses. */
struct sm_fs_ops {
	size_t size;
	/** The session begins or ends. NULL: nothing to do. (INIT, DESTROY) */
	int (*init)(struct sm_fs_backend *be);
	void (*destroy)(struct sm_fs_backend *be);
	/** Finds a name and takes a reference. Required. -ENOENT, or an entry with nodeid 0, when absent. (LOOKUP) */
	int (*lookup)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      struct sm_fs_entry *ret);
	/** Gives references back; more than were taken is harmless. NULL: references do not count. (FORGET,
	 * BATCH_FORGET) */
	void (*forget)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t count);
	/** Required. has_fh: fh is an open handle of the node. (GETATTR, STATX) */
	int (*getattr)(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
		       uint64_t *ret_valid_ns);
	/** set: enum sm_fs_set; NULL: -EROFS. (SETATTR) */
	int (*setattr)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, bool has_fh,
		       uint64_t fh, uint32_t set, const struct stat *in, struct stat *ret, uint64_t *ret_valid_ns);
	/** Writes up to size bytes, without NUL; returns the length. NULL: -EINVAL. (READLINK) */
	ssize_t (*readlink)(struct sm_fs_backend *be, uint64_t nodeid, char *buf, size_t size);
	/** The makers: take a reference like lookup. -EEXIST when the name is there. NULL: -EROFS. */
	int (*symlink)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		       const char *target, struct sm_fs_entry *ret);
	int (*mknod)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		     uint32_t mode, uint32_t rdev, struct sm_fs_entry *ret);
	int (*mkdir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		     uint32_t mode, struct sm_fs_entry *ret);
	int (*link)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t parent,
		    const char *name, struct sm_fs_entry *ret);
	/** Opens or makes a regular file; flags: O_* of Linux. NULL: -ENOSYS, the peer then uses mknod and open.
	 * (CREATE) */
	int (*create)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
	/** An unnamed file (O_TMPFILE). NULL: -EOPNOTSUPP. (TMPFILE) */
	int (*tmpfile)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, uint32_t mode,
		       uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
	/** NULL: -EROFS. */
	int (*unlink)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name);
	int (*rmdir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name);
	/** flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT. (RENAME, RENAME2) */
	int (*rename)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		      uint64_t new_parent, const char *new_name, uint32_t flags);
	/** Opens a regular file. -EISDIR for a directory. NULL: success, handle 0. (OPEN) */
	int (*open)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint32_t flags,
		    struct sm_fs_open *ret);
	/** Straight between the file and the request's buffers. Past the end: 0. Required for files. (READ) */
	ssize_t (*read)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			uint64_t offset);
	/** kill_suidgid as in setattr. NULL: -EROFS. (WRITE) */
	ssize_t (*write)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
			 const struct iovec *iov, int count, uint64_t offset, bool kill_suidgid);
	/** A descriptor of the open file was closed; lock_owner's POSIX locks go. NULL: never asked again. (FLUSH) */
	int (*flush)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t lock_owner);
	void (*release)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool flock_release,
			uint64_t lock_owner);
	/** NULL: success. (FSYNC, FSYNCDIR, SYNCFS) */
	int (*fsync)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only);
	int (*fsyncdir)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only);
	int (*syncfs)(struct sm_fs_backend *be, uint64_t nodeid);
	/** NULL: success, handle 0. */
	int (*opendir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid,
		       struct sm_fs_open *ret);
	/** Lists from offset (0: the beginning, else a next_offset) until the end or add says no. plus: give entries
	 * too. Required. */
	int (*readdir)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
		       uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg);
	void (*releasedir)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh);
	int (*statfs)(struct sm_fs_backend *be, uint64_t nodeid, struct statvfs *ret);
	/** size 0 asks for the length alone; -ERANGE when it does not fit. NULL: -ENOSYS, never asked again. */
	ssize_t (*getxattr)(struct sm_fs_backend *be, uint64_t nodeid, const char *name, void *value, size_t size);
	ssize_t (*listxattr)(struct sm_fs_backend *be, uint64_t nodeid, char *list, size_t size);
	int (*setxattr)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name,
			const void *value, size_t size, int flags);
	int (*removexattr)(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, const char *name);
	/** lock->type F_UNLCK on return: it could be had. NULL: locks stay among the peer's own processes. (GETLK) */
	int (*getlk)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, struct sm_fs_lock *lock);
	/** wait: block until it is had. (SETLK, SETLKW) */
	int (*setlk)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct sm_fs_lock *lock, bool wait);
	/** NULL: -EOPNOTSUPP. */
	int (*fallocate)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, int mode, uint64_t offset,
			 uint64_t length);
	/** SEEK_DATA or SEEK_HOLE. NULL: -ENOSYS, the peer takes the file for one without holes. */
	int64_t (*lseek)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, int whence);
	/** NULL: -EOPNOTSUPP, the peer copies through its cache. */
	ssize_t (*copy_file_range)(struct sm_fs_backend *be, uint64_t nodeid_in, uint64_t fh_in, uint64_t offset_in,
				   uint64_t nodeid_out, uint64_t fh_out, uint64_t offset_out, uint64_t length);
	/** A shared mapping for a DAX window. NULL: -EOPNOTSUPP. (SETUPMAPPING, REMOVEMAPPING) */
	int (*dax_map)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, uint64_t length,
		       int protection, struct sm_fs_map *ret);
	void (*dax_unmap)(struct sm_fs_backend *be, uint64_t nodeid, uint64_t offset, uint64_t length);
};

/** Embed this first in your backend's own struct. */
struct sm_fs_backend {
	const struct sm_fs_ops *ops;
};

#endif
