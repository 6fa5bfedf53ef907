/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-over-PCI transport: BARs, MSI-X, common configuration. See pci.h; configuration space is in pci_config.c,
 * saving and loading in pci_state.c.
 *
 * Device status (section 3.1), and what the driver may still write in each state:
 *	0 -> ACKNOWLEDGE -> DRIVER	features, queues
 *	-> FEATURES_OK			queues (a queue that was enabled is frozen)
 *	-> DRIVER_OK			nothing but interrupt vectors and 0
 * Bits are only ever added; writing 0 resets from any state. A step out of order is not taken, so a driver
 * that reads the status back sees that it was refused.
 */
#include "virtio/pci.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "virtio/pci_internal.h"

static bool vector_masked(const struct virtio_pci *pci, unsigned vector)
{
	return !(pci->msix_control & MSIX_ENABLE) || (pci->msix_control & MSIX_MASK_ALL) ||
	       (pci->msix[vector].control & MSIX_VECTOR_MASK);
}

static void fire(struct virtio_pci *pci, uint16_t vector, uint8_t isr)
{
	if (!(pci->msix_control & MSIX_ENABLE)) {
		pci->isr |= isr; /* a driver that polls */
		return;
	}
	if (vector >= pci->num_vectors)
		return;
	if (vector_masked(pci, vector))
		pci->pending |= 1U << vector;
	else
		pci->host.signal(pci->host.arg, vector);
}

static void irq_queue(void *arg, unsigned queue)
{
	struct virtio_pci *pci = arg;

	fire(pci, pci->queue_vector[queue], ISR_QUEUE);
}

static void irq_config(void *arg)
{
	struct virtio_pci *pci = arg;

	pci->generation++;
	if (pci->status & VIRTIO_CONFIG_S_DRIVER_OK)
		fire(pci, pci->config_vector, ISR_CONFIG);
}

/* A masked or polled vector is no different: fire() only notes it, under the lock. */
static bool irq_try_queue(void *arg, unsigned queue)
{
	struct virtio_pci *pci = arg;

	if (!pci->host.try_enter || !pci->host.try_enter(pci->host.arg))
		return false;
	irq_queue(pci, queue);
	pci->host.leave(pci->host.arg);
	return true;
}

static void irq_again(void *arg, unsigned queue)
{
	struct virtio_pci *pci = arg;

	pci->host.kick(pci->host.arg, queue);
}

void virtio_pci_route_vector(struct virtio_pci *pci, unsigned vector)
{
	const struct msix_entry *e = &pci->msix[vector];
	bool masked = vector_masked(pci, vector);

	pci->host.route(pci->host.arg, vector, (uint64_t)e->addr_hi << 32 | e->addr_lo, e->data, masked);
	if (!masked && (pci->pending & (1U << vector))) {
		pci->pending &= ~(1U << vector);
		pci->host.signal(pci->host.arg, vector);
	}
}

void virtio_pci_route_all(struct virtio_pci *pci)
{
	for (unsigned v = 0; v < pci->num_vectors; v++)
		virtio_pci_route_vector(pci, v);
}

static uint32_t *msix_word(struct msix_entry *e, uint32_t off)
{
	uint32_t *words[] = {&e->addr_lo, &e->addr_hi, &e->data, &e->control};

	return words[off / 4 % 4];
}

static void msix_write(struct virtio_pci *pci, uint32_t off, uint32_t value)
{
	uint32_t *word;

	if (off / 16 >= pci->num_vectors)
		return;
	word = msix_word(&pci->msix[off / 16], off);
	if (*word == value)
		return;
	*word = value;
	virtio_pci_route_vector(pci, off / 16);
}

/* ---- common configuration ---- */

void virtio_pci_reset(struct virtio_pci *pci)
{
	struct virtio_device *dev = pci->dev;

	if (dev->active || dev->broken)
		dev->ops->reset(dev);
	dev->active = dev->broken = false;
	dev->features = 0;
	memset(dev->queues, 0, sizeof(dev->queues));
	for (unsigned q = 0; q < dev->num_queues; q++) {
		dev->queues[q].size = dev->queue_size_max;
		pci->queue_vector[q] = VIRTIO_MSI_NO_VECTOR;
	}
	pci->status = 0;
	pci->isr = 0;
	pci->driver_features = 0;
	pci->device_feature_select = pci->driver_feature_select = 0;
	pci->queue_select = 0;
	pci->config_vector = VIRTIO_MSI_NO_VECTOR;
	pci->pending = 0;
}

int virtio_pci_activate_queues(struct virtio_pci *pci)
{
	struct virtio_device *dev = pci->dev;
	bool event_idx = dev->features & (1ULL << VIRTIO_RING_F_EVENT_IDX);
	bool indirect = dev->features & (1ULL << VIRTIO_RING_F_INDIRECT_DESC);

	for (unsigned q = 0; q < dev->num_queues; q++) {
		int r = dev->queues[q].ready ? virtq_activate(&dev->queues[q], dev->mem, event_idx, indirect) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

static void driver_ok(struct virtio_pci *pci)
{
	struct virtio_device *dev = pci->dev;

	pci->status |= VIRTIO_CONFIG_S_DRIVER_OK;
	if (virtio_pci_activate_queues(pci) < 0) {
		virtio_device_broken(dev, "a ring is not in guest memory");
		return;
	}
	dev->active = true;
	if (dev->ops->activate && dev->ops->activate(dev) < 0)
		virtio_device_broken(dev, "the device cannot start");
}

static void write_status(struct virtio_pci *pci, uint8_t value)
{
	struct virtio_device *dev = pci->dev;
	uint8_t added = (uint8_t)(value & ~pci->status);

	if (!value) {
		virtio_pci_reset(pci);
		return;
	}
	pci->status |= added & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED);
	if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
		bool good = !(pci->driver_features & ~dev->offered) &&
			    (pci->driver_features & (1ULL << VIRTIO_F_VERSION_1));

		if (good && (pci->status & VIRTIO_CONFIG_S_DRIVER)) {
			dev->features = pci->driver_features;
			pci->status |= VIRTIO_CONFIG_S_FEATURES_OK;
		}
	}
	if ((added & VIRTIO_CONFIG_S_DRIVER_OK) && (pci->status & VIRTIO_CONFIG_S_FEATURES_OK))
		driver_ok(pci);
}

static struct virtqueue *selected(struct virtio_pci *pci)
{
	return pci->queue_select < pci->dev->num_queues ? &pci->dev->queues[pci->queue_select] : NULL;
}

/* The selected queue while its registers may still change, else NULL. */
static struct virtqueue *selected_open(struct virtio_pci *pci)
{
	struct virtqueue *vq = selected(pci);

	return vq && !vq->ready && !(pci->status & VIRTIO_CONFIG_S_DRIVER_OK) ? vq : NULL;
}

static void set_half(uint64_t *reg, bool high, uint32_t value)
{
	unsigned shift = high ? 32 : 0;

	*reg = (*reg & ~(0xffffffffULL << shift)) | (uint64_t)value << shift;
}

static void write_driver_features(struct virtio_pci *pci, uint32_t value)
{
	if ((pci->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	if (pci->driver_feature_select < 2)
		set_half(&pci->driver_features, pci->driver_feature_select == 1, value);
	else if (value)
		pci->driver_features |= 1ULL << 63; /* never offered: FEATURES_OK will be refused */
}

static void write_common32(struct virtio_pci *pci, uint32_t off, uint32_t value)
{
	struct virtqueue *vq = selected_open(pci);

	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		pci->device_feature_select = value;
		return;
	case VIRTIO_PCI_COMMON_GFSELECT:
		pci->driver_feature_select = value;
		return;
	case VIRTIO_PCI_COMMON_GF:
		write_driver_features(pci, value);
		return;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		if (vq)
			set_half(&vq->desc, off == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		return;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		if (vq)
			set_half(&vq->avail, off == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		return;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		if (vq)
			set_half(&vq->used, off == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		return;
	default:
		return;
	}
}

static uint16_t vector_or_none(const struct virtio_pci *pci, uint16_t value)
{
	return value < pci->num_vectors ? value : VIRTIO_MSI_NO_VECTOR;
}

static void write_common16(struct virtio_pci *pci, uint32_t off, uint16_t value)
{
	struct virtqueue *vq = selected_open(pci);

	switch (off) {
	case VIRTIO_PCI_COMMON_MSIX:
		pci->config_vector = vector_or_none(pci, value);
		return;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		pci->queue_select = value;
		return;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (vq && value && value <= pci->dev->queue_size_max && !(value & (value - 1)))
			vq->size = value;
		return;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		if (selected(pci))
			pci->queue_vector[pci->queue_select] = vector_or_none(pci, value);
		return;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (vq && value == 1)
			vq->ready = true;
		return;
	default:
		return;
	}
}

static void common_write(struct virtio_pci *pci, uint32_t off, const uint8_t *p, unsigned len)
{
	uint32_t v32;
	uint16_t v16;

	if (len == 1 && off == VIRTIO_PCI_COMMON_STATUS) {
		write_status(pci, *p);
	} else if (len == 2) {
		memcpy(&v16, p, sizeof(v16));
		write_common16(pci, off, le16toh(v16));
	} else if (len == 4) {
		memcpy(&v32, p, sizeof(v32));
		write_common32(pci, off, le32toh(v32));
	}
}

/* The structure as the driver sees it now; any bytes of it may be read. */
static void common_read(struct virtio_pci *pci, uint32_t off, void *p, unsigned len)
{
	const struct virtio_device *dev = pci->dev;
	const struct virtqueue *vq = selected(pci);
	struct virtio_pci_common_cfg c = {
		.device_feature_select = htole32(pci->device_feature_select),
		.guest_feature_select = htole32(pci->driver_feature_select),
		.msix_config = htole16(pci->config_vector),
		.num_queues = htole16((uint16_t)dev->num_queues),
		.device_status = (uint8_t)(pci->status | (dev->broken ? VIRTIO_CONFIG_S_NEEDS_RESET : 0)),
		.config_generation = pci->generation,
		.queue_select = htole16(pci->queue_select),
		.queue_msix_vector = htole16(VIRTIO_MSI_NO_VECTOR),
	};

	if (pci->device_feature_select < 2)
		c.device_feature = htole32((uint32_t)(dev->offered >> (32 * pci->device_feature_select)));
	if (pci->driver_feature_select < 2)
		c.guest_feature = htole32((uint32_t)(pci->driver_features >> (32 * pci->driver_feature_select)));
	if (vq) {
		c.queue_size = htole16(vq->size);
		c.queue_msix_vector = htole16(pci->queue_vector[pci->queue_select]);
		c.queue_enable = htole16(vq->ready);
		c.queue_notify_off = htole16(pci->queue_select);
		c.queue_desc_lo = htole32((uint32_t)vq->desc);
		c.queue_desc_hi = htole32((uint32_t)(vq->desc >> 32));
		c.queue_avail_lo = htole32((uint32_t)vq->avail);
		c.queue_avail_hi = htole32((uint32_t)(vq->avail >> 32));
		c.queue_used_lo = htole32((uint32_t)vq->used);
		c.queue_used_hi = htole32((uint32_t)(vq->used >> 32));
	}
	virtio_config_copy(p, off, len, &c, sizeof(c));
}

/* ---- BARs ---- */

static void msix_read(struct virtio_pci *pci, uint32_t off, void *p, unsigned len)
{
	uint32_t word = 0;

	if (off / 16 < pci->num_vectors)
		word = htole32(*msix_word(&pci->msix[off / 16], off));
	virtio_config_copy(p, off % 4, len, &word, sizeof(word));
}

/* A naturally aligned access of 1, 2 or 4 bytes, so it lies inside one structure. */
static void mem_bar_read(struct virtio_pci *pci, uint32_t off, void *p, unsigned len)
{
	struct virtio_device *dev = pci->dev;
	uint64_t pending = htole64(pci->pending);

	memset(p, 0, len);
	if (off < MEM_ISR) {
		common_read(pci, off, p, len);
	} else if (off == MEM_ISR) {
		*(uint8_t *)p = pci->isr;
		pci->isr = 0;
	} else if (off >= MEM_DEVICE && off < MEM_MSIX) {
		if (range_inside(off - MEM_DEVICE, len, dev->config_size))
			dev->ops->config_read(dev, off - MEM_DEVICE, p, len);
	} else if (off >= MEM_MSIX && off < MEM_PBA) {
		msix_read(pci, off - MEM_MSIX, p, len);
	} else if (off >= MEM_PBA) {
		virtio_config_copy(p, off - MEM_PBA, len, &pending, sizeof(pending));
	}
}

static void mem_bar_write(struct virtio_pci *pci, uint32_t off, const uint8_t *p, unsigned len)
{
	struct virtio_device *dev = pci->dev;
	uint32_t word;

	if (off < MEM_ISR) {
		common_write(pci, off, p, len);
	} else if (off >= MEM_DEVICE && off < MEM_MSIX) {
		if (dev->ops->config_write && range_inside(off - MEM_DEVICE, len, dev->config_size))
			dev->ops->config_write(dev, off - MEM_DEVICE, p, len);
	} else if (off >= MEM_MSIX && off < MEM_PBA && len == 4) {
		memcpy(&word, p, sizeof(word));
		msix_write(pci, off - MEM_MSIX, le32toh(word));
	}
}

static bool access_good(const struct virtio_pci *pci, unsigned bar, uint32_t off, unsigned len)
{
	return bar < VIRTIO_PCI_NUM_BARS && (len == 1 || len == 2 || len == 4 || len == 8) && off % len == 0 &&
	       range_inside(off, len, pci->bars[bar].size);
}

void virtio_pci_bar_read(struct virtio_pci *pci, unsigned bar, uint32_t off, void *p, unsigned len)
{
	if (!access_good(pci, bar, off, len) || bar != VIRTIO_PCI_BAR_MEM) {
		memset(p, 0xff, len); /* doorbells say nothing, shared memory is no register */
		return;
	}
	if (len == 8) {
		mem_bar_read(pci, off, p, 4);
		mem_bar_read(pci, off + 4, (uint8_t *)p + 4, 4);
	} else {
		mem_bar_read(pci, off, p, len);
	}
}

void virtio_pci_bar_write(struct virtio_pci *pci, unsigned bar, uint32_t off, const void *p, unsigned len)
{
	if (!access_good(pci, bar, off, len) || bar == VIRTIO_PCI_BAR_SHM)
		return;
	if (bar == VIRTIO_PCI_BAR_NOTIFY) {
		if (off / VIRTIO_PCI_NOTIFY_STRIDE < pci->dev->num_queues)
			pci->host.kick(pci->host.arg, off / VIRTIO_PCI_NOTIFY_STRIDE);
	} else if (len == 8) {
		mem_bar_write(pci, off, p, 4);
		mem_bar_write(pci, off + 4, (const uint8_t *)p + 4, 4);
	} else {
		mem_bar_write(pci, off, p, len);
	}
}

void virtio_pci_notify(struct virtio_pci *pci, unsigned queue)
{
	struct virtio_device *dev = pci->dev;

	if (dev->active && !dev->broken && queue < dev->num_queues && dev->queues[queue].desc_host)
		dev->ops->notify(dev, queue);
}

unsigned virtio_pci_num_queues(const struct virtio_pci *pci)
{
	return pci->dev->num_queues;
}

int virtio_pci_doorbell(const struct virtio_pci *pci, unsigned queue)
{
	return pci->dev->ops->doorbell ? pci->dev->ops->doorbell(pci->dev, queue) : -1;
}

unsigned virtio_pci_num_vectors(const struct virtio_pci *pci)
{
	return pci->num_vectors;
}

struct virtio_device *virtio_pci_device(struct virtio_pci *pci)
{
	return pci->dev;
}

int virtio_pci_new(struct virtio_device *dev, const struct virtio_pci_host *host, struct virtio_pci **ret)
{
	struct virtio_pci *pci;

	if (!dev->num_queues || dev->num_queues > VIRTIO_MAX_QUEUES || dev->config_size > MEM_MSIX - MEM_DEVICE ||
	    dev->queue_size_max > VIRTQ_MAX_SIZE || (dev->shm.size && dev->shm.gpa % round_up_pow2(dev->shm.size)))
		return -EINVAL;
	pci = calloc(1, sizeof(*pci));
	if (!pci)
		return -ENOMEM;
	pci->dev = dev;
	pci->host = *host;
	pci->num_vectors = dev->num_queues + 1;
	for (unsigned v = 0; v < pci->num_vectors; v++)
		pci->msix[v].control = MSIX_VECTOR_MASK;
	dev->irq = (struct virtio_irq_port){
		.queue = irq_queue, .config = irq_config, .again = irq_again, .try_queue = irq_try_queue, .arg = pci};
	virtio_pci_config_init(pci);
	virtio_pci_reset(pci);
	*ret = pci;
	return 0;
}

struct virtio_pci *virtio_pci_free(struct virtio_pci *pci)
{
	if (!pci)
		return NULL;
	pci->dev->irq = (struct virtio_irq_port){0};
	pci->dev->ops->free(pci->dev);
	free(pci);
	return NULL;
}
