/* SPDX-License-Identifier: Apache-2.0 */
/* VM handles, and the truth about a VM's state: its keeper's word, else its record, else what can be derived. */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/cpugroup.h"
#include "lib/base.h"
#include "lib/events.h"
#include "lib/spare.h"

#define LAST_WORD_MS 5000
#define START_POLL_MS 5
#define CONNECT_LIMIT_NS (30 * SECOND_NS)
#define DEFAULT_GRACE_NS (10 * SECOND_NS)

const char *sm_reason_name(enum sm_reason reason)
{
	return vm_reason_name(reason);
}

const char *sm_vm_state_name(enum sm_vm_state state)
{
	static const char *const names[] = {
		[SM_VM_STARTING] = "starting", [SM_VM_RUNNING] = "running", [SM_VM_STOPPING] = "stopping",
		[SM_VM_EXITED] = "exited",     [SM_VM_PAUSED] = "paused",   [SM_VM_SUSPENDED] = "suspended",
	};

	return (unsigned)state < ARRAY_SIZE(names) && names[state] ? names[state] : "unknown";
}

/* The caller may have been built with a smaller struct. */
void outcome_copy(struct sm_outcome *to, const struct sm_outcome *from)
{
	size_t size;

	if (!to)
		return;
	size = to->size ? MIN(to->size, sizeof(*from)) : sizeof(*from);
	memcpy(to, from, size);
	to->size = size;
}

/* ---------------------------------------------------------------------------------------- handles */

int vm_handle_new(struct sm_client *c, const char *id, struct sm_vm **ret, struct sm_error *err)
{
	struct sm_vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return error_sys(err, ENOMEM, "VM %s", id);
	vm->client = c;
	snprintf(vm->id, sizeof(vm->id), "%s", id);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->files_mutex, NULL);
	vm->owner_fd = vm->transient_fd = vm->files_lock = -1;
	*ret = vm;
	return 0;
}

int sm_vm_open(struct sm_client *client, const char *ref, struct sm_vm **ret, struct sm_error *err)
{
	char id[VM_ID_DIGITS + 1];
	int r = vmdir_resolve(client, ref, id, err);

	return r < 0 ? r : vm_handle_new(client, id, ret, err);
}

const char *sm_vm_id(const struct sm_vm *vm)
{
	return vm->id;
}

/* ------------------------------------------------------------------------------------ connections */

int vm_socket(struct sm_client *c, const char *id, const struct vm_start *start, uint64_t wait_ns, struct sm_error *err)
{
	struct seat *seat;
	int r;

	if (start->in_machine) {
		r = client_machine_seat(c, &seat, err);
		return r < 0 ? r : seat_connect(seat, start->socket, wait_ns, err);
	}
	/* This host's own socket needs no seat, which might fail here for other reasons. */
	r = unix_connect_within(start->socket, CONNECT_LIMIT_NS);
	return r < 0 ? error_set(err, SM_ERROR_STATE, -r, "VM %s: its keeper does not answer: %s", id, strerror(-r))
		     : r;
}

int vm_connect(struct sm_client *c, const char *id, struct conn *conn, struct sm_error *err)
{
	struct vm_start start;
	_fd_ int dir = vmdir_open(c, id, err);
	int r;

	if (dir < 0)
		return dir;
	r = vmdir_load_start(dir, &start, err);
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_STATE, ESRCH, "VM %s was never started", id);
	if (r < 0)
		return error_wrap(err, r, "VM %s", id);
	r = vm_socket(c, id, &start, 0, err);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return error_set(err, SM_ERROR_STATE, ESRCH, "VM %s is %s", id,
				 vm_is_suspended(dir) ? "suspended" : "not running");
	r = r < 0 ? r : conn_init(conn, r, err);
	if (r == 0)
		conn->patience_ns = c->patience_ns;
	return r;
}

/* ------------------------------------------------------------------------------------------ truth */

static int ask_keeper(struct sm_client *c, const char *id, struct keeper_status *ret, struct sm_error *err)
{
	uint64_t limit = c->patience_ns / 3, deadline = time_now_ns() + limit;
	struct cursor reply;
	struct call call;
	struct conn conn;
	int r = vm_connect(c, id, &conn, err);

	if (r < 0)
		return r;
	r = conn_call(&conn, PROTO_KEEPER_STATUS, NULL, &call);
	while (r == 0 && !call.opened && !call.closed && time_now_ns() < deadline)
		r = conn_step(&conn, NULL, 0, (int)(limit / 1000000) + 1);
	if (call.opened) {
		reply = cursor_of(call.reply.data, call.reply.len);
		r = keeper_status_decode(&reply, ret);
	} else if (r == 0) {
		r = -ETIMEDOUT;
	}
	conn_done(&conn);
	call_done(&call);
	/* It went while it was asked: not running is what the caller then looks into. */
	if (r == -ECONNRESET || r == -EPIPE)
		r = -ESRCH;
	if (r == -ETIMEDOUT)
		return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "VM %s: " KEEPER_HANGS, id);
	return r < 0 ? error_set(err, SM_ERROR_STATE, -r, "VM %s: its keeper did not answer: %s", id, strerror(-r)) : 0;
}

int vm_write_exit(int dir, const struct vm_exit *x, struct sm_error *err)
{
	_free_ char *json = NULL;
	int r = vm_exit_format(x, &json, err);

	if (r < 0)
		return r;
	r = write_file_atomic_at(dir, "exit.json", json, strlen(json), 0600);
	return r < 0 ? error_sys(err, -r, "write exit.json") : 0;
}

static bool host_boot_differs(const char *then)
{
	_free_ char *now = NULL;
	size_t len;

	if (read_file_at(-1, "/proc/sys/kernel/random/boot_id", 256, &now, &len) < 0 || !then[0])
		return false;
	now[strcspn(now, "\n")] = '\0';
	return !streq(now, then);
}

/* For `events`: its keeper could not. */
static void note_end(int dir, const char *id, const struct vm_exit *x)
{
	char reason[64];
	struct vm_record rec;

	snprintf(reason, sizeof(reason), "reason=%s", vm_reason_name(x->outcome.reason));
	if (vmdir_load(dir, id, &rec, NULL) < 0)
		return;
	events_vm(dir, &rec, "die", (const char *const[]){"exitCode=125", reason, NULL});
	vm_record_done(&rec);
}

/* Nobody answers for it and nobody wrote how it ended. With start.lock held: nobody starts it either. */
static int derive_exit(struct sm_client *c, int dir, const char *id, const struct vm_start *start, struct vm_exit *x)
{
	struct sm_outcome *o = &x->outcome;
	char boot_id[40] = "";
	struct timespec now;
	struct seat *seat;

	*x = (struct vm_exit){.outcome = SM_OUTCOME_INIT};
	clock_gettime(CLOCK_REALTIME, &now);
	x->finished_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	o->status = 125;
	o->reason = SM_REASON_KEEPER_DIED;
	snprintf(o->message, sizeof(o->message),
		 vm_was_hung(dir) ? "its keeper did not answer, and was ended for that" : "its keeper was killed");
	if (!start) {
		o->reason = SM_REASON_START_FAILED;
		snprintf(o->message, sizeof(o->message), "the program that started it was killed before it ran");
	} else if (host_boot_differs(start->host_boot_id)) {
		o->reason = SM_REASON_HOST_RESTARTED;
		snprintf(o->message, sizeof(o->message), "the host restarted while it ran");
	} else if (start->in_machine && client_machine_seat(c, &seat, NULL) == 0 &&
		   seat_boot_id(seat, boot_id, NULL) == 0 && !streq(boot_id, start->boot_id)) {
		snprintf(o->message, sizeof(o->message), "the machine that it ran in has ended");
	}
	note_end(dir, id, x);
	return vm_write_exit(dir, x, NULL);
}

static int view_without_keeper(struct sm_client *c, int dir, const char *id, struct vm_view *v, struct sm_error *err)
{
	_fd_ int lock = vmdir_flock(dir, "start.lock", true, false);
	struct vm_start start;
	int r;

	if (lock == -EWOULDBLOCK) {
		v->state = SM_VM_STARTING;
		return 0;
	}
	if (lock < 0)
		return error_sys(err, -lock, "VM %s", id);
	/* Between the look at exit.json and the look for the keeper it may have ended; or been started and ended. */
	v->state = SM_VM_EXITED;
	if (vmdir_load_exit(dir, &v->exit, NULL) == 0)
		return 0;
	r = vmdir_load_start(dir, &start, NULL);
	if (r == 0 && ask_keeper(c, id, &v->status, NULL) == 0) {
		v->state = v->status.state;
		return 0;
	}
	derive_exit(c, dir, id, r == 0 ? &start : NULL, &v->exit);
	/* One that was slow to come up, its starter killed meanwhile, listens first and looks for that record then. */
	if (r == 0 && ask_keeper(c, id, &v->status, NULL) == 0 && v->status.state != SM_VM_EXITED &&
	    v->status.state != SM_VM_STOPPING) {
		v->state = v->status.state;
		unlinkat(dir, "exit.json", 0);
		return 0;
	}
	cpu_group_sweep(dir, id);
	return 0;
}

static int view(struct sm_client *c, const char *id, struct vm_view *ret, struct sm_error *err)
{
	struct vm_view v = {0};
	struct vm_start start;
	_fd_ int dir = vmdir_open(c, id, err);
	int r;

	if (dir < 0)
		return dir;
	if (vmdir_load_start(dir, &start, NULL) < 0)
		start = (struct vm_start){0};
	v.in_machine = start.in_machine;
	r = vmdir_load_exit(dir, &v.exit, err);
	if (r == 0) {
		v.state = SM_VM_EXITED;
	} else if (r != -ENOENT) {
		return error_wrap(err, r, "VM %s", id);
	} else {
		r = ask_keeper(c, id, &v.status, err);
		if (r == 0)
			v.state = v.status.state;
		else if (r == -ETIMEDOUT)
			*ret = (struct vm_view){.state = SM_VM_RUNNING, .in_machine = v.in_machine, .hung = true};
		if (r < 0 && r != -ESRCH)
			return r;
		/* EXITED by the keeper's own word: its record is on the disk by then. */
		if (r == -ESRCH || v.state == SM_VM_EXITED)
			r = view_without_keeper(c, dir, id, &v, err);
	}
	if (r == 0 && v.state == SM_VM_EXITED && vm_is_suspended(dir))
		v.state = SM_VM_SUSPENDED;
	if (r == 0 && v.state == SM_VM_EXITED && v.exit.restore_failed)
		base_blame(c, &start);
	if (r == 0)
		*ret = v;
	return r;
}

/* On the way it fails to find what need not be there: that is no error of the caller's. */
int vm_view(struct sm_client *c, const char *id, struct vm_view *ret, struct sm_error *err)
{
	struct sm_error own = {0};
	int r = view(c, id, ret, &own);

	if (r < 0 && err)
		*err = own;
	return r;
}

int vm_last_word(struct sm_client *c, const char *id, struct vm_exit *ret, struct sm_error *err)
{
	uint64_t deadline = time_now_ns() + LAST_WORD_MS * 1000000ull;
	struct vm_view v;
	int r;

	while ((r = vm_view(c, id, &v, err)) == 0 && v.state != SM_VM_EXITED && v.state != SM_VM_SUSPENDED &&
	       time_now_ns() < deadline)
		poll(NULL, 0, 20);
	if (r < 0)
		return r;
	if (v.state == SM_VM_SUSPENDED)
		return error_set(err, SM_ERROR_STATE, EHOSTDOWN, "VM %s is suspended", id);
	if (v.state != SM_VM_EXITED)
		return error_set(err, SM_ERROR_STATE, ECONNRESET, "VM %s: lost the connection to its keeper", id);
	*ret = v.exit;
	return 0;
}

/* ----------------------------------------------------------------------------------- wait and stop */

/* To the keeper of one that runs, or that another program is starting right now. -ESRCH when nobody is. */
static int connect_started(struct sm_client *c, const char *id, uint64_t deadline, struct conn *conn,
			   struct sm_error *err)
{
	for (;;) {
		struct vm_view v;
		int r = vm_connect(c, id, conn, err);

		if (r != -ESRCH || vm_view(c, id, &v, NULL) < 0 || v.state == SM_VM_EXITED ||
		    v.state == SM_VM_SUSPENDED)
			return r;
		if (time_now_ns() >= deadline)
			return error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "VM %s: it is still being started", id);
		poll(NULL, 0, START_POLL_MS);
	}
}

/* Opens a WAIT channel. -ESRCH when it does not run. */
static int open_wait(struct sm_client *c, const char *id, uint64_t deadline, struct conn *conn, struct call *call,
		     struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_wait w = {0};
	int r = connect_started(c, id, deadline, conn, err);

	if (r < 0)
		return r;
	r = keeper_wait_encode(&b, &w);
	if (r == 0)
		r = conn_call(conn, PROTO_KEEPER_WAIT, &b, call);
	if (r < 0) {
		conn_done(conn);
		return error_sys(err, -r, "VM %s", id);
	}
	return 0;
}

/* Until it has ended (or, if so asked, started): 1 started, 0 ended with *x filled in. */
static int wait_for(struct sm_client *c, const char *id, bool for_start, uint64_t timeout_ns, struct vm_exit *x,
		    struct sm_error *err)
{
	uint64_t deadline = timeout_ns ? time_now_ns() + MIN(timeout_ns, (uint64_t)INT64_MAX / 2) : UINT64_MAX;
	struct conn conn;
	struct call call;
	int r = open_wait(c, id, deadline, &conn, &call, err);

	if (r < 0)
		return r == -ESRCH ? vm_last_word(c, id, x, err) : r;
	while (!call.ended && !(for_start && call.started) && !call.closed) {
		uint64_t now = time_now_ns();

		if (now >= deadline) {
			r = error_set(err, SM_ERROR_TIMEOUT, ETIMEDOUT, "VM %s: still going on", id);
			break;
		}
		r = conn_step(&conn, NULL, 0,
			      deadline == UINT64_MAX ? -1 : (int)MIN((deadline - now) / 1000000 + 1, 3600000ull));
		if (r < 0)
			break;
	}
	if (call.ended && call.record.outcome.reason != SM_REASON_SUSPENDED) {
		*x = call.record;
		r = 0;
	} else if (call.started && for_start) {
		r = 1;
	} else if (r == -ETIME) {
		r = error_set(err, SM_ERROR_TIMEOUT, ETIME, "VM %s: %s", id, conn.why);
	} else if (call.closed && call.code == -EUSERS) {
		char what[32];

		snprintf(what, sizeof(what), "VM %s", id);
		r = call_error(&conn, &call, what, err);
	} else if (r != -ETIMEDOUT) {
		r = vm_last_word(c, id, x, err);
	}
	conn_done(&conn);
	call_done(&call);
	return r;
}

int sm_vm_wait(struct sm_vm *vm, uint64_t timeout_ns, struct sm_outcome *ret, struct sm_error *err)
{
	struct vm_exit x;
	int r = wait_for(vm->client, vm->id, false, timeout_ns, &x, err);

	if (r == 0)
		outcome_copy(ret, &x.outcome);
	return r;
}

/*
 * Who owns it is told by the connection that makes him the owner, where nobody reads what comes: it is looked at there,
 * so that no other connection is needed while the command begins. Not of one that might be idle, and go, meanwhile.
 * False: something else came.
 */
static bool owner_was_told(const struct sm_vm *vm)
{
	struct pollfd p = {.fd = vm->owner_fd, .events = POLLIN};
	uint8_t bytes[PROTO_HEADER_SIZE + 64];
	struct keeper_news news;
	struct cursor c;
	uint32_t len;
	ssize_t n;

	if (p.fd < 0 || vm->background || poll(&p, 1, -1) <= 0)
		return false;
	n = recv(p.fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
	if (n < (ssize_t)PROTO_HEADER_SIZE)
		return false;
	memcpy(&len, bytes, sizeof(len));
	len = le32toh(len);
	if (bytes[8] != PROTO_EVENT || len > (size_t)n - PROTO_HEADER_SIZE)
		return false;
	c = cursor_of(bytes + PROTO_HEADER_SIZE, len);
	return keeper_news_decode(&c, &news) == 0 && news.kind == KEEPER_STARTED;
}

int sm_vm_wait_started(struct sm_vm *vm, uint64_t timeout_ns, struct sm_outcome *outcome, struct sm_error *err)
{
	struct vm_exit x;
	int r = !timeout_ns && owner_was_told(vm) ? 1 : wait_for(vm->client, vm->id, true, timeout_ns, &x, err);

	if (r < 0)
		return r;
	if (r == 1 || x.started_ns)
		return 0;
	outcome_copy(outcome, &x.outcome);
	return error_set(err, SM_ERROR_GUEST, ECHILD, "VM %s: %s", vm->id,
			 x.outcome.message[0] ? x.outcome.message : vm_reason_name(x.outcome.reason));
}

int vm_dial(struct sm_vm *vm, struct conn *conn, struct sm_error *err)
{
	struct conn *ready = __atomic_exchange_n(&vm->ready, NULL, __ATOMIC_ACQ_REL);

	if (ready) {
		conn_move(conn, ready);
		free(ready);
		if (conn_step(conn, NULL, 0, 0) == 0)
			return 0;
		conn_done(conn); /* its keeper has gone meanwhile */
	}
	return vm_connect(vm->client, vm->id, conn, err);
}

static void drop_ready(struct sm_vm *vm)
{
	struct conn *ready = __atomic_exchange_n(&vm->ready, NULL, __ATOMIC_ACQ_REL);

	if (ready)
		conn_done(ready);
	free(ready);
}

/* What has been answered is left for whoever is next. */
static void keep_ready(struct sm_vm *vm, struct conn *conn, const struct call *call)
{
	struct conn *ready = calloc(1, sizeof(*ready));

	if (!ready)
		return;
	mux_set_user(conn->mux, call->ch, NULL); /* its end may not have come yet */
	conn_move(ready, conn);
	ready = __atomic_exchange_n(&vm->ready, ready, __ATOMIC_ACQ_REL);
	if (ready)
		conn_done(ready);
	free(ready);
}

/* limit_ns: for the answer, 0: none once the keeper has spoken. keep: the connection is left ready. */
static int request(struct sm_vm *vm, uint16_t service, const struct buf *b, uint64_t limit_ns, bool keep,
		   const char *what, struct sm_error *err)
{
	char whom[64];
	struct conn conn;
	struct call call;
	int r = vm_dial(vm, &conn, err);

	if (r < 0)
		return r;
	if (limit_ns)
		conn.patience_ns = limit_ns;
	r = conn_call(&conn, service, b, &call);
	if (r < 0) {
		conn_done(&conn);
		return error_sys(err, -r, "VM %s", vm->id);
	}
	snprintf(whom, sizeof(whom), "%s VM %s", what, vm->id);
	r = limit_ns ? conn_await_open_within(&conn, &call, limit_ns, whom, err)
		     : conn_await_open(&conn, &call, whom, err);
	if (r == 0 && keep)
		keep_ready(vm, &conn, &call);
	conn_done(&conn);
	call_done(&call);
	return r;
}

int vm_request(struct sm_vm *vm, uint16_t service, const struct buf *b, const char *what, struct sm_error *err)
{
	return request(vm, service, b, 0, false, what, err);
}

int vm_request_ready(struct sm_vm *vm, uint16_t service, const char *what, struct sm_error *err)
{
	return request(vm, service, NULL, 0, true, what, err);
}

/* Sends a stop request, which a keeper answers at once; 0 also when it went at that moment. -ETIME: it hangs. */
static int request_stop(struct sm_vm *vm, const struct keeper_stop *s, uint64_t limit_ns, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	int r = keeper_stop_encode(&b, s);

	r = r < 0 ? error_sys(err, -r, "VM %s", vm->id)
		  : request(vm, PROTO_KEEPER_STOP, &b, limit_ns, false,
			    s->mode == KEEPER_STOP_SIGNAL ? "send a signal to" : "stop", err);
	return r == -ECONNRESET ? 0 : r;
}

int sm_vm_balloon(struct sm_vm *vm, uint64_t bytes, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_balloon m = {.target = bytes};
	int r = keeper_balloon_encode(&b, &m);

	return r < 0 ? error_sys(err, -r, "VM %s", vm->id)
		     : vm_request(vm, PROTO_KEEPER_BALLOON, &b, "change the memory of", err);
}

static int request_pause(struct sm_vm *vm, bool pause, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct keeper_pause m = {.pause = pause};
	int r = keeper_pause_encode(&b, &m);

	r = r < 0 ? error_sys(err, -r, "VM %s", vm->id)
		  : vm_request(vm, PROTO_KEEPER_PAUSE, &b, pause ? "pause" : "unpause", err);
	if (r == -EALREADY)
		error_set(err, SM_ERROR_STATE, EALREADY, "VM %s is %s", vm->id,
			  pause ? "paused already" : "not paused");
	return r;
}

int sm_vm_pause(struct sm_vm *vm, struct sm_error *err)
{
	return request_pause(vm, true, err);
}

int sm_vm_unpause(struct sm_vm *vm, struct sm_error *err)
{
	return request_pause(vm, false, err);
}

/* 1: its keeper hung, and it has ended; 0: there is somebody to ask, or nobody. */
static int kill_hung(struct sm_vm *vm, struct sm_error *err)
{
	struct keeper_status status;
	struct vm_view v;
	int r;

	if (ask_keeper(vm->client, vm->id, &status, NULL) != -ETIMEDOUT)
		return 0;
	r = vm_end_hung(vm->client, vm->id, err);
	if (r == 0)
		r = vm_view(vm->client, vm->id, &v, err);
	return r < 0 ? r : v.state == SM_VM_EXITED;
}

/* One that was told to end does so in that time, and what ending takes; unless its keeper hangs meanwhile. */
static int await_end(struct sm_vm *vm, uint64_t grace_ns, struct sm_error *err)
{
	uint64_t limit = MIN(grace_ns, (uint64_t)INT64_MAX / 4) + vm->client->patience_ns;
	int r;

	for (;;) {
		r = sm_vm_wait(vm, limit, NULL, err);
		if (r != -ETIMEDOUT && r != -ETIME)
			return r;
		r = kill_hung(vm, err);
		if (r)
			return MIN(r, 0);
	}
}

int sm_vm_stop(struct sm_vm *vm, uint64_t grace_ns, struct sm_error *err)
{
	struct keeper_stop s = {.mode = KEEPER_STOP_GRACE, .grace_ns = grace_ns ? grace_ns : DEFAULT_GRACE_NS};
	uint64_t patience = vm->client->patience_ns;
	bool for_ever = grace_ns == UINT64_MAX;
	int r = vm_drop_suspended(vm, err);

	if (r)
		return MIN(r, 0);
	r = request_stop(vm, &s, MIN(MAX(s.grace_ns, patience / 3), patience), err);
	if (r == -ETIME && !for_ever)
		r = vm_end_hung(vm->client, vm->id, err);
	if (r < 0 && r != -ESRCH)
		return r;
	return for_ever ? sm_vm_wait(vm, 0, NULL, err) : await_end(vm, s.grace_ns, err);
}

int sm_vm_kill(struct sm_vm *vm, int signal, struct sm_error *err)
{
	struct keeper_stop s = {.mode = KEEPER_STOP_SIGNAL, .signal = signal};
	int r;

	if (signal < 1 || signal > 64)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "no such signal: %d", signal);
	r = signal == SIGKILL ? vm_drop_suspended(vm, err) : 0;
	if (r == 0 && signal == SIGKILL)
		r = kill_hung(vm, err);
	if (r)
		return MIN(r, 0);
	r = request_stop(vm, &s, vm->client->patience_ns, err);
	if (r < 0 || signal != SIGKILL)
		return r;
	r = sm_vm_wait(vm, DEFAULT_GRACE_NS, NULL, err);
	return r == -ETIMEDOUT ? 0 : r;
}

int vm_stop_now(struct sm_vm *vm, struct sm_error *err)
{
	struct keeper_stop s = {.mode = KEEPER_STOP_NOW};

	return request_stop(vm, &s, vm->client->patience_ns, err);
}

static int remove_vm(struct sm_vm *vm, bool force, struct sm_error *err)
{
	struct vm_view v;
	int r = vm_view(vm->client, vm->id, &v, err);

	if (r == -ETIMEDOUT && force) {
		r = vm_end_hung(vm->client, vm->id, err);
		r = r < 0 ? r : vm_view(vm->client, vm->id, &v, err);
	}
	if (r < 0)
		return r;
	if (v.state != SM_VM_EXITED && !force)
		return error_set(err, SM_ERROR_STATE, EBUSY, "VM %s is %s: stop it first, or force", vm->id,
				 sm_vm_state_name(v.state));
	if (v.state != SM_VM_EXITED && v.state != SM_VM_SUSPENDED) {
		r = vm_stop_now(vm, err);
		if (r == 0 || r == -ESRCH)
			r = await_end(vm, 0, err);
		if (r < 0)
			return r;
	}
	return vmdir_remove(vm->client, vm->id, err);
}

int sm_vm_remove(struct sm_vm *vm, bool force, struct sm_error *err)
{
	struct sm_error own = {0};
	int r;

	vm_files_done(vm);
	r = remove_vm(vm, force, &own);

	/* Whoever ran it has removed it, since it ended. */
	if (r == -ENOENT && force)
		return 0;
	if (r < 0 && err)
		*err = own;
	return r;
}

/* Nothing of the host was to blame for it. */
static bool ended_by_itself(const struct vm_exit *x)
{
	enum sm_reason r = x->outcome.reason;

	return x->started_ns && (r == SM_REASON_EXITED || r == SM_REASON_SIGNALLED || r == SM_REASON_TIMEOUT);
}

/* The end of the owner's connection is the VM's; what is not kept goes with the handle that held it. */
struct sm_vm *sm_vm_close(struct sm_vm *vm)
{
	if (!vm)
		return NULL;
	vm_files_done(vm);
	drop_ready(vm);
	if (vm->owner_fd >= 0) {
		vm->owner_fd = fd_close(vm->owner_fd);
		sm_vm_wait(vm, LAST_WORD_MS * 1000000ull, NULL, NULL);
	}
	if (vm->transient_fd >= 0 || vm->spare) {
		struct vm_view v;
		bool ended = vm_view(vm->client, vm->id, &v, NULL) == 0 && v.state == SM_VM_EXITED;

		if (ended && vm->transient_fd >= 0)
			vmdir_remove(vm->client, vm->id, NULL);
		if (ended && vm->spare && ended_by_itself(&v.exit))
			spare_leave(vm->client, vm->spare);
		fd_close(vm->transient_fd);
		spare_free(vm->spare);
	}
	pthread_mutex_destroy(&vm->files_mutex);
	pthread_mutex_destroy(&vm->lock);
	secrets_done(&vm->secrets);
	strv_free(vm->lease_env);
	free(vm);
	return NULL;
}
