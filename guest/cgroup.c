/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of commands' processes. See cgroup.h. */
#include "guest/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define MAX_STALE 4096u
#define SWEEP_NS 100000000ULL

int cgroup_use(struct agent *a, const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (faccessat(fd, "cgroup.controllers", F_OK, 0) < 0) {
		fd_close(fd);
		return -EINVAL;
	}
	/* One by one: a kernel without one of them still gives the other. */
	write_text_at(fd, "cgroup.subtree_control", "+memory");
	write_text_at(fd, "cgroup.subtree_control", "+pids");
	fd_close(a->cgroup_fd);
	a->cgroup_fd = fd;
	return 0;
}

static void name_of(uint32_t id, char name[static 24])
{
	snprintf(name, 24, "exec-%u", id);
}

void cgroup_make_ahead(struct agent *a)
{
	char name[24];

	name_of(a->next_cgroup + 1, name);
	if (a->cgroup_fd >= 0)
		mkdirat(a->cgroup_fd, name, 0755);
}

int cgroup_make(struct agent *a, uint32_t *ret_id)
{
	char name[24];
	int fd;

	if (a->cgroup_fd < 0)
		return -1;
	*ret_id = ++a->next_cgroup;
	name_of(*ret_id, name);
	if (mkdirat(a->cgroup_fd, name, 0755) < 0 && errno != EEXIST)
		return -1;
	fd = openat(a->cgroup_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		unlinkat(a->cgroup_fd, name, AT_REMOVEDIR);
	return fd;
}

bool cgroup_kill(int fd)
{
	return fd >= 0 && write_text_at(fd, "cgroup.kill", "1") == 0;
}

uint64_t cgroup_oom_kills(int fd)
{
	_free_ char *text = NULL;

	if (fd < 0 || read_file_at(fd, "memory.events", 4096, &text, NULL) < 0)
		return 0;
	return number_after(text, "oom_kill ");
}

/* A keeper makes a group below its own for its monitor, and one that is killed leaves it. */
static void remove_keepers(struct agent *a, const char *name)
{
	int fd = openat(a->cgroup_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (str_starts(e->d_name, CGROUP_VM_PREFIX))
			unlinkat(fd, e->d_name, AT_REMOVEDIR);
	if (d)
		closedir(d);
	else
		fd_close(fd);
}

static bool try_remove(struct agent *a, uint32_t id)
{
	char name[24];

	name_of(id, name);
	if (unlinkat(a->cgroup_fd, name, AT_REMOVEDIR) == 0 || errno != EBUSY)
		return true;
	remove_keepers(a, name);
	return unlinkat(a->cgroup_fd, name, AT_REMOVEDIR) == 0 || errno != EBUSY;
}

static void remove_stale(struct agent *a)
{
	size_t kept = 0;

	for (size_t i = 0; i < a->num_stale; i++)
		if (!try_remove(a, a->stale[i]))
			a->stale[kept++] = a->stale[i]; /* its processes outlive the command */
	a->num_stale = kept;
}

static void on_sweep(struct loop *loop, struct loop_source *src, void *arg)
{
	struct agent *a = arg;

	a->sweeps = false;
	remove_stale(a);
}

/* What it takes is not to be between a command's end and the answer; in a machine that goes back to what it was before
 * the command it need not be done at all. */
void cgroup_remove(struct agent *a, int fd, uint32_t id)
{
	if (fd < 0)
		return;
	fd_close(fd);
	if (!a->stale)
		a->stale = calloc(MAX_STALE, sizeof(*a->stale));
	if (a->num_stale == MAX_STALE)
		remove_stale(a);
	if (!a->stale || a->num_stale == MAX_STALE) {
		(void)!try_remove(a, id);
		return;
	}
	a->stale[a->num_stale++] = id;
	if (!a->sweep && loop_add_timer(a->loop, on_sweep, a, &a->sweep) < 0) {
		remove_stale(a);
		return;
	}
	if (!a->sweeps)
		loop_timer_at(a->sweep, time_now_ns() + SWEEP_NS);
	a->sweeps = true;
}

/* ------------------------------------------------------------------------------------------ standing still */

/* cgroup-v2.rst: "frozen" in cgroup.events follows what was written to cgroup.freeze, when all have stopped. */
static bool is_frozen(int dir, const char *name)
{
	_free_ char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "%.32s/cgroup.events", name);
	return read_file_at(dir, path, 4096, &text, NULL) < 0 || strstr(text, "frozen 1");
}

/* Calls fn for every command's group; true if it gave true for each. */
static bool for_all(struct agent *a, bool (*fn)(int dir, const char *name))
{
	int fd = openat(a->cgroup_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	bool all = d != NULL;
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (str_starts(e->d_name, "exec-"))
			all = fn(a->cgroup_fd, e->d_name) && all;
	if (d)
		closedir(d);
	else
		fd_close(fd);
	return all;
}

static bool set_freeze(int dir, const char *name, const char *value)
{
	char path[64];

	snprintf(path, sizeof(path), "%.32s/cgroup.freeze", name);
	return write_text_at(dir, path, value) == 0;
}

static bool freeze(int dir, const char *name)
{
	return set_freeze(dir, name, "1");
}

static bool thaw(int dir, const char *name)
{
	return set_freeze(dir, name, "0");
}

int cgroup_hold_all(struct agent *a, bool hold, uint64_t limit_ns)
{
	uint64_t until = time_now_ns() + limit_ns;

	if (a->cgroup_fd < 0)
		return -EOPNOTSUPP;
	if (!hold)
		return for_all(a, thaw) ? 0 : -EIO;
	if (!for_all(a, freeze)) {
		for_all(a, thaw);
		return -EOPNOTSUPP;
	}
	while (!for_all(a, is_frozen)) {
		if (time_now_ns() > until) {
			for_all(a, thaw);
			return -ETIMEDOUT;
		}
		usleep(1000);
	}
	return 0;
}
