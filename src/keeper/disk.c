/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's writable disk as files of its directory: `layer.0`, `layer.1`, ... that never change again, lowest first, and
 * `top`. A snapshot freezes the top, which becomes the next layer. Each step leaves a disk whose content is right:
 *
 *	link top to layer.N	both are one file: that is still the top (disk_layers)
 *	rename a new top over it	layer.N has all that was written, also what is written to it until the monitor
 *				goes on in the new top
 */
#include "keeper/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/record.h"

#define NEW_TOP "top.new"
#define MERGE_QUICK (64 * MIB)		/* is merged while somebody waits */
#define MERGE_ALL (VM_MAX_LAYERS - 15u) /* and more than that, before there is no room for another layer */
#define MERGE_TIMEOUT_MS 120000

static void name_of(unsigned layer, char name[static 24])
{
	snprintf(name, 24, "layer.%u", layer);
}

/* One that is the top too comes from a freeze that was not finished. */
static bool is_top(int dirfd, const char *name)
{
	struct stat a, b;

	return fstatat(dirfd, name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(dirfd, "top", &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

unsigned disk_layers(int dirfd)
{
	unsigned n = 0;
	char name[24];

	for (name_of(n, name); n <= VM_MAX_LAYERS && faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	     name_of(++n, name))
		continue;
	if (!n)
		return 0;
	name_of(n - 1, name);
	return is_top(dirfd, name) ? n - 1 : n;
}

bool disk_is_lent(int dirfd)
{
	struct stat st;

	return fstatat(dirfd, "top", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink > 1;
}

int disk_new_top(int dirfd)
{
	int fd;

	unlinkat(dirfd, NEW_TOP, 0); /* what a freeze that was not finished left */
	fd = openat(dirfd, NEW_TOP, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int disk_freeze(int dirfd, unsigned layers)
{
	char name[24];

	name_of(layers, name);
	if (layers >= VM_MAX_LAYERS)
		return -E2BIG;
	if (linkat(dirfd, "top", dirfd, name, 0) < 0) {
		if (errno != EEXIST)
			return -errno;
		unlinkat(dirfd, name, 0); /* the same */
		if (linkat(dirfd, "top", dirfd, name, 0) < 0)
			return -errno;
	}
	return renameat(dirfd, NEW_TOP, dirfd, "top") < 0 ? -errno : 0;
}

void disk_unfreeze(int dirfd, unsigned layers)
{
	char name[24];

	name_of(layers, name);
	if (renameat(dirfd, name, dirfd, "top") < 0)
		return; /* the layer has it all, and the top is empty: that is as good */
}

int disk_reset(int dirfd, unsigned layers)
{
	unsigned n = disk_layers(dirfd);
	_fd_ int top = -1;
	char name[24];

	if (n < layers)
		return -ENOENT;
	while (n-- > layers) {
		name_of(n, name);
		if (unlinkat(dirfd, name, 0) < 0)
			return -errno;
	}
	top = disk_new_top(dirfd);
	return top < 0 ? top : renameat(dirfd, NEW_TOP, dirfd, "top") < 0 ? -errno : 0;
}

/* Opens a layer that no other VM and no snapshot has a link to. */
static int open_own(int dirfd, unsigned layer, int flags, struct stat *st)
{
	_fd_ int fd = -1;
	char name[24];

	name_of(layer, name);
	fd = openat(dirfd, name, flags | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, st) < 0 || !S_ISREG(st->st_mode) || st->st_nlink != 1)
		return -1;
	return TAKE_FD(fd);
}

static bool run_merge(const char *vmm, int lower, int upper)
{
	char numbers[2][16];
	const char *argv[] = {vmm, "--merge-layers", numbers[0], numbers[1], NULL};
	const int keep[] = {lower, upper};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}, .keep = keep, .num_keep = 2};
	_cleanup_(buf_done) struct buf said = {0};
	struct sm_error err = {0};
	int status = -1, r;

	snprintf(numbers[0], sizeof(numbers[0]), "%d", lower);
	snprintf(numbers[1], sizeof(numbers[1]), "%d", upper);
	r = process_run(&o, MERGE_TIMEOUT_MS, true, 1024, &said, &status, &err);
	if (r == 0 && status == 0)
		return true;
	log_warn("keeper", "layers of the disk stay apart: %s%.*s", r < 0 ? err.message : "", (int)said.len,
		 (const char *)said.data);
	return false;
}

bool disk_merge(int dirfd, const char *vmm, unsigned layers, unsigned inherited)
{
	_fd_ int lower = -1, upper = -1;
	struct stat st;

	if (layers < inherited + DISK_MERGE_FROM)
		return false;
	lower = open_own(dirfd, layers - 2, O_RDWR, &st);
	upper = open_own(dirfd, layers - 1, O_RDONLY, &st);
	if (lower < 0 || upper < 0 || ((uint64_t)st.st_blocks * 512 > MERGE_QUICK && layers < MERGE_ALL))
		return false;
	return run_merge(vmm, lower, upper);
}
