/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A base's copy on huge pages (vmm/hugecopy.h), in a machine: a VM that is restored is given the one that is there, and
 * one that found none makes it when it has ended and nobody waits for it any more. It is named for the base and the
 * very file that it is a copy of, so what was copied of another is never taken; and it has its name only when it is
 * whole. What is left of a base that is gone goes when the next is made, or with the machine; there is a limit to all
 * of it.
 */
#include "keeper/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/hugedir.h"
#include "base/log.h"
#include "base/process.h"
#include "base/util.h"

#define NAME_SIZE 128
#define UNFINISHED ".new"
#define COPY_TIMEOUT_MS 60000

/* BASE:INODE:TIME of the memory file. */
static int name_of(const char *base, int memory, char name[static NAME_SIZE])
{
	struct stat st;

	if (fstat(memory, &st) < 0)
		return -errno;
	return snprintf(name, NAME_SIZE, "%s:%llx:%llx.%lx", base, (unsigned long long)st.st_ino,
			(unsigned long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec) < NAME_SIZE
		       ? 0
		       : -ENAMETOOLONG;
}

static const char *base_name(const struct keeper *k)
{
	const char *slash = strrchr(k->args.restore, '/');

	return slash ? slash + 1 : k->args.restore;
}

int hugecopy_open(struct keeper *k, int memory)
{
	_fd_ int dir = -1;
	char name[NAME_SIZE];
	int fd;

	if (!k->args.watched || k->args.adopt || k->args.files || k->args.under)
		return -ENOENT;
	dir = open(HUGE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || name_of(base_name(k), memory, name) < 0)
		return -ENOENT;
	fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	k->huge_missing = fd < 0;
	return fd < 0 ? -ENOENT : fd;
}

/* The base that a copy is named for is there, with that file. snapshots: the directory of them all. */
static bool is_of_use(int snapshots, const char *copy)
{
	char base[NAME_SIZE], path[NAME_SIZE + 8], name[NAME_SIZE];
	_fd_ int memory = -1;

	snprintf(base, sizeof(base), "%s", copy);
	base[strcspn(base, ":")] = '\0';
	snprintf(path, sizeof(path), "%s/memory", base);
	memory = openat(snapshots, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return memory >= 0 && name_of(base, memory, name) == 0 && streq(name, copy);
}

/* dir: of the copies, read to its end. */
static void remove_stale(int dir, int snapshots)
{
	int own = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strchr(e->d_name, ':') && !strstr(e->d_name, UNFINISHED) && !is_of_use(snapshots, e->d_name))
			unlinkat(dir, e->d_name, 0);
	if (d)
		closedir(d);
	else
		fd_close(own);
}

static int fill(const char *vmm, int memory, int workingset, int copy)
{
	char numbers[3][16];
	const char *argv[] = {vmm, "--huge-copy", numbers[0], numbers[1], numbers[2], NULL};
	const int keep[] = {memory, workingset, copy};
	struct process_options o = {.argv = argv, .fds = {-1, -1, -1}, .keep = keep, .num_keep = ARRAY_SIZE(keep)};
	_cleanup_(buf_done) struct buf said = {0};
	int status = -1, r;

	for (unsigned i = 0; i < ARRAY_SIZE(keep); i++)
		snprintf(numbers[i], sizeof(numbers[i]), "%d", keep[i]);
	r = process_run(&o, COPY_TIMEOUT_MS, true, 1024, &said, &status, NULL);
	if (r == 0 && status)
		log_debug("keeper", "%.*s", (int)said.len, (const char *)said.data);
	return r < 0 ? r : status ? -EIO : 0;
}

/* Whoever has the lock of the unfinished one makes it; one whose maker was killed is begun anew. */
static int make(const struct keeper *k, int dir, const char *name, int memory, int workingset)
{
	char unfinished[NAME_SIZE + sizeof(UNFINISHED)];
	_fd_ int fd = -1;
	int r;

	snprintf(unfinished, sizeof(unfinished), "%s" UNFINISHED, name);
	fd = openat(dir, unfinished, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	if (faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		r = -EEXIST; /* meanwhile */
	else if (ftruncate(fd, 0) < 0)
		r = -errno;
	else
		r = fill(k->args.vmm, memory, workingset, fd);
	if (r == 0 && (fchmod(fd, 0400) < 0 || renameat(dir, unfinished, dir, name) < 0))
		r = -errno;
	if (r < 0)
		unlinkat(dir, unfinished, 0);
	return r;
}

void hugecopy_make(const struct keeper *k)
{
	_fd_ int base = -1, snapshots = -1, memory = -1, workingset = -1, dir = -1;
	char name[NAME_SIZE];
	int r;

	if (!k->huge_missing)
		return;
	base = open(k->args.restore, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = open(HUGE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base < 0 || dir < 0)
		return;
	snapshots = openat(base, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	memory = openat(base, "memory", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	workingset = openat(base, "workingset", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (memory < 0 || workingset < 0 || name_of(base_name(k), memory, name) < 0)
		return; /* the next VM has another look */
	remove_stale(dir, snapshots);
	r = make(k, dir, name, memory, workingset);
	if (r < 0 && r != -EWOULDBLOCK && r != -EEXIST)
		log_debug("keeper", "copy of %s on huge pages: %s", base_name(k), strerror(-r));
}
