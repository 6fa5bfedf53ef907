/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's own mounts and devices, as runc and crun make them, with these differences, because the VM is the
 * boundary: /sys and the cgroup tree are writable, nothing in /proc is hidden, /dev/shm may take half of the memory.
 * /proc itself is mounted by the first process of the PID namespace, whose view it is (child.c).
 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/cgroup.h"

/* Where a guest that will be copied has these mounts ready (mounts_ahead). */
#define AHEAD "/ahead"
#define PATH_SIZE 64
#define PAGE 4096u
#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)

struct fs_mount {
	const char *type, *path, *options;
	unsigned long flags;
	bool optional;
};

static const struct fs_mount table[] = {
	{"sysfs", "/sys", NULL, SAFE, false},
	{"cgroup2", "/sys/fs/cgroup", NULL, SAFE, true},
	{"tmpfs", "/dev", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME, false},
	{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC, false},
	{"tmpfs", "/dev/shm", "mode=1777", SAFE, false},
	{"mqueue", "/dev/mqueue", NULL, SAFE, true},
};

static const struct {
	const char *path;
	unsigned major, minor;
} devices[] = {
	{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
	{"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
};

static const struct {
	const char *path, *target;
} links[] = {
	{"/dev/fd", "/proc/self/fd"},	    {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
	{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"},	       {"/dev/core", "/proc/kcore"},
};

/* What is mounted on the root itself, and takes the rest along when it is moved. */
static const char *const trees[] = {"/sys", "/dev"};

/* A mount point that the image may lack, or may have as a symbolic link to anywhere: then nothing is mounted through
 * it. path: below root, and what is said of it. */
static int make_point(const char *root, const char *path, char ret[static PATH_SIZE], struct sm_error *err)
{
	struct stat st;

	snprintf(ret, PATH_SIZE, "%s%s", root, path);
	if (mkdir(ret, 0755) == 0)
		return 0;
	if (errno != EEXIST)
		return error_sys(err, errno, "make %s", path);
	if (lstat(ret, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "the image's %s is not a directory", path);
	return 0;
}

static int mount_one(const char *root, const struct fs_mount *m, struct sm_error *err)
{
	char at[PATH_SIZE];
	int r = make_point(root, m->path, at, m->optional ? NULL : err);

	if (r == 0 && mount(m->type, at, m->type, m->flags, m->options) < 0)
		r = m->optional ? -errno : error_sys(err, errno, "mount %s", m->path);
	if (r < 0 && m->optional)
		log_warn("agent", "mount %s: %s", m->path, strerror(-r));
	return m->optional ? 0 : r;
}

/* All of it below root; makes use of its cgroup tree. */
static int make_all(struct agent *a, const char *root, struct sm_error *err)
{
	char at[PATH_SIZE];
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table) && r == 0; i++)
		r = mount_one(root, &table[i], err);
	for (size_t i = 0; i < ARRAY_SIZE(devices) && r == 0; i++) {
		snprintf(at, sizeof(at), "%s%s", root, devices[i].path);
		if (mknod(at, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)) < 0)
			r = error_sys(err, errno, "make %s", devices[i].path);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links) && r == 0; i++) {
		snprintf(at, sizeof(at), "%s%s", root, links[i].path);
		if (symlink(links[i].target, at) < 0)
			r = error_sys(err, errno, "make %s", links[i].path);
	}
	snprintf(at, sizeof(at), "%s/sys/fs/cgroup", root);
	if (r == 0 && cgroup_use(a, at) < 0)
		log_warn("agent", "no cgroups: a command killed for memory will not be told from one that was killed");
	return r;
}

static int move_all(struct sm_error *err)
{
	char to[PATH_SIZE], from[PATH_SIZE];
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(trees) && r == 0; i++) {
		snprintf(from, sizeof(from), AHEAD "%s", trees[i]);
		r = make_point(SETUP_ROOT, trees[i], to, err);
		if (r == 0 && mount(from, to, NULL, MS_MOVE, NULL) < 0)
			r = error_sys(err, errno, "mount %s", trees[i]);
	}
	return r;
}

int mounts_ahead(struct agent *a)
{
	struct sm_error err = {0};
	mode_t old = umask(0);
	int r = mkdir(AHEAD, 0755) < 0 && errno != EEXIST ? -errno : make_all(a, AHEAD, &err);

	umask(old);
	a->mounts_ahead = r == 0;
	return r;
}

int mounts_make(struct agent *a, struct sm_error *err)
{
	char at[PATH_SIZE];
	mode_t old = umask(0);
	int r = make_point(SETUP_ROOT, "/proc", at, err);

	if (r == 0)
		r = a->mounts_ahead ? move_all(err) : make_all(a, SETUP_ROOT, err);
	umask(old);
	return r;
}

int mounts_enter(struct sm_error *err)
{
	/* What pivot_root cannot do to an initramfs: the new root is moved over the old one. */
	if (chdir(SETUP_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return error_sys(err, errno, "enter the container's root");
	return 0;
}

int mounts_grow(struct sm_error *err)
{
	struct sysinfo info;
	char data[64];

	if (sysinfo(&info) < 0)
		return error_sys(err, errno, "sysinfo");
	snprintf(data, sizeof(data), "size=50%%,nr_inodes=%llu",
		 (unsigned long long)info.totalram * info.mem_unit / PAGE / 2);
	if (mount(NULL, "/dev/shm", NULL, MS_REMOUNT | SAFE, data) < 0)
		return error_sys(err, errno, "remount /dev/shm");
	return 0;
}
