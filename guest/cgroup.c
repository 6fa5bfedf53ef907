/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of commands' processes. See cgroup.h. */
#include "guest/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define MAX_STALE 4096u

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
	char *line;

	if (fd < 0 || read_file_at(fd, "memory.events", 4096, &text, NULL) < 0)
		return 0;
	line = strstr(text, "oom_kill ");
	return line ? strtoull(line + strlen("oom_kill "), NULL, 10) : 0;
}

static bool try_remove(struct agent *a, uint32_t id)
{
	char name[24];

	name_of(id, name);
	return unlinkat(a->cgroup_fd, name, AT_REMOVEDIR) == 0 || errno != EBUSY;
}

void cgroup_remove(struct agent *a, int fd, uint32_t id)
{
	size_t kept = 0;

	if (fd < 0)
		return;
	fd_close(fd);
	for (size_t i = 0; i < a->num_stale; i++)
		if (!try_remove(a, a->stale[i]))
			a->stale[kept++] = a->stale[i];
	a->num_stale = kept;
	if (try_remove(a, id) || a->num_stale >= MAX_STALE)
		return;
	if (!a->stale)
		a->stale = calloc(MAX_STALE, sizeof(*a->stale));
	if (a->stale)
		a->stale[a->num_stale++] = id;
}
