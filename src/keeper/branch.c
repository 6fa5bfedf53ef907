/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the children of a running VM go on from: two files in memory, where the VMs run, which nothing has to clean up
 * after. The keeper holds them for the client that starts the children, whose keepers open them by way of /proc/PID/fd;
 * then they are there for as long as a child's monitor has them mapped. The memory file has what differs from those
 * that the parent came from (vmm/overlay.h), which go to the children too.
 *
 * Children are started while the monitor's copy still writes. The lock of the state file (flock) says so: the keeper
 * has it and hands it on with the descriptor, so it is gone when the files are whole, or whoever wrote them is no more.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/memory.h"
#include "base/util.h"

#define RESERVE (64 * MIB) /* what has to be left */

/* The copy is no larger than what the monitor has of its own and of an overlay. */
static bool has_room(pid_t monitor)
{
	_free_ char *status = NULL;
	char path[32];
	uint64_t need;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)monitor);
	if (read_file_at(AT_FDCWD, path, 16384, &status, &len) < 0)
		return true;
	need = (number_after(status, "RssAnon:") + number_after(status, "RssShmem:")) * KIB + RESERVE;
	return need < memory_available(need + 1);
}

int branch_open(const struct keeper *k, struct monitor_saving *s)
{
	static const char *const names[] = {"state", "memory"};

	if (!has_room(k->mon.pid))
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		s->fds[i] = memfd_create(names[i], MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (s->fds[i] < 0)
			return -errno;
	}
	return flock(s->fds[0], LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

int branch_keep(struct keeper *k, struct client *c, uint32_t ch, struct monitor_saving *s,
		struct keeper_snapshot_reply *m)
{
	struct branch *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	*b = (struct branch){
		.client = c, .ch = ch, .fds = {TAKE_FD(s->fds[0]), TAKE_FD(s->fds[1])}, .next = k->branches};
	k->branches = b;
	m->pid = (uint64_t)getpid();
	m->state = (uint64_t)b->fds[0];
	m->memory = (uint64_t)b->fds[1];
	for (unsigned i = 0; i < k->num_under; i++)
		m->under[i] = (uint64_t)k->under[i];
	return 0;
}

/* Nobody changes them any more. */
void branch_written(struct keeper *k)
{
	for (struct branch *b = k->branches; b; b = b->next) {
		if (b->whole)
			continue;
		b->whole = true;
		for (unsigned i = 0; i < ARRAY_SIZE(b->fds); i++)
			fcntl(b->fds[i], F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
		flock(b->fds[0], LOCK_UN);
	}
}

void branch_drop(struct keeper *k, const struct client *c, uint32_t ch)
{
	for (struct branch **p = &k->branches, *b; (b = *p);) {
		if (b->client != c || (ch && b->ch != ch)) {
			p = &b->next;
			continue;
		}
		*p = b->next;
		fd_close(b->fds[0]);
		fd_close(b->fds[1]);
		free(b);
	}
}
