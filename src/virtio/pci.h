/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-over-PCI transport (virtio 1.2 section 4.1): one modern PCI function in front of one virtio_device.
 * MSI-X alone (no interrupt line), doorbells in an I/O BAR so that the monitor can bind each to a port ioeventfd.
 *
 * It knows no KVM and no bus. The monitor
 *  - puts the function on its bus and forwards configuration accesses to virtio_pci_config_read/_write;
 *  - asks virtio_pci_bar() where BARs sit (after the `moved` callback too) and forwards accesses inside an enabled BAR;
 *  - keeps one eventfd a queue, bound (while BAR 0 is enabled) to the port bar.addr + virtio_pci_notify_offset(queue),
 *  of any access length, without data match; when it fires, the event loop calls virtio_pci_notify(queue);
 *  - for a queue with a descriptor of the device's own (virtio_pci_doorbell) binds that instead and does not wait for
 *it;
 *  - keeps one irqfd a vector, whose route `route` gives it, and raises it in `signal`.
 *
 * Layout (all structures' offsets are in the vendor capabilities too, as drivers find them):
 *	BAR 0  I/O		notify ports: queue q at q * VIRTIO_PCI_NOTIFY_STRIDE
 *	BAR 1  memory, 32 bit, VIRTIO_PCI_MEM_SIZE
 *		0x000 common configuration   0x100 ISR	0x200 device configuration
 *		0x800 MSI-X table, 16 bytes a vector (drivers choose what each is for)	0xc00 MSI-X PBA
 *	BAR 2  memory, 64 bit, prefetchable, of a device that shares memory (registers 2 and 3): its region 0. It has
 *its place from the start, where the monitor has put the memory; a driver that writes another address there finds
 *nothing at that.
 *
 * Thread rules: everything here runs under the monitor's device lock. virtio_pci_notify() runs in the event loop; the
 * register accesses may come from any vCPU thread; so the host callbacks may be called from both.
 */
#ifndef VIRTIO_PCI_H
#define VIRTIO_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"
#include "virtio/device.h"

#define VIRTIO_PCI_VENDOR 0x1af4
#define VIRTIO_PCI_DEVICE_BASE 0x1040 /* + enum virtio_id */

#define VIRTIO_PCI_BAR_NOTIFY 0
#define VIRTIO_PCI_BAR_MEM 1
#define VIRTIO_PCI_BAR_SHM 2 /* size 0: there is none */
#define VIRTIO_PCI_NUM_BARS 3

#define VIRTIO_PCI_NOTIFY_STRIDE 4 /* notify_off_multiplier */
#define VIRTIO_PCI_MEM_SIZE 0x1000
#define VIRTIO_PCI_CONFIG_SIZE 256
#define VIRTIO_PCI_MAX_VECTORS (VIRTIO_MAX_QUEUES + 1)

/* What the monitor does for a function. All are called under the device lock; none may call back into the function. */
struct virtio_pci_host {
	/*
	 * The MSI-X message of a vector changed: (re)program its irqfd route. When masked (by the vector, by the
	 * function, or because MSI-X is off), addr and data are still what the table holds, but the vector will not be
	 * signalled until the next call says masked = false: the monitor may drop the route or ignore the call.
	 */
	void (*route)(void *arg, unsigned vector, uint64_t addr, uint32_t data, bool masked);
	/* Raise an unmasked vector now (write its irqfd, or KVM_SIGNAL_MSI). */
	void (*signal)(void *arg, unsigned vector);
	/* A BAR's address or its decoding (command register) changed: ask virtio_pci_bar() again, rebind the
	 * ioeventfds. */
	void (*moved)(void *arg, unsigned bar);
	/*
	 * The guest rang a doorbell by a register write that came through virtio_pci_bar_write or the
	 * configuration-access capability instead of an ioeventfd: make virtio_pci_notify(queue) run soon in the event
	 * loop (write its eventfd).
	 */
	void (*kick)(void *arg, unsigned queue);
	/* For devices with threads of their own: takes the device lock if it is free; and lets it go. NULL: never. */
	bool (*try_enter)(void *arg);
	void (*leave)(void *arg);
	void *arg;
};

struct virtio_pci_bar {
	bool io;       /* port space, else memory space */
	bool enabled;  /* decoding is on (command register) and the address is not 0 */
	uint64_t addr; /* 0: not placed yet */
	uint64_t size; /* power of two; BAR 0: >= 4, at most 64; BAR 1: VIRTIO_PCI_MEM_SIZE */
};

struct virtio_pci;

/*
 * Makes the function in front of dev. Takes ownership of dev on success (virtio_pci_free frees it), not on failure:
 * -ENOMEM, or -EINVAL for a device with too many queues or too large a configuration. *host is copied.
 */
int virtio_pci_new(struct virtio_device *dev, const struct virtio_pci_host *host, struct virtio_pci **ret) MUST_CHECK;
struct virtio_pci *virtio_pci_free(struct virtio_pci *pci); /* NULL allowed; returns NULL */
struct virtio_device *virtio_pci_device(struct virtio_pci *pci);

/* Configuration space: off + len <= VIRTIO_PCI_CONFIG_SIZE, len 1, 2 or 4, naturally aligned; anything else reads
 * as all ones and writes nothing (so does an extended configuration offset). */
uint32_t virtio_pci_config_read(struct virtio_pci *pci, uint32_t off, unsigned len);
void virtio_pci_config_write(struct virtio_pci *pci, uint32_t off, unsigned len, uint32_t value);

struct virtio_pci_bar virtio_pci_bar(const struct virtio_pci *pci, unsigned bar);
/* Firmware's part: puts BAR 0 or 1 at an address (a multiple of its size) and turns its decoding on; -EINVAL. Calls
 * `moved`. */
int virtio_pci_bar_place(struct virtio_pci *pci, unsigned bar, uint64_t addr) MUST_CHECK;

/* Accesses inside a BAR; off + len beyond its size, or an odd len (legal: 1, 2, 4, 8), read as all ones, write nothing.
 */
void virtio_pci_bar_read(struct virtio_pci *pci, unsigned bar, uint32_t off, void *p, unsigned len);
void virtio_pci_bar_write(struct virtio_pci *pci, unsigned bar, uint32_t off, const void *p, unsigned len);

unsigned virtio_pci_num_queues(const struct virtio_pci *pci);
int virtio_pci_doorbell(const struct virtio_pci *pci, unsigned queue); /* -1: none; stays the device's */
unsigned virtio_pci_num_vectors(const struct virtio_pci *pci);	       /* num_queues + 1 */
/* Offset of a queue's port inside BAR 0. */
static inline uint32_t virtio_pci_notify_offset(unsigned queue)
{
	return queue * VIRTIO_PCI_NOTIFY_STRIDE;
}

/* The queue's doorbell rang (its eventfd fired): lets the device drain it. Harmless at any time, for any queue. */
void virtio_pci_notify(struct virtio_pci *pci, unsigned queue);

/* State: registers, MSI-X, queues, agreed features, then the device's own. One versioned record each. */
int virtio_pci_save(struct virtio_pci *pci, struct buf *out) MUST_CHECK;
/*
 * Loads into a function newly made, or reset, with the same kind of device and RAM already restored: -EPROTO (bad
 * record), -ENOTSUP (version or other device), -EINVAL (rings outside RAM). Calls `route` and `moved` for everything,
 * then the device's activate if it was active. After an error the function may only be freed.
 */
int virtio_pci_load(struct virtio_pci *pci, struct cursor *in) MUST_CHECK;
/* Back to a function as newly made, but for what its device has of the host: for another load. */
void virtio_pci_reset(struct virtio_pci *pci);
/* After a load, once vCPUs may run: drains every queue and raises every used vector once, so no kick or interrupt is
 * lost. */
void virtio_pci_restart(struct virtio_pci *pci);

#endif
