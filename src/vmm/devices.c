/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio functions of a VM. See devices.h. */
#include "vmm/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "vmm/vm.h"

#define EXITS_BEFORE_BIND 4

static void on_route(void *arg, unsigned vector, uint64_t addr, uint32_t data, bool masked)
{
	struct devices_function *f = arg;

	if (vector < VIRTIO_PCI_MAX_VECTORS)
		f->vectors[vector] = (struct devices_vector){.addr = addr, .data = data, .masked = masked};
}

static void on_signal(void *arg, unsigned vector)
{
	struct devices_function *f = arg;

	if (vector >= VIRTIO_PCI_MAX_VECTORS || f->vectors[vector].masked)
		return;
	f->interrupts++;
	arch_signal_msi(f->vm, f->vectors[vector].addr, f->vectors[vector].data);
}

static int bind_port(struct devices_queue *q, uint64_t port, bool on)
{
	struct kvm_ioeventfd io = {
		.addr = port,
		.fd = q->eventfd,
		.flags = KVM_IOEVENTFD_FLAG_PIO | (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	return ioctl(q->function->vm->fd, KVM_IOEVENTFD, &io) < 0 ? -errno : 0;
}

static int bind_queue(struct devices_function *f, unsigned queue, uint64_t bar)
{
	struct devices_queue *q = &f->queues[queue];
	uint64_t port = bar + virtio_pci_notify_offset(queue);
	int r;

	if (q->bound == port)
		return 0;
	if (q->bound)
		bind_port(q, q->bound, false);
	q->bound = 0;
	r = bind_port(q, port, true);
	if (!r)
		q->bound = port;
	return r;
}

/*
 * A BAR that is only switched off keeps its doorbells: the kernel does so around every look at a BAR, a rebinding costs
 * a grace period each time, and a ring at a port that should be silent is harmless. A doorbell that cannot be bound
 * still works: its port then exits to the transport's own register.
 */
static void on_moved(void *arg, unsigned bar)
{
	struct devices_function *f = arg;
	struct virtio_pci_bar b;

	if (!f->pci || bar != VIRTIO_PCI_BAR_NOTIFY)
		return;
	b = virtio_pci_bar(f->pci, bar);
	if (!b.enabled || b.addr > UINT16_MAX)
		return;
	for (unsigned i = 0; i < f->num_queues; i++)
		if (f->queues[i].bound && bind_queue(f, i, b.addr) < 0)
			f->queues[i].bound = 0;
}

/* A doorbell that cannot be bound goes on to come here. */
static void on_kick(void *arg, unsigned queue)
{
	struct devices_function *f = arg;
	uint64_t one = 1;

	if (queue >= f->num_queues)
		return;
	if (++f->queues[queue].exits == EXITS_BEFORE_BIND && !f->queues[queue].bound)
		(void)bind_queue(f, queue, virtio_pci_bar(f->pci, VIRTIO_PCI_BAR_NOTIFY).addr);
	if (write(f->queues[queue].eventfd, &one, sizeof(one)) < 0)
		return; /* full: it is readable already */
}

static bool on_try_enter(void *arg)
{
	return pthread_mutex_trylock(&((struct devices_function *)arg)->vm->lock) == 0;
}

static void on_leave(void *arg)
{
	pthread_mutex_unlock(&((struct devices_function *)arg)->vm->lock);
}

static void on_doorbell(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct devices_queue *q = arg;
	struct devices_function *f = q->function;
	uint64_t count;

	if (read(q->eventfd, &count, sizeof(count)) < 0)
		return;
	f->kicks++;
	virtio_pci_notify(f->pci, (unsigned)(q - f->queues));
}

static int add_queue(struct devices_function *f, unsigned i)
{
	struct devices_queue *q = &f->queues[i];

	q->function = f;
	q->eventfd = virtio_pci_doorbell(f->pci, i);
	if (q->eventfd >= 0) { /* the device waits for it itself */
		q->borrowed = true;
		return 0;
	}
	q->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->eventfd < 0)
		return -errno;
	return loop_add(f->vm->loop, q->eventfd, EPOLLIN, on_doorbell, q, &q->source);
}

int devices_add(struct vm *vm, unsigned slot, struct virtio_device *dev, struct sm_error *err)
{
	struct devices_function *f = calloc(1, sizeof(*f));
	struct virtio_pci_host host = {.route = on_route,
				       .signal = on_signal,
				       .moved = on_moved,
				       .kick = on_kick,
				       .try_enter = on_try_enter,
				       .leave = on_leave,
				       .arg = f};
	int r = f ? 0 : -ENOMEM;

	if (!r) {
		f->vm = vm;
		for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
			f->queues[i].eventfd = -1;
		r = virtio_pci_new(dev, &host, &f->pci);
	}
	if (r < 0) {
		dev->ops->free(dev);
		free(f);
		return error_sys(err, -r, "device %u", slot);
	}
	vm->devices.functions[slot] = f;
	f->num_queues = virtio_pci_num_queues(f->pci);
	for (unsigned i = 0; i < f->num_queues && !r; i++)
		r = add_queue(f, i);
	if (!r)
		r = pci_host_add(&vm->pci, slot, f->pci);
	return r < 0 ? error_sys(err, -r, "device %s", dev->name) : 0;
}

/* The page that answers the guest's reads of a function's configuration space. */
static int map_config(struct vm *vm, unsigned slot, struct sm_error *err)
{
	struct kvm_userspace_memory_region region = {
		.slot = (uint32_t)vm->mem.count + slot, /* RAM and windows come first */
		.flags = KVM_MEM_READONLY,
		.guest_phys_addr = arch_ecam_base() + pci_host_ecam_offset(slot),
		.memory_size = PCI_HOST_PAGE,
		.userspace_addr = (uintptr_t)vm->pci.pages[slot],
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return error_sys(err, errno, "device %u: configuration space", slot);
	return 0;
}

int devices_map_config(struct vm *vm, struct sm_error *err)
{
	int r = 0;

	for (unsigned s = 0; s < NUM_SLOTS && r == 0; s++)
		if (vm->devices.functions[s])
			r = map_config(vm, s, err);
	return r;
}

void devices_reset(struct vm *vm)
{
	for (unsigned s = 0; s < NUM_SLOTS; s++)
		if (vm->devices.functions[s])
			virtio_pci_reset(vm->devices.functions[s]->pci);
	for (unsigned i = 0; i < VMM_MAX_BLK; i++)
		vm->devices.disks[i].told_full = vm->devices.disks[i].told_failed = false;
}

void devices_restart(struct vm *vm)
{
	pci_host_refresh(&vm->pci);
	for (unsigned s = 0; s < NUM_SLOTS; s++)
		if (vm->devices.functions[s])
			virtio_pci_restart(vm->devices.functions[s]->pci);
}

void devices_done(struct vm *vm)
{
	for (unsigned s = 0; s < NUM_SLOTS; s++) {
		struct devices_function *f = vm->devices.functions[s];

		if (!f)
			continue;
		for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++) {
			loop_remove(f->queues[i].source);
			if (!f->queues[i].borrowed)
				fd_close(f->queues[i].eventfd);
		}
		virtio_pci_free(f->pci);
		free(f);
		vm->devices.functions[s] = NULL;
	}
}
