/* SPDX-License-Identifier: Apache-2.0 */
/* From a VM's directory to a keeper that answers, on this host or in the machine. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/slots.h"
#include "base/util.h"
#include "keeper/admission.h"
#include "lib/vmsnap.h"

#define ANSWER_TIMEOUT_NS (30 * SECOND_NS)
/* A keeper that restores answers when its monitor has taken the snapshot: later, if many start at once. */
#define RESTORE_TIMEOUT_NS (120 * SECOND_NS)
#define RESTORE_TRIES 2
/* How often to look whether a keeper answers: on this host, and whether it has failed meanwhile in the machine. */
#define LOOK_MS 2
#define LOOK_THERE_NS (SECOND_NS / 10)
/* And after which time whether it waits until it may start its VM. */
#define LOOK_WAITS_NS SECOND_NS

static int fill_start(struct sm_client *c, struct seat *seat, const char *id, bool detach, struct vm_start *s,
		      struct sm_error *err)
{
	_free_ char *host = NULL;
	size_t len;
	int r = seat_ready(seat, err);

	if (r < 0)
		return r;
	*s = (struct vm_start){.detach = detach, .in_machine = seat_in_machine(seat)};
	if (read_file_at(-1, "/proc/sys/kernel/random/boot_id", 256, &host, &len) == 0)
		snprintf(s->host_boot_id, sizeof(s->host_boot_id), "%.36s", host);
	r = seat_boot_id(seat, s->boot_id, err);
	if (r < 0)
		return r;
	if (snprintf(s->socket, sizeof(s->socket), "%s/%s.sock", seat_runtime_dir(seat), id) >= (int)sizeof(s->socket))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "runtime directory %s", c->runtime_dir);
	return 0;
}

static int write_start(int dir, const struct vm_start *s, struct sm_error *err)
{
	int r = vmdir_store_start(dir, s, err);

	if (r < 0)
		return r;
	if (unlinkat(dir, "exit.json", 0) < 0 && errno != ENOENT)
		return error_sys(err, errno, "write start.json");
	unlinkat(dir, ADMISSION_FILE, 0); /* of a keeper that was killed while it waited */
	futimens(dir, NULL);		  /* whoever follows events sees that it begins (lib/events.c) */
	return 0;
}

static int spawn(struct sm_client *c, struct seat *seat, const struct launch *l, const struct vm_start *s,
		 struct sm_error *err)
{
	const char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL, NULL};
	const char *says = getenv("SUPERMACHINE_LOG");
	_free_ char *keeper = NULL, *vmm = NULL, *log = NULL, *level = NULL;
	char prepared[24], window[24], plugged[24], patience[24], life[24];
	const char *argv[34];
	unsigned n = 0;
	int r = client_helper(c, "supermachine-keeper", &keeper, err);

	if (r == 0)
		r = client_helper(c, "supermachine-vmm", &vmm, err);
	if (r < 0)
		return r;
	if (asprintf(&log, "%s/keeper.log", l->dir) < 0)
		return error_sys(err, ENOMEM, "start");
	if (says && asprintf(&level, "SUPERMACHINE_LOG=%s", says) < 0)
		return error_sys(err, ENOMEM, "start");
	env[1] = level;
	snprintf(prepared, sizeof(prepared), "%llu", (unsigned long long)s->prepare_ns);
	/* A spare does not wait for its turn, nor for memory. */
	snprintf(patience, sizeof(patience), "%llu", (unsigned long long)(l->spare_ns ? 0 : admission_patience(l)));
	argv[n++] = keeper;
	argv[n++] = "--socket";
	argv[n++] = s->socket;
	argv[n++] = "--vmm";
	argv[n++] = vmm;
	argv[n++] = "--prepared";
	argv[n++] = prepared;
	argv[n++] = "--patience";
	argv[n++] = patience;
	if (!s->detach && !l->spare_ns)
		argv[n++] = "--owner";
	if (!s->detach && l->background)
		argv[n++] = "--background";
	if (l->adopt)
		argv[n++] = "--adopt";
	if (l->booted)
		argv[n++] = "--booted";
	if (l->resume)
		argv[n++] = "--resume";
	if (l->spare_ns) {
		snprintf(life, sizeof(life), "%llu", (unsigned long long)l->spare_ns);
		argv[n++] = "--spare";
		argv[n++] = life;
	}
	if (s->in_machine)
		argv[n++] = "--watched";
	if (l->base || l->restore) {
		snprintf(window, sizeof(window), "%llu", (unsigned long long)l->window);
		argv[n++] = "--window";
		argv[n++] = window;
		argv[n++] = l->base ? "--base" : "--restore";
	}
	if (l->restore)
		argv[n++] = l->restore;
	if (l->plugged) {
		snprintf(plugged, sizeof(plugged), "%llu", (unsigned long long)l->plugged);
		argv[n++] = "--plugged";
		argv[n++] = plugged;
	}
	if (l->disk_ahead)
		argv[n++] = "--disk-ahead";
	if (l->files) {
		argv[n++] = "--files";
		argv[n++] = l->files;
	}
	if (l->under) {
		argv[n++] = "--under";
		argv[n++] = l->under;
	}
	argv[n++] = l->dir;
	argv[n] = NULL;
	return seat_spawn(seat, &(struct seat_command){.argv = argv, .env = env, .log = log}, NULL, err);
}

/* The keeper's log, when it did not even come as far as a record. */
static int no_answer(int dir, const char *id, struct sm_error *err)
{
	_free_ char *log = NULL;
	size_t len = 0;

	if (read_file_at(dir, "keeper.log", 65536, &log, &len) == 0)
		while (len && log[len - 1] == '\n')
			log[--len] = '\0';
	if (len) {
		const char *line = strrchr(log, '\n');

		return error_set(err, SM_ERROR_HOST, EPROTO, "VM %s: its keeper did not start: %.400s", id,
				 line ? line + 1 : log);
	}
	return error_set(err, SM_ERROR_HOST, ETIMEDOUT, "VM %s: its keeper did not start", id);
}

/* One that waits before it does anything has as much time as ever from then on. */
static int put_off(int dir, const struct launch *l, uint64_t limit, uint64_t *deadline, struct sm_error *err)
{
	bool waits;
	int r = admission_waits(dir, l, &waits, err);

	if (waits)
		*deadline = time_now_ns() + limit;
	return r;
}

/* A socket to it as soon as it listens, for which in the machine the agent looks: each look from here would be a round
 * trip that takes the machine's time from the keeper. A keeper that failed has left exit.json instead. */
static int await_keeper(struct sm_client *c, int dir, const struct launch *l, const struct vm_start *s,
			bool *ret_broken, struct sm_error *err)
{
	uint64_t limit = l->restore || l->resume ? RESTORE_TIMEOUT_NS : ANSWER_TIMEOUT_NS;
	uint64_t since = time_now_ns(), last = since + admission_patience(l) + limit, deadline = since + limit;
	uint64_t look = since + LOOK_WAITS_NS;

	for (int pause_ms = 1;; pause_ms = MIN(pause_ms * 2, LOOK_MS)) {
		struct vm_exit x;
		int r = vm_socket(c, l->id, s, LOOK_THERE_NS, err);

		if (r >= 0 || (r != -ENOENT && r != -ECONNREFUSED))
			return r;
		if (vmdir_load_exit(dir, &x, NULL) == 0) {
			if (ret_broken)
				*ret_broken = x.restore_failed;
			return error_set(err,
					 x.busy		 ? SM_ERROR_BUSY
					 : x.unsupported ? SM_ERROR_UNSUPPORTED
							 : SM_ERROR_HOST,
					 x.busy		 ? EBUSY
					 : x.unsupported ? EOPNOTSUPP
							 : EPROTO,
					 "VM %s: %s", l->id, x.outcome.message);
		}
		if (time_now_ns() > look) {
			r = put_off(dir, l, limit, &deadline, err);
			if (r < 0)
				return r;
			look = time_now_ns() + LOOK_WAITS_NS / 4;
		}
		if (time_now_ns() > MIN(deadline, last))
			return no_answer(dir, l->id, err);
		poll(NULL, 0, pause_ms);
	}
}

/* A monitor in the machine may need programs of this host for its start. */
static int carry_served(struct sm_client *c, int dir, const struct launch *l, const struct vm_start *s,
			bool *ret_broken, struct sm_error *err)
{
	struct vm_start early = *s;
	char path[PATH_MAX];
	_fd_ int link = -1;

	if (!s->in_machine || !l->rec || !vm_has_served(l->rec))
		return 0;
	if (wire_early_socket(s->socket, path) < 0 || strlen(path) >= sizeof(early.socket))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "runtime directory %s", c->runtime_dir);
	strcpy(early.socket, path);
	link = await_keeper(c, dir, l, &early, ret_broken, err);
	return link < 0 ? link : served_carry(c, l->rec, link, err);
}

/* The keeper is started; whether it comes to anything is not known. */
static int start_keeper(struct sm_client *c, int dir, const struct launch *l, struct vm_start *s, struct sm_error *err)
{
	struct seat *seat;
	int r = client_seat(c, &seat, err);

	if (r == 0)
		r = fill_start(c, seat, l->id, l->detach, s, err);
	if (r < 0)
		return r;
	s->prepare_ns = time_now_ns() - l->since_ns;
	if (l->restore && !l->files) {
		snprintf(s->base, sizeof(s->base), "%s", strrchr(l->restore, '/') + 1);
		s->base_created_ns = l->created_ns;
		snprintf(s->origin.name, sizeof(s->origin.name), "%s", strrchr(l->restore, '/') + 1);
		s->origin.created_ns = l->created_ns;
	}
	if (l->origin)
		s->origin = *l->origin;
	r = write_start(dir, s, err);
	return r < 0 ? r : spawn(c, seat, l, s, err);
}

static int launch_now(struct sm_client *c, const struct launch *l, bool *ret_broken, struct sm_error *err)
{
	_fd_ int dir = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct vm_start s;
	int r = dir < 0 ? error_sys(err, errno, "open %s", l->dir) : start_keeper(c, dir, l, &s, err);

	if (r == 0)
		r = carry_served(c, dir, l, &s, ret_broken, err);
	return r < 0 ? r : await_keeper(c, dir, l, &s, ret_broken, err);
}

int launch_spare(struct sm_client *c, int dir, const struct launch *l, struct sm_error *err)
{
	struct vm_start s;

	return start_keeper(c, dir, l, &s, err);
}

int launch_keeper(struct sm_client *c, const struct launch *l, bool *ret_broken, struct sm_error *err)
{
	int slot = admission_slot(c, l, err), r;

	if (slot < 0)
		return slot;
	r = launch_now(c, l, ret_broken, err);
	slots_release(slot);
	return r;
}

int launch_join(int fd, const char *id, struct conn *conn, struct call *call, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_wait w = {.owner = true};
	int r = conn_init(conn, fd, err);

	if (r < 0)
		return r;
	r = keeper_wait_encode(&b, &w);
	if (r == 0)
		r = conn_call(conn, PROTO_KEEPER_WAIT, &b, call);
	if (r < 0) {
		conn_done(conn);
		return error_sys(err, -r, "VM %s", id);
	}
	r = conn_await_open(conn, call, "join the VM", err);
	if (r < 0) {
		conn_done(conn);
		call_done(call);
	}
	return r;
}

/* The connection then lies idle: what the keeper sends on it fits the socket's buffer. */
static int become_owner(struct sm_vm *vm, int fd, struct sm_error *err)
{
	struct conn conn;
	struct call call;
	int r = launch_join(fd, vm->id, &conn, &call, err);

	if (r < 0)
		return r;
	pthread_mutex_lock(&vm->lock);
	fd_close(vm->owner_fd);
	vm->owner_fd = TAKE_FD(conn.fd);
	pthread_mutex_unlock(&vm->lock);
	conn_done(&conn);
	call_done(&call);
	return 0;
}

/* What keeps a base from being made may keep the VM from booting too: then that is what there is to say. */
static int launch_cold(struct sm_client *c, const struct launch *l, enum sm_log_level level, const char *why,
		       struct sm_error *err)
{
	int r = launch_keeper(c, l, NULL, err);

	if (r >= 0)
		client_say(c, level, "VM %s boots, as it cannot be restored: %s", l->id, why);
	return r;
}

/* A base that does not fit is made anew; if that one does not fit either, the VM boots. */
static int launch_from_base(struct sm_client *c, struct launch *l, int dir, const struct vm_record *rec,
			    const struct sm_progress *progress, struct sm_error *err)
{
	struct sm_error why = {0};

	for (int tries = 0; tries < RESTORE_TRIES; tries++) {
		struct base base = {0};
		bool broken = false, linked;
		int r = base_get(c, rec, progress, &base, &why);

		if (r == -ECANCELED || r == -EBUSY)
			return error_set(err, why.kind, why.code, "%s", why.message);
		if (r < 0)
			return launch_cold(c, l, r == -EAGAIN ? SM_LOG_DEBUG : SM_LOG_NOTICE, why.message, err);
		l->restore = base.dir;
		l->window = base.window;
		l->plugged = rec->memory - base.memory;
		l->disk_ahead = base_give_disk(&base, rec, dir, &linked);
		l->created_ns = base.created_ns;
		r = launch_keeper(c, l, &broken, &why);
		l->restore = NULL;
		l->plugged = 0;
		l->disk_ahead = false;
		if (broken && linked)
			unlinkat(dir, "layer.0", 0);
		if (broken)
			base_discard(c, &base);
		base_done(&base);
		if (r >= 0)
			return r;
		if (!broken)
			return error_set(err, why.kind, why.code, "%s", why.message);
		client_say(c, SM_LOG_INFO, "a base snapshot was of no use: %s", why.message);
	}
	return launch_cold(c, l, SM_LOG_NOTICE, why.message, err);
}

/* fd: the connection to its keeper. */
static int launched(struct sm_vm *vm, int fd, bool detach, struct sm_error *err)
{
	if (!detach)
		return become_owner(vm, fd, err);
	fd_close(fd);
	return 0;
}

int launch(struct sm_client *c, struct sm_vm *vm, const struct vm_record *rec, bool detach, uint64_t since_ns,
	   const struct sm_progress *progress, struct sm_error *err)
{
	_free_ char *path = vmdir_path(c, vm->id);
	struct launch l = {.dir = path,
			   .id = vm->id,
			   .detach = detach,
			   .background = vm->background,
			   .patience_ns = vm->start_timeout_ns,
			   .progress = progress,
			   .since_ns = since_ns,
			   .rec = rec};
	_fd_ int dir = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct vm_start before;
	int r;

	if (!path)
		return error_sys(err, ENOMEM, "start");
	l.resume = dir >= 0 && vm_is_suspended(dir);
	if (l.resume && faccessat(dir, VM_SUSPENDED "/" VM_SUSPENDED_BASE, F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
	    vmdir_load_start(dir, &before, NULL) == 0)
		l.origin = &before.origin; /* its memory lies over the same as ever */
	r = l.resume || rec->cold ? launch_keeper(c, &l, NULL, err) : launch_from_base(c, &l, dir, rec, progress, err);
	return r < 0 ? r : launched(vm, r, detach, err);
}

int launch_restored(struct sm_client *c, struct sm_vm *vm, const struct vmsnap_restore *from, bool detach,
		    uint64_t since_ns, const struct sm_progress *progress, struct sm_error *err)
{
	_free_ char *path = vmdir_path(c, vm->id);
	struct launch l = {.dir = path,
			   .id = vm->id,
			   .detach = detach,
			   .background = vm->background,
			   .patience_ns = vm->start_timeout_ns,
			   .progress = progress,
			   .since_ns = since_ns,
			   .restore = from->dir,
			   .files = from->files[0] ? from->files : NULL,
			   .under = from->under,
			   .origin = from->files[0] ? &from->origin : NULL,
			   .adopt = true,
			   .booted = from->meta.booted,
			   .window = from->meta.window,
			   .created_ns = from->meta.created_ns};
	int r = path ? launch_keeper(c, &l, NULL, err) : error_sys(err, ENOMEM, "start");

	return r < 0 ? r : launched(vm, r, detach, err);
}
