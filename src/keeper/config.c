/* SPDX-License-Identifier: Apache-2.0 */
/* Opens what a VM needs and writes the monitor's configuration (vmm/config.h documents it; the JSON text is the
 * contract). */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "keeper/recordjson.h"

#define VSOCK_CID 3
#define FIXED_DISKS 8 /* of a base: the image, the writable layer, and what more may come */

void monitor_files_done(struct monitor_files *f)
{
	for (unsigned i = 0; i < f->num; i++)
		fd_close(f->fds[i]);
	f->num = 0;
}

int monitor_files_add(struct monitor_files *f, int fd)
{
	if (f->num >= MAX_MONITOR_FDS) {
		fd_close(fd);
		return -EMFILE;
	}
	f->fds[f->num++] = fd;
	return fd;
}

static int open_into(struct monitor_files *f, int dirfd, const char *path, int flags, struct sm_error *err)
{
	int fd = openat(dirfd, path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_sys(err, errno, "open %s", path);
	fd = monitor_files_add(f, fd);
	return fd < 0 ? error_sys(err, -fd, "open %s", path) : fd;
}

static json_t *file_json(int fd, uint64_t size)
{
	json_t *o = json_object();

	rj_put_u64(o, "fd", (uint64_t)fd);
	rj_put_u64(o, "size", size);
	return o;
}

/* The image's parts: for the pmem window and for the read-only disk alike. NULL with err. */
static json_t *parts_json(struct keeper *k, struct monitor_files *f, struct sm_error *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < k->rec.num_parts; i++) {
		const struct vm_part *part = &k->rec.parts[i];
		int fd = open_into(f, AT_FDCWD, part->path, O_RDONLY, err);
		json_t *o;

		if (fd < 0) {
			json_decref(list);
			return NULL;
		}
		o = file_json(fd, part->size);
		rj_put_u64(o, "offset", part->offset);
		json_array_append_new(list, o);
	}
	return list;
}

/* A base and what is restored from it have the same devices, used or not. */
static bool fixed_devices(const struct keeper *k)
{
	return k->args.base || (k->args.restore && !k->args.booted);
}

bool keeper_root_on_disk(const struct keeper *k)
{
	return fixed_devices(k) ? k->rec.window_size > k->args.window : k->rec.root_blk;
}

static void add_idle(json_t *disks, bool read_only)
{
	json_t *o = json_object();

	rj_put_bool(o, "idle", true);
	rj_put_bool(o, "read_only", read_only);
	json_array_append_new(disks, o);
}

static void add_window(json_t *config, uint64_t size, json_t *parts)
{
	json_t *o = json_object();

	rj_put_u64(o, "size", size);
	json_object_set_new(o, "parts", parts);
	json_object_set_new(config, "window", o);
}

static int add_image(struct keeper *k, struct monitor_files *f, json_t *config, json_t *disks, struct sm_error *err)
{
	uint64_t window = fixed_devices(k) ? k->args.window : k->rec.window_size;
	bool disk = keeper_root_on_disk(k) && !k->args.base;
	json_t *parts, *o;

	parts = k->args.base ? json_array() : parts_json(k, f, err);
	if (!parts)
		return -EIO;
	if (disk) {
		o = json_object();
		json_object_set_new(o, "concat", parts);
		rj_put_bool(o, "read_only", true);
		rj_put_str(o, "serial", "image");
		json_array_append_new(disks, o);
		parts = json_array();
	} else if (fixed_devices(k)) {
		add_idle(disks, true);
	}
	if (window && (!disk || fixed_devices(k)))
		add_window(config, window, parts);
	else
		json_decref(parts);
	return 0;
}

static int add_upper(struct keeper *k, struct monitor_files *f, json_t *disks, struct sm_error *err)
{
	unsigned num = disk_layers(k->dirfd);
	json_t *o, *layers;
	struct stat st;
	int lower, top;

	if (num < k->rec.layers)
		return error_set(err, SM_ERROR_CORRUPT, ENOENT, "its disk has %u layers of %u: it was never made whole",
				 num, k->rec.layers);
	lower = open_into(f, AT_FDCWD, k->rec.disk_template, O_RDONLY, err);
	if (lower < 0)
		return lower;
	if (fstat(lower, &st) < 0)
		return error_sys(err, errno, "stat %s", k->rec.disk_template);
	top = open_into(f, k->dirfd, "top", O_RDWR | O_CREAT, err);
	if (top < 0)
		return top;
	o = json_object();
	layers = json_array();
	json_array_append_new(layers, file_json(lower, (uint64_t)st.st_size));
	for (unsigned i = 0; i < num; i++) {
		char name[24];
		int fd;

		snprintf(name, sizeof(name), "layer.%u", i);
		fd = open_into(f, k->dirfd, name, O_RDONLY, err);
		if (fd < 0) {
			json_decref(layers);
			json_decref(o);
			return fd;
		}
		json_array_append_new(layers, file_json(fd, k->rec.disk_size));
	}
	json_object_set_new(o, "layers", layers);
	json_object_set_new(o, "top", file_json(top, k->rec.disk_size));
	rj_put_bool(o, "read_only", false);
	rj_put_str(o, "serial", "upper");
	json_array_append_new(disks, o);
	return 0;
}

static int add_devices(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	json_t *disks = json_array();
	int r = add_image(k, f, config, disks, err);

	if (r == 0 && k->rec.disk_template && !k->args.base)
		r = add_upper(k, f, disks, err);
	while (fixed_devices(k) && json_array_size(disks) < FIXED_DISKS)
		add_idle(disks, false);
	json_object_set_new(config, "blk", disks);
	return r;
}

static int open_mount(struct monitor_files *f, struct vm_mount *m, struct sm_error *err)
{
	int fd = open(m->source, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int e = errno;

		fd_close(fd);
		return error_set(err, SM_ERROR_NOT_FOUND, e, "cannot share %s: %s", m->source, strerror(e));
	}
	m->is_file = S_ISREG(st.st_mode);
	fd = monitor_files_add(f, fd);
	if (fd < 0)
		return error_sys(err, -fd, "share %s", m->source);
	if (!m->is_file && !S_ISDIR(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "cannot share %s: neither a directory nor a file",
				 m->source);
	if (m->is_file && m->cow)
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "cannot share %s with cow: it is no directory",
				 m->source);
	return fd;
}

static int add_mounts(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < k->rec.num_mounts; i++) {
		int fd = open_mount(f, &k->rec.mounts[i], err);
		json_t *o;

		if (fd < 0) {
			json_decref(list);
			return fd;
		}
		o = json_object();
		rj_put_u64(o, "fd", (uint64_t)fd);
		vm_mount_format(o, &k->rec.mounts[i]);
		json_array_append_new(list, o);
	}
	if (k->rec.num_mounts)
		json_object_set_new(config, "fs", list);
	else
		json_decref(list);
	return 0;
}

static int add_kernel(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	int kernel = open_into(f, AT_FDCWD, k->rec.kernel, O_RDONLY, err);
	int initramfs = kernel < 0 ? kernel : open_into(f, AT_FDCWD, k->rec.initramfs, O_RDONLY, err);

	if (initramfs < 0)
		return initramfs;
	rj_put_u64(config, "kernel", (uint64_t)kernel);
	rj_put_u64(config, "initramfs", (uint64_t)initramfs);
	rj_put_str(config, "cmdline", k->rec.cmdline);
	return 0;
}

static int add_snapshot(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	_fd_ int dir = open(k->args.restore, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int state, memory = -1, workingset;
	json_t *o;

	k->restore_broken = true; /* unless all goes well */
	if (dir < 0)
		return error_sys(err, errno, "open %s", k->args.restore);
	workingset = open_into(f, dir, "workingset", O_RDONLY, NULL);
	k->learn = workingset == -ENOENT;
	state = open_into(f, dir, "state", O_RDONLY, err);
	if (state >= 0)
		memory = open_into(f, dir, "memory", O_RDONLY, err);
	if (state < 0 || memory < 0)
		return MIN(state, memory);
	o = json_object();
	rj_put_u64(o, "state", (uint64_t)state);
	rj_put_u64(o, "memory", (uint64_t)memory);
	if (workingset >= 0)
		rj_put_u64(o, "workingset", (uint64_t)workingset);
	json_object_set_new(config, "restore", o);
	k->restore_broken = false;
	return 0;
}

int monitor_config(struct keeper *k, struct monitor_files *f, int control, int agent, int console, char **ret,
		   struct sm_error *err)
{
	json_t *o = json_object(), *vsock = json_object();
	int r;

	r = k->args.restore ? add_snapshot(k, f, o, err) : add_kernel(k, f, o, err);
	r = r < 0 ? r : add_devices(k, f, o, err);
	r = r < 0 ? r : add_mounts(k, f, o, err);
	if (r < 0) {
		json_decref(o);
		json_decref(vsock);
		return r;
	}
	rj_put_u64(o, "version", 1);
	rj_put_str(o, "name", k->rec.id);
	rj_put_u64(o, "memory", k->rec.memory);
	rj_put_u64(o, "cpus", k->rec.cpus);
	if (k->rec.dax_size)
		rj_put_u64(o, "dax", k->rec.dax_size);
	rj_put_u64(o, "control", (uint64_t)control);
	rj_put_u64(o, "console", (uint64_t)console);
	rj_put_u64(vsock, "cid", VSOCK_CID);
	rj_put_u64(vsock, "agent", (uint64_t)agent);
	json_object_set_new(o, "vsock", vsock);
	rj_put_bool(o, "seal", true);
	rj_put_bool(o, "trace", k->rec.trace);
	return rj_dump(o, ret, err);
}
