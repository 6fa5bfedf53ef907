/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root file system: EROFS image below, writable layer above, overlayfs of the two. The writable layer's disk holds
 * two directories: `upper`, which has what the container changed, and overlayfs's `work`; and `cow` (shares.c).
 */
#include "guest/setup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define IMAGE "/image"
#define WRITABLE SETUP_WRITABLE
#define UPPER WRITABLE "/upper"
#define WORK WRITABLE "/work"
#define LOWER "/lower" /* of a rehearsal */
#define BLOCK 4096u    /* of the templates (lib/disk.c) */
#define DEVICE_WAIT_NS 3000000000ULL

/* The files of a disk that copies of this guest ask: opening one by its long path in /sys takes them far longer than
 * reading it. */
struct disk {
	char name[32];
	int size, serial;
};

static int open_attribute(int block, const char *name, const char *attribute)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", name, attribute);
	return openat(block, path, O_RDONLY | O_CLOEXEC);
}

static void forget(struct agent *a)
{
	for (size_t i = 0; i < a->num_disks; i++) {
		fd_close(a->disks[i].size);
		fd_close(a->disks[i].serial);
	}
	a->num_disks = 0;
}

static void learn(struct agent *a, int block, const char *name)
{
	struct disk x = {.size = open_attribute(block, name, "size"), .serial = open_attribute(block, name, "serial")};
	struct disk *more = NULL;

	snprintf(x.name, sizeof(x.name), "%.31s", name);
	if (x.size >= 0 && x.serial >= 0 && streq(x.name, name))
		more = realloc(a->disks, (a->num_disks + 1) * sizeof(*more));
	if (!more) {
		fd_close(x.size);
		fd_close(x.serial);
		return;
	}
	a->disks = more;
	more[a->num_disks++] = x;
}

void disks_learn(struct agent *a)
{
	int fd = openat(a->sys_fd, "block", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	forget(a);
	if (!d) {
		fd_close(fd);
		return;
	}
	while ((e = readdir(d)))
		if (str_starts(e->d_name, "vd"))
			learn(a, dirfd(d), e->d_name);
	closedir(d);
}

/* What an attribute says now, without its newline. */
static void read_attribute(int fd, char ret[static 64])
{
	ssize_t n = pread_full(fd, ret, 63, 0);

	ret[MAX(n, 0)] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

/* The block device with this serial number, as "/dev/vda"; 0 or -ENOENT. The places of disks that this guest has not
 * have no size: asking each for its serial number would take a request. */
static int find_by_serial(struct agent *a, const char *serial, char *ret, size_t size)
{
	char text[64];

	if (!a->prepared)
		disks_learn(a);
	for (size_t i = 0; i < a->num_disks; i++) {
		read_attribute(a->disks[i].size, text);
		if (strtoull(text, NULL, 10) == 0)
			continue;
		read_attribute(a->disks[i].serial, text);
		if (!streq(text, serial))
			continue;
		snprintf(ret, size, "/dev/%s", a->disks[i].name);
		return 0;
	}
	return -ENOENT;
}

/* Drivers may find their devices in the background: waits for a while. */
static int find_device(struct agent *a, const char *name, bool by_serial, char *ret, size_t size, struct sm_error *err)
{
	uint64_t until = time_now_ns() + DEVICE_WAIT_NS;

	for (;;) {
		if (by_serial && find_by_serial(a, name, ret, size) == 0)
			return 0;
		snprintf(ret, size, "/dev/%s", name);
		if (!by_serial && access(ret, F_OK) == 0)
			return 0;
		if (time_now_ns() > until)
			return error_set(err, SM_ERROR_GUEST, ENODEV, "the guest has no %s '%s'",
					 by_serial ? "disk" : "device", name);
		usleep(500);
	}
}

int disks_find(struct agent *a, const char *serial, char *ret, size_t size, struct sm_error *err)
{
	return find_device(a, serial, true, ret, size, err);
}

static int mount_image(struct agent *a, const struct proto_setup *s, struct sm_error *err)
{
	bool pmem = s->root == PROTO_ROOT_PMEM;
	char device[300];
	int r;

	if (strchr(s->root_device, '/'))
		return error_set(err, SM_ERROR_INVALID, EINVAL, "device name '%s'", s->root_device);
	r = find_device(a, s->root_device, !pmem, device, sizeof(device), err);
	if (r < 0)
		return r;
	mkdir(IMAGE, 0755);
	/* DAX: the guest maps the host's page cache and keeps no copy. A kernel without it reads through its own cache.
	 */
	if (pmem && mount(device, IMAGE, "erofs", MS_RDONLY, "dax=always") == 0)
		return 0;
	if (mount(device, IMAGE, "erofs", MS_RDONLY, NULL) < 0)
		return error_sys(err, errno, "mount the image (%s)", device);
	return 0;
}

static const struct timespec unclaimed = {.tv_sec = 1, .tv_nsec = 1}; /* of an upper directory that is no VM's yet */

static int mount_overlay(const char *lower)
{
	char options[128];

	mkdir(SETUP_ROOT, 0755);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=" UPPER ",workdir=" WORK, lower);
	return mount("overlay", SETUP_ROOT, "overlay", 0, options) < 0 ? -errno : 0;
}

/* The first of everything that a set-up does to a new disk; then it is as empty as before. */
static void rehearse_upper(void)
{
	static const char file[] = SETUP_ROOT "/etc/file";
	int r;

	mkdir(LOWER, 0755);
	mkdir(LOWER "/etc", 0755);
	r = mount_overlay(LOWER);
	if (r < 0) {
		log_warn("agent", "rehearsal on a disk: %s", strerror(-r));
		return;
	}
	mkdir(SETUP_ROOT "/dev", 0755);
	fd_close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	unlink(file);
	sync();
	umount2(SETUP_ROOT, 0);
	rmdir(UPPER "/dev");
	rmdir(UPPER "/etc");
	rmdir(WORK "/work");
	removexattr(UPPER, "trusted.overlay.impure");
	rmdir(LOWER "/etc");
	rmdir(LOWER);
}

static uint32_t le32_at(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/*
 * A file system that becomes read-only gives up what it had read. Reads again what the first file in a directory asks
 * for: the bitmaps and inodes of its group (ext4's group descriptors: their first three members).
 */
static void warm_group(int disk, const char *directory)
{
	uint8_t super[1024], group[12], block[BLOCK];
	uint64_t number, size;
	struct stat st;

	if (stat(directory, &st) < 0 || pread_full(disk, super, sizeof(super), 1024) != sizeof(super))
		return;
	number = (st.st_ino - 1) / MAX(le32_at(super + 0x28), 1u);
	size = MAX(le32_at(super + 0xfc) >> 16, 32u);
	if (pread_full(disk, group, sizeof(group), BLOCK + number * size) != sizeof(group))
		return;
	for (size_t i = 0; i < sizeof(group); i += 4)
		(void)!pread_full(disk, block, sizeof(block), (uint64_t)le32_at(group + i) * BLOCK);
}

static void warm(const char *device)
{
	static const char *const directories[] = {WRITABLE, UPPER, WORK};
	_fd_ int disk = open(device, O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; disk >= 0 && i < ARRAY_SIZE(directories); i++) {
		DIR *d = opendir(directories[i]);

		while (d && readdir(d))
			continue;
		if (d)
			closedir(d);
		warm_group(disk, directories[i]);
	}
}

/*
 * The disk is read-only when the guest is saved: then an ext4 is not written to when it is taken off, so what a copy
 * has in place of this disk stays as it is. To mount a new one costs a guest 400 pages that it touches for the first
 * time, and what it does first there some 200; to have it written to from then on, one request.
 */
void disks_ahead(struct agent *a)
{
	const struct timespec times[2] = {unclaimed, unclaimed};
	char device[300];

	mkdir(WRITABLE, 0755);
	if (find_by_serial(a, PROTO_UPPER_SERIAL, device, sizeof(device)) < 0)
		return;
	if (mount(device, WRITABLE, "ext4", MS_NOATIME, DISK_OPTIONS) < 0) {
		log_warn("agent", "mount %s: %s", device, strerror(errno));
		return;
	}
	if (mkdir(WORK, 0700) == 0 && mkdir(UPPER, 0755) == 0)
		rehearse_upper();
	if (utimensat(AT_FDCWD, UPPER, times, 0) == 0 &&
	    mount(NULL, WRITABLE, NULL, MS_REMOUNT | MS_RDONLY | MS_NOATIME, DISK_OPTIONS) == 0)
		a->writable_ahead = true;
	else
		umount2(WRITABLE, 0);
	if (a->writable_ahead) {
		disk_error_watch(a, device, WRITABLE);
		warm(device);
	}
}

/* True: it is the one that was mounted. Else that one is gone. */
static int take_ahead(struct agent *a, const struct proto_setup *s, bool *ret, struct sm_error *err)
{
	bool fits = s->upper_serial && s->upper_ahead;

	*ret = false;
	if (!a->writable_ahead)
		return 0;
	a->writable_ahead = false;
	if (!fits)
		return umount2(WRITABLE, 0) < 0 ? error_sys(err, errno, "take off the base's disk") : 0;
	if (mount(NULL, WRITABLE, NULL, MS_REMOUNT | MS_NOATIME, DISK_OPTIONS) < 0)
		return error_sys(err, errno, "the writable layer");
	*ret = true;
	return 0;
}

static int mount_writable(struct agent *a, const struct proto_setup *s, struct sm_error *err)
{
	char device[300], options[64] = "mode=755";
	bool there;
	int r = take_ahead(a, s, &there, err);

	if (r < 0)
		return r;
	a->upper_disk = there;
	if (there)
		return 0;
	mkdir(WRITABLE, 0755);
	if (!s->upper_serial) {
		if (s->tmpfs_size)
			snprintf(options, sizeof(options), "mode=755,size=%llu", (unsigned long long)s->tmpfs_size);
		if (mount("tmpfs", WRITABLE, "tmpfs", 0, options) < 0)
			return error_sys(err, errno, "mount the writable layer in memory");
		return 0;
	}
	r = find_device(a, s->upper_serial, true, device, sizeof(device), err);
	if (r < 0)
		return r;
	if (mount(device, WRITABLE, "ext4", MS_NOATIME, DISK_OPTIONS) < 0)
		return error_sys(err, errno, "mount the writable layer (%s)", device);
	disk_error_watch(a, device, WRITABLE);
	a->upper_disk = true;
	return 0;
}

static bool is_unclaimed(const struct stat *st)
{
	return st->st_mtim.tv_sec == unclaimed.tv_sec && st->st_mtim.tv_nsec == unclaimed.tv_nsec;
}

/* The overlay's root has the upper directory's attributes: they begin as the image's. */
static int make_upper(struct sm_error *err)
{
	struct timespec times[2];
	struct stat st;

	if (mkdir(WORK, 0700) < 0 && errno != EEXIST)
		return error_sys(err, errno, "the writable layer");
	if (mkdir(UPPER, 0755) < 0) {
		if (errno != EEXIST || stat(UPPER, &st) < 0)
			return error_sys(err, errno, "the writable layer");
		if (!is_unclaimed(&st))
			return 0;
	}
	if (stat(IMAGE, &st) < 0)
		return error_sys(err, errno, "the image's root");
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	if (chown(UPPER, st.st_uid, st.st_gid) < 0 || chmod(UPPER, st.st_mode & 07777) < 0 ||
	    utimensat(AT_FDCWD, UPPER, times, 0) < 0)
		return error_sys(err, errno, "the writable layer's root");
	return 0;
}

int disks_mount(struct agent *a, const struct proto_setup *s, struct sm_error *err)
{
	uint64_t start = time_now_ns(), image;
	int r = mount_image(a, s, err);

	image = time_now_ns();
	if (r == 0)
		r = mount_writable(a, s, err);
	log_debug("agent", "image: %llu us, writable layer: %llu us", (unsigned long long)(image - start) / 1000,
		  (unsigned long long)(time_now_ns() - image) / 1000);
	if (r == 0)
		r = make_upper(err);
	if (r < 0)
		return r;
	r = mount_overlay(IMAGE);
	if (r < 0)
		return error_sys(err, -r, "mount the overlay");
	return layers_keep(a, "/", IMAGE, UPPER, err);
}
