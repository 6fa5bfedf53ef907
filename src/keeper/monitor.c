/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's side of the monitor: start it with its descriptors, read its events, notice its end, keep its console.
 * If the keeper dies the monitor sees the end of its control socket; PDEATHSIG says the same to one that hangs.
 */
#include "keeper/keeper.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define CONSOLE_ROTATE (1u << 20)
#define CONTROL_MAX 4096
/* How far below the top a monitor's mappings begin, in a machine. */
#define PLACE_LEAST (1ull << 40)
#define PLACE_ROOM (1ull << 45)

/* ---------------------------------------------------------------------------------------- console */

static void keep_tail(struct monitor *m, const char *p, size_t len)
{
	if (len >= sizeof(m->tail)) {
		p += len - sizeof(m->tail);
		len = sizeof(m->tail);
		m->tail_len = 0;
	} else if (m->tail_len + len > sizeof(m->tail)) {
		size_t drop = m->tail_len + len - sizeof(m->tail);

		memmove(m->tail, m->tail + drop, m->tail_len - drop);
		m->tail_len -= drop;
	}
	memcpy(m->tail + m->tail_len, p, len);
	m->tail_len += len;
}

/* Reads what is there; false at the end of it. */
static bool drain_console(struct monitor *m)
{
	char chunk[4096];
	ssize_t n = read(m->console, chunk, sizeof(chunk));

	if (n <= 0)
		return n < 0 && errno == EINTR;
	vm_log_write(&m->console_log, 0, chunk, (size_t)n);
	keep_tail(m, chunk, (size_t)n);
	return true;
}

static void on_console(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;

	if (!drain_console(&k->mon) && (events & EPOLLHUP))
		k->mon.console_src = loop_remove(src);
}

/* ---------------------------------------------------------------------------------------- control */

bool out_of_space(int error)
{
	return error == ENOSPC || error == EDQUOT;
}

static void copy_member(json_t *o, const char *name, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(o, name));

	snprintf(out, size, "%s", s ? s : "");
}

static void note_disk_error(struct monitor *m, json_t *event)
{
	json_int_t error = json_integer_value(json_object_get(event, "errno"));

	if (error > 0 && error < 4096 && !out_of_space(m->disk_error))
		m->disk_error = (int)error;
}

/* The machine's counters at its end, for whoever wants to know where time went; worth no sync. */
static void keep_stats(struct keeper *k, const char *text, size_t len)
{
	_fd_ int fd = k->rec.keep ? openat(k->dirfd, "stats", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;

	if (fd >= 0 && write_full(fd, text, len) < 0)
		log_debug("keeper", "stats: %s", strerror(errno));
}

int monitor_saving_open(struct monitor_saving *s, int dirfd)
{
	static const char *const names[] = {"state", "memory"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		s->fds[i] = openat(dirfd, names[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (s->fds[i] < 0)
			return -errno;
	}
	return 0;
}

void monitor_saving_close(struct monitor_saving *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->fds); i++)
		s->fds[i] = fd_close(s->fds[i]);
}

int monitor_snapshot(struct keeper *k, const struct monitor_saving *s, struct sm_error *err)
{
	char text[128], over[32] = "";
	int n, r;

	if (s->over)
		snprintf(over, sizeof(over), ",\"over\":%u", s->keep);
	n = snprintf(text, sizeof(text), "{\"cmd\":\"snapshot\"%s%s%s%s}", s->stay ? ",\"stay\":true" : "", over,
		     s->lean ? ",\"lean\":true" : "", s->unsynced ? ",\"unsynced\":true" : "");
	r = fd_send(k->mon.control, text, (size_t)n, s->fds, s->fds[2] < 0 ? 2 : 3);

	return r < 0 ? error_sys(err, -r, "ask the monitor for a snapshot") : 0;
}

int monitor_mark(struct keeper *k, int agent, int top, struct sm_error *err)
{
	static const char text[] = "{\"cmd\":\"mark\"}";
	int fds[] = {agent, top};
	int r = fd_send(k->mon.control, text, sizeof(text) - 1, fds, top < 0 ? 1 : 2);

	return r < 0 ? error_sys(err, -r, "ask the monitor for a mark") : 0;
}

int monitor_rewind(struct keeper *k, int agent)
{
	static const char text[] = "{\"cmd\":\"rewind\"}";

	return fd_send(k->mon.control, text, sizeof(text) - 1, &agent, 1);
}

static void handle_saved(struct keeper *k, json_t *event)
{
	const char *error = json_string_value(json_object_get(event, "error"));

	if (k->args.base)
		keeper_saved(k, error);
	else
		snapshot_saved(k, error, (uint64_t)json_integer_value(json_object_get(event, "memory_bytes")));
}

/* One of the steps that make up the stage "monitor"; the monitor counts from its start. */
static void note_step(struct keeper *k, json_t *event)
{
	uint64_t ns = (uint64_t)json_integer_value(json_object_get(event, "ns"));
	char step[12], name[SM_STAGE_NAME_SIZE];

	copy_member(event, "stage", step, sizeof(step));
	snprintf(name, sizeof(name), "monitor.%s", step);
	vm_outcome_stage(&k->exit.outcome, name, ns - MIN(ns, k->mon.step_ns));
	k->mon.step_ns = ns;
}

static void handle_event(struct keeper *k, const char *text, size_t len)
{
	json_t *o = json_loadb(text, len, 0, NULL);
	char event[16];

	copy_member(o, "event", event, sizeof(event));
	if (streq(event, "started")) {
		k->mon.started = true;
		keeper_stage(k, "monitor");
		keeper_listen(k);
	} else if (streq(event, "trace") && !k->mon.started) {
		note_step(k, o);
	} else if (streq(event, "exit")) {
		copy_member(o, "reason", k->mon.reason, sizeof(k->mon.reason));
		copy_member(o, "detail", k->mon.detail, sizeof(k->mon.detail));
	} else if (streq(event, "stats")) {
		keep_stats(k, text, len);
		counters_came(k, text, len);
	} else if (streq(event, "share")) {
		shares_ask(k, json_integer_value(json_object_get(o, "share")));
	} else if (streq(event, "disk-error")) {
		note_disk_error(&k->mon, o);
	} else if (streq(event, "workingset")) {
		workingset_noted(k, json_integer_value(json_object_get(o, "pages")));
	} else if (streq(event, "frozen")) {
		snapshot_frozen(k, (uint64_t)json_integer_value(json_object_get(o, "pause_ns")));
	} else if (streq(event, "marked")) {
		snapshot_marked(k, json_string_value(json_object_get(o, "error")));
	} else if (streq(event, "rewound")) {
		rewind_done(k, json_string_value(json_object_get(o, "error")));
	} else if (streq(event, "snapshot")) {
		handle_saved(k, o);
	} else if (streq(event, "paused") || streq(event, "resumed")) {
		pause_done(k, streq(event, "paused"));
	}
	json_decref(o);
}

/* One packet; false when there is none left. Descriptors of guest connections to ports nobody serves are closed. */
static bool read_control(struct keeper *k)
{
	char packet[CONTROL_MAX];
	int fds[16];
	size_t nfds = ARRAY_SIZE(fds);
	ssize_t n = fd_recv(k->mon.control, packet, sizeof(packet), fds, &nfds);

	if (n <= 0)
		return false;
	for (size_t i = 0; i < nfds; i++)
		fd_close(fds[i]);
	handle_event(k, packet, (size_t)n);
	return true;
}

static void on_control(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;

	if (!read_control(k) && (events & (EPOLLHUP | EPOLLERR)))
		k->mon.control_src = loop_remove(src);
}

static void on_kill_timer(struct loop *loop, struct loop_source *src, void *arg)
{
	struct keeper *k = arg;

	syscall(SYS_pidfd_send_signal, k->mon.pidfd, SIGKILL, NULL, 0);
}

void monitor_stop(struct keeper *k)
{
	static const char stop[] = "{\"cmd\":\"stop\"}";
	struct monitor *m = &k->mon;

	if (m->stopping || m->pidfd < 0)
		return;
	m->stopping = true;
	if (send(m->control, stop, sizeof(stop) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		syscall(SYS_pidfd_send_signal, m->pidfd, SIGKILL, NULL, 0);
	loop_timer_at(m->kill_timer, time_now_ns() + k->args.limits.stop);
}

int monitor_pause(struct keeper *k, bool pause)
{
	const char *text = pause ? "{\"cmd\":\"pause\"}" : "{\"cmd\":\"resume\"}";

	return send(k->mon.control, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int monitor_count(struct keeper *k)
{
	static const char text[] = "{\"cmd\":\"stats\"}";

	return send(k->mon.control, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int monitor_give_share(struct keeper *k, unsigned number, int fd)
{
	char text[48];
	int n = snprintf(text, sizeof(text), "{\"cmd\":\"share\",\"share\":%u}", number);

	return fd_send(k->mon.control, text, (size_t)n, &fd, fd >= 0);
}

int monitor_balloon(struct keeper *k, uint64_t bytes)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "{\"cmd\":\"balloon\",\"target\":%llu}", (unsigned long long)bytes);

	return send(k->mon.control, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void on_monitor_exit(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct keeper *k = arg;
	int status = 0;
	pid_t pid;

	do
		pid = waitpid(k->mon.pid, &status, WNOHANG);
	while (pid < 0 && errno == EINTR);
	if (pid == 0)
		return;
	while (read_control(k))
		;
	while (drain_console(&k->mon))
		;
	k->mon.pid_src = loop_remove(src);
	loop_timer_at(k->mon.kill_timer, 0);
	keeper_ended(k, status);
}

/* ------------------------------------------------------------------------------------------ start */

static int config_to_fd(const char *json)
{
	int fd = memfd_create("config", MFD_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write_full(fd, json, strlen(json));
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r < 0) {
		fd_close(fd);
		return r;
	}
	return fd;
}

/*
 * The machine's emulator keeps code that it has translated by its address: a program that lies elsewhere each time is
 * translated each time, which takes most of its start. So a monitor's place is drawn once for each boot of the machine.
 * Without the kernel's lot, mappings begin below the room that is left for the stack; the monitor then takes the usual
 * limit.
 */
static void place_by_boot(void)
{
	struct rlimit stack;
	_free_ char *id = NULL;
	uint64_t lot = 0;
	size_t len;

	if (read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &id, &len) < 0 ||
	    getrlimit(RLIMIT_STACK, &stack) < 0)
		return;
	for (const char *p = id; *p; p++)
		if (isxdigit((unsigned char)*p))
			lot = lot * 16 + (uint64_t)(isdigit((unsigned char)*p) ? *p - '0' : (*p | 32) - 'a' + 10);
	stack.rlim_cur = PLACE_LEAST + lot % PLACE_ROOM / 4096 * 4096;
	if (stack.rlim_cur <= stack.rlim_max && setrlimit(RLIMIT_STACK, &stack) == 0)
		personality(ADDR_NO_RANDOMIZE);
}

static _Noreturn void child(struct keeper *k, const struct monitor_files *f, int config_fd, int errors)
{
	char number[16];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (k->args.watched)
		place_by_boot();
	signal(SIGPIPE, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	dup2(null, 0);
	dup2(errors >= 0 ? errors : null, 1);
	dup2(errors >= 0 ? errors : null, 2);
	for (unsigned i = 0; i < f->num; i++)
		fd_set_cloexec(f->fds[i], false);
	snprintf(number, sizeof(number), "%d", config_fd);
	execl(k->args.vmm, k->args.vmm, "--config-fd", number, (char *)NULL);
	dprintf(2, "keeper: exec %s: %s\n", k->args.vmm, strerror(errno));
	_exit(127);
}

/* Watches all that comes from the monitor. */
static int watch(struct keeper *k)
{
	struct monitor *m = &k->mon;
	int r;

	r = loop_add(k->loop, m->pidfd, EPOLLIN, on_monitor_exit, k, &m->pid_src);
	if (r == 0)
		r = loop_add(k->loop, m->control, EPOLLIN, on_control, k, &m->control_src);
	if (r == 0)
		r = loop_add(k->loop, m->console, EPOLLIN, on_console, k, &m->console_src);
	if (r == 0)
		r = loop_add_timer(k->loop, on_kill_timer, k, &m->kill_timer);
	return r;
}

/* The three channels between the two: mine[], and theirs in f. control, agent, console. */
static int make_ends(struct monitor_files *f, int mine[3], int theirs[3])
{
	int types[2] = {SOCK_SEQPACKET, SOCK_STREAM};
	int pair[2];

	for (int i = 0; i < 3; i++) {
		int r = i < 2 ? socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, pair) : pipe2(pair, O_CLOEXEC);

		if (r < 0)
			return -errno;
		mine[i] = pair[0];
		theirs[i] = monitor_files_add(f, pair[1]);
		if (theirs[i] < 0)
			return theirs[i];
		/* The monitor's ends keep their own modes: these are other descriptions. */
		fd_set_nonblock(mine[i], true);
	}
	return 0;
}

/* fork, with the process born in its group, if it has one: moving it later waits for the kernel. */
static pid_t fork_into(int cgroup_fd)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)(unsigned)cgroup_fd};

	return cgroup_fd < 0 ? fork() : (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static int spawn(struct keeper *k, struct monitor_files *f, const char *json, struct sm_error *err)
{
	_fd_ int errors = openat(k->dirfd, "vmm.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int config_fd = config_to_fd(json);

	if (config_fd < 0)
		return error_sys(err, -config_fd, "configuration of the monitor");
	config_fd = monitor_files_add(f, config_fd);
	if (config_fd < 0)
		return error_sys(err, -config_fd, "configuration of the monitor");
	k->mon.pid = fork_into(k->cpus.fd);
	if (k->mon.pid < 0)
		return error_sys(err, errno, "start the monitor");
	if (k->mon.pid == 0)
		child(k, f, config_fd, errors);
	k->mon.pidfd = (int)syscall(SYS_pidfd_open, k->mon.pid, 0);
	if (k->mon.pidfd < 0)
		return error_sys(err, errno, "pidfd_open");
	return 0;
}

/* The guest's memory comes into being page by page: more than there is would end whatever is in its way, at some later
 * time. */
static int check_memory(const struct keeper *k, struct sm_error *err)
{
	char wanted[16], have[16];
	struct sysinfo info;
	uint64_t total;

	if (sysinfo(&info) < 0)
		return 0;
	total = (uint64_t)info.totalram * info.mem_unit;
	if (k->rec.memory <= total)
		return 0;
	return error_set(err, SM_ERROR_LIMIT, ENOMEM, "%s of memory is more than there is where the VM runs (%s)",
			 format_size(k->rec.memory, wanted), format_size(total, have));
}

/*
 * The limit holds for what is the user's: a guest that comes up, which would take many times as long by it, has none
 * until its command begins. One that goes on from where it was has a command already.
 */
static int enter_group(struct keeper *k, struct sm_error *err)
{
	int r;

	if (!k->rec.cpu_limit)
		return 0;
	r = cpu_group_make(&k->cpus, k->rec.id, k->rec.cpu_limit, k->args.watched, err);
	if (r < 0)
		return r;
	if (!k->args.watched)
		r = cpu_group_note(&k->cpus, k->dirfd);
	if (r == 0 && !k->args.adopt && !k->args.resume)
		r = cpu_group_limit(&k->cpus, 0);
	return r < 0 ? error_sys(err, -r, "the cgroup of VM %s", k->rec.id) : 0;
}

void monitor_ungroup(struct keeper *k)
{
	if (k->cpus.fd >= 0 && cpu_group_remove(&k->cpus))
		cpu_group_forget(k->dirfd);
}

int monitor_start(struct keeper *k, int *ret_agent_fd, struct sm_error *err)
{
	struct monitor_files files = {0};
	int mine[3] = {-1, -1, -1}, theirs[3];
	char *json = NULL;
	int r;

	r = check_memory(k, err);
	if (r < 0)
		return r;
	r = enter_group(k, err);
	if (r < 0)
		return r;
	r = vm_log_open(&k->mon.console_log, k->dirfd, "console", true, CONSOLE_ROTATE);
	if (r < 0)
		return error_sys(err, -r, "console of VM %s", k->rec.id);
	r = make_ends(&files, mine, theirs);
	k->mon.control = mine[0];
	k->mon.console = mine[2];
	if (r < 0)
		r = error_sys(err, -r, "sockets to the monitor");
	else
		r = monitor_config(k, &files, theirs[0], theirs[1], theirs[2], &json, err);
	if (r == 0)
		r = spawn(k, &files, json, err);
	if (r == 0)
		r = watch(k);
	free(json);
	monitor_files_done(&files);
	if (r < 0)
		fd_close(mine[1]);
	else
		*ret_agent_fd = mine[1];
	return r;
}

/* The second number of a thread's schedstat: ns that it was runnable and did not run
 * (Documentation/scheduler/sched-stats). */
static uint64_t thread_delay(pid_t pid, const char *tid)
{
	_free_ char *text = NULL;
	char path[64], *space;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/schedstat", (int)pid, tid);
	if (read_file_at(AT_FDCWD, path, 256, &text, &len) < 0)
		return 0;
	space = strchr(text, ' ');
	return space ? strtoull(space, NULL, 10) : 0;
}

uint64_t monitor_starved_ns(const struct monitor *m)
{
	char path[32];
	uint64_t most = 0;
	struct dirent *e;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)m->pid);
	tasks = opendir(path);
	while (tasks && (e = readdir(tasks)))
		if (e->d_name[0] != '.')
			most = MAX(most, thread_delay(m->pid, e->d_name));
	if (tasks)
		closedir(tasks);
	return most;
}

void monitor_done(struct monitor *m, struct loop *loop)
{
	m->pid_src = loop_remove(m->pid_src);
	m->control_src = loop_remove(m->control_src);
	m->console_src = loop_remove(m->console_src);
	m->kill_timer = loop_remove(m->kill_timer);
	m->pidfd = fd_close(m->pidfd);
	m->control = fd_close(m->control);
	m->console = fd_close(m->console);
	m->workingset = fd_close(m->workingset);
	vm_log_close(&m->console_log);
}
