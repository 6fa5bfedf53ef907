/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes in the container: each is a disk with an ext4 file system, of which the container sees the directory `data`,
 * as a detached mount that is put on its target like one of the host's directories (shares.c). A volume with nothing in
 * it begins with what the image has at that place: copied beside, synced, and renamed, so that a guest that is killed
 * on the way leaves an empty volume.
 *
 * A snapshot has the guest's memory, and with it what its kernel knows of these file systems, so their disks must be as
 * they are at that moment, whoever goes on from it, and however often: while it is taken, and in what goes on from it
 * until it is certain that this will not be tried once more, they are frozen (FIFREEZE).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "copy/copy.h"
#include "guest/setup.h"

#define VOLUMES "/volumes"
#define NODE "/dev/.volume" /* of the container, for a moment */
#define DATA VOLUME_DATA
#define NEW DATA ".new"

/* openat2 of Linux 5.6, by number: the C library at hand need not know it. */
enum { CALL_OPENAT2 = 437 };
#define RESOLVE_IN_ROOT 0x10U

struct open_how_wire {
	uint64_t flags, mode, resolve;
};

/* What the image has there; links mean what they mean in the container. -ENOENT: nothing, or no directory. */
static int open_in_container(const char *target)
{
	struct open_how_wire how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	_fd_ int root = open(SETUP_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = root < 0 ? -1 : (int)syscall(CALL_OPENAT2, root, target, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* True also for what is not there. */
static bool is_empty(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool found = fd >= 0 && !dir;

	while (dir && !found && (e = readdir(dir)))
		found = !streq(e->d_name, ".") && !streq(e->d_name, "..");
	if (dir)
		closedir(dir);
	else
		fd_close(fd);
	return !found;
}

/* The stream goes straight from the packer to the unpacker. */
static int feed(void *arg, const void *p, size_t len)
{
	return copy_unpack_feed(arg, p, len, NULL);
}

static int copy_tree(int from, const char *to, struct sm_error *err)
{
	struct copy_unpack_options o = {.keep_ids = true};
	struct copy_place how = {.source_is_dir = true, .source_name = NEW};
	struct copy_pack pack = {0};
	struct copy_unpack *u = NULL;
	struct copy_out out = {.write = feed};
	mode_t old = umask(0);
	int r = copy_unpack_new(to, &how, &o, &u);

	out.arg = u;
	if (r == 0 && fchdir(from) < 0)
		r = -errno;
	if (r == 0)
		r = copy_pack(".", NEW, &pack, &out, err);
	if (r == 0)
		r = copy_put_end(&out);
	if (r == 0 && !copy_unpack_ended(u))
		r = -EIO;
	copy_unpack_free(u);
	buf_done(&out.b);
	umask(old);
	if (chdir("/") < 0)
		r = r < 0 ? r : -errno;
	return r;
}

/* Gives an empty volume, which is mounted on place, its first contents. from: what the image has where it goes, or
 * none.
 */
static int fill(const char *place, int root, int from, const struct proto_mount *m, struct sm_error *err)
{
	_free_ char *to = NULL;
	int r;

	if (!is_empty(root, DATA))
		return 0;
	if (from < 0 || m->no_copy)
		return mkdirat(root, DATA, 0755) < 0 && errno != EEXIST ? -errno : 0;
	r = remove_tree_at(root, NEW);
	if (r == 0 && asprintf(&to, "%s/" NEW, place) < 0) {
		to = NULL;
		r = -ENOMEM;
	}
	if (r == 0)
		r = copy_tree(from, to, err);
	if (r == 0 && (syncfs(root) < 0 || renameat(root, NEW, root, DATA) < 0))
		r = -errno;
	return r;
}

static int find_device(struct agent *a, const struct proto_mount *m, char *ret, size_t size, struct sm_error *err)
{
	char serial[24];

	snprintf(serial, sizeof(serial), "volume%u", m->number);
	return disks_find(a, serial, ret, size, err);
}

/* Mounts it on place, and keeps its root. */
static int mount_on(struct agent *a, const char *device, const char *place, int from, const struct proto_mount *m,
		    struct sm_error *err)
{
	struct sm_error own = {0};
	_fd_ int root = -1;
	int r;

	if (a->num_volumes == AGENT_VOLUMES)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "more than %d volumes", AGENT_VOLUMES);
	if (mount(device, place, "ext4", 0, DISK_OPTIONS) < 0)
		return error_sys(err, errno, "mount the volume for %s", m->target);
	root = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = root < 0 ? -errno : fill(place, root, from, m, &own);
	if (r < 0)
		return error_set(err, SM_ERROR_GUEST, -r, "fill the volume for %s: %s", m->target,
				 own.kind ? own.message : strerror(-r));
	a->volumes[a->num_volumes++] = (struct agent_volume){.fd = TAKE_FD(root)};
	return 0;
}

static void place_of(const struct proto_mount *m, char ret[static 40])
{
	snprintf(ret, 40, VOLUMES "/%u", m->number);
}

int volume_open(struct agent *a, const struct proto_mount *m, char *ret, size_t size, struct sm_error *err)
{
	_fd_ int from = open_in_container(m->target);
	char device[300], place[40];
	int r = find_device(a, m, device, sizeof(device), err);

	if (r < 0)
		return r;
	place_of(m, place);
	r = mkdir_p(place, 0700);
	if (r < 0 && r != -EEXIST)
		return error_sys(err, -r, "make %s", place);
	snprintf(ret, size, "%s/" DATA, place);
	r = mount_on(a, device, place, from, m, err);
	if (r == 0)
		disk_error_watch(a, device, place);
	return r;
}

/* The clone of it that the container has is then all there is to unmount. */
void volume_let_go(const struct proto_mount *m)
{
	char place[40];

	place_of(m, place);
	umount2(place, MNT_DETACH);
}

/* The container's /dev has no disks. */
static int make_node(const struct agent *a, const char *device, struct sm_error *err)
{
	char path[64], text[32] = "";
	unsigned major, minor;
	_fd_ int fd = -1;

	snprintf(path, sizeof(path), "block/%.32s/dev", device + strlen("/dev/"));
	fd = openat(a->sys_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread_full(fd, text, sizeof(text) - 1, 0) <= 0 || sscanf(text, "%u:%u", &major, &minor) != 2)
		return error_set(err, SM_ERROR_GUEST, ENODEV, "the number of the disk %s", device);
	unlink(NODE);
	if (mknod(NODE, S_IFBLK | 0600, makedev(major, minor)) < 0)
		return error_sys(err, errno, "make " NODE);
	return 0;
}

int volume_open_on_target(struct agent *a, const struct proto_mount *m, struct sm_error *err)
{
	_fd_ int from = open(m->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char device[300];
	int r = find_device(a, m, device, sizeof(device), err);

	if (r == 0)
		r = make_node(a, device, err);
	if (r < 0)
		return r;
	r = mount_on(a, NODE, m->target, from, m, err);
	if (r == 0)
		disk_error_watch(a, device, m->target);
	unlink(NODE);
	return r;
}

void volume_take_off(const struct agent *a, const char *target)
{
	struct stat there, st;

	if (stat(target, &there) < 0)
		return;
	for (unsigned i = 0; i < a->num_volumes; i++)
		if (fstat(a->volumes[i].fd, &st) == 0 && st.st_dev == there.st_dev) {
			umount2(target, MNT_DETACH); /* of a directory within one: nothing is mounted there */
			return;
		}
}

/* ------------------------------------------------------------------------------------------ standing still */

void volumes_sync(const struct agent *a)
{
	for (unsigned i = 0; i < a->num_volumes; i++)
		if (syncfs(a->volumes[i].fd) < 0)
			log_debug("agent", "sync a volume: %s", strerror(errno)); /* freezing it will say so */
}

int volumes_freeze(struct agent *a)
{
	for (unsigned i = 0; i < a->num_volumes; i++) {
		struct agent_volume *v = &a->volumes[i];
		int r = v->frozen || ioctl(v->fd, FIFREEZE, 0) == 0 ? 0 : -errno;

		if (r < 0 && r != -EBUSY) { /* EBUSY: a program in the VM has done so */
			volumes_thaw(a);
			return r;
		}
		v->frozen |= r == 0;
	}
	return 0;
}

void volumes_thaw(struct agent *a)
{
	for (unsigned i = 0; i < a->num_volumes; i++) {
		if (a->volumes[i].frozen && ioctl(a->volumes[i].fd, FITHAW, 0) < 0)
			log_warn("agent", "a volume that stood still does not go on: %s", strerror(errno));
		a->volumes[i].frozen = false;
	}
}

void volumes_done(struct agent *a)
{
	volumes_thaw(a);
	while (a->num_volumes)
		fd_close(a->volumes[--a->num_volumes].fd);
}
