/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon backend's open files. Internal to daemon*.c. */
#ifndef FUSE_DAEMON_FILE_H
#define FUSE_DAEMON_FILE_H

#include <limits.h>

#include "fuse/daemon_conn.h"

/* A request for an open file: -EIO when that is from another connection. */
int daemon_file_begin(struct daemon_call *call, struct sm_fs_backend *be, enum share_op op,
		      const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh, uint32_t bulk) MUST_CHECK;
/* From the rest of an answer to open, create, opendir: 0, -ENOMEM, or -EIO. */
int daemon_file_new(struct daemon_call *call, struct sm_fs_open *ret) MUST_CHECK;
void daemon_file_free(uint64_t fh);
/* From an answer; the node id with the epoch on. 0 or -EIO. */
int daemon_get_entry(struct daemon_call *call, struct sm_fs_entry *ret) MUST_CHECK;

int daemon_open(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint32_t flags,
		struct sm_fs_open *ret);
int daemon_create(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		  uint32_t mode, uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
int daemon_tmpfile(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, uint32_t mode,
		   uint32_t flags, struct sm_fs_entry *ret, struct sm_fs_open *ret_open);
ssize_t daemon_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
		    uint64_t offset);
ssize_t daemon_write(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
		     const struct iovec *iov, int count, uint64_t offset, uint32_t flags);
int daemon_flush(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t lock_owner);
void daemon_release(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool flock_release, uint64_t lock_owner);
int daemon_fsync(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only);
int daemon_fsyncdir(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, bool data_only);
int daemon_getlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, struct sm_fs_lock *lock);
int daemon_setlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct sm_fs_lock *lock, bool wait);
int daemon_fallocate(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, int mode, uint64_t offset,
		     uint64_t length);
int64_t daemon_lseek(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, int whence);
ssize_t daemon_copy_file_range(struct sm_fs_backend *be, uint64_t nodeid_in, uint64_t fh_in, uint64_t offset_in,
			       uint64_t nodeid_out, uint64_t fh_out, uint64_t offset_out, uint64_t length);
int daemon_dax_map(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t offset, uint64_t length,
		   int protection, struct sm_fs_map *ret);

#endif
