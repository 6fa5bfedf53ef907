/* SPDX-License-Identifier: Apache-2.0 */
/* A VM's life in phases: see keeper.h. */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define LINGER_POLL_NS (5 * 1000000ull)
#define SECOND 1000000000ull
#define BASE_OWNER_LIMIT (15 * SECOND)

enum sm_vm_state keeper_state(const struct keeper *k)
{
	switch (k->phase) {
	case PHASE_ENDED:
		return SM_VM_EXITED;
	case PHASE_ENDING:
		return SM_VM_STOPPING;
	default:
		return k->pause.on ? SM_VM_PAUSED : k->main_open ? SM_VM_RUNNING : SM_VM_STARTING;
	}
}

void keeper_stage(struct keeper *k, const char *name)
{
	uint64_t now = time_now_ns();

	if (k->rewinding.marking) /* it is up already */
		return;
	vm_outcome_stage(&k->exit.outcome, name, now - k->stage_since);
	log_debug("keeper", "stage %s: %llu us", name, (unsigned long long)(now - k->stage_since) / 1000);
	k->stage_since = now;
}

/* Volumes outlive the VM, and a disk that is another's: what programs have written to them must reach the file, however
 * it ends. */
static bool is_outlived(const struct keeper *k)
{
	return vm_volumes(&k->rec, true) || disk_is_lent(k->dirfd);
}

/* False: there is nothing to wait for, or nobody to ask. */
static bool sync_volumes(struct keeper *k)
{
	/* One that is suspended stands still, and its volumes with it. */
	if (!is_outlived(k) || k->phase < PHASE_READY || k->pause.on || k->forced == SM_REASON_SUSPENDED ||
	    agent_poweroff(k) < 0)
		return false;
	loop_timer_at(k->deadline, time_now_ns() + k->args.limits.poweroff);
	return true;
}

void keeper_end(struct keeper *k, enum sm_reason reason, int signal, const char *fmt, ...)
{
	va_list ap;

	if (k->phase == PHASE_ENDED)
		return;
	if (k->forced == SM_REASON_NONE) {
		k->forced = reason;
		k->forced_signal = signal;
		va_start(ap, fmt);
		vsnprintf(k->forced_message, sizeof(k->forced_message), fmt, ap);
		va_end(ap);
	}
	if (k->phase < PHASE_ENDING && sync_volumes(k)) {
		k->phase = PHASE_ENDING;
		return;
	}
	k->phase = PHASE_ENDING;
	monitor_stop(k);
}

/* ------------------------------------------------------------------------------------- the way up */

void keeper_setup_done(struct keeper *k)
{
	int r = k->args.resume ? resume_done(k) : 0;

	if (r < 0) {
		keeper_end(k, SM_REASON_START_FAILED, 0, "resume: %s", strerror(-r));
		return;
	}
	keeper_stage(k, k->spare.stage == SPARE_BECOMES ? "spare" : "setup");
	admission_over(k);
	k->phase = PHASE_READY;
	if (spare_set_up(k))
		keeper_try_main(k);
}

/* It is worth no failure: such a base then serves its own size alone. */
static void note_pluggable(struct keeper *k, struct cursor *reply)
{
	struct proto_prepared p;

	if (proto_prepared_decode(reply, &p) == 0 && p.pluggable)
		fd_close(openat(k->dirfd, VM_PLUGGABLE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

void keeper_prepared(struct keeper *k, struct cursor *reply)
{
	struct monitor_saving files = {.fds = {-1, -1, -1}};
	struct sm_error err = {0};
	int r = monitor_saving_open(&files, k->dirfd);

	note_pluggable(k, reply);
	keeper_stage(k, "setup");
	r = r < 0 ? error_sys(&err, -r, "make the base's files") : monitor_snapshot(k, &files, &err);
	monitor_saving_close(&files);
	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "%.240s", err.message);
}

void keeper_saved(struct keeper *k, const char *error)
{
	if (!k->args.base || k->phase != PHASE_SETUP)
		return;
	if (error) {
		keeper_end(k, SM_REASON_START_FAILED, 0, "snapshot: %.200s", error);
		return;
	}
	keeper_stage(k, "snapshot");
	keeper_end(k, SM_REASON_EXITED, 0, "%s", "");
}

void keeper_try_main(struct keeper *k)
{
	int r;

	if (k->phase != PHASE_READY || spare_unclaimed(k) || (keeper_foreground(k) && !k->attach_client) ||
	    secrets_missing(k))
		return;
	k->phase = PHASE_MAIN;
	r = secrets_send(k);
	if (r == 0 && k->cpus.fd >= 0)
		r = cpu_group_limit(&k->cpus, k->rec.cpu_limit);
	if (!k->rewinding.under_way)
		agent_sync_clock(k); /* what SETUP said is some time ago; read before the command */
	r = r < 0 ? r : agent_exec_main(k);
	if (r < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "start the command: %s", strerror(-r));
}

void keeper_main_started(struct keeper *k, bool runs)
{
	struct timespec now;

	if (k->phase != PHASE_MAIN)
		return;
	keeper_stage(k, "exec");
	clock_gettime(CLOCK_REALTIME, &now);
	if (runs)
		k->exit.started_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	loop_timer_at(k->deadline, 0);
	if (runs && k->rec.timeout_ns) {
		k->time_limit_at = time_now_ns() + k->rec.timeout_ns + k->args.limits.late;
		loop_timer_at(k->time_limit, k->time_limit_at);
	}
	server_attach_pending(k);
	if (runs) {
		if (!k->rewinding.under_way) /* they have been told */
			server_tell_started(k);
		if (!k->rewinding.marking)
			events_note(k, k->rewinding.under_way ? "rewind" : k->suspended ? "resume" : "start", NULL);
		workingset_ask(k);
		server_rewound(k);
	}
	if (runs && idle_begin(k) < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "no memory for its limit on idleness");
}

/* ----------------------------------------------------------------------------------- the way down */

void keeper_main_done(struct keeper *k, int code, const char *text)
{
	bool lost = code == -ECONNRESET || code == -EPIPE;

	/* The channel went with the link, when that was read or written to: keeper_agent_lost follows and knows more.
	 * Or all that is being undone. */
	if (k->phase >= PHASE_ENDING || k->main_done || (!k->main_has_exit && lost) || k->rewinding.fd >= 0)
		return;
	k->main_done = true;
	k->time_limit_at = 0;
	loop_timer_at(k->time_limit, 0);
	loop_timer_at(k->grace, 0);
	if (!k->main_has_exit) {
		/* Before it ran: why it does not. */
		keeper_end(k, k->main_open ? SM_REASON_GUEST_PANIC : SM_REASON_START_FAILED, 0, "%s%s",
			   k->main_open || !*text ? "the guest's agent gave no exit status: " : "",
			   *text ? text : strerror(-code));
		return;
	}
	keeper_stage(k, "command");
	k->phase = PHASE_ENDING;
	/* Only a disk that stays is worth a clean shutdown. */
	if (((k->rec.keep && k->rec.disk_template) || is_outlived(k)) && agent_poweroff(k) == 0)
		loop_timer_at(k->deadline, time_now_ns() + k->args.limits.poweroff);
	else
		monitor_stop(k);
}

void keeper_agent_lost(struct keeper *k, const char *why)
{
	if (k->phase >= PHASE_ENDING)
		return;
	/* A panic or a poweroff: the monitor says so in a moment. If it does not, the agent died or broke the rules. */
	snprintf(k->forced_message, sizeof(k->forced_message), "lost the guest's agent: %s", why);
	loop_timer_at(k->deadline, time_now_ns() + k->args.limits.stop);
}

static bool deadly(int signal)
{
	return signal == SIGINT || signal == SIGTERM || signal == SIGHUP || signal == SIGQUIT || signal == SIGKILL;
}

/* Who stands still cannot end either. */
static void go_on(struct keeper *k)
{
	if ((k->pause.on || k->pause.under_way) && monitor_pause(k, false) < 0)
		keeper_end(k, SM_REASON_STOPPED, SIGKILL, "stopped while it was paused");
}

void keeper_stop_gently(struct keeper *k, enum sm_reason reason, int signal, uint64_t grace_ns, const char *message)
{
	k->forced = reason;
	k->forced_signal = signal;
	snprintf(k->forced_message, sizeof(k->forced_message), "%s", message);
	events_note_signal(k, signal);
	agent_signal(k, signal);
	if (grace_ns != UINT64_MAX)
		loop_timer_at(k->grace, time_now_ns() + MIN(grace_ns, (uint64_t)INT64_MAX / 2));
}

void keeper_stop_request(struct keeper *k, const struct keeper_stop *s)
{
	int signal = s->signal ? s->signal : k->rec.stop_signal;

	if (s->mode == KEEPER_STOP_NOW) {
		keeper_end(k, SM_REASON_STOPPED, SIGKILL, "stopped at once");
	} else if (k->phase >= PHASE_ENDING) {
		return;
	} else if (!k->main_open) {
		if (s->mode == KEEPER_STOP_GRACE || deadly(signal))
			keeper_end(k, SM_REASON_STOPPED, signal, "stopped before its command ran");
	} else if (s->mode == KEEPER_STOP_SIGNAL) {
		if (signal == SIGKILL)
			go_on(k);
		events_note_signal(k, signal);
		agent_signal(k, signal);
	} else {
		go_on(k);
		keeper_stop_gently(k, SM_REASON_STOPPED, signal, s->grace_ns, "stopped");
	}
}

/* The command ignored its stop signal; if SIGKILL does not end it either, the guest is beyond asking. */
static void on_grace(struct loop *loop, struct loop_source *src, void *arg)
{
	struct keeper *k = arg;

	k->forced_signal = SIGKILL;
	events_note_signal(k, SIGKILL);
	agent_signal(k, SIGKILL);
	loop_timer_at(k->deadline, time_now_ns() + k->args.limits.poweroff);
}

static uint64_t start_limit(const struct keeper *k)
{
	return k->args.restore ? k->args.limits.restore : k->args.limits.boot;
}

/* Twenty guests that boot at once on two CPUs are slow, not stuck. True: the limit was moved. */
static bool grant_more_time(struct keeper *k)
{
	uint64_t limit = k->boot_since + start_limit(k) + monitor_starved_ns(&k->mon);

	if (time_now_ns() >= limit)
		return false;
	loop_timer_at(k->deadline, limit);
	return true;
}

static void on_deadline(struct loop *loop, struct loop_source *src, void *arg)
{
	struct keeper *k = arg;

	if (k->phase == PHASE_ENDING || k->forced != SM_REASON_NONE) {
		k->phase = PHASE_ENDING;
		monitor_stop(k);
	} else if (k->agent_lost) {
		char why[sizeof(k->forced_message)];

		memcpy(why, k->forced_message, sizeof(why));
		keeper_end(k, k->main_open ? SM_REASON_GUEST_PANIC : SM_REASON_START_FAILED, 0, "%s", why);
	} else if (!grant_more_time(k)) {
		k->restore_broken |= k->phase == PHASE_BOOT;
		keeper_end(k, SM_REASON_START_FAILED, 0, "the guest did not come up within %llu s (%s)",
			   (unsigned long long)(start_limit(k) / SECOND),
			   k->phase == PHASE_BOOT ? "no word from its agent" : "its set-up did not end");
	}
}

static void on_time_limit(struct loop *loop, struct loop_source *src, void *arg)
{
	keeper_end(arg, SM_REASON_TIMEOUT, 0, "its time was over and the guest did not end it");
}

static void on_owner_timer(struct loop *loop, struct loop_source *src, void *arg)
{
	keeper_end(arg, SM_REASON_CLIENT_GONE, 0, "the program that ran it went away");
}

/* The record is there; what is left is to get the last bytes out. A client that does not read holds only itself up. */
static void on_linger(struct loop *loop, struct loop_source *src, void *arg)
{
	struct keeper *k = arg;

	if (server_drained(k))
		loop_stop(loop, 0);
	else
		loop_timer_at(src, time_now_ns() + LINGER_POLL_NS);
}

void keeper_ended(struct keeper *k, int wait_status)
{
	struct sm_error err = {0};

	if (k->phase == PHASE_ENDED)
		return;
	keeper_stage(k, "shutdown");
	admission_over(k);
	k->phase = PHASE_ENDED;
	execs_done(k);
	outcome_compute(k, wait_status);
	if (!spare_unclaimed(k)) {
		events_note_end(k);
		if (outcome_write(k, &err) < 0 && err.code != ENOENT)
			log_error("keeper", "%s", err.message);
	}
	k->agent = link_free(k->agent);
	server_tell_ended(k);
	loop_timer_at(k->linger, time_now_ns());
}

/* ---------------------------------------------------------------------------------- construction */

static int load_record(struct keeper *k, struct sm_error *err)
{
	_free_ char *json = NULL;
	size_t len;
	int r;

	k->dirfd = open(k->args.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (k->dirfd < 0)
		return error_sys(err, errno, "open %s", k->args.dir);
	r = read_file_at(k->dirfd, "config.json", VM_RECORD_MAX, &json, &len);
	if (r < 0)
		return error_sys(err, -r, "read %s/config.json", k->args.dir);
	r = vm_record_parse(json, len, &k->rec, err);
	return r < 0 ? error_wrap(err, r, "%s/config.json", k->args.dir) : 0;
}

/* Unlike the limit on its command's time this one counts what passes while it is paused, and stops it as `stop` does.
 */
static void on_ttl(struct loop *loop, struct loop_source *src, void *arg)
{
	struct keeper *k = arg;
	char message[96];

	if (k->phase >= PHASE_ENDING || k->forced != SM_REASON_NONE)
		return;
	if (k->saving.stage != SAVING_NOTHING) { /* it may be gone, suspended, in a moment */
		loop_timer_at(src, time_now_ns() + SECOND);
		return;
	}
	snprintf(message, sizeof(message), "it had lived for %g s", (double)k->rec.ttl_ns / 1e9);
	if (k->main_open) {
		go_on(k);
		keeper_stop_gently(k, SM_REASON_TTL, k->rec.stop_signal, KEEPER_GRACE_NS, message);
	} else {
		keeper_end(k, SM_REASON_TTL, 0, "%s", message);
	}
}

static int add_timers(struct keeper *k)
{
	const struct {
		struct loop_source **timer;
		loop_timer_fn fn;
	} timers[] = {
		{&k->deadline, on_deadline},	 {&k->grace, on_grace},	  {&k->owner_timer, on_owner_timer},
		{&k->time_limit, on_time_limit}, {&k->linger, on_linger}, {&k->ttl, on_ttl},
	};
	int r = loop_new(&k->loop);

	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(timers); i++)
		r = loop_add_timer(k->loop, timers[i].fn, k, timers[i].timer);
	if (r == 0 && k->rec.ttl_ns)
		loop_timer_at(k->ttl, time_now_ns() + k->rec.ttl_ns);
	return r;
}

/*
 * The program that started this VM may have been killed before anybody could connect to us. Whoever looked at the VM in
 * between took us for dead: wrote the record of its end (lib/vm.c), maybe removed its directory. Both sides write
 * first and look then, so at least one of them sees the other.
 *
 * The record of the last run's end, which was removed for this start, may be seen for a moment longer in the machine,
 * whose kernel caches the name: a file that has no name on the host is that one.
 */
bool keeper_given_up(const struct keeper *k)
{
	_fd_ int fd = openat(k->dirfd, "exit.json", O_RDONLY | O_CLOEXEC);
	struct statx end;
	struct stat st;

	if (fd >= 0 && statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_NLINK, &end) == 0 && end.stx_nlink > 0)
		return true;
	return fstat(k->dirfd, &st) < 0 || st.st_nlink == 0;
}

static void end_if_given_up(struct keeper *k)
{
	if (!keeper_given_up(k))
		return;
	keeper_end(k, SM_REASON_STOPPED, 0, "given up before it answered: the program that started it was killed");
}

/*
 * Whoever starts a VM from a snapshot takes a keeper that can be connected to for one whose snapshot was accepted; else
 * it finds the exit record that says so.
 */
void keeper_listen(struct keeper *k)
{
	struct sm_error err = {0};

	if (!k->args.restore || k->listen_fd >= 0 || k->phase >= PHASE_ENDING)
		return;
	if (server_start(k, &err) < 0)
		keeper_end(k, SM_REASON_START_FAILED, 0, "%.240s", err.message);
	else
		end_if_given_up(k);
}

/* Nobody but its maker knows of a base's keeper: one whose maker was killed before it came has to notice by itself. */
static uint64_t owner_limit(const struct keeper *k)
{
	return k->args.base ? MIN(k->args.limits.owner, BASE_OWNER_LIMIT) : k->args.limits.owner;
}

int keeper_disown(struct keeper *k)
{
	int r = 0;

	if (k->phase >= PHASE_ENDING)
		return -ESRCH;
	if (!k->logging)
		r = vm_log_open(&k->log, k->dirfd, "log", false, VM_LOG_ROTATE);
	if (r < 0)
		return r;
	k->logging = true;
	k->rec.keep = true;
	k->args.owner = false;
	loop_timer_at(k->owner_timer, 0);
	if (k->attached)
		relay_keep_far(k->attached);
	return 0;
}

static int start(struct keeper *k, struct sm_error *err)
{
	int agent_fd = -1, r;
	uint64_t now;

	k->stage_since = time_now_ns();
	r = load_record(k, err);
	if (r < 0)
		return r;
	vm_outcome_stage(&k->exit.outcome, "prepare", k->args.prepare_ns);
	r = admission_wait(k, err);
	if (r < 0)
		return r;
	now = time_now_ns();
	if (k->args.resume && (r = resume_prepare(k, err)) < 0)
		return r;
	r = add_timers(k);
	if (r < 0)
		return error_sys(err, -r, "event loop");
	k->logging = (!keeper_foreground(k) || k->rec.keep) && !k->args.spare;
	if (k->logging && (r = vm_log_open(&k->log, k->dirfd, "log", false, VM_LOG_ROTATE)) < 0)
		return error_sys(err, -r, "open %s/log", k->args.dir);
	if (k->args.watched && vm_has_served(&k->rec) && (r = server_start_early(k, err)) < 0)
		return r;
	if (k->args.spare && (r = server_start(k, err)) < 0)
		return r;
	/* The monitor first: it boots while this goes on. */
	r = monitor_start(k, &agent_fd, err);
	if (r < 0)
		return r;
	r = agent_start(k, agent_fd, err);
	if (r < 0) {
		fd_close(agent_fd);
		return r;
	}
	if (!k->args.restore && (r = server_start(k, err)) < 0)
		return r;
	k->boot_since = now;
	loop_timer_at(k->deadline, now + start_limit(k));
	if (!k->args.restore)
		end_if_given_up(k);
	if (k->args.owner)
		loop_timer_at(k->owner_timer, now + owner_limit(k));
	return 0;
}

static void done(struct keeper *k)
{
	admission_over(k);
	fd_close(k->saving.dirfd);
	fd_close(k->rewinding.fd);
	monitor_saving_close(&k->saving.files);
	while (k->num_under)
		fd_close(k->under[--k->num_under]);
	free(k->suspended);
	free(k->suspended_under);
	execs_done(k);
	spare_done(k);
	k->agent = link_free(k->agent);
	watching_done(k);
	shares_done(k);
	server_done(k);
	monitor_done(&k->mon, k->loop);
	monitor_ungroup(k);
	events_done(k);
	vm_log_close(&k->log);
	loop_free(k->loop);
	vm_record_done(&k->rec);
	free(k->exit_json);
	fd_close(k->dirfd);
}

/* Whatever goes wrong is in the record: the library, on the other side of the seat, reads it there. */
static void record_failure(struct keeper *k, const struct sm_error *err)
{
	struct sm_outcome *o = &k->exit.outcome;

	if (k->dirfd < 0 || spare_unclaimed(k))
		return;
	k->forced = SM_REASON_START_FAILED;
	k->exit.busy = err->kind == SM_ERROR_BUSY;
	k->exit.unsupported = err->kind == SM_ERROR_UNSUPPORTED;
	snprintf(k->forced_message, sizeof(k->forced_message), "%.200s", err->message);
	outcome_compute(k, 0);
	snprintf(o->message, sizeof(o->message), "%.500s", err->message);
	events_note_end(k);
	if (outcome_write(k, NULL) < 0)
		log_error("keeper", "%s/exit.json cannot be written", k->args.dir);
}

int keeper_run(const struct keeper_args *args, struct sm_error *err)
{
	struct keeper k = {
		.args = *args,
		.dirfd = -1,
		.listen_fd = -1,
		.admitted = -1,
		.cpus = {.fd = -1},
		.rewinding = {.fd = -1},
		.saving = {.dirfd = -1, .files = {.fds = {-1, -1, -1}}},
		.log = {.fd = -1},
		.early_fd = -1,
		.spare = {.stage = args->spare ? SPARE_WAITS : SPARE_NONE},
		.watching = {.fd = -1, .join = JOIN_INIT},
		.events = {.log = {.fd = -1}},
		.mon = {.pidfd = -1, .control = -1, .console = -1, .console_log = {.fd = -1}, .workingset = -1}};
	struct sm_error own = {0};
	int r = start(&k, &own);

	if (r == 0)
		r = loop_run(k.loop);
	else
		record_failure(&k, &own);
	if (r < 0 && err)
		*err = own;
	done(&k);
	if (r == 0)
		hugecopy_make(&k);
	return r;
}
