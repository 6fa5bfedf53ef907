/* SPDX-License-Identifier: Apache-2.0 */
/* What every virtio device does the same way: breaking, signalling, draining a queue. See device.h. */
#include "virtio/device.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

void virtio_device_broken(struct virtio_device *dev, const char *why)
{
	/* A guest may reset and break the device again for ever: only the first time is news. */
	log_line(dev->errors ? LOG_DEBUG : LOG_WARN, "virtio", "%s: the guest broke the device's rules: %s", dev->name,
		 why);
	dev->errors++;
	if (dev->broken)
		return;
	dev->broken = true;
	if (dev->irq.config)
		dev->irq.config(dev->irq.arg);
}

void virtio_device_signal(struct virtio_device *dev, unsigned queue)
{
	if (virtq_should_signal(&dev->queues[queue]) && dev->irq.queue)
		dev->irq.queue(dev->irq.arg, queue);
}

/* Handles one chain; false when draining must stop. */
static bool drain_one(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain, virtio_chain_fn fn)
{
	struct virtqueue *vq = &dev->queues[queue];
	int r = fn(dev, queue, chain);

	if (r >= 0) {
		virtq_push(vq, chain->head, (uint32_t)r);
		return true;
	}
	if (r == -EINPROGRESS)
		return true;
	if (r == -EAGAIN)
		virtq_unpop(vq);
	else
		virtio_device_broken(dev, "bad request");
	return false;
}

void virtio_device_drain(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain, virtio_chain_fn fn)
{
	struct virtqueue *vq = &dev->queues[queue];
	unsigned left = vq->size + vq->size / 2U + 1;
	bool stopped = false;

	while (dev->active && !dev->broken && !stopped) {
		int r = 0;

		virtq_disable_notify(vq);
		while (left && !stopped && (r = virtq_pop(vq, chain)) > 0) {
			left--;
			stopped = !drain_one(dev, queue, chain, fn);
		}
		if (r < 0) {
			virtio_device_broken(dev, "bad descriptor chain");
			break;
		}
		if (!virtq_enable_notify(vq) || stopped)
			break;
		if (!left) {
			if (dev->irq.again)
				dev->irq.again(dev->irq.arg, queue);
			break;
		}
	}
	virtio_device_signal(dev, queue);
}

void virtio_config_copy(void *p, uint32_t off, uint32_t len, const void *config, uint32_t size)
{
	memset(p, 0, len);
	if (off < size)
		memcpy(p, (const uint8_t *)config + off, MIN(len, size - off));
}
