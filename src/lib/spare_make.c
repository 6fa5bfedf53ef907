/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making spares, and ending them. One is made behind a VM that might itself have been a spare, if another of its shape
 * ended not long before: a single run leaves nothing. Whoever makes it prepares a directory and starts a keeper; he
 * does not wait for it, which does the rest by itself and ends by itself.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/spare.h"
#include "lib/vmsnap.h"

#define SPARES_MAX 2
#define LIFE_NS (30 * SECOND_NS)
#define WANTED_S 30 /* how long ago the last VM of the shape may have ended */
#define STALE_S 120 /* one that is older cannot be alive: its start is limited, too */
#define END_MS 5000
#define SEEN "seen-"

static bool is_spare(const char *name, const char *shape)
{
	return strlen(name) == SPARE_SHAPE_DIGITS + 1 + VM_ID_DIGITS && name[SPARE_SHAPE_DIGITS] == '-' &&
	       vm_id_valid(name + SPARE_SHAPE_DIGITS + 1) && (!shape || str_starts(name, shape));
}

char **spare_names(int spares, const char *shape)
{
	return snapshot_names(spares, is_spare, shape);
}

static bool any(const char *name, const char *arg)
{
	return !streq(name, ".") && !streq(name, "..");
}

static bool older_than(int dir, const char *name, time_t seconds)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || time(NULL) - st.st_mtim.tv_sec > seconds;
}

bool spare_seen(int spares, const char *shape)
{
	char name[sizeof(SEEN) + SPARE_SHAPE_DIGITS];

	snprintf(name, sizeof(name), SEEN "%s", shape);
	return !older_than(spares, name, WANTED_S);
}

static void note_seen(int spares, const char *shape)
{
	char name[sizeof(SEEN) + SPARE_SHAPE_DIGITS];

	snprintf(name, sizeof(name), SEEN "%s", shape);
	fd_close(openat(spares, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
	utimensat(spares, name, NULL, 0);
}

/* ------------------------------------------------------------------------------------------- making */

static int make_record(const struct spare *s, struct vm_record *r, struct sm_error *err)
{
	static const struct sm_vm_options none = SM_VM_OPTIONS_INIT;
	int e = vm_record_parse(s->record, strlen(s->record), r, err);

	if (e == 0)
		e = start_new_identity(r, &none, err);
	if (e < 0)
		return e;
	free(r->hostname);
	r->hostname = strdup(r->id);
	return r->hostname ? 0 : error_sys(err, ENOMEM, "spare");
}

/* Under a name that nobody takes, with the lock that says that somebody is at it. */
static int make_dir(int spares, const char *name, const struct vm_record *r, int *ret_lock, struct sm_error *err)
{
	_free_ char *json = NULL;
	_fd_ int dir = -1;
	int e = vm_record_format(r, &json, err);

	if (e < 0)
		return e;
	if (mkdirat(spares, name, 0700) < 0 || (dir = openat(spares, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return error_sys(err, errno, "spare");
	*ret_lock = e = vmdir_flock(dir, "start.lock", true, false);
	if (e >= 0)
		e = write_file_atomic_at(dir, "config.json", json, strlen(json), 0600);
	return e < 0 ? error_sys(err, -e, "spare") : TAKE_FD(dir);
}

static int start_one(struct sm_client *c, int spares, const struct spare *s, const struct vm_record *r,
		     struct sm_error *err)
{
	char temporary[64], name[64];
	_free_ char *path = NULL;
	_fd_ int dir = -1, lock = -1;
	struct base base = {.dir = s->base};
	bool linked;
	struct launch l = {.id = r->id,
			   .spare_ns = LIFE_NS,
			   .restore = s->base,
			   .window = s->window,
			   .plugged = s->plugged,
			   .created_ns = s->created_ns,
			   .since_ns = time_now_ns()};
	int e;

	snprintf(name, sizeof(name), "%s-%s", s->shape, r->id);
	snprintf(temporary, sizeof(temporary), ".new-%s", name);
	if (asprintf(&path, "%s/spares/%s", c->state_dir, name) < 0)
		return error_sys(err, ENOMEM, "spare");
	l.dir = path;
	dir = make_dir(spares, temporary, r, &lock, err);
	e = MIN(dir, 0);
	memcpy(base.disk, s->disk, sizeof(base.disk));
	if (e == 0)
		l.disk_ahead = base_give_disk(&base, r, dir, &linked);
	if (e == 0 && renameat(spares, temporary, spares, name) < 0)
		e = error_sys(err, errno, "spare");
	if (e == 0)
		e = launch_spare(c, dir, &l, err);
	if (e < 0) {
		remove_tree_at(spares, temporary);
		remove_tree_at(spares, name);
	}
	return e;
}

static int make_one(struct sm_client *c, int spares, const struct spare *s, struct sm_error *err)
{
	_cleanup_(vm_record_done) struct vm_record r = {0};
	int e = make_record(s, &r, err);

	return e < 0 ? e : start_one(c, spares, s, &r, err);
}

static int open_spares(struct sm_client *c)
{
	_fd_ int state = vmdir_sub(c, ".", NULL);

	if (state < 0 || (mkdirat(state, "spares", 0700) < 0 && errno != EEXIST))
		return -1;
	return openat(state, "spares", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

void spare_leave(struct sm_client *c, const struct spare *s)
{
	_fd_ int spares = open_spares(c), lock = -1;
	struct sm_error err = {0};
	char **names;
	size_t n;

	if (spares < 0)
		return;
	note_seen(spares, s->shape);
	if (!s->wanted)
		return;
	/* Somebody else is making one: as good. */
	lock = vmdir_flock(spares, "lock", true, false);
	names = lock < 0 ? NULL : spare_names(spares, NULL);
	n = strv_len((const char *const *)names);
	strv_free(names);
	if (lock >= 0 && n < SPARES_MAX && make_one(c, spares, s, &err) < 0)
		client_say(c, SM_LOG_DEBUG, "no spare: %s", err.message);
}

/* ------------------------------------------------------------------------------------------- ending */

/* Out of reach in one step, if nobody is at it: its directory, and *ret_lock. -1: somebody is. */
static int withdraw(int spares, const char *name, char gone[static 32], int *ret_lock)
{
	_fd_ int dir = openat(spares, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	_fd_ int lock = dir < 0 ? -1 : vmdir_flock(dir, "start.lock", true, false);

	snprintf(gone, 32, ".old-%s", name + SPARE_SHAPE_DIGITS + 1);
	if (lock < 0 || renameat(spares, name, spares, gone) < 0)
		return -1;
	*ret_lock = TAKE_FD(lock);
	return TAKE_FD(dir);
}

/* Until its keeper has gone, and with it the monitor. */
static void stop_one(struct sm_client *c, int dir, const char *id)
{
	_cleanup_(buf_done) struct buf b = {0};
	const struct keeper_stop stop = {.mode = KEEPER_STOP_NOW};
	uint64_t until = time_now_ns() + END_MS * 1000000ull;
	struct vm_start start;
	struct conn conn;
	struct call call;
	int r = vmdir_load_start(dir, &start, NULL);

	r = r < 0 ? r : vm_socket(c, id, &start, 0, NULL);
	if (r < 0 || conn_init(&conn, r, NULL) < 0)
		return;
	r = keeper_stop_encode(&b, &stop);
	r = r < 0 ? r : conn_call(&conn, PROTO_KEEPER_STOP, &b, &call);
	if (r == 0) {
		while (time_now_ns() < until && conn_step(&conn, NULL, 0, 100) == 0)
			;
		call_done(&call);
	}
	conn_done(&conn);
}

void spare_end_all(struct sm_client *c)
{
	_fd_ int spares = vmdir_sub(c, "spares", NULL);
	char **names = spares < 0 ? NULL : spare_names(spares, NULL);

	for (char **n = names; n && *n; n++) {
		char gone[32];
		_fd_ int lock = -1;
		_fd_ int dir = withdraw(spares, *n, gone, &lock);

		if (dir < 0)
			continue;
		stop_one(c, dir, *n + SPARE_SHAPE_DIGITS + 1);
		remove_tree_at(spares, gone);
	}
	strv_free(names);
	spare_sweep(c);
}

/* What has a temporary name, and nobody is at it. */
static void sweep_temporary(int spares, const char *name)
{
	_fd_ int dir = openat(spares, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	_fd_ int lock = dir < 0 ? -1 : vmdir_flock(dir, "start.lock", true, false);

	if (lock >= 0)
		remove_tree_at(spares, name);
}

static void sweep_stale(int spares, const char *name)
{
	char gone[32];
	_fd_ int lock = -1, dir = -1;

	if (!older_than(spares, name, STALE_S))
		return;
	dir = withdraw(spares, name, gone, &lock);
	if (dir >= 0)
		remove_tree_at(spares, gone);
}

void spare_sweep(struct sm_client *c)
{
	_fd_ int spares = vmdir_sub(c, "spares", NULL);
	char **names = spares < 0 ? NULL : snapshot_names(spares, any, NULL);

	for (char **n = names; n && *n; n++) {
		if (**n == '.')
			sweep_temporary(spares, *n);
		else if (is_spare(*n, NULL))
			sweep_stale(spares, *n);
		else if (str_starts(*n, SEEN) && older_than(spares, *n, STALE_S))
			unlinkat(spares, *n, 0);
	}
	strv_free(names);
}
