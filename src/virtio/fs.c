/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs: the device. See fs.h. Without a server it reads the request's header alone (linux/fuse.h, the ABI that
 * section 5.11.6 names): FORGET and BATCH_FORGET have no answer; FUSE_INIT gets ENODEV, everything else ENOSYS.
 */
#include "virtio/fs.h"

#include <endian.h>
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "virtio/fs_worker.h"

/* A FUSE page takes a descriptor: 1 MiB with its headers needs more than 256 (the driver asks for indirect ones, but
 * sizes its requests by the queue). */
#define QUEUE_SIZE 1024

struct fs {
	struct virtio_device dev;
	struct virtio_fs_config config;
	struct fs_pool *pool; /* NULL: no server */
	int (*save)(void *arg, struct buf *out);
	int (*load)(void *arg, struct cursor *in);
	void *arg;
	struct virtq_chain chain;
};

static struct fs *fs_of(struct virtio_device *dev)
{
	return (struct fs *)dev;
}

static int refuse(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct fuse_in_header in;
	struct fuse_out_header out = {.len = htole32(sizeof(out))};
	uint32_t opcode;

	if (virtq_chain_read(chain, 0, &in, sizeof(in)) < 0)
		return -EPROTO;
	opcode = le32toh(in.opcode);
	if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET)
		return 0;
	if (chain->len_write < sizeof(out))
		return -EPROTO;
	out.error = (int32_t)htole32((uint32_t)(opcode == FUSE_INIT ? -ENODEV : -ENOSYS));
	out.unique = in.unique;
	return virtq_chain_write(chain, 0, &out, sizeof(out)) < 0 ? 0 : (int)sizeof(out);
}

static int activate(struct virtio_device *dev)
{
	if (fs_of(dev)->pool)
		fs_pool_run(fs_of(dev)->pool);
	return 0;
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct fs *fs = fs_of(dev);

	if (fs->pool)
		fs_pool_kick(fs->pool, queue);
	else
		virtio_device_drain(dev, queue, &fs->chain, refuse);
}

static int doorbell(struct virtio_device *dev, unsigned queue)
{
	return fs_of(dev)->pool ? fs_pool_doorbell(fs_of(dev)->pool, queue) : -1;
}

static void reset(struct virtio_device *dev)
{
	if (fs_of(dev)->pool)
		fs_pool_stop(fs_of(dev)->pool, false);
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	virtio_config_copy(p, off, len, &fs_of(dev)->config, sizeof(fs_of(dev)->config));
}

/* Nothing is being served in a snapshot. */
static int save(struct virtio_device *dev, struct buf *out)
{
	struct fs *fs = fs_of(dev);

	if (fs->pool)
		fs_pool_stop(fs->pool, true);
	return fs->pool && fs->save ? fs->save(fs->arg, out) : 0;
}

/* Of a device without a server, as that of a base snapshot, nothing was saved. */
static int load(struct virtio_device *dev, struct cursor *in)
{
	struct fs *fs = fs_of(dev);

	if (!in->left)
		return 0;
	return fs->pool && fs->load ? fs->load(fs->arg, in) : -ENOTSUP;
}

static void fs_free(struct virtio_device *dev)
{
	fs_pool_free(fs_of(dev)->pool);
	free(dev);
}

static const struct virtio_device_ops ops = {
	.activate = activate,
	.notify = notify,
	.doorbell = doorbell,
	.reset = reset,
	.config_read = config_read,
	.save = save,
	.load = load,
	.free = fs_free,
};

int virtio_fs_new(struct mem *mem, struct loop *loop, const struct virtio_fs_options *options,
		  struct virtio_device **ret)
{
	size_t len = options->tag ? strlen(options->tag) : 0;
	struct fs *fs;
	int r;

	if (!len || len > sizeof(fs->config.tag))
		return -EINVAL;
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	memcpy(fs->config.tag, options->tag, len);
	fs->save = options->save;
	fs->load = options->load;
	fs->arg = options->arg;
	fs->config.num_request_queues = htole32(FS_NUM_QUEUES - FS_QUEUE_REQUEST);
	fs->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_FS_,
		.offered = VIRTIO_DEVICE_FEATURES,
		.config_size = sizeof(fs->config),
		.num_queues = FS_NUM_QUEUES,
		.queue_size_max = QUEUE_SIZE,
		.shm = options->window,
		.mem = mem,
		.loop = loop,
	};
	r = options->serve ? fs_pool_new(&fs->dev, options, &fs->pool) : 0;
	if (r < 0) {
		free(fs);
		return r;
	}
	*ret = &fs->dev;
	return 0;
}

int virtio_fs_hold(struct virtio_device *dev, uint64_t limit_ns)
{
	return fs_of(dev)->pool ? fs_pool_hold(fs_of(dev)->pool, limit_ns) : 0;
}

void virtio_fs_release(struct virtio_device *dev)
{
	if (fs_of(dev)->pool)
		fs_pool_release(fs_of(dev)->pool);
}

bool virtio_fs_get_stats(struct virtio_device *dev, struct virtio_fs_stats *ret)
{
	if (!fs_of(dev)->pool)
		return false;
	fs_pool_get_stats(fs_of(dev)->pool, ret);
	return true;
}

const int virtio_fs_syscalls[] = {SYS_read, SYS_write, SYS_futex, -1};
