/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's life: its kernel and initramfs, boot, death, idle stop. States: daemon.h.
 *
 * Idle means no open channel to the agent, which every command, keeper and pipe has. Stopping asks the agent to end all
 * processes, sync and power off, so that what they wrote reaches the host; an agent that does not get there in
 * STOP_LIMIT is not waited for.
 */
#include "machine/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "kernel/guest_modules.h"
#include "kernel/kernel.h"
#include "proto/messages.h"

#define BOOT_LIMIT_NS (180ULL * 1000000000) /* 3 s on a quiet host, but some are not */
#define STOP_LIMIT_NS (5ULL * 1000000000)
#define STOP_GRACE_NS (2ULL * 1000000000)
#define CLOCK_AGAIN_NS (1ULL * 1000000000)
#define LOST_TEXT "the machine died"

static const char *const machine_modules[] = {MACHINE_MODULES, NULL};

static void down(struct daemon *d, const char *reason);

struct mux *daemon_agent(struct daemon *d)
{
	return d->state == DAEMON_UP ? link_mux(d->agent) : NULL;
}

void daemon_status(const struct daemon *d, struct seat_machine_status *ret)
{
	*ret = (struct seat_machine_status){.running = d->state == DAEMON_UP,
					    .daemon_pid = getpid(),
					    .emulator_pid = d->emu.pid,
					    .memory = d->memory,
					    .cpus = d->cpus,
					    .busy = d->busy};
	if (!ret->running)
		return;
	ret->uptime_ns = time_now_ns() - d->up_since_ns;
	snprintf(ret->boot_id, sizeof(ret->boot_id), "%s", d->boot_id);
}

static void rearm_idle(struct daemon *d)
{
	bool idle = !d->busy && (d->state == DAEMON_UP || d->state == DAEMON_DOWN) && !sessions_waiting(d);

	if (d->idle_timer)
		loop_timer_at(d->idle_timer, idle ? time_now_ns() + d->idle_ns : 0);
	if (d->clock_timer && d->busy && !d->clock_goes)
		loop_timer_at(d->clock_timer, time_now_ns() + CLOCK_AGAIN_NS);
	d->clock_goes = d->busy;
}

void daemon_busy(struct daemon *d, int change)
{
	d->busy = (unsigned)((int)d->busy + change);
	rearm_idle(d);
}

static void on_idle(struct loop *loop, struct loop_source *src, void *arg)
{
	struct daemon *d = arg;

	if (d->busy || sessions_waiting(d))
		return;
	log_info("machine", "idle: stopping");
	daemon_begin_stop(d);
}

static void on_fresh(struct loop *loop, struct loop_source *src, void *arg)
{
	struct daemon *d = arg;

	if (daemon_agent(d))
		sessions_up(d, NULL);
}

/* ------------------------------------------------------------------------------------------------------ boot */

/* The emulated RTC has whole seconds, and a guest just booted little entropy. No answer is waited for: a wrong clock
 * stops nobody. */
static void sync_clock(struct daemon *d)
{
	uint8_t seed[32];

	if (getentropy(seed, sizeof(seed)) < 0 || clocksync_begin(&d->clock, link_mux(d->agent), seed) < 0)
		log_warn("machine", "its clock was not set");
	explicit_bzero(seed, sizeof(seed));
}

/*
 * While somebody uses it: this host's clock may be set, and the emulator's drifts. And it is an interrupt: the emulator
 * was seen to lose one of its timer's, after which nothing took the CPU from a vCPU that waited for another, until
 * something came from outside.
 */
static void on_clock(struct loop *loop, struct loop_source *src, void *arg)
{
	struct daemon *d = arg;

	d->clock_goes = d->busy;
	if (!d->busy)
		return;
	if (d->state == DAEMON_UP && !d->clock.ch && clocksync_begin(&d->clock, link_mux(d->agent), NULL) < 0)
		log_debug("machine", "its clock was not set again");
	loop_timer_at(src, time_now_ns() + CLOCK_AGAIN_NS);
}

/* Of channels without a handler of their own: the clock's, the power-off's. */
static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	struct daemon *d = arg;

	if (code < 0 && !mux_lost(link_mux(d->agent)))
		log_warn("machine", "its agent: %s (%s)", text, strerror(-code));
	if (mux_lost(link_mux(d->agent)))
		return;
	mux_close(link_mux(d->agent), ch, 0, NULL);
	(void)clocksync_closed(&d->clock, link_mux(d->agent), ch, code);
}

static void on_hello(void *arg, struct cursor *attributes, uint16_t version)
{
	struct daemon *d = arg;

	if (d->state != DAEMON_BOOTING)
		return;
	loop_timer_at(d->boot_timer, 0);
	d->state = DAEMON_UP;
	d->up_since_ns = time_now_ns();
	d->died[0] = 0;
	log_info("machine", "up");
	sync_clock(d);
	sessions_up(d, NULL);
	rearm_idle(d);
}

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	struct daemon *d = arg;

	/* The agent hung up. The emulator is most likely on its way out too: let it have its own last word. */
	if (d->state != DAEMON_STOPPING)
		usleep(100000);
	down(d, r < 0 ? why : NULL);
}

static void on_emulator(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	down(arg, NULL);
}

static void on_files(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	down(arg, "its file server died");
}

static void on_boot_limit(struct loop *loop, struct loop_source *src, void *arg)
{
	down(arg, "its agent did not answer");
}

/* The kernel's ELF image boots sooner: nothing is to be decompressed under emulation. */
static int prepare_boot(struct daemon *d, char **ret_kernel, char **ret_initramfs, struct sm_error *err)
{
	_cleanup_(kernel_done) struct kernel k = {0};
	_free_ char *agent = NULL;
	struct initramfs_file files[1] = {{.path = "init", .mode = 0755}};
	int r = emulator_check(err);

	if (r == 0)
		r = kernel_find(NULL, d->data_dir, &k, err);
	if (r < 0)
		return r;
	if (asprintf(&agent, "%s/supermachine-agent", d->libexec_dir) < 0)
		return error_sys(err, ENOMEM, "machine");
	files[0].source = agent;
	r = initramfs_cached(&k, machine_modules, files, 1, d->data_dir, "machine", ret_initramfs, err);
	if (r < 0)
		return r;
	r = kernel_vmlinux_cached(&k, d->data_dir, ret_kernel, err);
	if (r == -EINVAL) {
		*ret_kernel = strdup(k.image);
		r = *ret_kernel ? 0 : error_sys(err, ENOMEM, "machine");
	}
	return r;
}

static int open_link(struct daemon *d, struct sm_error *err)
{
	static const struct mux_callbacks callbacks = {.hello = on_hello, .closed = on_closed};
	int r = link_client(d->loop, d->emu.agent_fd, &callbacks, on_link_end, d, &d->agent);

	if (r < 0)
		return error_sys(err, -r, "machine");
	d->emu.agent_fd = -1;
	link_set_lost_text(d->agent, LOST_TEXT);
	return 0;
}

static int boot(struct daemon *d, struct sm_error *err)
{
	_free_ char *kernel = NULL, *initramfs = NULL;
	struct emulator_options o = {
		.libexec_dir = d->libexec_dir, .dir = d->dir, .memory = d->memory, .cpus = d->cpus};
	int r = prepare_boot(d, &kernel, &initramfs, err);

	if (r < 0)
		return r;
	random_hex(d->boot_id, 16);
	o.kernel = kernel;
	o.initramfs = initramfs;
	r = emulator_start(&o, &d->emu, err);
	if (r < 0)
		return r;
	r = open_link(d, err);
	if (r == 0)
		r = loop_add(d->loop, d->emu.pidfd, EPOLLIN, on_emulator, d, &d->emu_src);
	if (r == 0)
		r = loop_add(d->loop, d->emu.files_pidfd, EPOLLIN, on_files, d, &d->files_src);
	if (r < 0)
		return error_wrap(err, r, "machine");
	return 0;
}

/* Takes apart whatever part of a machine there is. */
static void dismantle(struct daemon *d, char *how, size_t size)
{
	struct link *agent = TAKE_PTR(d->agent);

	d->emu_src = loop_remove(d->emu_src);
	d->files_src = loop_remove(d->files_src);
	loop_timer_at(d->boot_timer, 0);
	emulator_stop(&d->emu, how, size);
	if (agent) {
		if (!mux_lost(link_mux(agent)))
			mux_abort(link_mux(agent), -ECONNRESET, LOST_TEXT);
		link_free(agent);
	}
}

void daemon_want_up(struct daemon *d)
{
	struct sm_error err = {0};
	int r;

	if (d->state != DAEMON_DOWN)
		return;
	d->state = DAEMON_BOOTING;
	r = boot(d, &err);
	if (r < 0) {
		dismantle(d, NULL, 0);
		d->state = DAEMON_DOWN;
		error_wrap(&err, r, "the machine cannot start");
		sessions_up(d, &err);
		rearm_idle(d);
		return;
	}
	rearm_idle(d);
	loop_timer_at(d->boot_timer, time_now_ns() + BOOT_LIMIT_NS);
}

/* QEMU warns of each CPU feature that TCG lacks, which is no reason for anything. */
static char *drop_warnings(char *text)
{
	char *to = text;

	for (char *line = text, *next; *line; line = next) {
		next = strchrnul(line, '\n');
		next += *next == '\n';
		if (memmem(line, (size_t)(next - line), "warning: ", 9))
			continue;
		memmove(to, line, (size_t)(next - line));
		to += next - line;
	}
	*to = 0;
	return text;
}

/* The last lines of a log of this boot, on one line: "" if it is empty. */
static void last_words(struct daemon *d, const char *name, char *out, size_t size)
{
	_free_ char *path = NULL, *text = NULL;
	const char *at;
	size_t len, n = 0;

	*out = 0;
	if (asprintf(&path, "%s/%s", d->dir, name) < 0 || read_file_at(AT_FDCWD, path, 4 * MIB, &text, &len) < 0)
		return;
	len = strlen(drop_warnings(text));
	at = len > size / 2 ? text + len - size / 2 : text;
	for (; *at && n + 2 < size; at++)
		out[n++] = *at < ' ' ? ' ' : *at;
	while (n && out[n - 1] == ' ')
		n--;
	out[n] = 0;
}

/* It died: of itself, or by somebody's hand. reason NULL: as its emulator ended. */
static void down(struct daemon *d, const char *reason)
{
	enum daemon_state was = d->state;
	char how[128], console[400], words[200];
	struct sm_error err = {0};

	if (was == DAEMON_DOWN)
		return;
	if (was == DAEMON_STOPPING) {
		loop_stop(d->loop, 0);
		return;
	}
	/* Its channels are told inside here, while nothing is up any more. */
	d->state = DAEMON_DOWN;
	dismantle(d, how, sizeof(how));
	snprintf(d->died, sizeof(d->died), "%s", reason ? reason : how);
	if (was == DAEMON_UP) {
		log_warn("machine", "it died: %s", d->died);
		rearm_idle(d);
		return;
	}
	last_words(d, "console", console, sizeof(console));
	last_words(d, "emulator.log", words, sizeof(words));
	error_set(&err, SM_ERROR_HOST, EIO, "the machine did not start: %s%s%s%s%s", d->died, *words ? "; " : "", words,
		  *console ? "; its console ends with: " : "", console);
	d->died[0] = 0;
	sessions_up(d, &err);
	rearm_idle(d);
}

/* ------------------------------------------------------------------------------------------------------ stop */

static void on_stop_limit(struct loop *loop, struct loop_source *src, void *arg)
{
	log_warn("machine", "it did not power off in time");
	loop_stop(loop, 0);
}

void daemon_begin_stop(struct daemon *d)
{
	struct mux *agent = daemon_agent(d);
	struct proto_stop stop = {.grace_ns = STOP_GRACE_NS};
	_cleanup_(buf_done) struct buf b = {0};
	char path[4096];
	uint32_t ch;

	if (d->state == DAEMON_STOPPING)
		return;
	d->state = DAEMON_STOPPING;
	/* First of all nobody new: a client that finds no socket starts a daemon, which waits for our lock. */
	d->listen_src = loop_remove(d->listen_src);
	d->listen = fd_close(d->listen);
	snprintf(path, sizeof(path), "%s/" MACHINE_SOCKET, d->runtime_dir);
	if (daemon_owns(d))
		unlink(path);
	loop_timer_at(d->idle_timer, 0);
	if (!agent || proto_stop_encode(&b, &stop) < 0 || mux_open(agent, PROTO_POWEROFF, &b, NULL, &ch) < 0) {
		loop_stop(d->loop, 0);
		return;
	}
	loop_timer_at(d->stop_timer, time_now_ns() + STOP_LIMIT_NS);
}

/* ----------------------------------------------------------------------------------------------- set-up, end */

static void on_accept(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct daemon *d = arg;
	int fd = accept4(d->listen, NULL, NULL, SOCK_CLOEXEC);

	removed_watch(d);
	if (fd >= 0 && session_accept(d, fd) < 0)
		log_warn("machine", "a client was turned away");
}

bool daemon_owns(const struct daemon *d)
{
	struct stat st;

	return fstat(d->lock, &st) == 0 && st.st_nlink > 0;
}

/* Somebody removed the lock, most likely all of the home: no client can find us any more, and nobody else would end us.
 */
static void on_lock(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	char drop[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	struct daemon *d = arg;

	while (read(d->watch, drop, sizeof(drop)) > 0)
		;
	if (daemon_owns(d))
		return;
	log_warn("machine", "its directory was removed: stopping");
	d->watch_src = loop_remove(d->watch_src);
	daemon_begin_stop(d);
}

static int watch_lock(struct daemon *d)
{
	char path[48];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", d->lock);
	d->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (d->watch < 0 || inotify_add_watch(d->watch, path, IN_ATTRIB) < 0) {
		log_warn("machine", "its directory is not watched: %s", strerror(errno));
		return 0;
	}
	return loop_add(d->loop, d->watch, EPOLLIN, on_lock, d, &d->watch_src);
}

static void on_signal(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	daemon_begin_stop(arg);
}

int daemon_run(struct daemon *d, int signal_fd, struct sm_error *err)
{
	int r = loop_new(&d->loop);

	if (r < 0)
		return error_sys(err, -r, "event loop");
	r = loop_add_timer(d->loop, on_idle, d, &d->idle_timer);
	if (r == 0)
		r = loop_add_timer(d->loop, on_boot_limit, d, &d->boot_timer);
	if (r == 0)
		r = loop_add_timer(d->loop, on_stop_limit, d, &d->stop_timer);
	if (r == 0)
		r = loop_add_timer(d->loop, on_clock, d, &d->clock_timer);
	if (r == 0)
		r = loop_add_timer(d->loop, on_fresh, d, &d->fresh_timer);
	if (r == 0)
		r = loop_add(d->loop, d->listen, EPOLLIN, on_accept, d, &d->listen_src);
	if (r == 0)
		r = loop_add(d->loop, signal_fd, EPOLLIN, on_signal, d, &d->signal_src);
	if (r == 0)
		r = removed_begin(d);
	if (r == 0)
		r = watch_lock(d);
	if (r == 0 && daemon_owns(d)) { /* what was removed before it was watched is not told */
		rearm_idle(d);
		r = loop_run(d->loop);
	}
	d->state = DAEMON_STOPPING;
	dismantle(d, NULL, 0);
	return r < 0 ? error_sys(err, -r, "event loop") : 0;
}

void daemon_done(struct daemon *d)
{
	sessions_end(d);
	buf_done(&d->removed.pending);
	loop_free(d->loop);
}
