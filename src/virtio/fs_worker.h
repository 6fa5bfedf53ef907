/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of a virtio-fs device. Internal to fs.c and fs_worker.c. */
#ifndef VIRTIO_FS_WORKER_H
#define VIRTIO_FS_WORKER_H

#include "virtio/fs.h"

enum { FS_QUEUE_HIPRIO, FS_QUEUE_REQUEST, FS_NUM_QUEUES };

struct fs_pool;

int fs_pool_new(struct virtio_device *dev, const struct virtio_fs_options *options, struct fs_pool **ret) MUST_CHECK;
struct fs_pool *fs_pool_free(struct fs_pool *p); /* NULL allowed; returns NULL */
/* The queues may be used from now on. */
void fs_pool_run(struct fs_pool *p);
/* They may not any more: returns when nothing is being served. again: only for a moment, the session goes on. */
void fs_pool_stop(struct fs_pool *p, bool again);
/*
 * Serves what the driver has asked for, then nothing more until fs_pool_release. The driver must stand still. 0, or
 * -ETIMEDOUT: a request does not end; then nothing has changed.
 */
int fs_pool_hold(struct fs_pool *p, uint64_t limit_ns) MUST_CHECK;
void fs_pool_release(struct fs_pool *p);
int fs_pool_doorbell(const struct fs_pool *p, unsigned queue);
void fs_pool_kick(struct fs_pool *p, unsigned queue);
void fs_pool_get_stats(struct fs_pool *p, struct virtio_fs_stats *ret);

#endif
