/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net with its link down. See net.h. No system calls at run time beyond the queue's. */
#include "virtio/net.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_CTRL, NUM_QUEUES };

struct net {
	struct virtio_device dev;
	struct virtio_net_config config;
	struct virtq_chain chain;
};

/* A frame sent with no carrier is lost, as on a wire: consumed, nothing written. */
static int drop(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	return chain->len_read < sizeof(struct virtio_net_hdr_mrg_rxbuf) || chain->num_write ? -EPROTO : 0;
}

static int refuse(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	uint8_t ack = VIRTIO_NET_ERR;

	if (chain->len_read < sizeof(struct virtio_net_ctrl_hdr) || !chain->len_write)
		return -EPROTO;
	return virtq_chain_write(chain, 0, &ack, sizeof(ack)) < 0 ? 0 : (int)sizeof(ack);
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct net *net = (struct net *)dev;

	/* Buffers for frames that never come stay where they are. */
	if (queue == QUEUE_RX)
		virtq_disable_notify(&dev->queues[queue]);
	else
		virtio_device_drain(dev, queue, &net->chain, queue == QUEUE_TX ? drop : refuse);
}

static void reset(struct virtio_device *dev)
{
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct net *net = (struct net *)dev;

	virtio_config_copy(p, off, len, &net->config, sizeof(net->config));
}

static void net_free(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.free = net_free,
};

int virtio_net_new(struct mem *mem, struct loop *loop, const struct virtio_net_options *options,
		   struct virtio_device **ret)
{
	struct net *net = calloc(1, sizeof(*net));

	if (!net)
		return -ENOMEM;
	memcpy(net->config.mac, options->mac, sizeof(net->config.mac));
	net->config.status = 0; /* VIRTIO_NET_S_LINK_UP is off */
	net->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_NET_,
		.offered = VIRTIO_DEVICE_FEATURES | 1ULL << VIRTIO_NET_F_MAC | 1ULL << VIRTIO_NET_F_STATUS |
			   1ULL << VIRTIO_NET_F_CTRL_VQ,
		.config_size = offsetof(struct virtio_net_config, max_virtqueue_pairs),
		.num_queues = NUM_QUEUES,
		.queue_size_max = 256,
		.mem = mem,
		.loop = loop,
	};
	*ret = &net->dev;
	return 0;
}

const int virtio_net_syscalls[] = {-1};
