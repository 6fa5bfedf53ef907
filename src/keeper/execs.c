/* SPDX-License-Identifier: Apache-2.0 */
/* Detached commands: begun for a client, kept when it has gone. See execs.h. */
#include "keeper/execs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "keeper/keeper.h"

struct detached {
	struct keeper *k;
	struct detached *next;
	unsigned id;
	uint32_t ch; /* the agent's */
	bool opened, runs, has_exit;
	struct vm_exec_record rec;
	char *command; /* as events have it */
	struct proto_event exit;
	struct vm_log log;
	char log_name[EXEC_NAME_SIZE];
	struct relay *attached;
	struct mux *near; /* who waits to hear that it runs; NULL: nobody (any more) */
	uint32_t near_ch;
};

static int64_t wall_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void remove_files(struct keeper *k, unsigned id)
{
	char name[EXEC_NAME_SIZE];

	for (int i = EXEC_RECORD; i <= EXEC_EXIT; i++)
		unlinkat(k->dirfd, exec_file_name(name, id, (enum exec_file)i), 0);
}

static void detached_free(struct detached *d)
{
	struct detached **link = &d->k->execs.list;

	while (*link && *link != d)
		link = &(*link)->next;
	if (*link) {
		*link = d->next;
		d->k->execs.running--;
	}
	vm_log_close(&d->log);
	vm_exec_done(&d->rec);
	free(d->command);
	free(d);
}

/* ------------------------------------------------------------------------------------------ its files */

static int write_record(struct detached *d)
{
	char name[EXEC_NAME_SIZE];
	_free_ char *json = NULL;
	int r = vm_exec_format(&d->rec, &json, NULL);

	if (r < 0)
		return r;
	exec_file_name(d->log_name, d->id, EXEC_LOG);
	r = vm_log_open(&d->log, d->k->dirfd, d->log_name, false, EXEC_LOG_ROTATE);
	/* The record last: who sees it finds the log. */
	return r < 0 ? r
		     : write_file_atomic_at(d->k->dirfd, exec_file_name(name, d->id, EXEC_RECORD), json, strlen(json),
					    0600);
}

static void write_exit(struct detached *d)
{
	const struct proto_event *e = &d->exit;
	struct vm_exit x = {.outcome = SM_OUTCOME_INIT, .started_ns = d->rec.started_ns, .finished_ns = wall_clock()};
	char name[EXEC_NAME_SIZE];
	_free_ char *json = NULL;

	x.outcome.reason = d->has_exit ? vm_reason_of_exit((int)e->reason) : SM_REASON_STOPPED;
	x.outcome.status = d->has_exit ? e->status & 0xff : 128 + SIGKILL;
	x.outcome.signal = d->has_exit ? e->signal : SIGKILL;
	x.outcome.duration_ns = d->has_exit ? e->duration_ns : (uint64_t)(x.finished_ns - x.started_ns);
	x.outcome.peak_rss = e->peak_rss;
	snprintf(x.outcome.message, sizeof(x.outcome.message), "%s", d->has_exit ? e->text : "ended with its VM");
	if (vm_exit_format(&x, &json, NULL) < 0 ||
	    write_file_atomic_at(d->k->dirfd, exec_file_name(name, d->id, EXEC_EXIT), json, strlen(json), 0600) < 0)
		log_error("keeper", "exec.%u.exit cannot be written", d->id);
}

/* The oldest go. Ids only grow, so a ring of them is enough. */
static void keep_ended(struct keeper *k, unsigned id)
{
	unsigned *place = &k->execs.ended[k->execs.num_ended++ % EXECS_KEPT];

	if (*place)
		remove_files(k, *place);
	*place = id;
}

/* ------------------------------------------------------------------------------------------ its client */

static void tell_client(struct detached *d, int code, const char *text)
{
	struct keeper_spawned m = {.exec = d->id, .pid = d->rec.pid};
	_cleanup_(buf_done) struct buf b = {0};

	if (!d->near)
		return;
	if (code == 0 && keeper_spawned_encode(&b, &m) == 0)
		mux_opened(d->near, d->near_ch, &b);
	mux_close(d->near, d->near_ch, code, text);
	d->near = NULL;
}

void execs_client_gone(struct keeper *k, struct mux *near, uint32_t ch)
{
	for (struct detached *d = k->execs.list; d; d = d->next)
		if (d->near == near && (!ch || d->near_ch == ch))
			d->near = NULL;
}

/* ------------------------------------------------------------------------------------------ its life */

static void ended(struct detached *d, int code, const char *text)
{
	int refused = code					    ? code
		      : d->exit.reason == PROTO_EXIT_NOT_FOUND	    ? -ENOENT
		      : d->exit.reason == PROTO_EXIT_NOT_EXECUTABLE ? -EACCES
								    : -EPROTO;

	if (d->runs) {
		if (!d->has_exit)
			d->exit.status = 128 + SIGKILL;
		events_note_exec(d->k, d->command, &d->exit);
		write_exit(d);
		keep_ended(d->k, d->id);
	} else {
		tell_client(d, refused, d->has_exit ? d->exit.text : text);
	}
	detached_free(d);
}

static void note_event(struct detached *d, struct cursor event)
{
	struct proto_event e;

	if (proto_event_decode(&event, &e) < 0 || e.kind != PROTO_EV_EXIT || d->has_exit)
		return;
	d->exit = e;
	d->has_exit = true;
}

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct detached *d = arg;
	uint32_t pid = 0;
	int r;

	if (d->opened || proto_pid_decode(reply, &pid) < 0 || !pid)
		return; /* the exit event says why it does not run */
	d->opened = true;
	d->rec.pid = pid;
	d->rec.started_ns = wall_clock();
	r = write_record(d);
	if (r < 0) {
		/* Nobody would find it again. */
		mux_set_handler(link_mux(d->k->agent), ch, NULL, NULL);
		mux_close(link_mux(d->k->agent), ch, -ECANCELED, NULL);
		tell_client(d, r, strerror(-r));
		remove_files(d->k, d->id);
		detached_free(d);
		return;
	}
	d->runs = true;
	tell_client(d, 0, "");
	events_note_exec(d->k, d->command, NULL);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct detached *d = arg;

	if (d->runs && (stream == 1 || stream == 2))
		vm_log_write(&d->log, stream, p, len);
	mux_consumed(link_mux(d->k->agent), ch, stream, len);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	note_event(arg, *event);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct detached *d = arg;
	struct keeper *k = d->k;

	if (k->agent && !mux_lost(link_mux(k->agent))) {
		mux_set_handler(link_mux(k->agent), ch, NULL, NULL);
		mux_close(link_mux(k->agent), ch, 0, "");
	}
	ended(d, code, text);
}

static const struct mux_callbacks exec_callbacks = {
	.opened = on_opened,
	.data = on_data,
	.event = on_event,
	.closed = on_closed,
};

static struct detached *detached_new(struct keeper *k, struct proto_exec *x, struct mux *near, uint32_t near_ch)
{
	struct detached *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	*d = (struct detached){.k = k,
			       .next = k->execs.list,
			       .id = ++k->execs.last_id,
			       .rec = {.argv = x->argv, .user = x->user, .tty = x->tty, .stdin_open = x->stdin_open},
			       .command = events_command(x->argv),
			       .log = {.fd = -1},
			       .near = near,
			       .near_ch = near_ch};
	x->argv = NULL;
	x->user = NULL;
	k->execs.list = d;
	k->execs.running++;
	return d;
}

int execs_spawn(struct keeper *k, struct mux *near, uint32_t near_ch, struct cursor *request)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct detached *d;
	struct proto_exec x;
	int r;

	if (k->execs.running >= EXECS_MAX)
		return -EMFILE;
	r = proto_exec_decode(request, &x);
	if (r < 0)
		return r;
	x.detached = true;
	x.main = false;
	r = proto_exec_encode(&b, &x);
	d = r < 0 ? NULL : detached_new(k, &x, near, near_ch);
	if (r == 0)
		r = d ? mux_open(link_mux(k->agent), PROTO_EXEC, &b, NULL, &d->ch) : -ENOMEM;
	if (r == 0)
		r = mux_set_handler(link_mux(k->agent), d->ch, &exec_callbacks, d);
	if (r < 0 && d)
		detached_free(d);
	proto_exec_done(&x);
	return r;
}

static struct detached *find(struct keeper *k, uint64_t id)
{
	for (struct detached *d = k->execs.list; d; d = d->next)
		if (d->id == id && d->runs)
			return d;
	return NULL;
}

static int send_event(struct detached *d, const struct proto_event *e)
{
	_cleanup_(buf_done) struct buf b = {0};
	int r = proto_event_encode(&b, e);

	return r < 0 ? r : mux_send_event(link_mux(d->k->agent), d->ch, &b);
}

int execs_signal(struct keeper *k, uint64_t id, int signal)
{
	struct proto_event e = {.kind = PROTO_EV_SIGNAL, .signal = signal};
	struct detached *d = find(k, id);

	return d && !d->has_exit ? send_event(d, &e) : -ESRCH;
}

/* ------------------------------------------------------------------------------------------ attach */

static void relay_data(void *arg, struct relay *r, unsigned stream, const uint8_t *p, size_t len)
{
	struct detached *d = arg;

	vm_log_write(&d->log, stream, p, len);
}

static void relay_event(void *arg, struct relay *r, struct cursor event)
{
	note_event(arg, event);
}

static void relay_ended(void *arg, struct relay *r, bool far_left, int code)
{
	struct detached *d = arg;

	d->attached = NULL;
	idle_leave(d->k);
	if (far_left)
		mux_set_handler(link_mux(d->k->agent), d->ch, &exec_callbacks, d);
	else
		ended(d, code, "");
}

static const struct relay_hooks attach_hooks = {
	.data = relay_data,
	.event = relay_event,
	.ended = relay_ended,
};

int execs_attach(struct keeper *k, struct mux *near, uint32_t ch, const struct keeper_attach *a)
{
	struct proto_event size = {.kind = PROTO_EV_RESIZE, .rows = a->rows, .cols = a->cols};
	struct detached *d = find(k, a->exec);
	int r;

	if (!d)
		return -ESRCH;
	if (d->attached)
		return -EBUSY;
	r = mux_opened(near, ch, NULL);
	if (r == 0)
		r = relay_join(near, ch, link_mux(k->agent), d->ch, true, &attach_hooks, d, &d->attached);
	if (r < 0)
		return r;
	idle_enter(k);
	return a->rows && a->cols ? send_event(d, &size) : 0;
}

void execs_forget(struct keeper *k)
{
	execs_done(k);
	for (unsigned i = 0; i < EXECS_KEPT; i++)
		if (k->execs.ended[i])
			remove_files(k, k->execs.ended[i]);
	k->execs = (struct execs){0};
}

void execs_done(struct keeper *k)
{
	struct detached *d;

	while ((d = k->execs.list)) {
		/* That may have been its end already: it waited for a slow reader. */
		if (d->attached)
			relay_end(d->attached, -ECONNRESET, "the VM has ended");
		if (d == k->execs.list)
			on_closed(d, d->ch, NULL, -ECONNRESET, "the VM has ended");
	}
}
