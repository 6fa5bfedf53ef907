/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes in the container: each is a disk with an ext4 file system, of which the container sees the directory `data`,
 * as a detached mount that is put on its target like one of the host's directories (shares.c). A volume with nothing in
 * it begins with what the image has at that place: copied beside, synced, and renamed, so that a guest that is killed
 * on the way leaves an empty volume.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "copy/copy.h"
#include "guest/setup.h"

#define VOLUMES "/volumes"
#define DATA "data"
#define NEW "data.new"

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

/* Gives an empty volume its first contents. */
static int fill(const char *place, const struct proto_mount *m, struct sm_error *err)
{
	_fd_ int root = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_fd_ int from = -1;
	char to[64];
	int r;

	if (root < 0)
		return -errno;
	if (!is_empty(root, DATA))
		return 0;
	from = m->no_copy ? -ENOENT : open_in_container(m->target);
	if (from < 0)
		return mkdirat(root, DATA, 0755) < 0 && errno != EEXIST ? -errno : 0;
	r = remove_tree_at(root, NEW);
	snprintf(to, sizeof(to), "%s/" NEW, place);
	if (r == 0)
		r = copy_tree(from, to, err);
	if (r == 0 && (syncfs(root) < 0 || renameat(root, NEW, root, DATA) < 0))
		r = -errno;
	return r;
}

int volume_open(struct agent *a, unsigned number, const struct proto_mount *m, char *ret, size_t size,
		struct sm_error *err)
{
	char serial[24], device[300], place[40];
	struct sm_error own = {0};
	int r;

	snprintf(serial, sizeof(serial), "volume%u", number);
	snprintf(place, sizeof(place), VOLUMES "/%u", number);
	r = disks_find(a, serial, device, sizeof(device), err);
	if (r < 0)
		return r;
	r = mkdir_p(place, 0700);
	if (r < 0 && r != -EEXIST)
		return error_sys(err, -r, "make %s", place);
	if (mount(device, place, "ext4", 0, "discard") < 0)
		return error_sys(err, errno, "mount the volume for %s", m->target);
	r = fill(place, m, &own);
	if (r < 0)
		return error_set(err, SM_ERROR_GUEST, -r, "fill the volume for %s: %s", m->target,
				 own.kind ? own.message : strerror(-r));
	snprintf(ret, size, "%s/" DATA, place);
	return 0;
}

/* The clone of it that the container has is then all there is, and unmounting that is clean. */
void volume_let_go(unsigned number)
{
	char place[40];

	snprintf(place, sizeof(place), VOLUMES "/%u", number);
	umount2(place, MNT_DETACH);
}
