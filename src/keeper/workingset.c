/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot's working set (vmm/workingset.h): the first VM that is restored from the snapshot leaves it behind, when
 * its command begins to run. Nobody waits for it, and nothing is lost if it fails.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define FILE_MAX (64u << 10)

void workingset_ask(struct keeper *k)
{
	static const char text[] = "{\"cmd\":\"workingset\"}";
	struct monitor *m = &k->mon;
	int r;

	if (!k->learn)
		return;
	k->learn = false;
	m->workingset = memfd_create("workingset", MFD_CLOEXEC);
	r = m->workingset < 0 ? -errno : fd_send(m->control, text, sizeof(text) - 1, &m->workingset, 1);
	if (r < 0) {
		log_debug("keeper", "working set: %s", strerror(-r));
		m->workingset = fd_close(m->workingset);
	}
}

static int keep(struct keeper *k)
{
	_fd_ int dir = open(k->args.restore, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_free_ uint8_t *data = malloc(FILE_MAX);
	ssize_t n;

	if (dir < 0 || !data)
		return dir < 0 ? -errno : -ENOMEM;
	n = pread_full(k->mon.workingset, data, FILE_MAX, 0);
	if (n <= 0 || n == (ssize_t)FILE_MAX)
		return n < 0 ? (int)n : -EMSGSIZE;
	return write_file_atomic_at(dir, "workingset", data, (size_t)n, 0400);
}

void workingset_noted(struct keeper *k, int64_t pages)
{
	int r = k->mon.workingset < 0 || pages <= 0 ? 0 : keep(k);

	if (r < 0) /* the snapshot may be gone by now */
		log_debug("keeper", "working set: %s", strerror(-r));
	k->mon.workingset = fd_close(k->mon.workingset);
}
