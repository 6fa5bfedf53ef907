/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices a VM has, in which slots, and what joins them to the keeper. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/fs.h"
#include "virtio/mem.h"
#include "virtio/net.h"
#include "virtio/pmem.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "proto/refresh.h"
#include "vmm/control.h"
#include "vmm/share_watch.h"
#include "vmm/seal.h"
#include "vmm/vm.h"

static const char *const blk_names[VMM_MAX_BLK] = {"blk0", "blk1", "blk2", "blk3", "blk4", "blk5", "blk6", "blk7"};

static int add_pmem(struct vm *vm, struct sm_error *err)
{
	struct virtio_pmem_options o = {.name = "pmem", .gpa = vm->window_gpa, .size = vm->window.size};
	struct virtio_device *dev;
	int r;

	if (!vm->window.size)
		return 0;
	r = virtio_pmem_new(&vm->mem, vm->loop, &o, &dev);
	return r < 0 ? error_sys(err, -r, "pmem") : devices_add(vm, SLOT_PMEM, dev, err);
}

/* vmm_file and blk_file say the same in two rooms' words. */
static struct blk_file *blk_files(const struct vmm_file *files, unsigned n)
{
	struct blk_file *ret = calloc(n ? n : 1, sizeof(*ret));

	for (unsigned i = 0; ret && i < n; i++)
		ret[i] = (struct blk_file){.fd = files[i].fd, .size = files[i].size, .offset = files[i].offset};
	return ret;
}

static int open_chain(const struct vmm_blk_config *c, struct blk_chain **ret, struct sm_error *err)
{
	_free_ struct blk_file *files = NULL;
	struct blk_file top = {.fd = c->top.fd, .size = c->top.size};

	files = c->num_concat ? blk_files(c->concat, c->num_concat) : blk_files(c->layers, c->num_layers);
	if (!files)
		return error_sys(err, ENOMEM, "layers");
	if (c->num_concat)
		return blk_chain_open_concat(files, c->num_concat, ret, err);
	return blk_chain_open(files, c->num_layers, c->top.fd >= 0 ? &top : NULL, ret, err);
}

static bool no_space(int error)
{
	return error == ENOSPC || error == EDQUOT;
}

/* The keeper hears of a disk's first failure, and of its first for want of space: a guest can cause any number of them.
 */
static void on_disk_failed(void *arg, int error)
{
	struct devices_disk *d = arg;
	bool *told = no_space(error) ? &d->told_full : &d->told_failed;

	if (*told)
		return;
	*told = true;
	control_disk_error(d->vm, blk_names[d->number], error);
}

static void on_disk_thread(void *arg)
{
	vm_seal_worker(((struct devices_disk *)arg)->vm);
}

static int add_blk(struct vm *vm, unsigned i, struct sm_error *err)
{
	const struct vmm_blk_config *c = &vm->cfg->blk[i];
	struct devices_disk *d = &vm->devices.disks[i];
	struct virtio_blk_options o = {.name = blk_names[i],
				       .serial = c->serial,
				       .failed = on_disk_failed,
				       .thread = on_disk_thread,
				       .arg = d};
	struct virtio_device *dev;
	int r = c->idle ? 0 : open_chain(c, &o.chain, err);

	o.read_only = c->read_only;
	o.replaceable = c->replaceable;
	*d = (struct devices_disk){.vm = vm, .number = i};
	if (r < 0)
		return error_wrap(err, r, "%s", blk_names[i]);
	r = virtio_blk_new(&vm->mem, vm->loop, &o, &dev, err);
	if (r < 0) {
		if (o.chain)
			blk_chain_free(o.chain);
		return error_wrap(err, r, "%s", blk_names[i]);
	}
	return devices_add(vm, SLOT_BLK + i, dev, err);
}

/* A connection of the guest's that nobody expects goes to the keeper, which knows what to do with it. */
static int on_connect(void *arg, uint32_t port, int fd)
{
	struct vm *vm = arg;
	int r = control_vsock(vm, port, fd);

	fd_close(fd);
	return r;
}

static int add_vsock(struct vm *vm, struct sm_error *err)
{
	struct virtio_vsock_options o = {.name = "vsock", .cid = vm->cfg->vsock_cid, .connect = on_connect, .arg = vm};
	struct virtio_device *dev;
	int r;

	if (!vm->cfg->has_vsock)
		return 0;
	r = virtio_vsock_new(&vm->mem, vm->loop, &o, &dev);
	if (r < 0)
		return error_sys(err, -r, "vsock");
	r = devices_add(vm, SLOT_VSOCK, dev, err);
	if (r < 0)
		return r;
	if (vm->cfg->vsock_agent >= 0)
		r = virtio_vsock_expect(dev, VMM_AGENT_PORT, vm->cfg->vsock_agent);
	if (r == 0 && vm->share_watch_fd >= 0)
		r = virtio_vsock_expect(dev, REFRESH_PORT, TAKE_FD(vm->share_watch_fd));
	return r < 0 ? error_sys(err, -r, "vsock") : 0;
}

static void on_console(void *arg, const void *p, size_t len)
{
	struct vm *vm = arg;

	for (size_t i = 0; i < len; i++)
		console_note(&vm->console, ((const uint8_t *)p)[i]);
}

static int add_console(struct vm *vm, struct sm_error *err)
{
	struct virtio_console_options o = {
		.name = "console", .output = vm->cfg->console, .input = -1, .tap = on_console, .arg = vm};
	struct virtio_device *dev;
	int r = virtio_console_new(&vm->mem, vm->loop, &o, &dev);

	return r < 0 ? error_sys(err, -r, "console") : devices_add(vm, SLOT_CONSOLE, dev, err);
}

static ssize_t on_request(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out)
{
	return share_serve(((struct vm *)arg)->share, in, num_in, out, num_out);
}

static int on_save(void *arg, struct buf *out)
{
	return share_save(((struct vm *)arg)->share, out);
}

static int on_load(void *arg, struct cursor *in)
{
	return share_load(((struct vm *)arg)->share, in);
}

static void on_server_thread(void *arg)
{
	vm_seal_server(arg);
}

/* With several vCPUs nobody knows which one waits. */
static bool on_pair(void *arg, bool together)
{
	struct vm *vm = arg;

	return vm->cfg->cpus == 1 && vcpu_pair(&vm->vcpus[0], together);
}

/* Who tells the guest what others change in these directories. */
static int start_watch(struct vm *vm, struct sm_error *err)
{
	struct watch *watch = vm->share && vm->cfg->has_vsock ? share_watched(vm->share) : NULL;

	return watch ? share_watch_start(vm, watch, vm->cfg->watch, &vm->share_watch, &vm->share_watch_fd, err) : 0;
}

/* Its threads, if it has any, inherit the capabilities to serve files; this thread and all later ones do without. */
static int add_fs(struct vm *vm, struct sm_error *err)
{
	struct virtio_fs_options o = {
		.name = "fs", .tag = "supermachine", .thread = on_server_thread, .window = vm->dax_place, .arg = vm};
	struct virtio_device *dev;
	int r;

	if (vm->share) {
		o.serve = on_request;
		o.save = on_save;
		o.load = on_load;
		o.pair = on_pair;
	}
	r = virtio_fs_new(&vm->mem, vm->loop, &o, &dev);
	if (r < 0)
		return error_sys(err, -r, "fs");
	r = devices_add(vm, SLOT_FS, dev, err);
	if (r == 0)
		r = start_watch(vm, err);
	if (r == 0 && vm->share && vm->dax.size)
		r = dax_window_watch(&vm->dax, on_server_thread, vm, err);
	if (r == 0 && vm->share && vm->cfg->seal) {
		r = seal_capabilities(0);
		if (r < 0)
			error_sys(err, -r, "fs");
	}
	return r;
}

static int add_rng(struct vm *vm, struct sm_error *err)
{
	struct virtio_rng_options o = {.name = "rng"};
	struct virtio_device *dev;
	int r = virtio_rng_new(&vm->mem, vm->loop, &o, &dev);

	return r < 0 ? error_sys(err, -r, "rng") : devices_add(vm, SLOT_RNG, dev, err);
}

static int add_balloon(struct vm *vm, struct sm_error *err)
{
	struct virtio_balloon_options o = {.name = "balloon"};
	struct virtio_device *dev;
	int r = virtio_balloon_new(&vm->mem, vm->loop, &o, &dev);

	return r < 0 ? error_sys(err, -r, "balloon") : devices_add(vm, SLOT_BALLOON, dev, err);
}

static int add_net(struct vm *vm, struct sm_error *err)
{
	struct virtio_net_options o = {.name = "net"};
	struct virtio_device *dev;
	int r;

	if (getrandom(o.mac, sizeof(o.mac), 0) != sizeof(o.mac))
		return error_sys(err, errno, "net: random address");
	o.mac[0] = (uint8_t)((o.mac[0] & 0xfc) | 0x02); /* locally administered, for one station */
	r = virtio_net_new(&vm->mem, vm->loop, &o, &dev);
	return r < 0 ? error_sys(err, -r, "net") : devices_add(vm, SLOT_NET, dev, err);
}

static int add_mem(struct vm *vm, struct sm_error *err)
{
	struct virtio_mem_options o = {.name = "mem",
				       .gpa = vm->plug_gpa,
				       .region_size = VIRTIO_MEM_REGION_MAX,
				       .backed = vm->ram.size - vm->ram.boot};
	struct virtio_device *dev;
	int r;

	if (!vm->plug_gpa)
		return 0;
	r = virtio_mem_new(&vm->mem, vm->loop, &o, &dev);
	return r < 0 ? error_sys(err, -r, "mem") : devices_add(vm, SLOT_MEM, dev, err);
}

int devices_create(struct vm *vm, struct sm_error *err)
{
	int r = add_fs(vm, err);

	r = r < 0 ? r : add_pmem(vm, err);
	for (unsigned i = 0; i < vm->cfg->num_blk && r >= 0; i++)
		r = add_blk(vm, i, err);
	r = r < 0 ? r : add_vsock(vm, err);
	r = r < 0 ? r : add_console(vm, err);
	r = r < 0 ? r : add_rng(vm, err);
	r = r < 0 ? r : add_balloon(vm, err);
	r = r < 0 ? r : add_net(vm, err);
	return r < 0 ? r : add_mem(vm, err);
}

static struct virtio_device *device(struct vm *vm, unsigned slot)
{
	return vm->devices.functions[slot] ? virtio_pci_device(vm->devices.functions[slot]->pci) : NULL;
}

int devices_connect(struct vm *vm, uint32_t port, int fd)
{
	struct virtio_device *vsock = device(vm, SLOT_VSOCK);

	if (vsock)
		return virtio_vsock_join(vsock, port, fd);
	fd_close(fd);
	return -ENODEV;
}

void devices_balloon(struct vm *vm, uint64_t bytes)
{
	virtio_balloon_set_target(device(vm, SLOT_BALLOON), bytes);
}

/* The first disk that has a top. */
static struct virtio_device *writable_disk(struct vm *vm)
{
	for (unsigned i = 0; i < vm->cfg->num_blk; i++)
		if (vm->cfg->blk[i].top.fd >= 0)
			return device(vm, SLOT_BLK + i);
	return NULL;
}

int devices_push_top(struct vm *vm, int fd, struct sm_error *err)
{
	struct virtio_device *disk = writable_disk(vm);

	return disk ? virtio_blk_push(disk, fd, err)
		    : error_set(err, SM_ERROR_INVALID, EINVAL, "this machine has no writable disk");
}

int devices_renew_top(struct vm *vm)
{
	struct virtio_device *disk = writable_disk(vm);

	return disk ? virtio_blk_renew(disk) : 0;
}

static int expect_agent(struct vm *vm, int fd)
{
	struct virtio_device *vsock = device(vm, SLOT_VSOCK);

	if (vsock)
		return virtio_vsock_expect(vsock, VMM_AGENT_PORT, fd);
	fd_close(fd);
	return -ENODEV;
}

void devices_keep_agent(struct vm *vm, struct virtio_vsock_kept *ret)
{
	struct virtio_device *vsock = device(vm, SLOT_VSOCK);

	*ret = (struct virtio_vsock_kept){0};
	if (vsock)
		virtio_vsock_keep(vsock, VMM_AGENT_PORT, ret);
}

int devices_revive_agent(struct vm *vm, const struct virtio_vsock_kept *kept, int fd)
{
	return kept->set ? virtio_vsock_revive(device(vm, SLOT_VSOCK), kept, fd) : expect_agent(vm, fd);
}

int devices_rejoin_agent(struct vm *vm, int fd)
{
	struct virtio_device *vsock = device(vm, SLOT_VSOCK);

	if (vsock)
		return virtio_vsock_rejoin(vsock, VMM_AGENT_PORT, fd);
	fd_close(fd);
	return -ENODEV;
}

const int *const *devices_syscalls(void)
{
	static const int *const lists[] = {
		virtio_pmem_syscalls,	 virtio_blk_syscalls,	virtio_blk_worker_syscalls, blk_chain_syscalls,
		virtio_fs_syscalls,	 virtio_vsock_syscalls, virtio_console_syscalls,    virtio_rng_syscalls,
		virtio_balloon_syscalls, virtio_mem_syscalls,	virtio_net_syscalls,	    NULL,
	};

	return lists;
}
