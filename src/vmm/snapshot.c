/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and loading a machine. See snapshot.h; snapshot_read.c reads the state file. */
#include "vmm/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/fileio.h"
#include "base/util.h"
#include "vmm/overlay.h"
#include "vmm/vm.h"

/* ------------------------------------------------------------------------------------------ saving */

static void put_section(struct buf *out, enum snapshot_tag tag, const struct buf *body)
{
	buf_put_u32(out, tag);
	buf_put_u32(out, (uint32_t)body->len);
	buf_put(out, body->data, body->len);
	if (body->error)
		out->error = body->error;
}

static void save_vm(const struct vm *vm, struct buf *out)
{
	_cleanup_(buf_done) struct buf b = {0};

	buf_put_u64(&b, vm->ram.boot);
	buf_put_u32(&b, vm->cfg->cpus);
	buf_put_u64(&b, vm->window.size);
	buf_put_u64(&b, vm->window_gpa);
	put_section(out, SNAPSHOT_VM, &b);
}

static int save_devices(struct vm *vm, struct buf *out, struct sm_error *err)
{
	for (unsigned s = 0; s < NUM_SLOTS; s++) {
		struct devices_function *f = vm->devices.functions[s];
		_cleanup_(buf_done) struct buf b = {0};
		int r;

		if (!f)
			continue;
		buf_put_u32(&b, s);
		r = virtio_pci_save(f->pci, &b);
		put_section(out, SNAPSHOT_DEV, &b);
		if (r < 0)
			return error_sys(err, -r, "save %s", virtio_pci_device(f->pci)->name);
	}
	return 0;
}

int snapshot_take_state(struct vm *vm, struct buf *arch, struct buf *devices, struct sm_error *err)
{
	int r = save_devices(vm, devices, err);

	r = r < 0 ? r : arch_state_save(vm, arch, err);
	return r == 0 && (arch->error || devices->error) ? error_sys(err, ENOMEM, "state of the machine") : r;
}

int snapshot_take(struct vm *vm, const struct snapshot_memory *memory, struct snapshot_image *ret, struct sm_error *err)
{
	int r;

	*ret = (struct snapshot_image){.memory = *memory};
	r = snapshot_take_state(vm, &ret->arch, &ret->devices, err);
	if (r < 0)
		return r;
	ret->touched = memory->over ? overlay_changed(&vm->ram, memory->keep) : ram_touched(&vm->ram);
	return ret->touched ? 0 : error_sys(err, ENOMEM, "state of the machine");
}

void snapshot_image_done(struct snapshot_image *img)
{
	buf_done(&img->arch);
	buf_done(&img->devices);
	free(img->touched);
	img->touched = NULL;
}

int snapshot_write(const struct vm *vm, const struct snapshot_image *img, int state, int memory, uint64_t *ret_bytes,
		   struct sm_error *err)
{
	_cleanup_(buf_done) struct buf out = {0}, ram = {0};
	const struct overlay_options o = {.keep = img->memory.keep, .lean = img->memory.lean};
	int r = img->memory.over ? overlay_save(&vm->ram, img->touched, &o, memory, &ram, ret_bytes, err)
				 : ram_save(&vm->ram, img->touched, memory, &ram, ret_bytes, err);

	if (r < 0)
		return r;
	buf_put(&out, snapshot_magic, sizeof(snapshot_magic));
	buf_put_u32(&out, SNAPSHOT_VERSION);
	save_vm(vm, &out);
	put_section(&out, img->memory.over ? SNAPSHOT_CHAIN : SNAPSHOT_RAM, &ram);
	put_section(&out, SNAPSHOT_ARCH, &img->arch);
	buf_put(&out, img->devices.data, img->devices.len);
	buf_put_u32(&out, SNAPSHOT_END);
	buf_put_u32(&out, ~crc32c(UINT32_MAX, out.data, out.len));
	if (out.error)
		return error_sys(err, ENOMEM, "state of the machine");
	if (out.len > SNAPSHOT_STATE_MAX)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "the guest knows too many files of shared directories");
	r = pwrite_full(state, out.data, out.len, 0);
	return r < 0 ? error_sys(err, -r, "state file") : 0;
}

/* ------------------------------------------------------------------------------------------ loading */

/* A device of this machine that the snapshot's had not: the guest would not know it. */
static int check_missing(struct vm *vm, unsigned from, unsigned to, struct sm_error *err)
{
	for (; from < to; from++)
		if (vm->devices.functions[from])
			return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "it lacks this machine's device %s",
					 virtio_pci_device(vm->devices.functions[from]->pci)->name);
	return 0;
}

static int load_device(struct vm *vm, struct cursor *c, unsigned *next, struct sm_error *err)
{
	unsigned slot = cursor_u32(c);
	struct devices_function *f = slot < NUM_SLOTS ? vm->devices.functions[slot] : NULL;
	int r;

	if (c->bad || slot < *next || slot >= NUM_SLOTS)
		return snapshot_corrupt("the order of its devices", err);
	if (!f)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "it has a device in slot %u, this machine none",
				 slot);
	r = check_missing(vm, *next, slot, err);
	if (r < 0)
		return r;
	*next = slot + 1;
	r = virtio_pci_load(f->pci, c);
	if (r < 0)
		return error_set(err, r == -ENOTSUP ? SM_ERROR_UNSUPPORTED : SM_ERROR_CORRUPT, -r, "device %s: %s",
				 virtio_pci_device(f->pci)->name, strerror(-r));
	return c->left ? snapshot_corrupt("a device's record", err) : 0;
}

static int load_devices(struct vm *vm, struct cursor all, struct sm_error *err)
{
	unsigned next = 0;
	int r = 0;

	while (all.left && r == 0) {
		struct cursor c;

		if (!snapshot_section(&all, SNAPSHOT_DEV, &c))
			return snapshot_corrupt("its devices", err);
		r = load_device(vm, &c, &next, err);
	}
	return r < 0 ? r : check_missing(vm, next, NUM_SLOTS, err);
}

int snapshot_load(struct vm *vm, struct snapshot *s, struct sm_error *err)
{
	int r;

	if (s->window_gpa != vm->window_gpa)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "its window is at %#llx",
				 (unsigned long long)s->window_gpa);
	r = arch_state_load(vm, &s->arch, err);
	return r < 0 ? r : load_devices(vm, s->devices, err);
}
