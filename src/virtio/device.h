/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a virtio device is to the transport (pci.h), and what the transport is to the device. No device knows
 * about PCI, KVM or the bus; no transport knows what a device does. (virtio 1.2, sections 2 and 3.)
 *
 * Thread rules: a device and its transport registers run under the monitor's big device lock (vCPU threads take it
 * around register accesses, the event loop around everything). Queue notifications arrive in the event loop
 * through eventfds, never in a vCPU thread. activate, reset and config_* may run in a vCPU thread that holds the lock,
 * and they may add and remove loop sources: the monitor gives the loop the same lock by loop_set_guard().
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"
#include "base/loop.h"
#include "mem/mem.h"
#include "virtio/queue.h"

/* virtio 1.2 section 5: device IDs. */
enum virtio_id {
	VIRTIO_ID_NET_ = 1,
	VIRTIO_ID_BLK_ = 2,
	VIRTIO_ID_CONSOLE_ = 3,
	VIRTIO_ID_RNG_ = 4,
	VIRTIO_ID_BALLOON_ = 5,
	VIRTIO_ID_VSOCK_ = 19,
	VIRTIO_ID_MEM_ = 24,
	VIRTIO_ID_FS_ = 26,
	VIRTIO_ID_PMEM_ = 27,
};

#define VIRTIO_MAX_QUEUES 8

/* Offered by every device: VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX (section 6). */
#define VIRTIO_DEVICE_FEATURES (1ULL << 32 | 1ULL << 28 | 1ULL << 29)

struct virtio_device;

/* Raises interrupts for a device: filled in by the transport. */
struct virtio_irq_port {
	void (*queue)(void *arg, unsigned queue); /* used buffers in this queue */
	void (*config)(void *arg);		  /* the device configuration changed */
	void (*again)(void *arg, unsigned queue); /* have notify(queue) called once more, soon, from the event loop */
	/* From any thread, without the device lock: the same as `queue` if that can be done without waiting for the
	 * lock, else false. */
	bool (*try_queue)(void *arg, unsigned queue);
	void *arg;
};

struct virtio_device_ops {
	/* The driver wrote DRIVER_OK: queues are frozen and valid, dev->features holds what was agreed. */
	int (*activate)(struct virtio_device *dev);
	/* The driver kicked a queue. In the event loop. */
	void (*notify)(struct virtio_device *dev, unsigned queue);
	/* A descriptor (eventfd) of a device that waits for this queue's kicks itself, in a thread of its own: the
	 * doorbell is bound to it, and notify only passes on. -1, or NULL: none. */
	int (*doorbell)(struct virtio_device *dev, unsigned queue);
	/* Back to the state after creation; forget every chain in flight. */
	void (*reset)(struct virtio_device *dev);
	/* Device configuration space (section 2.5), little-endian bytes; off + len lies inside config_size. */
	void (*config_read)(struct virtio_device *dev, uint32_t off, void *p, uint32_t len);
	void (*config_write)(struct virtio_device *dev, uint32_t off, const void *p,
			     uint32_t len); /* NULL: read-only */
	/* The device's own state beyond queues and features, for snapshots. NULL: none. */
	int (*save)(struct virtio_device *dev, struct buf *out);
	int (*load)(struct virtio_device *dev, struct cursor *in);
	void (*free)(struct virtio_device *dev);
};

/* Memory that a device shares with the driver (section 2.10): a window which the monitor has put into guest-physical
 * space. size 0: none. Region 0 of the device. */
struct virtio_shm {
	uint64_t gpa, size; /* gpa: a multiple of the power of two that holds size */
};

/* Embedded first in each device's own struct. */
struct virtio_device {
	const struct virtio_device_ops *ops;
	const char *name; /* "blk0": for logs and metrics */
	enum virtio_id id;
	uint64_t offered;  /* feature bits offered, VIRTIO_F_VERSION_1 among them */
	uint64_t features; /* feature bits agreed at FEATURES_OK */
	uint32_t config_size;
	unsigned num_queues;
	uint16_t queue_size_max; /* power of two */
	struct virtqueue queues[VIRTIO_MAX_QUEUES];
	struct virtio_shm shm;
	struct mem *mem;
	struct loop *loop;
	struct virtio_irq_port irq;
	bool active;
	bool config_changed; /* by a load: the driver hears of it once the guest runs */
	bool broken; /* the guest broke the rules: DEVICE_NEEDS_RESET is shown, the device does nothing until reset */
	uint64_t errors; /* metric: protocol errors by the guest */
};

/* Marks a device broken, counts it, and raises the configuration interrupt (section 2.1.1 DEVICE_NEEDS_RESET). */
void virtio_device_broken(struct virtio_device *dev, const char *why);

/* Raises the queue's interrupt if the driver wants one (event index, flags). Call once per drained batch. */
void virtio_device_signal(struct virtio_device *dev, unsigned queue);

/*
 * Drains a queue: pops chains into *chain (the device's scratch), hands each to fn, gives it back, and signals once at
 * the end. fn returns the number of bytes it wrote, or -EINPROGRESS (the device keeps the head and pushes it later),
 * -EAGAIN (not now: the chain goes back and draining stops with kicks on), or another error (the guest broke the rules:
 * the device is broken). Bounded: after one and a half rounds of the queue the rest is left to a later turn of the
 * event loop, so that a guest that never stops asking does not starve its other devices.
 */
typedef int (*virtio_chain_fn)(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain);
void virtio_device_drain(struct virtio_device *dev, unsigned queue, struct virtq_chain *chain, virtio_chain_fn fn);

/* For config_read: copies [off, off + len) of a structure of `size` bytes; zeros beyond it. */
void virtio_config_copy(void *p, uint32_t off, uint32_t len, const void *config, uint32_t size);

/* True if the driver agreed to a feature bit (its number). */
static inline bool virtio_has(const struct virtio_device *dev, unsigned bit)
{
	return dev->features & (1ULL << bit);
}

/*
 * Shared memory or memory-window resources that a device brings into guest-physical space are chosen by the monitor
 * and handed to the device's constructor as (gpa, size): pmem's window, fs's DAX window.
 */

/* Constructors: each device's own header declares its options (virtio/blk.h, virtio/pmem.h, ...). */

#endif
