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
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/cgroup.h"

#define R SETUP_ROOT
#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)

struct fs_mount {
	const char *type, *path, *options;
	unsigned long flags;
	bool optional;
};

static const struct fs_mount table[] = {
	{"sysfs", R "/sys", NULL, SAFE, false},
	{"cgroup2", R "/sys/fs/cgroup", NULL, SAFE, true},
	{"tmpfs", R "/dev", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME, false},
	{"devpts", R "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC, false},
	{"tmpfs", R "/dev/shm", "mode=1777", SAFE, false},
	{"mqueue", R "/dev/mqueue", NULL, SAFE, true},
};

static const struct {
	const char *path;
	unsigned major, minor;
} devices[] = {
	{R "/dev/null", 1, 3},	 {R "/dev/zero", 1, 5},	   {R "/dev/full", 1, 7},
	{R "/dev/random", 1, 8}, {R "/dev/urandom", 1, 9}, {R "/dev/tty", 5, 0},
};

static const struct {
	const char *path, *target;
} links[] = {
	{R "/dev/fd", "/proc/self/fd"},	      {R "/dev/stdin", "/proc/self/fd/0"}, {R "/dev/stdout", "/proc/self/fd/1"},
	{R "/dev/stderr", "/proc/self/fd/2"}, {R "/dev/ptmx", "pts/ptmx"},	   {R "/dev/core", "/proc/kcore"},
};

/* A mount point that the image may lack, or may have as a symbolic link to anywhere: then nothing is mounted through
 * it. */
static int make_point(const char *path, struct sm_error *err)
{
	struct stat st;

	if (mkdir(path, 0755) == 0)
		return 0;
	if (errno != EEXIST)
		return error_sys(err, errno, "make %s", path + strlen(R));
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_set(err, SM_ERROR_INVALID, ENOTDIR, "the image's %s is not a directory", path + strlen(R));
	return 0;
}

static int mount_one(const struct fs_mount *m, struct sm_error *err)
{
	int r = make_point(m->path, m->optional ? NULL : err);

	if (r == 0 && mount(m->type, m->path, m->type, m->flags, m->options) < 0)
		r = m->optional ? -errno : error_sys(err, errno, "mount %s", m->path + strlen(R));
	if (r < 0 && m->optional)
		log_warn("agent", "mount %s: %s", m->path + strlen(R), strerror(-r));
	return m->optional ? 0 : r;
}

int mounts_make(struct agent *a, struct sm_error *err)
{
	mode_t old = umask(0);
	int r = make_point(R "/proc", err);

	for (size_t i = 0; i < ARRAY_SIZE(table) && r == 0; i++)
		r = mount_one(&table[i], err);
	for (size_t i = 0; i < ARRAY_SIZE(devices) && r == 0; i++)
		if (mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)) < 0)
			r = error_sys(err, errno, "make %s", devices[i].path + strlen(R));
	for (size_t i = 0; i < ARRAY_SIZE(links) && r == 0; i++)
		if (symlink(links[i].target, links[i].path) < 0)
			r = error_sys(err, errno, "make %s", links[i].path + strlen(R));
	umask(old);
	if (r == 0 && cgroup_use(a, R "/sys/fs/cgroup") < 0)
		log_warn("agent", "no cgroups: a command killed for memory will not be told from one that was killed");
	return r;
}

int mounts_enter(struct sm_error *err)
{
	/* What pivot_root cannot do to an initramfs: the new root is moved over the old one. */
	if (chdir(R) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return error_sys(err, errno, "enter the container's root");
	return 0;
}
