/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-pmem. See pmem.h. No system calls at run time beyond the queue's. */
#include "virtio/pmem.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pmem.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "base/util.h"

enum { REQ_FLUSH = 0, RESP_OK = 0, RESP_FAILED = 1 };

struct pmem {
	struct virtio_device dev;
	struct virtio_pmem_config config;
	struct virtq_chain chain;
};

static int handle(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain)
{
	struct virtio_pmem_req req;
	struct virtio_pmem_resp resp;

	if (virtq_chain_read(chain, 0, &req, sizeof(req)) < 0 || chain->len_write < sizeof(resp))
		return -EPROTO;
	resp.ret = htole32(le32toh(req.type) == REQ_FLUSH ? RESP_OK : RESP_FAILED);
	return virtq_chain_write(chain, 0, &resp, sizeof(resp)) < 0 ? 0 : (int)sizeof(resp);
}

static void notify(struct virtio_device *dev, unsigned queue)
{
	struct pmem *pmem = (struct pmem *)dev;

	virtio_device_drain(dev, queue, &pmem->chain, handle);
}

static void reset(struct virtio_device *dev)
{
}

static void config_read(struct virtio_device *dev, uint32_t off, void *p, uint32_t len)
{
	struct pmem *pmem = (struct pmem *)dev;

	virtio_config_copy(p, off, len, &pmem->config, sizeof(pmem->config));
}

static void pmem_free(struct virtio_device *dev)
{
	free(dev);
}

static const struct virtio_device_ops ops = {
	.notify = notify,
	.reset = reset,
	.config_read = config_read,
	.free = pmem_free,
};

int virtio_pmem_new(struct mem *mem, struct loop *loop, const struct virtio_pmem_options *options,
		    struct virtio_device **ret)
{
	struct pmem *pmem;

	if ((options->gpa | options->size) % 4096 || options->gpa + options->size < options->gpa)
		return -EINVAL;
	pmem = calloc(1, sizeof(*pmem));
	if (!pmem)
		return -ENOMEM;
	pmem->config.start = htole64(options->gpa);
	pmem->config.size = htole64(options->size);
	pmem->dev = (struct virtio_device){
		.ops = &ops,
		.name = options->name,
		.id = VIRTIO_ID_PMEM_,
		.offered = VIRTIO_DEVICE_FEATURES,
		.config_size = sizeof(pmem->config),
		.num_queues = 1,
		.queue_size_max = 64,
		.mem = mem,
		.loop = loop,
	};
	*ret = &pmem->dev;
	return 0;
}

const int virtio_pmem_syscalls[] = {-1};
