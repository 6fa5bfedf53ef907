/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs without a share. See fs.h. It reads the request's header alone (linux/fuse.h, the ABI that section 5.11.6
 * names): FORGET and BATCH_FORGET have no answer; FUSE_INIT gets ENODEV, everything else ENOSYS.
 */
#include "virtio/fs.h"

#include <endian.h>
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { QUEUE_HIPRIO, QUEUE_REQUEST, NUM_QUEUES };

struct fs {
	struct virtio_device dev;
	struct virtio_fs_config config;
	struct virtq_chain chain;
};

static int handle(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
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

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct fs *fs = (struct fs *)dev;

	virtio_device_drain(dev, queue, &fs->chain, handle);
}

static void reset(struct virtio_device *dev)
{
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct fs *fs = (struct fs *)dev;

	virtio_config_copy(p, off, len, &fs->config, sizeof(fs->config));
}

static void fs_free(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.free = fs_free,
};

int virtio_fs_new(struct mem *mem, struct loop *loop, const struct virtio_fs_options *options,
		  struct virtio_device **ret)
{
	size_t len = options->tag ? strlen(options->tag) : 0;
	struct fs *fs;

	if (!len || len > sizeof(fs->config.tag))
		return -EINVAL;
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	memcpy(fs->config.tag, options->tag, len);
	fs->config.num_request_queues = htole32(NUM_QUEUES - QUEUE_REQUEST);
	fs->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_FS_,
		.offered = VIRTIO_DEVICE_FEATURES,
		.config_size = sizeof(fs->config),
		.num_queues = NUM_QUEUES,
		.queue_size_max = 512,
		.mem = mem,
		.loop = loop,
	};
	*ret = &fs->dev;
	return 0;
}

const int virtio_fs_syscalls[] = {-1};
