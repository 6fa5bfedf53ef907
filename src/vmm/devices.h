/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio functions of a VM, and the monitor's side of their transport: port ioeventfds for the doorbells,
 * interrupts by KVM_SIGNAL_MSI. An ioeventfd costs a grace period in the kernel, so it is bound when a doorbell has
 * been rung a few times: most of a machine's never are. An irqfd would cost a routing table update (a grace period in
 * the kernel) each time the guest touches a vector, and saves nothing where the sender is in this process.
 */
#ifndef VMM_DEVICES_H
#define VMM_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "virtio/pci.h"
#include "virtio/vsock.h"
#include "vmm/config.h"

struct vm;

/* Device numbers on the bus: fixed, so that a guest finds each device in the same place whatever else there is. */
enum devices_slot {
	SLOT_PMEM = 1,
	SLOT_BLK = 2, /* to 9 */
	SLOT_FS = 10,
	SLOT_VSOCK = 11,
	SLOT_CONSOLE = 12,
	SLOT_RNG = 13,
	SLOT_BALLOON = 14,
	SLOT_NET = 15,
	SLOT_MEM = 16,
	NUM_SLOTS = 17,
};

struct devices_vector {
	uint64_t addr;
	uint32_t data;
	bool masked;
};

struct devices_queue {
	struct devices_function *function;
	int eventfd;
	bool borrowed; /* the device's own, which waits for it */
	struct loop_source *source;
	uint64_t bound; /* port of the ioeventfd; 0: none */
	unsigned exits; /* kicks that came without one */
};

struct devices_function {
	struct vm *vm;
	struct virtio_pci *pci; /* owned */
	unsigned num_queues;
	struct devices_vector vectors[VIRTIO_PCI_MAX_VECTORS];
	struct devices_queue queues[VIRTIO_MAX_QUEUES];
	uint64_t interrupts, kicks; /* metrics */
};

struct devices_disk {
	struct vm *vm;
	unsigned number;
	bool told_full, told_failed;
};

struct devices {
	struct devices_function *functions[NUM_SLOTS]; /* NULL: empty slot */
	struct devices_disk disks[VMM_MAX_BLK];
};

/* device_list.c: makes what the configuration asks for and puts it on the bus. */
int devices_create(struct vm *vm, struct sm_error *err) MUST_CHECK;
/* Maps the configuration spaces, for a guest that is going to look through them; after the memory slots, before the
 * vCPUs. */
int devices_map_config(struct vm *vm, struct sm_error *err) MUST_CHECK;
void devices_done(struct vm *vm);

/* After a snapshot was loaded, before the vCPUs run: makes up for kicks and interrupts that were under way. */
void devices_restart(struct vm *vm);

/* Puts a new device on the bus; takes it over in any case. */
int devices_add(struct vm *vm, unsigned slot, struct virtio_device *dev, struct sm_error *err) MUST_CHECK;

/* Joins fd (taken over) to a port of the guest: 0, -ENODEV without vsock, or the device's refusal. */
int devices_connect(struct vm *vm, uint32_t port, int fd);
/* Has the writable disk go on in a new top, an empty file (taken over on success); in a paused machine. */
int devices_push_top(struct vm *vm, int fd, struct sm_error *err) MUST_CHECK;
/* Has the writable disk, if there is one, forget what was written since then; after devices_reset. 0 or -errno. */
int devices_renew_top(struct vm *vm) MUST_CHECK;
/* As if nothing had driven them yet, for another snapshot_load; in a paused machine. */
void devices_reset(struct vm *vm);
/* The agent's connection (virtio/vsock.h): as it is; with another socket; after a load of the state that was taken with
 * it. Where it cannot go on the agent connects anew, to that socket. Taken over in any case. */
void devices_keep_agent(struct vm *vm, struct virtio_vsock_kept *ret);
int devices_rejoin_agent(struct vm *vm, int fd) MUST_CHECK;
int devices_revive_agent(struct vm *vm, const struct virtio_vsock_kept *kept, int fd) MUST_CHECK;
void devices_balloon(struct vm *vm, uint64_t bytes);

/* The system calls that the devices make at run time: lists that end with -1, up to a NULL. */
const int *const *devices_syscalls(void);

#endif
