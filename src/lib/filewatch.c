/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching files of a VM: a WATCH channel to its agent. What comes is kept until somebody asks for it, no more than
 * the channel's credit, so the agent's side waits for a caller who does not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/copy.h"
#include "proto/fileevent.h"

struct sm_watch {
	struct sm_watch_options o;
	char id[VM_ID_DIGITS + 1];
	struct conn conn;
	struct call call;
	struct buf kept; /* what has come and was not told */
	int epoll, more; /* more: an eventfd, readable while something is kept that can be told */
	int result;	 /* -errno: it is over, told in err */
	struct sm_error err;
	struct fileevent event; /* the one at hand */
};

const char *sm_file_event_name(enum sm_file_event_kind kind)
{
	static const char *const names[] = {
		[SM_FILE_CREATED] = "created", [SM_FILE_MODIFIED] = "modified",	    [SM_FILE_DELETED] = "deleted",
		[SM_FILE_MOVED] = "moved",     [SM_FILE_ATTRIBUTES] = "attributes", [SM_FILE_OVERFLOW] = "overflow",
		[SM_FILE_GONE] = "gone"};

	return kind >= SM_FILE_CREATED && kind <= SM_FILE_GONE ? names[kind] : "none";
}

static void on_data(void *arg, struct call *call, unsigned stream, const uint8_t *p, size_t len)
{
	struct sm_watch *w = arg;

	if (stream == 1)
		buf_put(&w->kept, p, len);
	else
		mux_consumed(w->conn.mux, call->ch, stream, len);
}

/* The first `used` bytes of what is kept have been dealt with. */
static void drop(struct sm_watch *w, size_t used)
{
	if (!used)
		return;
	memmove(w->kept.data, w->kept.data + used, w->kept.len - used);
	w->kept.len -= used;
	mux_consumed(w->conn.mux, w->call.ch, 1, used);
}

/* The next record that is there: 1, 0: none. *at: where it begins, and ends then. */
static int next_record(struct sm_watch *w, size_t *at)
{
	size_t used = 0;
	int r = w->kept.error ? w->kept.error : fileevent_next(w->kept.data + *at, w->kept.len - *at, &w->event, &used);

	if (r > 0)
		*at += used;
	else if (r < 0)
		w->result = error_set(&w->err, SM_ERROR_GUEST, -r, "VM %s: its watch sends nonsense", w->id);
	return r;
}

static int told_error(struct sm_watch *w)
{
	int code = atoi(w->event.path);
	enum sm_error_kind kind = code == ENOENT || code == ENOTDIR ? SM_ERROR_NOT_FOUND
				  : code == ENOSPC		    ? SM_ERROR_LIMIT
								    : SM_ERROR_GUEST;

	code = code > 0 && code < 4096 ? code : EIO;
	return w->result = error_set(&w->err, kind, code, "VM %s: watch %s", w->id, w->event.to);
}

/* The channel or the link is at its end. */
static int over(struct sm_watch *w)
{
	if (w->conn.error || w->call.code == -ECONNRESET)
		return w->result = error_set(&w->err, SM_ERROR_STATE, EPIPE, "VM %s has ended, or is suspended", w->id);
	if (w->call.code < 0)
		return w->result = call_error(&w->conn, &w->call, w->id, &w->err);
	return w->result = error_set(&w->err, SM_ERROR_GUEST, EPIPE, "VM %s: its side of the watch died", w->id);
}

/* Calls `event` for what is kept: how many, or the -errno that ends it. */
static int tell_all(struct sm_watch *w, struct sm_error *err)
{
	size_t at = 0, done = 0;
	int count = 0, r;

	while ((r = next_record(w, &at)) > 0 && count < 1 << 20) {
		struct sm_file_event e = {.kind = (enum sm_file_event_kind)w->event.kind,
					  .path = w->event.path,
					  .to = w->event.to,
					  .directory = w->event.directory};

		done = at;
		if (w->event.kind == FILEEVENT_ERROR) {
			r = told_error(w);
			break;
		}
		if (w->event.kind == FILEEVENT_READY)
			continue;
		count++;
		if (w->event.kind == FILEEVENT_GONE)
			w->result = error_set(&w->err, SM_ERROR_NOT_FOUND, ENOENT, "VM %s: %s is gone", w->id, e.path);
		if (w->o.event(w->o.arg, &e)) {
			r = error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
			break;
		}
		if (w->result)
			break;
	}
	drop(w, done);
	return r == -ECANCELED ? r : count;
}

/* Readable while there is something to tell without the link having more. */
static void show_more(struct sm_watch *w)
{
	uint64_t n = 1;
	size_t used;
	bool some = w->result || fileevent_next(w->kept.data, w->kept.len, &w->event, &used) != 0;

	if (some)
		(void)!write(w->more, &n, sizeof(n));
	else
		(void)!read(w->more, &n, sizeof(n));
}

/* ----------------------------------------------------------------------------------------------- opening */

static int ask(struct sm_watch *w, struct sm_vm *vm, const char *path, struct sm_error *err)
{
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *full = copy_guest_path(path);
	struct proto_watch x = {.path = full, .recursive = w->o.recursive};
	int r = full ? vm_wake(vm, err) : error_sys(err, ENOMEM, "watch");

	if (r == 0)
		r = vm_connect(vm->client, vm->id, &w->conn, err);
	if (r < 0)
		return r;
	w->conn.data = on_data;
	w->conn.arg = w;
	r = proto_watch_encode(&b, &x);
	if (r == 0)
		r = conn_call(&w->conn, PROTO_WATCH, &b, &w->call);
	r = r < 0 ? error_sys(err, -r, "VM %s", vm->id) : conn_await_open(&w->conn, &w->call, vm->id, err);
	/* Nothing goes that way: so the channel ends as soon as the other side has nothing more to say. */
	if (r == 0)
		mux_send_eof(w->conn.mux, w->call.ch, 0);
	return r;
}

/* Until its first record says that the watch is there. */
static int await_ready(struct sm_watch *w, struct sm_error *err)
{
	size_t at = 0;
	int r;

	while ((r = next_record(w, &at)) == 0 && !w->call.closed)
		if (conn_step(&w->conn, NULL, 0, -1) < 0)
			break;
	if (r == 0)
		over(w);
	else if (r > 0 && w->event.kind == FILEEVENT_ERROR)
		told_error(w);
	else if (r > 0 && w->event.kind != FILEEVENT_READY)
		w->result = error_set(&w->err, SM_ERROR_GUEST, EPROTO, "VM %s: its watch sends nonsense", w->id);
	if (w->result && err)
		*err = w->err;
	drop(w, at);
	return w->result;
}

static int make_fd(struct sm_watch *w, struct sm_error *err)
{
	struct epoll_event link = {.events = EPOLLIN}, more = {.events = EPOLLIN};

	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->more = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->epoll < 0 || w->more < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->conn.fd, &link) < 0 ||
	    epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->more, &more) < 0)
		return error_sys(err, errno, "watch");
	show_more(w);
	return 0;
}

int sm_vm_watch(struct sm_vm *vm, const char *path, const struct sm_watch_options *options, struct sm_watch **ret,
		struct sm_error *err)
{
	struct sm_watch *w;
	int r;

	if (!path || !*path || !options || !options->event)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "watch: a path or `event` is missing");
	w = calloc(1, sizeof(*w));
	if (!w)
		return error_sys(err, ENOMEM, "watch");
	w->o = OPTIONS_GET(struct sm_watch_options, options);
	w->conn.fd = w->epoll = w->more = -1;
	memcpy(w->id, vm->id, sizeof(w->id));
	r = ask(w, vm, path, err);
	if (r == 0)
		r = await_ready(w, err);
	if (r == 0)
		r = make_fd(w, err);
	if (r < 0) {
		sm_watch_close(w);
		return r;
	}
	*ret = w;
	return 0;
}

int sm_watch_fd(const struct sm_watch *watch)
{
	return watch->epoll;
}

int sm_watch_next(struct sm_watch *w, int timeout_ms, struct sm_error *err)
{
	uint64_t until = time_now_ns() + (uint64_t)MAX(timeout_ms, 0) * 1000000;
	int r = tell_all(w, err), left = 0;

	while (r == 0 && !w->result) {
		if (conn_step(&w->conn, NULL, 0, timeout_ms < 0 ? -1 : left) < 0 || w->call.closed) {
			r = tell_all(w, err);
			if (r == 0 && !w->result)
				over(w);
			break;
		}
		r = tell_all(w, err);
		if (timeout_ms >= 0 && time_now_ns() >= until)
			break;
		left = timeout_ms < 0 ? -1 : (int)((until - time_now_ns()) / 1000000) + 1;
	}
	show_more(w);
	if (r != 0 || !w->result)
		return r;
	if (err)
		*err = w->err;
	return w->result;
}

struct sm_watch *sm_watch_close(struct sm_watch *w)
{
	if (!w)
		return NULL;
	conn_done(&w->conn);
	call_done(&w->call);
	buf_done(&w->kept);
	fd_close(w->epoll);
	fd_close(w->more);
	free(w);
	return NULL;
}
