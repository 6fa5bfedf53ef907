/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host changes in a VM's mounts, where the VM is in the machine: that kernel has no events of the host's
 * files. A process on the host (keeper/watchers.c), which lives as long as the VM, or as a VM of its share group,
 * watches them for the VM's monitor.
 * Without it the VM believes what it has seen for a second, as on a file system that cannot be watched.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/recordjson.h"
#include "keeper/watchgroup.h"
#include "lib/lib.h"

#define WATCHED "watched" /* in the VM's directory */

/* VMs of a share group are watched for by one process. */
static int join_group(struct sm_client *c, const char *group, int link, const char *const *sources, unsigned count,
		      struct sm_error *err)
{
	struct watchgroup g = {.runtime_dir = c->runtime_dir, .group = group};
	_free_ char *keeper = NULL;
	int r = client_helper(c, "supermachine-keeper", &keeper, err);

	g.program = keeper;
	return r < 0 ? r : watchgroup_join(&g, link, sources, count, err);
}

static int watch_from_here(struct sm_client *c, const struct vm_record *r, int link, struct sm_error *err)
{
	const char *sources[VM_MAX_MOUNTS];
	unsigned n = 0;

	for (unsigned i = 0; i < r->num_mounts; i++)
		if (!r->mounts[i].volume)
			sources[n++] = r->mounts[i].source;
	if (r->share_group && n <= WATCHGROUP_SOURCES)
		return join_group(c, r->share_group, link, sources, n, err);
	return client_start_role(c, "--watch", link, sources, n, err);
}

/* How what others change in a mount is noticed: one of the words that inspect says. */
static const char *how_watched(const struct vm_mount *m, bool relayed)
{
	_fd_ int fd = m->volume ? -1 : open(m->source, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (m->volume)
		return "";
	if (fd < 0 || m->symlinks == SM_FS_SYMLINKS_FOLLOW || !fd_raises_events(fd))
		return "none";
	return relayed ? "relayed" : "events";
}

/* For inspect, as long as the VM runs: a line each. */
static void note(int dir, const struct vm_record *r, bool in_machine, bool relayed)
{
	_cleanup_(buf_done) struct buf b = {0};
	_fd_ int fd = openat(dir, WATCHED, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	for (unsigned i = 0; i < r->num_mounts; i++)
		buf_printf(&b, "%s\n",
			   in_machine && !relayed && !r->mounts[i].volume ? "none"
									  : how_watched(&r->mounts[i], relayed));
	if (fd >= 0 && !b.error)
		(void)!write_full(fd, b.data, b.len);
}

void mounts_watch(struct sm_vm *vm, const struct vm_record *r)
{
	struct sm_error err = {0};
	struct vm_start start = {0};
	_fd_ int dir = -1, link = -1;
	int e;

	if (r->num_mounts == vm_volumes(r, false))
		return;
	dir = vmdir_open(vm->client, vm->id, &err);
	e = dir < 0 ? dir : vmdir_load_start(dir, &start, &err);
	if (e == 0 && start.in_machine) {
		e = link = vm_socket(vm->client, vm->id, &start, 0, &err);
		if (e >= 0)
			e = watch_from_here(vm->client, r, link, &err);
	}
	if (e < 0)
		client_say(vm->client, SM_LOG_INFO, "VM %s: its mounts are not watched: %s", vm->id, err.message);
	if (dir >= 0)
		note(dir, r, start.in_machine, start.in_machine && e == 0);
}

void mounts_say_watched(int dir, struct json_t *mounts)
{
	_free_ char *text = NULL;
	char *lines, *line;
	size_t len;

	if (read_file_at(dir, WATCHED, VM_MAX_MOUNTS * 16, &text, &len) < 0)
		return;
	lines = text;
	for (size_t i = 0; i < json_array_size(mounts) && (line = strsep(&lines, "\n")); i++)
		if (*line)
			rj_put_str(json_array_get(mounts, i), "watch", line);
}
