/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fake guest for the virtio devices: RAM on the heap (so that a sanitizer sees every byte too far), a driver that
 * goes through the PCI registers as Linux does, and helpers that build good and bad descriptor chains.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "mem/mem.h"
#include "virtio/pci.h"

#define RAM_BASE 0x100000ULL
#ifndef RAM_SIZE
#define RAM_SIZE (4ULL << 20)
#endif
#define RAM_END (RAM_BASE + RAM_SIZE)

enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

/* One ring, as the driver keeps it. */
struct driver_queue {
	uint16_t size, next_desc, avail_idx, last_used;
	uint64_t desc, avail, used; /* guest-physical */
};

struct driver {
	struct mem mem;
	uint8_t *ram;
	uint64_t brk; /* guest memory handed out so far */
	struct loop *loop;
	struct virtio_pci *pci;
	struct driver_queue queues[VIRTIO_MAX_QUEUES];
	unsigned num_queues;
	bool event_idx;
	/* What the transport told its host: */
	unsigned signals[VIRTIO_PCI_MAX_VECTORS], moves;
	uint64_t route_addr[VIRTIO_PCI_MAX_VECTORS];
	uint32_t route_data[VIRTIO_PCI_MAX_VECTORS];
	bool route_masked[VIRTIO_PCI_MAX_VECTORS];
	bool kicked[VIRTIO_MAX_QUEUES];
};

/* One buffer of a chain. */
struct driver_buf {
	uint64_t addr;
	uint32_t len;
	bool write;
};

void driver_init(struct driver *d); /* RAM and loop */
void driver_attach(struct driver *d, struct virtio_device *dev);
/* Reset, features, queues, DRIVER_OK. `want`: the features to accept of those offered. True if the device agreed. */
bool driver_start(struct driver *d, uint64_t want);
void driver_done(struct driver *d);

/* The registers. */
uint8_t driver_status(struct driver *d);
void driver_set_status(struct driver *d, uint8_t v);
uint64_t driver_offered(struct driver *d);
void driver_common16(struct driver *d, uint32_t off, uint16_t v);
void driver_common32(struct driver *d, uint32_t off, uint32_t v);
uint32_t driver_read_common(struct driver *d, uint32_t off, unsigned len);
void driver_config(struct driver *d, uint32_t off, void *p, unsigned len);
bool driver_broken(struct driver *d); /* DEVICE_NEEDS_RESET */

/* Memory. */
uint64_t driver_alloc(struct driver *d, size_t len, size_t align);
void *driver_at(struct driver *d, uint64_t gpa);

/* Rings. */
void driver_desc(struct driver *d, unsigned q, uint16_t index, uint64_t addr, uint32_t len, uint16_t flags,
		 uint16_t next);
void driver_post(struct driver *d, unsigned q, uint16_t head); /* into the avail ring */
void driver_kick(struct driver *d, unsigned q);
/* Builds a chain out of the next free descriptors and posts it: its head. */
uint16_t driver_chain(struct driver *d, unsigned q, const struct driver_buf *bufs, unsigned n);
uint16_t driver_chain_indirect(struct driver *d, unsigned q, const struct driver_buf *bufs, unsigned n);
/* The next used element; false if there is none. */
bool driver_used(struct driver *d, unsigned q, uint16_t *head, uint32_t *len);
/* The same, running the loop until there is one; false after 10 s. */
bool driver_wait(struct driver *d, unsigned q, uint16_t *head, uint32_t *len);
/* Runs the loop, and what the device asked to have run again, for a while or until nothing happens. */
void driver_spin(struct driver *d, int ms);

#endif
