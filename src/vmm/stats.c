/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of a machine. See stats.h. The vCPU threads' counters are read without a lock: they are only counters.
 */
#include "vmm/stats.h"

#include "base/util.h"
#include "virtio/fs.h"
#include "vmm/vm.h"

static void put_exits(struct vm *vm, struct buf *out)
{
	static const struct {
		unsigned reason;
		const char *name;
	} names[] = {
		{KVM_EXIT_IO, "io"},
		{KVM_EXIT_MMIO, "mmio"},
		{KVM_EXIT_HLT, "hlt"},
		{KVM_EXIT_INTR, "intr"},
		{KVM_EXIT_IOAPIC_EOI, "eoi"},
		{KVM_EXIT_SHUTDOWN, "shutdown"},
		{KVM_EXIT_SYSTEM_EVENT, "system"},
		{KVM_EXIT_INTERNAL_ERROR, "internal"},
	};

	buf_printf(out, ",\"exits\":{");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		uint64_t sum = 0;

		for (unsigned v = 0; v < vm->cfg->cpus; v++)
			sum += vm->vcpus[v].exits[names[i].reason];
		buf_printf(out, "%s\"%s\":%llu", i ? "," : "", names[i].name, (unsigned long long)sum);
	}
	buf_put_u8(out, '}');
}

static void put_bus(const char *name, const struct bus *bus, struct buf *out)
{
	buf_printf(out, ",\"%s\":{", name);
	for (unsigned i = 0; i < bus->count; i++)
		buf_printf(out, "\"%s\":%llu,", bus->ranges[i].name, (unsigned long long)bus->ranges[i].accesses);
	buf_printf(out, "\"unclaimed\":%llu}", (unsigned long long)bus->unclaimed);
}

static void put_devices(struct vm *vm, struct buf *out)
{
	bool first = true;

	buf_printf(out, ",\"devices\":{");
	for (unsigned i = 0; i < NUM_SLOTS; i++) {
		struct devices_function *f = vm->devices.functions[i];
		struct virtio_device *dev;

		if (!f)
			continue;
		dev = virtio_pci_device(f->pci);
		buf_printf(out,
			   "%s\"%s\":{\"active\":%s,\"broken\":%s,\"errors\":%llu,\"interrupts\":%llu,\"kicks\":%llu}",
			   first ? "" : ",", dev->name, dev->active ? "true" : "false", dev->broken ? "true" : "false",
			   (unsigned long long)dev->errors, (unsigned long long)f->interrupts,
			   (unsigned long long)f->kicks);
		first = false;
	}
	buf_put_u8(out, '}');
}

/* Only the operations that came: most never do, and the packet is small. */
static void put_fs(struct vm *vm, struct buf *out)
{
	struct virtio_fs_stats fs;
	bool first = true;

	if (!vm->share || !virtio_fs_get_stats(virtio_pci_device(vm->devices.functions[SLOT_FS]->pci), &fs))
		return;
	buf_printf(out,
		   ",\"fs\":{\"requests\":%llu,\"wakes\":%llu,\"polled\":%llu,\"interrupts\":%llu,\"deferred\":%llu,"
		   "\"ops\":{",
		   (unsigned long long)fs.requests, (unsigned long long)fs.wakes, (unsigned long long)fs.polled,
		   (unsigned long long)fs.interrupts, (unsigned long long)fs.deferred);
	for (unsigned i = 0; i < ARRAY_SIZE(fs.ops); i++) {
		if (!fs.ops[i])
			continue;
		buf_printf(out, "%s\"%u\":%llu", first ? "" : ",", i, (unsigned long long)fs.ops[i]);
		first = false;
	}
	buf_printf(out, "}}");
}

void stats_format(struct vm *vm, struct buf *out)
{
	buf_printf(out, "{\"event\":\"stats\",\"ns\":%llu", (unsigned long long)(time_now_ns() - vm->start_ns));
	put_exits(vm, out);
	put_bus("ports", &vm->pio, out);
	put_bus("memory", &vm->mmio, out);
	put_devices(vm, out);
	put_fs(vm, out);
	buf_printf(out, ",\"console\":{\"written\":%llu,\"dropped\":%llu}", (unsigned long long)vm->console.written,
		   (unsigned long long)vm->console.dropped);
	buf_printf(out, ",\"window\":{\"faults\":%llu,\"repairs\":%llu},\"dma_faults\":%llu,\"lost_msis\":%llu}",
		   (unsigned long long)vm->window_faults, (unsigned long long)vm->window.repairs,
		   (unsigned long long)__atomic_load_n(&vm->mem.faults, __ATOMIC_RELAXED),
		   (unsigned long long)vm->arch.lost_msis);
}
