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
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define IMAGE "/image"
#define WRITABLE SETUP_WRITABLE
#define UPPER WRITABLE "/upper"
#define WORK WRITABLE "/work"
#define DEVICE_WAIT_NS 3000000000ULL

/* False for the places of disks that this guest has not: asking each for its serial number would take a request. */
static bool has_size(int block, const char *name)
{
	_free_ char *text = NULL;
	char path[300];

	snprintf(path, sizeof(path), "%s/size", name);
	return read_file_at(block, path, 64, &text, NULL) == 0 && strtoull(text, NULL, 10) > 0;
}

/* The block device with this serial number, as "/dev/vda"; 0 or -ENOENT. */
static int find_by_serial(struct agent *a, const char *serial, char *ret, size_t size)
{
	int fd = openat(a->sys_fd, "block", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r = -ENOENT;

	if (!d) {
		fd_close(fd);
		return -ENOENT;
	}
	while (r < 0 && (e = readdir(d))) {
		_free_ char *text = NULL;
		char path[300];

		snprintf(path, sizeof(path), "%s/serial", e->d_name);
		if (e->d_name[0] == '.' || !has_size(dirfd(d), e->d_name) ||
		    read_file_at(dirfd(d), path, 64, &text, NULL) < 0)
			continue;
		text[strcspn(text, "\n")] = '\0';
		if (streq(text, serial)) {
			snprintf(ret, size, "/dev/%s", e->d_name);
			r = 0;
		}
	}
	closedir(d);
	return r;
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

static int mount_writable(struct agent *a, const struct proto_setup *s, struct sm_error *err)
{
	char device[300], options[64] = "mode=755";
	int r;

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
	/* discard: what is deleted is given back to the host's sparse file. */
	if (mount(device, WRITABLE, "ext4", MS_NOATIME, "discard") < 0)
		return error_sys(err, errno, "mount the writable layer (%s)", device);
	a->upper_disk = true;
	return 0;
}

/* The overlay's root has the upper directory's attributes: they begin as the image's. */
static int make_upper(struct sm_error *err)
{
	struct timespec times[2];
	struct stat st;

	if (mkdir(WORK, 0700) < 0 && errno != EEXIST)
		return error_sys(err, errno, "the writable layer");
	if (mkdir(UPPER, 0755) < 0)
		return errno == EEXIST ? 0 : error_sys(err, errno, "the writable layer");
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
	mkdir(SETUP_ROOT, 0755);
	if (mount("overlay", SETUP_ROOT, "overlay", 0, "lowerdir=" IMAGE ",upperdir=" UPPER ",workdir=" WORK) < 0)
		return error_sys(err, errno, "mount the overlay");
	return layers_keep(a, "/", IMAGE, UPPER, err);
}
