/* SPDX-License-Identifier: Apache-2.0 */
/* See memory.h. */
#include "base/memory.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysinfo.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define TEXT_MAX 65536
#define CGROUPS "/sys/fs/cgroup"

/* What is free is the least that is available, and known by one call. */
static uint64_t of_system(uint64_t enough)
{
	_free_ char *text = NULL;
	struct sysinfo s;
	uint64_t free_now;
	size_t len;

	if (sysinfo(&s) == 0 && (free_now = (uint64_t)s.freeram * s.mem_unit) >= enough)
		return free_now;
	if (read_file_at(AT_FDCWD, "/proc/meminfo", TEXT_MAX, &text, &len) < 0)
		return UINT64_MAX;
	return number_after(text, "MemAvailable:") * 1024;
}

static int read_of(const char *cgroup, const char *name, char **ret)
{
	char path[PATH_MAX + 32];
	size_t len;

	snprintf(path, sizeof(path), CGROUPS "%s/%s", cgroup, name);
	return read_file_at(AT_FDCWD, path, TEXT_MAX, ret, &len);
}

/* Files that it has cached go before anything is refused. */
static uint64_t of_cgroup(const char *cgroup)
{
	_free_ char *max = NULL, *current = NULL, *stat = NULL;
	uint64_t limit, used, cached;

	if (read_of(cgroup, "memory.max", &max) < 0 || str_starts(max, "max") ||
	    read_of(cgroup, "memory.current", &current) < 0 || read_of(cgroup, "memory.stat", &stat) < 0)
		return UINT64_MAX;
	limit = strtoull(max, NULL, 10);
	used = strtoull(current, NULL, 10);
	cached = number_after(stat, "inactive_file ") + number_after(stat, "active_file ");
	used -= MIN(used, cached);
	return limit - MIN(limit, used);
}

/* Version 2 alone: its line begins with "0::". */
static uint64_t of_cgroups(void)
{
	_free_ char *text = NULL;
	uint64_t least = UINT64_MAX;
	char path[PATH_MAX], *at, *slash;
	size_t len;

	if (read_file_at(AT_FDCWD, "/proc/self/cgroup", TEXT_MAX, &text, &len) < 0)
		return UINT64_MAX;
	at = str_starts(text, "0::/") ? text : strstr(text, "\n0::/");
	if (!at)
		return UINT64_MAX;
	at = strchr(at, '/');
	snprintf(path, sizeof(path), "%.*s", (int)strcspn(at, "\n"), at);
	for (; path[1]; *slash = '\0') {
		least = MIN(least, of_cgroup(path));
		slash = strrchr(path, '/');
		if (slash == path)
			break;
	}
	return least;
}

uint64_t memory_available(uint64_t enough)
{
	uint64_t system = of_system(enough);

	return MIN(system, of_cgroups());
}
