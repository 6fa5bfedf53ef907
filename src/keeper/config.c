/* SPDX-License-Identifier: Apache-2.0 */
/* Opens what a VM needs and writes the monitor's configuration (vmm/config.h documents it; the JSON text is the
 * contract). */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "keeper/recordjson.h"

#define VSOCK_CID 3
#define FIXED_DISKS 8 /* of a base: the image, the writable layer, and volumes */
#define VOLUME_TRIES 200

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
	struct stat st, own;
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
	k->fresh_disk = num == 1 && fstat(top, &own) == 0 && own.st_size == 0;
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
	rj_put_str(o, "serial", PROTO_UPPER_SERIAL);
	json_array_append_new(disks, o);
	return 0;
}

/* For a base's guest to mount. What it writes is the lowest layer of its copies' disks, whose tops lie over that. */
static int add_template(struct keeper *k, struct monitor_files *f, json_t *disks, struct sm_error *err)
{
	json_t *o, *layers;
	struct stat st;
	int lower, top;

	lower = open_into(f, AT_FDCWD, k->rec.disk_template, O_RDONLY, err);
	if (lower < 0)
		return lower;
	if (fstat(lower, &st) < 0)
		return error_sys(err, errno, "stat %s", k->rec.disk_template);
	top = open_into(f, k->dirfd, VM_BASE_DISK, O_RDWR | O_CREAT | O_EXCL, err);
	if (top < 0)
		return top;
	o = json_object();
	layers = json_array();
	json_array_append_new(layers, file_json(lower, (uint64_t)st.st_size));
	json_object_set_new(o, "layers", layers);
	json_object_set_new(o, "top", file_json(top, k->rec.disk_size));
	rj_put_bool(o, "read_only", false);
	rj_put_bool(o, "replaceable", true);
	rj_put_str(o, "serial", PROTO_UPPER_SERIAL);
	json_array_append_new(disks, o);
	return 0;
}

/*
 * A volume is one VM's at a time: the library has seen to that, on the host. This lock is for what it cannot see, a
 * monitor that has outlived its keeper by a moment; monitors hold it by the descriptor that they inherit.
 */
static int lock_volume(int fd, const struct vm_mount *m, struct sm_error *err)
{
	for (int tries = 0; flock(fd, (m->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0; tries++) {
		if (errno != EWOULDBLOCK)
			return 0; /* a file system without locks */
		if (tries == VOLUME_TRIES)
			return error_set(err, SM_ERROR_BUSY, EBUSY, "volume %s is in use", m->volume);
		usleep(10000);
	}
	return 0;
}

/*
 * What a guest writes to a volume that it may only read (its journal, say), or that it has as it was in a snapshot,
 * goes into a file of the VM's own. In the first case that lasts as long as the guest.
 */
static int add_scratch(struct keeper *k, struct monitor_files *f, json_t *disk, int volume, uint64_t size, unsigned n,
		       bool stays, struct sm_error *err)
{
	json_t *layers = json_array();
	char name[VM_VOLUME_FILE];
	int fd;

	json_array_append_new(layers, file_json(volume, size));
	json_object_set_new(disk, "layers", layers);
	vm_volume_file(n, false, name);
	fd = open_into(f, k->dirfd, name, O_RDWR | O_CREAT | (stays ? 0 : O_TRUNC), err);
	if (fd < 0)
		return fd;
	json_object_set_new(disk, "top", file_json(fd, size));
	return 0;
}

static int add_volume(struct keeper *k, struct monitor_files *f, json_t *disks, const struct vm_mount *m, unsigned n,
		      struct sm_error *err)
{
	bool scratch = m->read_only || m->own;
	char base[VM_VOLUME_FILE], serial[24];
	json_t *o = json_object();
	struct stat st;
	int fd, r;

	vm_volume_file(n, true, base);
	fd = m->own ? open_into(f, k->dirfd, base, O_RDONLY, err)
		    : open_into(f, AT_FDCWD, m->source, m->read_only ? O_RDONLY : O_RDWR, err);
	r = fd < 0 ? fd : m->own ? 0 : lock_volume(fd, m, err);
	if (r == 0 && fstat(fd, &st) < 0)
		r = error_sys(err, errno, "volume %s", m->volume);
	if (r == 0 && scratch)
		r = add_scratch(k, f, o, fd, (uint64_t)st.st_size, n, m->own || k->args.resume, err);
	else if (r == 0)
		json_object_set_new(o, "top", file_json(fd, (uint64_t)st.st_size));
	snprintf(serial, sizeof(serial), "volume%u", n);
	rj_put_bool(o, "read_only", false);
	rj_put_str(o, "serial", serial);
	json_array_append_new(disks, o);
	return r;
}

static int add_volumes(struct keeper *k, struct monitor_files *f, json_t *disks, struct sm_error *err)
{
	unsigned n = 0;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < k->rec.num_mounts; i++)
		if (k->rec.mounts[i].volume)
			r = add_volume(k, f, disks, &k->rec.mounts[i], n++, err);
	return r;
}

static int add_devices(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	json_t *disks = json_array();
	int r = add_image(k, f, config, disks, err);

	if (r == 0 && k->rec.disk_template)
		r = k->args.base ? add_template(k, f, disks, err) : add_upper(k, f, disks, err);
	if (r == 0 && !k->args.base)
		r = add_volumes(k, f, disks, err);
	while (fixed_devices(k) && json_array_size(disks) < FIXED_DISKS)
		add_idle(disks, false);
	json_object_set_new(config, "blk", disks);
	return r;
}

static int open_mount(struct vm_mount *m, struct sm_error *err)
{
	int fd = open(m->source, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		int e = errno;

		fd_close(fd);
		return error_set(err, SM_ERROR_NOT_FOUND, e, "cannot share %s: %s", m->source, strerror(e));
	}
	m->is_file = S_ISREG(st.st_mode);
	if ((m->is_file && !m->cow) || S_ISDIR(st.st_mode))
		return fd;
	fd_close(fd);
	if (m->is_file)
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "cannot share %s with cow: it is no directory",
				 m->source);
	return error_set(err, SM_ERROR_INVALID, EINVAL, "cannot share %s: neither a directory nor a file", m->source);
}

/* What the monitor is given of a mount: the directory, or a socket to its server. number: as the monitor counts. */
static int add_mount(struct keeper *k, struct monitor_files *f, unsigned i, unsigned number, struct sm_error *err)
{
	struct vm_mount *m = &k->rec.mounts[i];
	int fd = m->served ? -1 : open_mount(m, err);

	if (m->served || (fd >= 0 && k->rec.share_group))
		fd = shares_open(k, number, m, fd, err);
	if (fd < 0)
		return fd;
	fd = monitor_files_add(f, fd);
	return fd < 0 ? error_sys(err, -fd, "share %s", m->source) : fd;
}

static int add_mounts(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < k->rec.num_mounts; i++) {
		json_t *o;
		int fd;

		if (k->rec.mounts[i].volume)
			continue;
		fd = add_mount(k, f, i, (unsigned)json_array_size(list), err);
		if (fd < 0) {
			json_decref(list);
			return fd;
		}
		o = json_object();
		rj_put_u64(o, "fd", (uint64_t)fd);
		if (k->rec.share_group || k->rec.mounts[i].served)
			rj_put_bool(o, "server", true);
		if (k->rec.audit)
			rj_put_str(o, "source", k->rec.mounts[i].source);
		vm_mount_format(o, &k->rec.mounts[i]);
		json_array_append_new(list, o);
	}
	if (json_array_size(list))
		json_object_set_new(config, "fs", list);
	else
		json_decref(list);
	return 0;
}

/* Appended to, by whichever VMs name it. */
static int add_audit(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	int fd;

	if (!k->rec.audit || !json_object_get(config, "fs"))
		return 0;
	fd = open_into(f, AT_FDCWD, k->rec.audit, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY, err);
	if (fd < 0)
		return fd;
	rj_put_u64(config, "audit", (uint64_t)fd);
	return 0;
}

static int add_watch(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	int fd = watching_new(k, f);

	if (fd >= 0)
		rj_put_u64(config, "watch", (uint64_t)fd);
	return fd < -1 ? error_sys(err, -fd, "socket to the monitor") : 0;
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

/* Of a branch: `files` names them in its parent's /proc/PID/fd, "STATE:MEMORY". */
static int add_branch(struct keeper *k, struct monitor_files *f, int dir, json_t *o, struct sm_error *err)
{
	static const char *const members[] = {"state", "memory"};
	char names[48], *rest = names, *name;
	int fd = -1;

	snprintf(names, sizeof(names), "%s", k->args.files);
	for (unsigned i = 0; i < ARRAY_SIZE(members) && (name = strsep(&rest, ":")); i++) {
		fd = open_into(f, dir, name, O_RDONLY, err);
		if (fd < 0)
			return fd;
		rj_put_u64(o, members[i], (uint64_t)fd);
	}
	rj_put_bool(o, "wait", true);
	return rest || !strchr(k->args.files, ':') ? error_sys(err, EINVAL, "files of the branch") : fd;
}

/* Keeps one for what lies over it: branches and diffs. */
static int note_under(struct keeper *k, int fd, struct sm_error *err)
{
	int own = k->num_under < ARRAY_SIZE(k->under) ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (own < 0)
		return error_sys(err, k->num_under < ARRAY_SIZE(k->under) ? errno : E2BIG, "files of the memory");
	k->under[k->num_under++] = own;
	return 0;
}

static int add_under(struct keeper *k, struct monitor_files *f, int dir, json_t *o, struct sm_error *err)
{
	_free_ char *names = k->args.under ? strdup(k->args.under) : NULL;
	char *rest = names, *name;
	json_t *list;

	if (!k->args.under)
		return 0;
	list = json_array();
	json_object_set_new(o, "under", list);
	if (!names || !list)
		return error_sys(err, ENOMEM, "files of the memory");
	while ((name = strsep(&rest, ":"))) {
		int fd = open_into(f, dir, name, O_RDONLY, err), r;

		if (fd < 0)
			return fd;
		json_array_append_new(list, json_integer(fd));
		r = note_under(k, fd, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The last is what this VM's own branches lie over, unless it lies over another itself and goes when the VM runs. */
static int add_files(struct keeper *k, struct monitor_files *f, int dir, json_t *o, struct sm_error *err)
{
	int workingset, state, memory, huge;

	workingset = open_into(f, dir, "workingset", O_RDONLY, NULL);
	k->learn = workingset == -ENOENT;
	state = open_into(f, dir, "state", O_RDONLY, err);
	if (state < 0)
		return state;
	memory = open_into(f, dir, "memory", O_RDONLY, err);
	if (memory < 0)
		return memory;
	rj_put_u64(o, "state", (uint64_t)state);
	rj_put_u64(o, "memory", (uint64_t)memory);
	if (workingset >= 0)
		rj_put_u64(o, "workingset", (uint64_t)workingset);
	else if (k->learn && !k->args.adopt && !k->args.under)
		rj_put_bool(o, "learns", true);
	huge = hugecopy_open(k, memory);
	huge = huge < 0 ? huge : monitor_files_add(f, huge);
	if (huge >= 0)
		rj_put_u64(o, "huge", (uint64_t)huge);
	return memory;
}

static int add_snapshot(struct keeper *k, struct monitor_files *f, json_t *config, struct sm_error *err)
{
	_fd_ int dir = open(k->args.restore, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	json_t *o;
	int fd, r;

	k->restore_broken = true; /* unless all goes well */
	if (dir < 0)
		return error_sys(err, errno, "open %s", k->args.restore);
	o = json_object();
	json_object_set_new(config, "restore", o);
	r = add_under(k, f, dir, o, err);
	if (r < 0)
		return r;
	fd = k->args.files ? add_branch(k, f, dir, o, err) : add_files(k, f, dir, o, err);
	if (fd < 0)
		return fd;
	r = k->args.files || (k->args.resume && k->args.under) ? 0 : note_under(k, fd, err);
	k->restore_broken = r < 0;
	return r;
}

int monitor_config(struct keeper *k, struct monitor_files *f, int control, int agent, int console, char **ret,
		   struct sm_error *err)
{
	json_t *o = json_object(), *vsock = json_object();
	int r;

	r = k->args.restore ? add_snapshot(k, f, o, err) : add_kernel(k, f, o, err);
	r = r < 0 ? r : add_devices(k, f, o, err);
	r = r < 0 ? r : add_mounts(k, f, o, err);
	r = r < 0 ? r : add_audit(k, f, o, err);
	r = r < 0 ? r : add_watch(k, f, o, err);
	if (r < 0) {
		json_decref(o);
		json_decref(vsock);
		return r;
	}
	rj_put_u64(o, "version", 1);
	rj_put_str(o, "name", k->rec.id);
	rj_put_u64(o, "memory", k->rec.memory);
	rj_put_u64(o, "cpus", k->rec.cpus);
	if (k->args.base)
		rj_put_bool(o, "pluggable", true);
	if (k->rec.dax_size)
		rj_put_u64(o, "dax", k->rec.dax_size);
	rj_put_u64(o, "control", (uint64_t)control);
	rj_put_u64(o, "console", (uint64_t)console);
	rj_put_u64(vsock, "cid", VSOCK_CID);
	rj_put_u64(vsock, "agent", (uint64_t)agent);
	json_object_set_new(o, "vsock", vsock);
	rj_put_bool(o, "seal", true);
	rj_put_bool(o, "trace", k->rec.trace);
	if (k->rec.ksm)
		rj_put_bool(o, "ksm", true);
	return rj_dump(o, ret, err);
}
