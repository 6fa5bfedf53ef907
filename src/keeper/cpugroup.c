/* SPDX-License-Identifier: Apache-2.0 */
/* See cpugroup.h. */
#include "keeper/cpugroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define TEXT_MAX 65536
#define MOUNTS_MAX (16u << 20)
#define PERIOD_US 100000u /* docker's */
/* The kernel takes a moment to let go of processes that were killed. */
#define REMOVE_TRIES 100
#define REMOVE_PAUSE_MS 10
#define NOTE "cgroup"

static int own_path(char path[static PATH_MAX])
{
	_free_ char *self = NULL, *mounts = NULL;
	int r = read_file_at(AT_FDCWD, "/proc/self/cgroup", TEXT_MAX, &self, NULL);

	r = r < 0 ? r : read_file_at(AT_FDCWD, "/proc/self/mountinfo", MOUNTS_MAX, &mounts, NULL);
	return r < 0 ? r : cgroup_path(self, mounts, path);
}

static bool has_word(const char *text, const char *word)
{
	for (const char *p = text; *p; p += strcspn(p, " \n"), p += strspn(p, " \n"))
		if (str_starts(p, word) && strcspn(p, " \n") == strlen(word))
			return true;
	return false;
}

static bool has_cpu(int fd)
{
	_free_ char *text = NULL;

	return read_file_at(fd, "cgroup.controllers", TEXT_MAX, &text, NULL) == 0 && has_word(text, "cpu");
}

/* Groups below this one have limits on the processor: NULL; or what is in the way. */
static const char *divide(int fd, const char *path, bool ours)
{
	int r;

	if (ours && !has_cpu(fd)) {
		_free_ char *above = NULL;
		_fd_ int dir = asprintf(&above, "%s/..", path) < 0 ? -1 : cgroup_open(above);

		if (dir >= 0)
			write_text_at(dir, "cgroup.subtree_control", "+cpu");
	}
	if (!has_cpu(fd))
		return "no cpu controller";
	r = write_text_at(fd, "cgroup.subtree_control", "+cpu");
	return r == 0 ? NULL : r == -EBUSY || r == -EOPNOTSUPP ? "other groups in it are in the way" : strerror(-r);
}

static int refuse(unsigned limit, const char *path, const char *why, struct sm_error *err)
{
	return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
			 "a share of %g CPUs needs a cgroup (version 2) that this user may divide (%s%s%s): whole CPUs "
			 "need none, and systemd-run --user --scope -p Delegate=yes COMMAND has one",
			 limit / 1e3, path, *path ? ": " : "", why);
}

static int make_leaf(struct cpu_group *g, unsigned limit)
{
	int r;

	if (mkdir(g->path, 0755) < 0 && errno != EEXIST)
		return -errno;
	g->fd = cgroup_open(g->path);
	r = g->fd < 0 ? g->fd : write_text_at(g->fd, "cgroup.type", "threaded");
	return r < 0 ? r : cpu_group_limit(g, limit);
}

int cpu_group_make(struct cpu_group *g, const char *id, unsigned limit, bool ours, struct sm_error *err)
{
	char own[PATH_MAX] = "";
	int r = own_path(own);
	_fd_ int fd = r < 0 ? -1 : cgroup_open(own);
	const char *why;

	if (r < 0)
		return refuse(limit, "", r == -ENOENT ? "there is none here" : strerror(-r), err);
	if (fd < 0)
		return refuse(limit, own, strerror(-fd), err);
	why = divide(fd, own, ours);
	if (why)
		return refuse(limit, own, why, err);
	if (snprintf(g->path, sizeof(g->path), "%s/" CGROUP_VM_PREFIX "%s", own, id) >= (int)sizeof(g->path))
		return refuse(limit, own, strerror(ENAMETOOLONG), err);
	r = make_leaf(g, limit);
	if (r == 0)
		return 0;
	rmdir(g->path);
	g->fd = fd_close(g->fd);
	return refuse(limit, g->path, strerror(-r), err);
}

int cpu_group_limit(const struct cpu_group *g, unsigned limit)
{
	char text[48];

	if (limit)
		snprintf(text, sizeof(text), "%llu %u", (unsigned long long)limit * PERIOD_US / 1000, PERIOD_US);
	else
		snprintf(text, sizeof(text), "max %u", PERIOD_US);
	return write_text_at(g->fd, "cpu.max", text);
}

static bool remove_leaf(const char *path)
{
	for (int i = 0; rmdir(path) < 0 && errno == EBUSY; i++) {
		if (i == REMOVE_TRIES)
			return false;
		poll(NULL, 0, REMOVE_PAUSE_MS);
	}
	return true;
}

bool cpu_group_remove(struct cpu_group *g)
{
	if (g->fd < 0)
		return true;
	g->fd = fd_close(g->fd);
	return remove_leaf(g->path);
}

/* ------------------------------------------------------------------------------------------ of the killed */

int cpu_group_note(const struct cpu_group *g, int dirfd)
{
	return write_file_atomic_at(dirfd, NOTE, g->path, strlen(g->path), 0600);
}

void cpu_group_forget(int dirfd)
{
	unlinkat(dirfd, NOTE, 0);
}

/* Nothing but a group of this VM's is removed, whatever the file says. */
void cpu_group_sweep(int dirfd, const char *id)
{
	_free_ char *path = NULL;
	const char *slash;
	_fd_ int fd = -1;

	if (read_file_at(dirfd, NOTE, PATH_MAX, &path, NULL) < 0)
		return;
	slash = strrchr(path, '/');
	if (*path == '/' && str_starts(slash, "/" CGROUP_VM_PREFIX) &&
	    streq(slash + strlen("/" CGROUP_VM_PREFIX), id) && (fd = cgroup_open(path)) >= 0 && !remove_leaf(path))
		return;
	cpu_group_forget(dirfd);
}
