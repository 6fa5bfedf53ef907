/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands: the EXEC service. A command's life, each step told to the client:
 *
 *	spawned		the process exists; its report pipe is open, so nothing is said yet
 *	accepted	the report pipe has ended: OPENED with its pid. Streams flow. (Earlier if files come by them.)
 *	reaped		it has ended; if another is chained to it: from the beginning with that; else its output is
 *passed on as far as it was written, within the client's credit finished	EOFs, the exit event, CLOSE; freed
 *
 * Output that others still hold open when the command has ended (a daemon it left behind) is read and thrown away from
 *then on, so that they do not die of writing. When the client closes the channel early, the command is killed unless it
 *is detached.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/cgroup.h"
#include "guest/environment.h"
#include "guest/exec.h"
#include "guest/spawn.h"

#define LAST_WORDS_MS 1000
#define LOW_SPACE (256u * KIB)

/* What a finished command's left-over processes still write to. */
struct sink {
	struct sink *next;
	struct agent *a;
	struct outflow flow;
};

static void sink_free(struct sink *s)
{
	struct sink **link = &s->a->sinks;

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	outflow_done(&s->flow);
	free(s);
}

static void sink_ended(void *arg, int error)
{
	sink_free(arg);
}

static void sink_add(struct agent *a, int fd)
{
	struct flow_channel nowhere = {.loop = a->loop};
	struct sink *s = calloc(1, sizeof(*s));

	if (!s) {
		fd_close(fd);
		return;
	}
	if (outflow_begin(&s->flow, nowhere, fd, false, sink_ended, s) < 0) {
		free(s);
		return;
	}
	s->flow.discard = true;
	s->a = a;
	s->next = a->sinks;
	a->sinks = s;
}

void exec_free(struct exec *e)
{
	struct exec **link = &e->a->execs;

	while (*link && *link != e)
		link = &(*link)->next;
	if (*link)
		*link = e->next;
	loop_remove(e->report_src);
	loop_remove(e->timer);
	loop_remove(e->look_again);
	fd_close(e->report_fd);
	outflow_done(&e->out[0]);
	outflow_done(&e->out[1]);
	inflow_done(&e->in);
	inflow_done(&e->staged);
	chain_free(e->chain);
	cgroup_remove(e->a, e->cgroup_fd, e->cgroup_id);
	free(e);
}

void exec_kill(struct exec *e)
{
	if (e->reaped)
		return;
	if (cgroup_kill(e->cgroup_fd))
		return;
	if (kill(-e->pid, SIGKILL) < 0)
		kill(e->pid, SIGKILL); /* it has not made its session yet */
}

/* ------------------------------------------------------------------------------------------ the end */

static bool disk_is_full(struct agent *a)
{
	struct statvfs v;

	if (!a->set_up || statvfs("/", &v) < 0)
		return false;
	return (uint64_t)v.f_bavail * v.f_frsize < LOW_SPACE || (v.f_files && !v.f_favail);
}

/* False: it was executed, or it is not known yet. */
static bool has_failed(const struct exec *e, struct child_failure *ret)
{
	if (e->report_len < sizeof(e->report))
		return false;
	memcpy(ret, e->report + sizeof(int32_t), sizeof(*ret));
	ret->text[sizeof(ret->text) - 1] = '\0';
	return true;
}

static void explain_failure(const struct child_failure *f, struct proto_event *ev)
{
	ev->status = f->status;
	ev->reason = f->status == 127 ? PROTO_EXIT_NOT_FOUND : PROTO_EXIT_NOT_EXECUTABLE;
	snprintf(ev->text, sizeof(ev->text), "%s", f->text);
}

static void explain_exit(const struct exec *e, struct proto_event *ev)
{
	uint64_t oom_kills = 0;

	if (WIFSIGNALED(e->status)) {
		ev->reason = PROTO_SIGNALLED;
		ev->signal =
			e->forced_signal && WTERMSIG(e->status) == SIGKILL ? e->forced_signal : WTERMSIG(e->status);
		ev->status = 128 + ev->signal;
	} else {
		ev->reason = PROTO_EXITED;
		ev->status = WEXITSTATUS(e->status);
	}
	if (e->timed_out) {
		ev->reason = PROTO_EXIT_TIMEOUT;
		ev->status = 124;
		snprintf(ev->text, sizeof(ev->text), "killed: its time ran out");
		return;
	}
	if (ev->status == 0)
		return;
	oom_kills = cgroup_oom_kills(e->cgroup_fd);
	if (oom_kills) {
		if (ev->status == 128 + SIGKILL)
			ev->reason = PROTO_EXIT_OOM;
		snprintf(ev->text, sizeof(ev->text), "out of memory: the kernel killed %llu of its processes",
			 (unsigned long long)oom_kills);
	} else if (disk_is_full(e->a)) {
		ev->reason = PROTO_EXIT_DISK_FULL; /* says it all: a text would mean another disk than the VM's own */
	}
}

static void send_exit(struct exec *e, const struct child_failure *failure)
{
	struct proto_event ev = {.kind = PROTO_EV_EXIT,
				 .duration_ns = e->end_ns - e->start_ns,
				 .peak_rss = e->peak_rss,
				 .step = e->step};
	struct buf b = {0};

	if (failure)
		explain_failure(failure, &ev);
	else
		explain_exit(e, &ev);
	if (proto_event_encode(&b, &ev) == 0)
		mux_send_event(e->a->mux, e->ch, &b);
	buf_done(&b);
}

static void close_channel(struct exec *e)
{
	struct mux *m = e->a->mux;
	struct child_failure f;
	bool failed = has_failed(e, &f);

	if (!failed || !f.error)
		send_exit(e, failed ? &f : NULL);
	mux_set_handler(m, e->ch, NULL, NULL);
	if (failed && f.error)
		agent_refuse(e->a, e->ch, f.error, "%s", f.text);
	else
		mux_close(m, e->ch, 0, NULL);
}

static void finish(struct exec *e)
{
	struct mux *m = e->a->mux;

	for (unsigned i = 0; i < 2; i++) {
		struct outflow *f = &e->out[i];

		if (e->has_channel)
			mux_send_eof(m, e->ch, i + 1); /* no-op if it was sent */
		if (f->fd < 0)
			continue;
		f->src = loop_remove(f->src);
		if (!e->tty)
			sink_add(e->a, TAKE_FD(f->fd));
	}
	if (e->has_channel)
		close_channel(e);
	exec_free(e);
}

static bool goes_on(const struct exec *e)
{
	return e->chain && (e->has_channel || e->detached) && !e->timed_out && e->report_len < sizeof(e->report) &&
	       WIFEXITED(e->status) && WEXITSTATUS(e->status) == 0;
}

/* Finishes the command if nothing is left to do for it. */
static void settle(struct exec *e)
{
	bool drained = true;

	if (!e->reaped || e->report_fd >= 0 || e->orphan)
		return;
	if (goes_on(e) && exec_next(e) == 0)
		return;
	e->timer = loop_remove(e->timer);
	/* A channel that was never opened has had nothing to pass on. */
	for (unsigned i = 0; i < 2 && e->accepted; i++)
		drained = outflow_drain(&e->out[i]) && drained;
	if (drained)
		finish(e);
}

/*
 * Whether the command called reboot(2): in a PID namespace that ends its PID 1 by a signal that nothing else can end it
 * by. *restart: not a power-off.
 */
static bool asked_reboot(const struct exec *e, bool was_init, bool *restart)
{
	int sig = WIFSIGNALED(e->status) ? WTERMSIG(e->status) : 0;

	*restart = sig == SIGHUP;
	return was_init && e->a->role == ROLE_GUEST && (sig == SIGHUP || sig == SIGINT);
}

/* The VM ends as the command asked, with the output that it had made. */
static void reboot_as_asked(struct exec *e, bool restart)
{
	outflow_drain(&e->out[0]);
	outflow_drain(&e->out[1]);
	link_drain(e->a->link, LAST_WORDS_MS);
	system_end(e->a, restart, 0);
}

bool exec_reaped(struct agent *a, pid_t pid, bool was_init, int status, const struct rusage *usage)
{
	bool restart;

	for (struct exec *e = a->execs; e; e = e->next) {
		if (e->pid != pid || e->reaped)
			continue;
		e->reaped = true;
		e->status = status;
		e->end_ns = time_now_ns();
		e->peak_rss = MAX(e->peak_rss, (uint64_t)usage->ru_maxrss * KIB);
		if (!e->chain)
			e->timer = loop_remove(e->timer);
		if (asked_reboot(e, was_init, &restart))
			reboot_as_asked(e, restart);
		settle(e);
		return true;
	}
	return false;
}

void exec_on_timeout(struct loop *loop, struct loop_source *src, void *arg)
{
	struct exec *e = arg;

	e->timed_out = true;
	exec_kill(e);
}

/* ------------------------------------------------------------------------------------------ the channel */

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct exec *e = arg;
	size_t staged = (size_t)MIN(len, e->staged_left);

	if (staged) {
		inflow_data(&e->staged, p, staged);
		e->staged_left -= staged;
		if (!e->staged_left)
			inflow_eof(&e->staged);
	}
	if (len == staged)
		return;
	if (e->tty && !e->reaped)
		exec_heed_keys(e, p + staged, len - staged);
	inflow_data(&e->in, p + staged, len - staged);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct exec *e = arg;

	inflow_eof(&e->staged);
	inflow_eof(&e->in);
}

static void on_event(void *arg, uint32_t ch, void *user, struct cursor *event)
{
	struct exec *e = arg;
	struct proto_event ev;

	/* What makes no sense harms nobody: the client gets its answer by what happens. */
	if (proto_event_decode(event, &ev) < 0)
		return;
	if (ev.kind == PROTO_EV_SIGNAL && ev.signal > 0) {
		exec_deliver(e, ev.signal);
	} else if (ev.kind == PROTO_EV_RESIZE && e->tty && e->out[0].fd >= 0) {
		struct winsize w = {.ws_row = ev.rows, .ws_col = ev.cols};

		ioctl(e->out[0].fd, TIOCSWINSZ, &w);
	}
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct exec *e = arg;

	if (stream == 0)
		return;
	outflow_writable(&e->out[stream - 1]);
	settle(e);
}

/* Nobody listens any more. */
static void forsake(struct exec *e)
{
	e->has_channel = false;
	for (unsigned i = 0; i < 2; i++) {
		e->out[i].discard = true;
		outflow_writable(&e->out[i]); /* it may have been parked */
	}
	inflow_eof(&e->staged);
	inflow_eof(&e->in);
	if (!e->detached)
		exec_kill(e);
	settle(e);
}

/* All it does is to be told to the keeper that adopts it. */
static void make_orphan(struct exec *e)
{
	e->has_channel = false;
	e->orphan = true;
	for (unsigned i = 0; i < 2; i++)
		outflow_hold(&e->out[i]);
	inflow_hold(&e->in);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct exec *e = arg;

	mux_set_handler(e->a->mux, ch, NULL, NULL);
	mux_close(e->a->mux, ch, 0, NULL);
	/* A keeper that gives up the image's command ends its VM: this one was restored, and another will come. */
	if (e->main && e->a->role == ROLE_GUEST && e->a->set_up)
		make_orphan(e);
	else
		forsake(e);
}

const struct mux_callbacks exec_callbacks = {
	.data = on_data,
	.eof = on_eof,
	.event = on_event,
	.writable = on_writable,
	.closed = on_closed,
};

void exec_abandon_all(struct agent *a)
{
	/* Detached ones live on without a record: a later link knows nothing of them. */
	for (struct exec *e = a->execs, *next; e; e = next) {
		next = e->next;
		if (e->orphan)
			continue;
		if (!e->detached)
			exec_kill(e);
		exec_free(e);
	}
	while (a->sinks && a->role != ROLE_GUEST)
		sink_free(a->sinks);
}

int exec_limit_main(struct agent *a, uint64_t timeout_ns)
{
	struct exec *e = a->execs;
	int r = 0;

	while (e && !e->orphan)
		e = e->next;
	if (!e || e->reaped)
		return 0;
	if (!e->timer)
		r = loop_add_timer(a->loop, exec_on_timeout, e, &e->timer);
	if (r == 0)
		loop_timer_at(e->timer, time_now_ns() + MIN(timeout_ns, (uint64_t)INT64_MAX / 2));
	return r;
}

void exec_hold_all(struct agent *a, bool hold)
{
	for (struct exec *e = a->execs, *next; e; e = next) {
		next = e->next;
		if (e->orphan)
			continue;
		for (unsigned i = 0; i < 2 && hold; i++)
			outflow_hold(&e->out[i]);
		if (hold) {
			inflow_hold(&e->in);
			continue;
		}
		for (unsigned i = 0; i < 2; i++)
			outflow_release(&e->out[i], e->out[i].to);
		inflow_release(&e->in, e->in.from);
		settle(e);
	}
}

static uint32_t pid_of(const struct exec *e)
{
	int32_t pid;

	memcpy(&pid, e->report, sizeof(pid));
	return (uint32_t)(e->report_len < sizeof(pid) || pid <= 0 ? (int32_t)e->pid : pid);
}

/* The new channel is as that of the EXEC was when the command had begun; streams that have ended say so again. */
static void adopt(struct exec *e, uint32_t ch)
{
	struct flow_channel to = {.loop = e->a->loop, .mux = e->a->mux, .ch = ch};
	struct buf b = {0};

	e->orphan = false;
	e->has_channel = true;
	e->ch = ch;
	mux_set_handler(to.mux, ch, &exec_callbacks, e);
	proto_pid_encode(&b, pid_of(e));
	mux_opened(to.mux, ch, &b);
	buf_done(&b);
	for (unsigned i = 0; i < 2; i++) {
		to.stream = i + 1;
		if (e->out[i].fd < 0)
			mux_send_eof(to.mux, ch, i + 1);
		outflow_release(&e->out[i], to);
	}
	to.stream = 0;
	inflow_release(&e->in, to);
	settle(e);
}

void adopt_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	volumes_thaw(a); /* whoever adopts it goes on from here for good */
	for (struct exec *e = a->execs; e; e = e->next) {
		if (!e->orphan)
			continue;
		adopt(e, ch);
		return;
	}
	agent_refuse(a, ch, -ESRCH, "no command waits for a keeper");
}

/* From now on there are streams. pid 0: it could not be executed. */
static void accept_it(struct exec *e, uint32_t pid)
{
	struct buf b = {0};

	e->accepted = true;
	proto_pid_encode(&b, pid);
	if (e->has_channel)
		mux_opened(e->a->mux, e->ch, &b);
	buf_done(&b);
	for (unsigned i = 0; i < 2 && e->has_channel; i++)
		if (e->out[i].fd < 0)
			mux_send_eof(e->a->mux, e->ch, i + 1);
	outflow_writable(&e->out[0]);
	outflow_writable(&e->out[1]);
}

/* The report pipe has something, or has ended: then the command runs, or has failed to. */
void exec_on_report(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct exec *e = arg;
	ssize_t n = read(e->report_fd, e->report + e->report_len, sizeof(e->report) - e->report_len);
	struct child_failure f;
	bool failed;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		e->report_len += (size_t)n;
	/* It waits for files that come by its channel. */
	if (e->staged_left && !e->accepted && e->report_len >= sizeof(int32_t) && e->report_len < sizeof(e->report))
		accept_it(e, pid_of(e));
	if (n > 0 && e->report_len < sizeof(e->report))
		return;
	e->report_src = loop_remove(e->report_src);
	e->report_fd = fd_close(e->report_fd);
	/* A full report has a failure in it: nothing runs. */
	failed = has_failed(e, &f);
	if (!e->accepted && !(failed && f.error))
		accept_it(e, failed ? 0 : pid_of(e));
	settle(e);
}
