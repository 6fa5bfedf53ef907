/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a running VM, which goes on:
 *
 *	HOLD	the agent stops all processes and has sent what they had written
 *	MEMORY	the disk's top is frozen (disk.c); the monitor stands still, saves, goes on in the new top
 *	done	the processes run again; the files are synced, and who asked is told
 *
 * The library has made the directory, and does the rest: links to the layers, the description, the name.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

static void finish(struct keeper *k, const struct keeper_snapshot_reply *m, int error, const char *text)
{
	struct saving *s = &k->saving;

	s->dirfd = fd_close(s->dirfd);
	s->stage = SAVING_NOTHING;
	server_snapshot_done(k, m, error, text);
	s->client = NULL;
}

int snapshot_request(struct keeper *k, const char *dir)
{
	struct saving *s = &k->saving;
	int r;

	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->main_open || !k->agent)
		return -EAGAIN;
	if (k->pause.on || k->pause.under_way)
		return -EHOSTDOWN;
	if (s->stage != SAVING_NOTHING || k->forced != SM_REASON_NONE)
		return -EBUSY;
	if (k->rec.num_mounts)
		return -EOPNOTSUPP;
	s->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dirfd < 0)
		return -errno;
	r = agent_hold(k, true);
	if (r < 0) {
		s->dirfd = fd_close(s->dirfd);
		return r;
	}
	s->stage = SAVING_HOLD;
	return 0;
}

static bool has_disk(const struct keeper *k)
{
	return k->rec.disk_template != NULL;
}

static int save(struct keeper *k, struct sm_error *err)
{
	struct saving *s = &k->saving;
	_fd_ int top = -1;
	int r;

	if (has_disk(k)) {
		s->layers = disk_layers(k->dirfd);
		top = disk_freeze(k->dirfd, s->layers);
		if (top < 0)
			return error_sys(err, -top, "freeze the disk");
	}
	r = monitor_snapshot(k, s->dirfd, top, err);
	if (r < 0 && has_disk(k))
		disk_unfreeze(k->dirfd, s->layers);
	return r;
}

void snapshot_held(struct keeper *k, int error, const char *text)
{
	struct sm_error err = {0};

	k->saving.hold_ch = 0;
	if (k->saving.stage != SAVING_HOLD)
		return;
	if (error) {
		finish(k, NULL, error, text);
		return;
	}
	k->saving.stage = SAVING_MEMORY;
	if (save(k, &err) < 0) {
		(void)!agent_hold(k, false);
		finish(k, NULL, err.code ? -err.code : -EIO, err.message);
	}
}

static int sync_file(int dirfd, const char *name)
{
	_fd_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

void snapshot_saved(struct keeper *k, bool frozen, const char *error, uint64_t pause_ns, uint64_t memory_bytes)
{
	struct saving *s = &k->saving;
	struct keeper_snapshot_reply m = {.pause_ns = pause_ns,
					  .memory_bytes = memory_bytes,
					  .window = k->args.window,
					  .booted = k->args.booted || !k->args.restore,
					  .layers = has_disk(k) ? s->layers + 1 : 0};
	char layer[24];
	int r = 0;

	if (s->stage != SAVING_MEMORY)
		return;
	if (!frozen && has_disk(k))
		disk_unfreeze(k->dirfd, s->layers);
	if (agent_hold(k, false) < 0 && !error)
		error = "the guest's agent is gone";
	if (error) {
		finish(k, NULL, -EIO, error);
		return;
	}
	snprintf(layer, sizeof(layer), "layer.%u", s->layers);
	if (has_disk(k))
		r = sync_file(k->dirfd, layer);
	if (r == 0 && has_disk(k) && fsync(k->dirfd) < 0)
		r = -errno;
	finish(k, r < 0 ? NULL : &m, r, r < 0 ? strerror(-r) : "");
}
