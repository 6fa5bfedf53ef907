/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A function's state in a snapshot: one record {u16 version, u16 device id, u32 length, bytes}, in which the device's
 * own record {u32 length, bytes} comes last. The record is read as hostile input: nothing in it is trusted before it is
 * checked against the function that it is loaded into, and against guest RAM.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "base/util.h"
#include "virtio/pci_internal.h"

#define STATE_VERSION 2

static void patch_u32(struct buf *out, size_t at, uint32_t v)
{
	if (!out->error)
		for (unsigned i = 0; i < 4; i++)
			out->data[at + i] = (uint8_t)(v >> (8 * i));
}

static void save_queue(const struct virtio_pci *pci, unsigned q, struct buf *out)
{
	const struct virtqueue *vq = &pci->dev->queues[q];

	buf_put_u16(out, vq->size);
	buf_put_u8(out, vq->ready);
	buf_put_u64(out, vq->desc);
	buf_put_u64(out, vq->avail);
	buf_put_u64(out, vq->used);
	buf_put_u16(out, vq->last_avail);
	buf_put_u16(out, vq->used_idx);
	buf_put_u16(out, vq->signalled_used);
	buf_put_u8(out, vq->signalled_valid);
	buf_put_u16(out, pci->queue_vector[q]);
}

static void save_registers(const struct virtio_pci *pci, struct buf *out)
{
	buf_put_u16(out, pci->command);
	buf_put_u8(out, pci->interrupt_line);
	for (unsigned i = 0; i < VIRTIO_PCI_NUM_BARS; i++)
		buf_put_u64(out, pci->bars[i].value);
	buf_put_u64(out, pci->dev->shm.size);
	buf_put_u8(out, pci->window_bar);
	buf_put_u32(out, pci->window_off);
	buf_put_u32(out, pci->window_len);
	buf_put_u16(out, pci->msix_control);
	buf_put_u32(out, pci->num_vectors);
	for (unsigned v = 0; v < pci->num_vectors; v++) {
		buf_put_u32(out, pci->msix[v].addr_lo);
		buf_put_u32(out, pci->msix[v].addr_hi);
		buf_put_u32(out, pci->msix[v].data);
		buf_put_u32(out, pci->msix[v].control);
	}
	buf_put_u32(out, pci->pending);
	buf_put_u32(out, pci->device_feature_select);
	buf_put_u32(out, pci->driver_feature_select);
	buf_put_u64(out, pci->driver_features);
	buf_put_u16(out, pci->config_vector);
	buf_put_u16(out, pci->queue_select);
	buf_put_u8(out, pci->status);
	buf_put_u8(out, pci->generation);
	buf_put_u8(out, pci->isr);
}

int virtio_pci_save(struct virtio_pci *pci, struct buf *out)
{
	struct virtio_device *dev = pci->dev;
	struct buf own = {0};
	size_t start;
	int r = 0;

	/* First, since it may end requests in flight, which moves the queues. */
	if (dev->ops->save)
		r = dev->ops->save(dev, &own);

	buf_put_u16(out, STATE_VERSION);
	buf_put_u16(out, (uint16_t)dev->id);
	start = out->len;
	buf_put_u32(out, 0);
	save_registers(pci, out);
	buf_put_u64(out, dev->features);
	buf_put_u8(out, dev->active);
	buf_put_u8(out, dev->broken);
	for (unsigned q = 0; q < dev->num_queues; q++)
		save_queue(pci, q, out);
	buf_put_u32(out, (uint32_t)own.len);
	buf_put(out, own.data, own.len);
	patch_u32(out, start, (uint32_t)(out->len - start - 4));
	if (r >= 0)
		r = own.error ? own.error : out->error;
	buf_done(&own);
	return r;
}

static int load_queue(struct virtio_pci *pci, unsigned q, struct cursor *in)
{
	struct virtio_device *dev = pci->dev;
	struct virtqueue *vq = &dev->queues[q];

	vq->size = cursor_u16(in);
	vq->ready = cursor_u8(in);
	vq->desc = cursor_u64(in);
	vq->avail = cursor_u64(in);
	vq->used = cursor_u64(in);
	vq->last_avail = cursor_u16(in);
	vq->used_idx = cursor_u16(in);
	vq->signalled_used = cursor_u16(in);
	vq->signalled_valid = cursor_u8(in);
	pci->queue_vector[q] = cursor_u16(in);
	if (in->bad || !vq->size || vq->size > dev->queue_size_max || (vq->size & (vq->size - 1)))
		return -EPROTO;
	return pci->queue_vector[q] < pci->num_vectors || pci->queue_vector[q] == VIRTIO_MSI_NO_VECTOR ? 0 : -EPROTO;
}

static uint64_t bar_most(unsigned bar)
{
	return bar == VIRTIO_PCI_BAR_SHM ? UINT64_MAX : UINT32_MAX;
}

static int load_registers(struct virtio_pci *pci, struct cursor *in)
{
	uint16_t control;

	pci->command = cursor_u16(in);
	pci->interrupt_line = cursor_u8(in);
	for (unsigned i = 0; i < VIRTIO_PCI_NUM_BARS; i++)
		pci->bars[i].value = cursor_u64(in) & ~(pci->bars[i].size - 1) & bar_most(i);
	if (cursor_u64(in) != pci->dev->shm.size)
		return in->bad ? -EPROTO : -ENOTSUP; /* the driver has seen a window of another size, or none */
	pci->window_bar = cursor_u8(in);
	pci->window_off = cursor_u32(in);
	pci->window_len = cursor_u32(in);
	control = cursor_u16(in);
	pci->msix_control = (uint16_t)(pci->num_vectors - 1) | (control & (MSIX_ENABLE | MSIX_MASK_ALL));
	if (cursor_u32(in) != pci->num_vectors)
		return -EPROTO;
	for (unsigned v = 0; v < pci->num_vectors; v++) {
		pci->msix[v].addr_lo = cursor_u32(in);
		pci->msix[v].addr_hi = cursor_u32(in);
		pci->msix[v].data = cursor_u32(in);
		pci->msix[v].control = cursor_u32(in);
	}
	pci->pending = cursor_u32(in) & ((1U << pci->num_vectors) - 1);
	pci->device_feature_select = cursor_u32(in);
	pci->driver_feature_select = cursor_u32(in);
	pci->driver_features = cursor_u64(in);
	pci->config_vector = cursor_u16(in);
	pci->queue_select = cursor_u16(in);
	pci->status = cursor_u8(in);
	pci->generation = cursor_u8(in);
	pci->isr = cursor_u8(in);
	if (pci->config_vector >= pci->num_vectors && pci->config_vector != VIRTIO_MSI_NO_VECTOR)
		return -EPROTO;
	return in->bad ? -EPROTO : 0;
}

/* Features and activity as they can have come about through the registers, else refused. */
static int check_activity(const struct virtio_pci *pci, bool active, bool broken)
{
	const struct virtio_device *dev = pci->dev;

	if (dev->features & ~dev->offered)
		return -ENOTSUP; /* taken from a device that offers more than this one */
	if (dev->features && !(pci->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return -EPROTO;
	if ((active || broken) && !(pci->status & VIRTIO_CONFIG_S_DRIVER_OK))
		return -EPROTO;
	return active && !(dev->features & (1ULL << VIRTIO_F_VERSION_1)) ? -EPROTO : 0;
}

/* Translates the rings, then puts back the indices that activation has cleared. */
static int activate(struct virtio_pci *pci)
{
	struct virtio_device *dev = pci->dev;
	struct virtqueue saved[VIRTIO_MAX_QUEUES];
	int r;

	memcpy(saved, dev->queues, sizeof(saved));
	r = virtio_pci_activate_queues(pci);
	if (r < 0)
		return r;
	for (unsigned q = 0; q < dev->num_queues; q++) {
		dev->queues[q].last_avail = saved[q].last_avail;
		dev->queues[q].used_idx = saved[q].used_idx;
		dev->queues[q].signalled_used = saved[q].signalled_used;
		dev->queues[q].signalled_valid = saved[q].signalled_valid;
	}
	dev->active = true;
	return dev->ops->activate ? dev->ops->activate(dev) : 0;
}

static int load_body(struct virtio_pci *pci, struct cursor *in)
{
	struct virtio_device *dev = pci->dev;
	bool active, broken;
	struct cursor own;
	const void *p;
	uint32_t len;
	int r = load_registers(pci, in);

	if (r < 0)
		return r;
	dev->features = cursor_u64(in);
	active = cursor_u8(in);
	broken = cursor_u8(in);
	r = check_activity(pci, active, broken);
	for (unsigned q = 0; r == 0 && q < dev->num_queues; q++)
		r = load_queue(pci, q, in);
	if (r < 0)
		return r;
	len = cursor_u32(in);
	p = cursor_take(in, len);
	if (in->bad || in->left || (len && !dev->ops->load))
		return -EPROTO;
	own = cursor_of(p, len);
	r = dev->ops->load ? dev->ops->load(dev, &own) : 0;
	if (r < 0 || own.bad || own.left)
		return r < 0 ? r : -EPROTO;
	dev->broken = broken;
	return active ? activate(pci) : 0;
}

int virtio_pci_load(struct virtio_pci *pci, struct cursor *in)
{
	uint16_t version = cursor_u16(in), id = cursor_u16(in);
	uint32_t len = cursor_u32(in);
	struct cursor body;
	const void *p = cursor_take(in, len);
	int r;

	if (in->bad)
		return -EPROTO;
	if (version != STATE_VERSION || id != pci->dev->id)
		return -ENOTSUP;
	body = cursor_of(p, len);
	r = load_body(pci, &body);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < VIRTIO_PCI_NUM_BARS; i++)
		pci->host.moved(pci->host.arg, i);
	virtio_pci_route_all(pci);
	return 0;
}

/* Nothing of it can have been under way. Most of a base's queues are such; an interrupt costs each copy time and pages.
 */
static bool never_used(const struct virtqueue *vq)
{
	return !vq->signalled_valid && !vq->used_idx && !vq->last_avail && !virtq_pending(vq);
}

void virtio_pci_restart(struct virtio_pci *pci)
{
	struct virtio_device *dev = pci->dev;

	if (!dev->active)
		return;
	if (dev->config_changed)
		dev->irq.config(dev->irq.arg);
	dev->config_changed = false;
	/* A kick or an interrupt that was in flight at the time of the snapshot is lost: make up for all of them. */
	for (unsigned q = 0; q < dev->num_queues; q++) {
		if (!dev->queues[q].ready || never_used(&dev->queues[q]))
			continue;
		virtio_pci_notify(pci, q);
		dev->irq.queue(dev->irq.arg, q);
	}
}
