/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and loading a machine. See snapshot.h. */
#include "vmm/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/fileio.h"
#include "base/util.h"
#include "vmm/vm.h"

#define VERSION 1
#define CRC_SIZE 8 /* the closing tag and the sum */

static const char magic[8] = "SMSTATE";

enum tag { TAG_END = 0, TAG_VM = 1, TAG_RAM = 2, TAG_ARCH = 3, TAG_DEV = 4 };

/* ------------------------------------------------------------------------------------------ saving */

static void put_section(struct buf *out, enum tag tag, struct buf *body)
{
	buf_put_u32(out, tag);
	buf_put_u32(out, (uint32_t)body->len);
	buf_put(out, body->data, body->len);
	if (body->error)
		out->error = body->error;
	buf_done(body);
}

static void save_vm(const struct vm *vm, struct buf *out)
{
	struct buf b = {0};

	buf_put_u64(&b, vm->cfg->memory);
	buf_put_u32(&b, vm->cfg->cpus);
	buf_put_u64(&b, vm->window.size);
	buf_put_u64(&b, vm->window_gpa);
	put_section(out, TAG_VM, &b);
}

static int save_devices(struct vm *vm, struct buf *out, struct sm_error *err)
{
	for (unsigned s = 0; s < NUM_SLOTS; s++) {
		struct devices_function *f = vm->devices.functions[s];
		struct buf b = {0};
		int r;

		if (!f)
			continue;
		buf_put_u32(&b, s);
		r = virtio_pci_save(f->pci, &b);
		put_section(out, TAG_DEV, &b);
		if (r < 0)
			return error_sys(err, -r, "save %s", virtio_pci_device(f->pci)->name);
	}
	return 0;
}

/* The devices first: they may finish what they are at, which changes RAM. */
static int save_state(struct vm *vm, int memory, struct buf *out, uint64_t *ret_bytes, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf devices = {0};
	struct buf ram = {0}, arch = {0};
	int r = save_devices(vm, &devices, err);

	r = r < 0 ? r : arch_state_save(vm, &arch, err);
	r = r < 0 ? r : ram_save(&vm->ram, memory, &ram, ret_bytes, err);
	buf_put(out, magic, sizeof(magic));
	buf_put_u32(out, VERSION);
	save_vm(vm, out);
	put_section(out, TAG_RAM, &ram);
	put_section(out, TAG_ARCH, &arch);
	buf_put(out, devices.data, devices.len);
	buf_put_u32(out, TAG_END);
	buf_put_u32(out, ~crc32c(UINT32_MAX, out->data, out->len));
	if (r == 0 && (out->error || devices.error))
		r = error_sys(err, ENOMEM, "state of the machine");
	return r;
}

int snapshot_save(struct vm *vm, int state, int memory, uint64_t *ret_bytes, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf out = {0};
	int r = save_state(vm, memory, &out, ret_bytes, err);

	if (r < 0)
		return r;
	r = pwrite_full(state, out.data, out.len, 0);
	return r < 0 ? error_sys(err, -r, "state file") : 0;
}

/* ------------------------------------------------------------------------------------------ loading */

static int corrupt(const char *what, struct sm_error *err)
{
	return error_set(err, SM_ERROR_CORRUPT, EINVAL, "the state file is damaged: %s", what);
}

static int read_state(struct snapshot *s, int fd, size_t *ret_len, struct sm_error *err)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return error_sys(err, errno, "state file");
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)(sizeof(magic) + 4 + CRC_SIZE) ||
	    st.st_size > (off_t)SNAPSHOT_STATE_MAX)
		return corrupt("its size", err);
	s->data = malloc((size_t)st.st_size);
	if (!s->data)
		return error_sys(err, ENOMEM, "state file");
	n = pread_full(fd, s->data, (size_t)st.st_size, 0);
	if (n < 0)
		return error_sys(err, (int)-n, "state file");
	*ret_len = (size_t)n;
	return n == st.st_size ? 0 : corrupt("cut short", err);
}

/* Magic, version, sum. *ret: the sections. */
static int check_frame(const struct snapshot *s, size_t len, struct cursor *ret, struct sm_error *err)
{
	struct cursor c = cursor_of(s->data, len), end;
	const void *head = cursor_take(&c, sizeof(magic));
	uint32_t version = cursor_u32(&c);

	if (!head || memcmp(head, magic, sizeof(magic)) != 0)
		return corrupt("not a state file at all", err);
	if (version != VERSION)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "the state file has version %u, this monitor reads %u", version, VERSION);
	*ret = cursor_of(c.p, c.left - CRC_SIZE);
	end = cursor_of(s->data + len - CRC_SIZE, CRC_SIZE);
	if (cursor_u32(&end) != TAG_END || cursor_u32(&end) != (uint32_t)~crc32c(UINT32_MAX, s->data, len - 4))
		return corrupt("its checksum", err);
	return 0;
}

/* The next section, which must be of this kind; false: it is not. */
static bool section(struct cursor *c, enum tag tag, struct cursor *ret)
{
	uint32_t found = cursor_u32(c), len = cursor_u32(c);
	const void *p = cursor_take(c, len);

	*ret = cursor_of(p, p ? len : 0);
	return p && found == tag;
}

static int check_shape(struct snapshot *s, struct cursor *c, const struct vmm_config *cfg, struct sm_error *err)
{
	uint64_t memory = cursor_u64(c), window;
	uint32_t cpus = cursor_u32(c);

	window = cursor_u64(c);
	s->window_gpa = cursor_u64(c);
	if (c->bad || c->left)
		return corrupt("its first section", err);
	if (memory != cfg->memory || cpus != cfg->cpus || window != cfg->window_size)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "it is of a machine with %llu MiB, %u CPUs and a window of %llu MiB",
				 (unsigned long long)(memory >> 20), cpus, (unsigned long long)(window >> 20));
	return 0;
}

int snapshot_open(struct snapshot *s, int fd, const struct vmm_config *cfg, struct sm_error *err)
{
	struct cursor c, shape;
	size_t len = 0;
	int r;

	*s = (struct snapshot){0};
	r = read_state(s, fd, &len, err);
	r = r < 0 ? r : check_frame(s, len, &c, err);
	if (r == 0 &&
	    !(section(&c, TAG_VM, &shape) && section(&c, TAG_RAM, &s->ram) && section(&c, TAG_ARCH, &s->arch)))
		r = corrupt("its sections", err);
	r = r < 0 ? r : check_shape(s, &shape, cfg, err);
	s->devices = c;
	if (r < 0)
		snapshot_done(s);
	return r;
}

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
		return corrupt("the order of its devices", err);
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
	return c->left ? corrupt("a device's record", err) : 0;
}

static int load_devices(struct vm *vm, struct cursor all, struct sm_error *err)
{
	unsigned next = 0;
	int r = 0;

	while (all.left && r == 0) {
		struct cursor c;

		if (!section(&all, TAG_DEV, &c))
			return corrupt("its devices", err);
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

void snapshot_done(struct snapshot *s)
{
	free(s->data);
	s->data = NULL;
}
