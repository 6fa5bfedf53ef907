/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The /dev/fuse door: mounts a backend into the host's own tree. The host's kernel tests the server at full speed here.
 *
 * As root it mounts by itself; an ordinary user goes through fusermount3 (package fuse3): dev_mount.h. One thread per
 * CPU serves, each on a cloned descriptor (FUSE_DEV_IOC_CLONE), so that they share no lock in the kernel's queue, or
 * by io_uring (dev_uring.h). The mount ends when it is unmounted from outside, or by fuse_dev_unmount.
 */
#ifndef FUSE_DEV_FUSE_H
#define FUSE_DEV_FUSE_H

#include "fuse/session.h"

struct fuse_dev;

struct fuse_dev_options {
	struct fuse_session_options session;
	/* 0: one per CPU, at least 2, at most 16, and by io_uring where the kernel has it on (dev_uring.h). A number:
	 * so many, at most 16, through descriptors alone. */
	unsigned threads;
	const char *source; /* as /proc/mounts shows it; NULL: "supermachine" */
	bool allow_other;   /* others than the mounting user may enter (always so when root mounts) */
};

/* Mounts and starts serving. mountpoint: an existing directory. options may be NULL. */
int fuse_dev_mount(struct sm_fs_backend *backend, const char *mountpoint, const struct fuse_dev_options *options,
		   struct fuse_dev **ret, struct sm_error *err) MUST_CHECK;
/* Waits until the mount is gone: 0, or -ECANCELED once cancel_fd (-1: none) is readable. */
int fuse_dev_wait(struct fuse_dev *dev, int cancel_fd) MUST_CHECK;
/* Unmounts (what is still open in it fails with ENOTCONN then), waits for the threads, frees. NULL allowed; returns
 * NULL. */
struct fuse_dev *fuse_dev_unmount(struct fuse_dev *dev);
/* How many requests came by io_uring (dev_uring.h). */
uint64_t fuse_dev_uring_requests(const struct fuse_dev *dev);
/* The same statistics as the session's. */
void fuse_dev_get_stats(struct fuse_dev *dev, struct fuse_session_stats *ret);

#endif
