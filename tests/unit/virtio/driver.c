/* SPDX-License-Identifier: Apache-2.0 */
/* The fake guest. See driver.h. */
#include "driver.h"

#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static void host_route(void *arg, unsigned vector, uint64_t addr, uint32_t data, bool masked)
{
	struct driver *d = arg;

	assert(vector < VIRTIO_PCI_MAX_VECTORS);
	d->route_addr[vector] = addr;
	d->route_data[vector] = data;
	d->route_masked[vector] = masked;
}

static void host_signal(void *arg, unsigned vector)
{
	struct driver *d = arg;

	assert(vector < VIRTIO_PCI_MAX_VECTORS);
	d->signals[vector]++;
}

static void host_moved(void *arg, unsigned bar)
{
	struct driver *d = arg;

	d->moves++;
}

static void host_kick(void *arg, unsigned queue)
{
	struct driver *d = arg;

	assert(queue < VIRTIO_MAX_QUEUES);
	d->kicked[queue] = true;
}

void driver_init(struct driver *d)
{
	struct mem_region region = {.kind = MEM_RAM, .writable = true, .gpa = RAM_BASE, .size = RAM_SIZE};
	int r;

	memset(d, 0, sizeof(*d));
	d->ram = aligned_alloc(4096, RAM_SIZE);
	assert(d->ram);
	memset(d->ram, 0, RAM_SIZE);
	region.host = d->ram;
	r = mem_add(&d->mem, &region);
	assert(r == 0);
	r = loop_new(&d->loop);
	assert(r == 0);
	d->brk = RAM_BASE;
}

void driver_attach(struct driver *d, struct virtio_device *dev)
{
	struct virtio_pci_host host = {
		.route = host_route, .signal = host_signal, .moved = host_moved, .kick = host_kick, .arg = d};
	int r = virtio_pci_new(dev, &host, &d->pci);

	assert(r == 0);
	d->num_queues = virtio_pci_num_queues(d->pci);
}

void driver_done(struct driver *d)
{
	virtio_pci_free(d->pci);
	loop_free(d->loop);
	free(d->ram);
}

uint32_t driver_read_common(struct driver *d, uint32_t off, unsigned len)
{
	uint32_t v = 0;

	virtio_pci_bar_read(d->pci, VIRTIO_PCI_BAR_MEM, off, &v, len);
	return v;
}

void driver_common16(struct driver *d, uint32_t off, uint16_t v)
{
	virtio_pci_bar_write(d->pci, VIRTIO_PCI_BAR_MEM, off, &v, sizeof(v));
}

void driver_common32(struct driver *d, uint32_t off, uint32_t v)
{
	virtio_pci_bar_write(d->pci, VIRTIO_PCI_BAR_MEM, off, &v, sizeof(v));
}

uint8_t driver_status(struct driver *d)
{
	return (uint8_t)driver_read_common(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void driver_set_status(struct driver *d, uint8_t v)
{
	virtio_pci_bar_write(d->pci, VIRTIO_PCI_BAR_MEM, VIRTIO_PCI_COMMON_STATUS, &v, 1);
}

bool driver_broken(struct driver *d)
{
	return driver_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

uint64_t driver_offered(struct driver *d)
{
	uint64_t v;

	driver_common32(d, VIRTIO_PCI_COMMON_DFSELECT, 0);
	v = driver_read_common(d, VIRTIO_PCI_COMMON_DF, 4);
	driver_common32(d, VIRTIO_PCI_COMMON_DFSELECT, 1);
	return v | (uint64_t)driver_read_common(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

void driver_config(struct driver *d, uint32_t off, void *p, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		virtio_pci_bar_read(d->pci, VIRTIO_PCI_BAR_MEM, 0x200 + off + i, (uint8_t *)p + i, 1);
}

uint64_t driver_alloc(struct driver *d, size_t len, size_t align)
{
	uint64_t at = align_up(d->brk, align);

	assert(at + len <= RAM_END);
	d->brk = at + len;
	return at;
}

void *driver_at(struct driver *d, uint64_t gpa)
{
	assert(gpa >= RAM_BASE && gpa < RAM_END);
	return d->ram + (gpa - RAM_BASE);
}

static void setup_queue(struct driver *d, unsigned q)
{
	struct driver_queue *dq = &d->queues[q];
	uint64_t regs[3];

	memset(dq, 0, sizeof(*dq));
	driver_common16(d, VIRTIO_PCI_COMMON_Q_SELECT, (uint16_t)q);
	dq->size = (uint16_t)driver_read_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
	dq->desc = regs[0] = driver_alloc(d, 16 * dq->size, 16);
	dq->avail = regs[1] = driver_alloc(d, 6 + 2 * dq->size, 2);
	dq->used = regs[2] = driver_alloc(d, 6 + 8 * dq->size, 4);
	memset(driver_at(d, dq->desc), 0, 16 * dq->size);
	memset(driver_at(d, dq->avail), 0, 6 + 2 * dq->size);
	memset(driver_at(d, dq->used), 0, 6 + 8 * dq->size);
	for (unsigned i = 0; i < 3; i++) {
		driver_common32(d, VIRTIO_PCI_COMMON_Q_DESCLO + 8 * i, (uint32_t)regs[i]);
		driver_common32(d, VIRTIO_PCI_COMMON_Q_DESCHI + 8 * i, (uint32_t)(regs[i] >> 32));
	}
	driver_common16(d, VIRTIO_PCI_COMMON_Q_MSIX, (uint16_t)(q + 1));
	driver_common16(d, VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

static void setup_msix(struct driver *d)
{
	for (unsigned v = 0; v < virtio_pci_num_vectors(d->pci); v++) {
		driver_common32(d, 0x800 + 16 * v, 0xfee00000U);
		driver_common32(d, 0x808 + 16 * v, 0x40 + v);
		driver_common32(d, 0x80c + 16 * v, 0);
	}
	virtio_pci_config_write(d->pci, 0x42, 2, 0x8000);
	driver_common16(d, VIRTIO_PCI_COMMON_MSIX, 0);
}

bool driver_start(struct driver *d, uint64_t want)
{
	uint64_t features = driver_offered(d) & want;

	driver_set_status(d, 0);
	driver_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		driver_common32(d, VIRTIO_PCI_COMMON_GFSELECT, i);
		driver_common32(d, VIRTIO_PCI_COMMON_GF, (uint32_t)(features >> (32 * i)));
	}
	driver_set_status(d, 0xb);
	if (!(driver_status(d) & VIRTIO_CONFIG_S_FEATURES_OK))
		return false;
	setup_msix(d);
	for (unsigned q = 0; q < d->num_queues; q++)
		setup_queue(d, q);
	d->event_idx = features & (1ULL << 29);
	driver_set_status(d, 0xf);
	return driver_status(d) == 0xf;
}

void driver_desc(struct driver *d, unsigned q, uint16_t index, uint64_t addr, uint32_t len, uint16_t flags,
		 uint16_t next)
{
	uint8_t *p = (uint8_t *)driver_at(d, d->queues[q].desc) + 16 * index;

	memcpy(p, &addr, 8);
	memcpy(p + 8, &len, 4);
	memcpy(p + 12, &flags, 2);
	memcpy(p + 14, &next, 2);
}

/* The device's threads look at the rings while this one goes on. */
static uint16_t load(const void *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static void store(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

void driver_post(struct driver *d, unsigned q, uint16_t head)
{
	struct driver_queue *dq = &d->queues[q];
	uint16_t *avail = driver_at(d, dq->avail);

	store(&avail[2 + dq->avail_idx % dq->size], head);
	store(&avail[1], ++dq->avail_idx);
	/* Always the next interrupt, please. */
	store(&avail[2 + dq->size], load((uint8_t *)driver_at(d, dq->used) + 2));
}

void driver_kick(struct driver *d, unsigned q)
{
	virtio_pci_notify(d->pci, q);
}

uint16_t driver_chain(struct driver *d, unsigned q, const struct driver_buf *bufs, unsigned n)
{
	struct driver_queue *dq = &d->queues[q];
	uint16_t head = dq->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = dq->next_desc, flags = bufs[i].write ? D_WRITE : 0;

		dq->next_desc = (uint16_t)((at + 1) % dq->size);
		if (i + 1 < n)
			flags |= D_NEXT;
		driver_desc(d, q, at, bufs[i].addr, bufs[i].len, flags, dq->next_desc);
	}
	driver_post(d, q, head);
	return head;
}

uint16_t driver_chain_indirect(struct driver *d, unsigned q, const struct driver_buf *bufs, unsigned n)
{
	struct driver_queue *dq = &d->queues[q];
	uint64_t table = driver_alloc(d, 16 * n, 16);
	uint16_t head = dq->next_desc;

	for (unsigned i = 0; i < n; i++) {
		uint8_t *p = (uint8_t *)driver_at(d, table) + 16 * i;
		uint16_t flags = (uint16_t)((bufs[i].write ? D_WRITE : 0) | (i + 1 < n ? D_NEXT : 0));
		uint16_t next = (uint16_t)(i + 1);

		memcpy(p, &bufs[i].addr, 8);
		memcpy(p + 8, &bufs[i].len, 4);
		memcpy(p + 12, &flags, 2);
		memcpy(p + 14, &next, 2);
	}
	dq->next_desc = (uint16_t)((head + 1) % dq->size);
	driver_desc(d, q, head, table, 16 * n, D_INDIRECT, 0);
	driver_post(d, q, head);
	return head;
}

bool driver_used(struct driver *d, unsigned q, uint16_t *head, uint32_t *len)
{
	struct driver_queue *dq = &d->queues[q];
	uint8_t *used = driver_at(d, dq->used);
	uint32_t elem[2];

	if (load(used + 2) == dq->last_used)
		return false;
	memcpy(elem, used + 4 + 8 * (dq->last_used % dq->size), sizeof(elem));
	dq->last_used++;
	assert(elem[0] < dq->size);
	if (head)
		*head = (uint16_t)elem[0];
	if (len)
		*len = elem[1];
	return true;
}

static void run_kicked(struct driver *d)
{
	for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++) {
		if (!d->kicked[q])
			continue;
		d->kicked[q] = false;
		virtio_pci_notify(d->pci, q);
	}
}

bool driver_wait(struct driver *d, unsigned q, uint16_t *head, uint32_t *len)
{
	uint64_t end = time_now_ns() + 10000000000ULL;

	while (!driver_used(d, q, head, len)) {
		if (time_now_ns() > end)
			return false;
		run_kicked(d);
		assert(loop_run_once(d->loop, 10) == 0);
	}
	return true;
}

void driver_spin(struct driver *d, int ms)
{
	uint64_t end = time_now_ns() + (uint64_t)ms * 1000000;

	do {
		run_kicked(d);
		assert(loop_run_once(d->loop, 1) == 0);
	} while (time_now_ns() < end);
}
