/* SPDX-License-Identifier: Apache-2.0 */
/* How a VM ended: what is known from the command, from what was asked for, and from the monitor's end, in this order.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/fileio.h"
#include "base/util.h"

#define STATUS_OURS 125
#define STATUS_TIMEOUT 124

static void say(struct sm_outcome *o, enum sm_reason reason, int status, const char *text)
{
	o->reason = reason;
	o->status = status;
	snprintf(o->message, sizeof(o->message), "%s", text);
}

/* A disk that the host could not serve: the reason, where the command failed; else still worth a word. */
static void from_disk(const struct keeper *k, struct sm_outcome *o)
{
	bool full = out_of_space(k->mon.disk_error);

	if (full)
		snprintf(o->message, sizeof(o->message),
			 "the disk of the host is full: what the VM wrote may be lost (it writes to %s/top)",
			 k->args.dir);
	else
		snprintf(o->message, sizeof(o->message), "a disk of the VM failed on the host: %s",
			 strerror(k->mon.disk_error));
	if (full && o->status && (o->reason == SM_REASON_EXITED || o->reason == SM_REASON_SIGNALLED))
		o->reason = SM_REASON_DISK_FULL;
}

static void from_command(const struct keeper *k, struct sm_outcome *o)
{
	const struct proto_event *e = &k->main_exit;

	say(o, vm_reason_of_exit((int)e->reason), e->status & 0xff, e->text);
	o->signal = e->signal >= 0 && e->signal <= 64 ? e->signal : 0;
	o->duration_ns = MIN(e->duration_ns, (uint64_t)INT64_MAX);
	o->peak_rss = MIN(e->peak_rss, (uint64_t)INT64_MAX);
	if (k->mon.disk_error)
		from_disk(k, o);
	if ((k->forced == SM_REASON_STOPPED || k->forced == SM_REASON_IDLE || k->forced == SM_REASON_TTL) &&
	    (o->reason == SM_REASON_EXITED || o->reason == SM_REASON_SIGNALLED))
		o->reason = k->forced;
	if (o->reason == SM_REASON_IDLE || o->reason == SM_REASON_TTL)
		snprintf(o->message, sizeof(o->message), "%s", k->forced_message);
}

static void from_request(const struct keeper *k, struct sm_outcome *o)
{
	int status = STATUS_OURS;

	if (k->forced == SM_REASON_TIMEOUT)
		status = STATUS_TIMEOUT;
	else if (k->forced == SM_REASON_EXITED) /* a base: it has done what it is for */
		status = 0;
	else if (k->forced_signal)
		status = 128 + k->forced_signal;
	say(o, k->forced, status, k->forced_message);
	o->signal = k->forced_signal;
}

/* The panic's own line, else the last line that is not empty. Control bytes become dots: the guest wrote this. */
static void console_line(const struct monitor *m, char *out, size_t size)
{
	const char *best = NULL, *p = m->tail, *end = m->tail + m->tail_len;
	size_t best_len = 0;
	bool panic = false;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((nl ? nl : end) - p);

		while (len && (p[len - 1] == '\r' || p[len - 1] == ' '))
			len--;
		if (len && !panic) {
			best = p;
			best_len = len;
			panic = memmem(p, len, "Kernel panic", 12) && !memmem(p, len, "end Kernel panic", 16);
		}
		p = nl ? nl + 1 : end;
	}
	best_len = MIN(best_len, size - 1);
	for (size_t i = 0; i < best_len; i++)
		out[i] = best[i] >= 0x20 && best[i] < 0x7f ? best[i] : '.';
	out[best_len] = '\0';
}

static void from_crash(struct keeper *k, struct sm_outcome *o, int wait_status)
{
	const char *detail = k->mon.detail[0] ? k->mon.detail : k->mon.reason;
	enum sm_reason died = k->main_open ? SM_REASON_MONITOR_DIED : SM_REASON_START_FAILED;
	char text[400];

	if (WIFSIGNALED(wait_status)) {
		/* Killed from outside or crashed: that it is so counts, also during the start. */
		snprintf(text, sizeof(text), "the monitor was ended by signal %d (%s)", WTERMSIG(wait_status),
			 strsignal(WTERMSIG(wait_status)));
		say(o, SM_REASON_MONITOR_DIED, STATUS_OURS, text);
		return;
	}
	if (detail[0])
		snprintf(text, sizeof(text), "the monitor failed: %s", detail);
	else
		snprintf(text, sizeof(text), "the monitor ended with status %d; see vmm.log of the VM",
			 WEXITSTATUS(wait_status));
	say(o, died, STATUS_OURS, text);
}

static void from_monitor(struct keeper *k, struct sm_outcome *o, int wait_status)
{
	const char *reason = k->mon.reason;
	char line[300], text[400];

	console_line(&k->mon, line, sizeof(line));
	if (streq(reason, "panic") || streq(reason, "triple-fault")) {
		snprintf(text, sizeof(text), "guest %s: %s", streq(reason, "panic") ? "panic" : "triple fault",
			 line[0] ? line : k->mon.detail);
		say(o, SM_REASON_GUEST_PANIC, STATUS_OURS, text);
	} else if (streq(reason, "shutdown") || streq(reason, "reset")) {
		snprintf(text, sizeof(text), "the guest %s %s",
			 streq(reason, "shutdown") ? "powered itself off" : "rebooted itself",
			 k->main_open ? "while its command ran" : "before its command ran");
		say(o, k->main_open ? SM_REASON_GUEST_SHUTDOWN : SM_REASON_START_FAILED, k->main_open ? 0 : STATUS_OURS,
		    text);
	} else {
		from_crash(k, o, wait_status);
	}
}

/* Another start without this snapshot may fare better. */
static bool restore_failed(const struct keeper *k)
{
	const struct monitor *m = &k->mon;

	if (!k->args.restore || k->agent_seen)
		return false;
	return k->restore_broken || strncmp(m->detail, "restore: ", 9) == 0 || streq(m->reason, "triple-fault") ||
	       streq(m->reason, "panic");
}

void outcome_compute(struct keeper *k, int wait_status)
{
	struct sm_outcome *o = &k->exit.outcome;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	k->exit.finished_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	o->size = sizeof(*o);
	k->exit.restore_failed = restore_failed(k);
	if (k->main_has_exit)
		from_command(k, o);
	else if (k->forced != SM_REASON_NONE)
		from_request(k, o);
	else
		from_monitor(k, o, wait_status);
}

int outcome_write(struct keeper *k, struct sm_error *err)
{
	int r = 0;

	free(k->exit_json);
	k->exit_json = NULL;
	/* An event carries it whole: a message of many escaped bytes is cut until it fits. */
	for (size_t keep = sizeof(k->exit.outcome.message) - 1;; keep /= 2) {
		k->exit.outcome.message[keep] = '\0';
		r = vm_exit_format(&k->exit, &k->exit_json, err);
		if (r < 0 || strlen(k->exit_json) <= KEEPER_NEWS_MAX || keep == 0)
			break;
		free(k->exit_json);
		k->exit_json = NULL;
	}
	if (r < 0)
		return r;
	r = write_file_atomic_at(k->dirfd, "exit.json", k->exit_json, strlen(k->exit_json), 0600);
	return r < 0 ? error_sys(err, -r, "write %s/exit.json", k->args.dir) : 0;
}
