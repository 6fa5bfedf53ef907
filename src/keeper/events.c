/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's part of `events`: lines in the VM's own file. They are gathered for a moment and written together, after
 * what they are about was answered: so a command that is run a thousand times a second is not slowed by them.
 */
#include "keeper/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "keeper/keeper.h"

#define GATHER_NS (10 * 1000000ull)
#define GATHER_MAX (64u << 10)
#define COMMAND_MAX 512

void events_flush(struct keeper *k)
{
	struct events *ev = &k->events;

	if (!ev->pending.len ||
	    (ev->log.fd < 0 && vm_log_open(&ev->log, k->dirfd, "events", true, VM_EVENTS_ROTATE) < 0))
		ev->pending.len = 0;
	/* Whole lines, as much as one write takes. */
	while (ev->pending.len) {
		const uint8_t *end = ev->pending.len <= VM_LOG_MAX_RECORD
					     ? ev->pending.data + ev->pending.len - 1
					     : memrchr(ev->pending.data, '\n', VM_LOG_MAX_RECORD);
		size_t len = (size_t)(end - ev->pending.data) + 1;

		vm_log_write(&ev->log, 1, ev->pending.data, len);
		buf_consume(&ev->pending, len);
	}
	if (ev->timer)
		loop_timer_at(ev->timer, 0);
}

static void on_timer(struct loop *loop, struct loop_source *src, void *arg)
{
	events_flush(arg);
}

void events_note(struct keeper *k, const char *action, const char *const *attributes)
{
	struct vm_record *rec = &k->rec;
	char type[] = "vm", none[] = "";
	struct vm_event e = {.type = type,
			     .action = (char *)(uintptr_t)action, /* a literal: only read */
			     .id = rec->id,
			     .name = rec->name,
			     .image = rec->image ? rec->image : none,
			     .labels = rec->labels,
			     .attributes = (char **)(uintptr_t)attributes};
	struct events *ev = &k->events;
	struct timespec now;
	char *line;

	if (k->args.base || !k->loop || !rec->id[0])
		return;
	if (!ev->timer && loop_add_timer(k->loop, on_timer, k, &ev->timer) < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	/* Each later than the one before it: readers tell by the time what they have seen already. */
	e.time_ns = MAX((int64_t)now.tv_sec * 1000000000 + now.tv_nsec, ev->last_ns + 1);
	if (vm_event_format(&e, &line) < 0)
		return;
	ev->last_ns = e.time_ns;
	if (!ev->pending.len)
		loop_timer_at(ev->timer, time_now_ns() + GATHER_NS);
	buf_put(&ev->pending, line, strlen(line));
	free(line);
	if (ev->pending.len > GATHER_MAX)
		events_flush(k);
}

void events_note_signal(struct keeper *k, int signal)
{
	char text[24];

	snprintf(text, sizeof(text), "signal=%d", signal);
	events_note(k, "kill", (const char *const[]){text, NULL});
}

void events_note_end(struct keeper *k)
{
	const struct sm_outcome *o = &k->exit.outcome;
	char status[32], reason[64];

	snprintf(status, sizeof(status), "exitCode=%d", o->status);
	snprintf(reason, sizeof(reason), "reason=%s", vm_reason_name(o->reason));
	if (faccessat(k->dirfd, VM_SUSPENDED, F_OK, 0) == 0) {
		events_note(k, "suspend", NULL);
		events_flush(k);
		return;
	}
	if (o->reason == SM_REASON_OOM)
		events_note(k, "oom", NULL);
	events_note(k, "die", (const char *const[]){status, reason, NULL});
	if (o->reason == SM_REASON_STOPPED)
		events_note(k, "stop", NULL);
	events_flush(k);
}

/* -------------------------------------------------------------------------------------- commands */

char *events_command(char *const *argv)
{
	char text[COMMAND_MAX];
	size_t n = (size_t)snprintf(text, sizeof(text), "command=");

	for (; *argv && n < sizeof(text) - 1; argv++) {
		int more = snprintf(text + n, sizeof(text) - n, "%s%s", n > 8 ? " " : "", *argv);

		n += more < 0 ? 0 : (size_t)more;
	}
	return strdup(text);
}

void events_note_exec(struct keeper *k, const char *command, const struct proto_event *exit)
{
	char status[32];

	if (!command)
		return;
	if (!exit) {
		events_note(k, "exec_start", (const char *const[]){command, NULL});
		return;
	}
	snprintf(status, sizeof(status), "exitCode=%d", exit->status & 0xff);
	events_note(k, "exec_die", (const char *const[]){command, status, NULL});
}

/* A command that a client's channel passes through to the agent. */
struct passed {
	struct keeper *k;
	char *command;
	struct proto_event exit;
	bool runs;
};

static void passed_opened(void *arg, struct relay *r, struct cursor reply)
{
	struct passed *p = arg;
	uint32_t pid = 0;

	p->runs = proto_pid_decode(&reply, &pid) == 0 && pid;
	if (p->runs)
		events_note_exec(p->k, p->command, NULL);
}

static void passed_event(void *arg, struct relay *r, struct cursor event)
{
	struct passed *p = arg;
	struct proto_event e;

	if (proto_event_decode(&event, &e) == 0 && e.kind == PROTO_EV_EXIT)
		p->exit = e;
}

/* One whose client left was killed. */
static void passed_ended(void *arg, struct relay *r, bool far_left, int code)
{
	struct passed *p = arg;

	if (!p->exit.kind)
		p->exit.status = 137;
	if (p->runs)
		events_note_exec(p->k, p->command, &p->exit);
	idle_leave(p->k);
	free(p->command);
	free(p);
}

static const struct relay_hooks passed_hooks = {.opened = passed_opened, .event = passed_event, .ended = passed_ended};

int events_pass_exec(struct keeper *k, struct mux *near, uint32_t ch, const struct cursor *request)
{
	struct passed *p = calloc(1, sizeof(*p));
	struct cursor copy = *request;
	struct proto_exec x;
	struct relay *relay;
	int r = p ? proto_exec_decode(&copy, &x) : -ENOMEM;

	if (r == 0) {
		p->k = k;
		p->command = events_command(x.argv);
		proto_exec_done(&x);
		r = relay_open(near, ch, link_mux(k->agent), PROTO_EXEC, request->p, request->left, &passed_hooks, p,
			       &relay);
	}
	if (r == 0)
		idle_enter(k);
	if (r < 0 && p) {
		free(p->command);
		free(p);
	}
	return r;
}

void events_done(struct keeper *k)
{
	events_flush(k);
	k->events.timer = loop_remove(k->events.timer);
	vm_log_close(&k->events.log);
	buf_done(&k->events.pending);
}
