/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A snapshot of a running VM, which goes on:
 *
 *	HOLD	the disk's top gets the name of a layer (disk.c); the agent stops all processes and has sent what they
 *had written FREEZE	the monitor stands still, and goes on in the new top: from here on the layer stays as it is
 *	MEMORY	the processes run again; the monitor's copy writes and syncs the files
 *	done	the frozen layer is synced too, and who asked is told
 *
 * Volumes stand still from HOLD on, and until the library has copied them, which it does when it has been told; who
 * writes to one meanwhile waits.
 *
 * The library has made the directory, and does the rest: links to the layers, the description, the name. A VM that is
 *to be suspended (suspend.c) goes the same way, but for that it stands still from FREEZE on. A branch's files are in
 *memory (branch.c), and who asked is told when FREEZE is over. A mark (rewind.c) has no files at all, and is done then.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

/* Their copies are the library's work. */
static bool has_copies(const struct keeper *k)
{
	return !k->saving.suspend && vm_volumes(&k->rec, false);
}

static void finish(struct keeper *k, const struct keeper_snapshot_reply *m, int error, const char *text)
{
	struct saving *s = &k->saving;
	bool goes_on = s->suspend && error && k->phase < PHASE_ENDING;

	if (error && s->idle)
		log_warn("keeper", "the VM, which was idle, cannot be suspended: %s", text);

	if (s->branch)
		branch_written(k);
	s->dirfd = fd_close(s->dirfd);
	monitor_saving_close(&s->files);
	s->stage = SAVING_NOTHING;
	server_snapshot_done(k, m, m && has_copies(k) && !s->branch, error, text);
	s->client = NULL;
	if (goes_on)
		server_tell_started(k);
}

static int check(const struct keeper *k, bool suspend)
{
	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->main_open || !k->agent)
		return -EAGAIN;
	if (suspend && k->args.owner)
		return -EPERM;
	if (k->pause.on || k->pause.under_way)
		return -EHOSTDOWN;
	if (k->saving.stage != SAVING_NOTHING || k->saving.copies || k->forced != SM_REASON_NONE)
		return -EBUSY;
	return vm_mounts_saved(&k->rec) ? 0 : -EOPNOTSUPP;
}

static bool has_disk(const struct keeper *k)
{
	return k->rec.disk_template != NULL;
}

static int open_files(struct keeper *k, const char *dir)
{
	struct saving *s = &k->saving;

	s->dirfd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : suspend_open(k);
	if (s->dirfd < 0)
		return dir ? -errno : s->dirfd;
	return monitor_saving_open(&s->files, s->dirfd);
}

/* All that can be done before the processes stand still. */
static int prepare(struct keeper *k, const char *dir)
{
	struct saving *s = &k->saving;
	int r;

	if (s->mark)
		r = 0;
	else if (s->branch)
		r = branch_open(k, &s->files);
	else
		r = open_files(k, dir);
	if (r < 0 || !has_disk(k))
		return r;
	s->layers = disk_layers(k->dirfd);
	s->files.fds[2] = disk_new_top(k->dirfd);
	return s->files.fds[2] < 0 ? s->files.fds[2] : disk_freeze(k->dirfd, s->layers);
}

/* The monitor has not gone on in the new top. */
static void undo_prepare(struct keeper *k)
{
	if (has_disk(k))
		disk_unfreeze(k->dirfd, k->saving.layers);
}

static int begin(struct keeper *k, const char *dir)
{
	struct saving *s = &k->saving;
	int r = prepare(k, dir);

	if (r == 0 && s->suspend && suspend_over_parent(k))
		s->files.over = s->files.lean = true;
	if (r == 0) {
		r = s->mark ? agent_hold_again(k) : agent_hold(k, true, false);
		if (r < 0)
			undo_prepare(k);
	}
	if (r < 0) {
		monitor_saving_close(&s->files);
		s->dirfd = fd_close(s->dirfd);
		return r;
	}
	s->stage = SAVING_HOLD;
	if (s->suspend)
		server_tell_suspending(k);
	return 0;
}

int snapshot_request(struct keeper *k, const char *dir, unsigned keep)
{
	struct saving *s = &k->saving;
	int r = check(k, !dir);

	if (r < 0)
		return r;
	if (keep && keep != k->num_under)
		return -ESTALE;
	k->rewinding.marked = false; /* the disk goes on elsewhere */
	s->suspend = !dir;
	s->branch = dir && !*dir;
	s->idle = s->mark = false;
	s->files = (struct monitor_saving){.fds = {-1, -1, -1},
					   .stay = s->suspend,
					   .over = s->branch || keep,
					   .lean = keep,
					   .keep = k->num_under,
					   .unsynced = s->branch};
	return begin(k, dir);
}

/* What is outside of the guest's memory and its own disk cannot be taken back. */
static bool can_go_back(const struct vm_record *rec)
{
	return !rec->num_mounts && !rec->ports && !rec->secrets;
}

int snapshot_mark(struct keeper *k)
{
	struct saving *s = &k->saving;
	int r = check(k, false);

	if (r == 0 && !can_go_back(&k->rec))
		r = -EOPNOTSUPP;
	if (r < 0)
		return r;
	s->suspend = s->branch = s->idle = false;
	s->mark = true;
	s->files = (struct monitor_saving){.fds = {-1, -1, -1}, .unsynced = true};
	k->rewinding.marked = false;
	return begin(k, NULL);
}

static int mark(struct keeper *k, struct sm_error *err)
{
	int agent = -1, r;

	if (k->phase != PHASE_MAIN || k->forced != SM_REASON_NONE)
		return error_set(err, SM_ERROR_STATE, ESRCH, "it is being stopped");
	r = rewind_begin(k, &agent);
	r = r < 0 ? error_sys(err, -r, "a mark") : monitor_mark(k, agent, k->saving.files.fds[2], err);
	fd_close(agent);
	return r;
}

static int save(struct keeper *k, struct sm_error *err)
{
	int r = k->saving.mark ? mark(k, err) : monitor_snapshot(k, &k->saving.files, err);

	if (r < 0)
		undo_prepare(k);
	return r;
}

void snapshot_held(struct keeper *k, int error, const char *text)
{
	struct sm_error err = {0};

	k->saving.hold_ch = 0;
	if (k->saving.stage != SAVING_HOLD)
		return;
	if (error) {
		if (k->saving.mark)
			agent_held_not(k);
		undo_prepare(k);
		finish(k, NULL, error, text);
		return;
	}
	k->saving.stage = SAVING_FREEZE;
	if (save(k, &err) < 0) {
		if (k->saving.mark) /* its agent waits for another keeper */
			keeper_end(k, SM_REASON_START_FAILED, 0, "%.240s", err.message);
		else
			(void)!agent_hold(k, false, false);
		finish(k, NULL, err.code ? -err.code : -EIO, err.message);
	}
}

static int sync_file(int dirfd, const char *name)
{
	_fd_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static struct keeper_snapshot_reply reply(const struct keeper *k, uint64_t memory_bytes)
{
	const struct saving *s = &k->saving;

	return (struct keeper_snapshot_reply){.pause_ns = s->pause_ns,
					      .memory_bytes = memory_bytes,
					      .window = k->args.window,
					      .booted = k->args.booted || !k->args.restore,
					      .layers = has_disk(k) ? s->layers + 1 : 0};
}

void snapshot_frozen(struct keeper *k, uint64_t pause_ns)
{
	struct saving *s = &k->saving;

	if (s->stage != SAVING_FREEZE)
		return;
	s->stage = SAVING_MEMORY;
	s->pause_ns = pause_ns;
	if (!s->suspend)
		(void)!agent_hold(k, false, has_copies(k)); /* without its agent the VM ends */
	if (s->branch) {
		struct keeper_snapshot_reply m = reply(k, 0);

		server_branch_frozen(k, &m);
	}
}

/* The guest goes on as if nothing had been. */
static void give_up(struct keeper *k, int error, const char *text)
{
	struct saving *s = &k->saving;
	bool frozen = s->stage == SAVING_MEMORY;

	if (!frozen)
		undo_prepare(k);
	if (frozen && s->suspend)
		suspend_undo(k);
	if (!frozen || s->suspend || (has_copies(k) && !s->branch))
		(void)!agent_hold(k, false, false);
	finish(k, NULL, error, text);
}

static int sync_layer(const struct keeper *k, struct sm_error *err)
{
	char layer[24];
	int r;

	if (!has_disk(k) || k->saving.files.unsynced)
		return 0;
	snprintf(layer, sizeof(layer), "layer.%u", k->saving.layers);
	r = sync_file(k->dirfd, layer);
	if (r == 0 && fsync(k->dirfd) < 0)
		r = -errno;
	return r < 0 ? error_sys(err, -r, "sync the disk") : 0;
}

void snapshot_to_copy(struct keeper *k, struct client *c, uint32_t ch)
{
	if (!has_copies(k))
		return;
	k->saving.copies = c;
	k->saving.copies_ch = ch;
	if (!c)
		(void)!agent_hold(k, false, false);
}

bool snapshot_copied(struct keeper *k, const struct client *c, uint32_t ch)
{
	if (!k->saving.copies || k->saving.copies != c || (ch && ch != k->saving.copies_ch))
		return false;
	k->saving.copies = NULL;
	(void)!agent_hold(k, false, false);
	return true;
}

void snapshot_copies_lost(struct keeper *k)
{
	if (k->saving.copies)
		server_copies_lost(k);
	k->saving.copies = NULL;
}

/* Everything is in its place. A VM that was told to stop meanwhile is not suspended. */
static int commit(struct keeper *k, const struct keeper_snapshot_reply *m, struct sm_error *err)
{
	_cleanup_(vm_suspended_done) struct vm_suspended s = {
		.window = m->window, .layers = (unsigned)m->layers, .booted = m->booted};
	int r = sync_layer(k, err);

	if (r < 0 || !k->saving.suspend)
		return r;
	if (k->phase >= PHASE_ENDING || k->forced != SM_REASON_NONE)
		return error_set(err, SM_ERROR_STATE, ESRCH, "it is being stopped");
	return suspend_commit(k, &s, err);
}

void snapshot_saved(struct keeper *k, const char *error, uint64_t memory_bytes)
{
	struct saving *s = &k->saving;
	struct keeper_snapshot_reply m = reply(k, memory_bytes);
	struct sm_error err = {0};

	if (s->stage < SAVING_FREEZE)
		return;
	if (!error && s->stage == SAVING_FREEZE)
		error = "the monitor did not freeze the guest";
	if (error) {
		give_up(k, -EIO, error);
	} else if (commit(k, &m, &err) < 0) {
		give_up(k, err.code ? -err.code : -EIO, err.message);
	} else {
		finish(k, &m, 0, "");
		if (s->suspend)
			keeper_end(k, SM_REASON_SUSPENDED, 0, "suspended%s", s->idle ? ", as nobody used it" : "");
	}
}

void snapshot_marked(struct keeper *k, const char *error)
{
	struct saving *s = &k->saving;

	if (s->stage != SAVING_FREEZE || !s->mark)
		return;
	if (error)
		undo_prepare(k);
	rewind_marked(k, error);
	finish(k, NULL, 0, "");
}
