/* SPDX-License-Identifier: Apache-2.0 */
/* The system as a whole: STATS, SYNC_CLOCK, POWEROFF. */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/agent.h"

#define NS 1000000000ULL
#define LATE_NS (2 * NS)
#define LAST_WORDS_MS 1000

/* ------------------------------------------------------------------------------------------ STATS */

static char *proc_text(struct agent *a, const char *file)
{
	char *text = NULL;

	return a->proc_fd >= 0 && read_file_at(a->proc_fd, file, 1 << 20, &text, NULL) == 0 ? text : NULL;
}

static void memory_stats(struct agent *a, struct proto_stats *s)
{
	_free_ char *mem = proc_text(a, "meminfo"), *vm = proc_text(a, "vmstat");

	if (mem) {
		s->mem_total = number_after(mem, "MemTotal:") * KIB;
		s->mem_free = number_after(mem, "MemFree:") * KIB;
		s->mem_available = number_after(mem, "MemAvailable:") * KIB;
		s->mem_cached = number_after(mem, "Cached:") * KIB;
	}
	if (vm)
		s->oom_kills = number_after(vm, "oom_kill ");
}

static void cpu_stats(struct agent *a, struct proto_stats *s)
{
	_free_ char *stat = proc_text(a, "stat"), *load = proc_text(a, "loadavg");
	unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
	long hz = sysconf(_SC_CLK_TCK);
	uint64_t tick = NS / (uint64_t)(hz > 0 ? hz : 100);
	unsigned whole = 0, part = 0, runnable = 0, all = 0;

	if (stat && sscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait, &irq,
			   &softirq) == 7) {
		s->cpu_user_ns = (user + nice) * tick;
		s->cpu_system_ns = (system + irq + softirq) * tick;
		s->cpu_idle_ns = (idle + iowait) * tick;
	}
	if (load && sscanf(load, "%u.%u %*s %*s %u/%u", &whole, &part, &runnable, &all) == 4) {
		s->load1_milli = whole * 1000u + part * 10u;
		s->processes = all;
	}
	s->uptime_ns = time_now_ns();
}

static void net_stats(struct agent *a, struct proto_stats *s)
{
	_free_ char *dev = proc_text(a, "net/dev");
	char *lines = dev, *line;

	while ((line = strsep(&lines, "\n"))) {
		char *colon = strchr(line, ':');
		unsigned long long rx, tx;

		if (!colon || str_starts(line + strspn(line, " "), "lo:"))
			continue;
		if (sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &rx, &tx) == 2) {
			s->net_rx += rx;
			s->net_tx += tx;
		}
	}
}

void stats_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_stats s = {0};
	struct statvfs v;
	struct buf b = {0};

	memory_stats(a, &s);
	cpu_stats(a, &s);
	net_stats(a, &s);
	if (statvfs("/", &v) == 0) {
		s.disk_total = (uint64_t)v.f_blocks * v.f_frsize;
		s.disk_free = (uint64_t)v.f_bavail * v.f_frsize;
	}
	if (proto_stats_encode(&b, &s) == 0)
		mux_opened(a->mux, ch, &b);
	mux_close(a->mux, ch, b.error, NULL);
	buf_done(&b);
}

/* ------------------------------------------------------------------------------------------ SYNC_CLOCK */

int clock_set(uint64_t realtime_ns)
{
	struct timespec t = {.tv_sec = (time_t)(realtime_ns / NS), .tv_nsec = (long)(realtime_ns % NS)};

	if (!realtime_ns)
		return 0;
	return clock_settime(CLOCK_REALTIME, &t) < 0 ? -errno : 0;
}

/* What the host sends is late by its way here, never early: of two that came shortly after each other the one that is
 * further on is the better one. */
static bool is_late(const struct agent *a, uint64_t realtime_ns)
{
	struct timespec t;
	uint64_t now;

	if (!a->clock_set)
		return false;
	clock_gettime(CLOCK_REALTIME, &t);
	now = (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
	return realtime_ns < now && now - realtime_ns < LATE_NS;
}

int entropy_add(const uint8_t seed[static 32])
{
	struct {
		struct rand_pool_info info;
		uint8_t bytes[32];
	} pool = {.info = {.entropy_count = 256, .buf_size = 32}};
	_fd_ int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return -errno;
	memcpy(pool.info.buf, seed, 32);
	/* The kernel takes credit only of its own accord; the reseed makes /dev/urandom different from now on. */
	if (ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		r = -errno;
	explicit_bzero(&pool, sizeof(pool));
	return r;
}

void clock_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	static const uint8_t none[32];
	struct proto_clock c;
	int r = proto_clock_decode(request, &c);

	if (r == 0 && !is_late(a, c.realtime_ns))
		r = clock_set(c.realtime_ns);
	a->clock_set |= r == 0;
	if (r == 0 && memcmp(c.seed, none, sizeof(none)) != 0)
		r = entropy_add(c.seed);
	if (r == 0)
		mux_opened(a->mux, ch, NULL);
	mux_close(a->mux, ch, r, r < 0 ? strerror(-r) : NULL);
}

/* ------------------------------------------------------------------------------------------ POWEROFF */

/* Unmounts from the newest mount to the oldest; what is busy stays, synced and made read-only. */
static void unmount_all(struct agent *a)
{
	_free_ char *text = proc_text(a, "self/mounts");
	char *points[1024], *lines = text, *line;
	size_t n = 0;

	while ((line = strsep(&lines, "\n")) && n < ARRAY_SIZE(points)) {
		char *start = strchr(line, ' '), *end = start ? strchr(start + 1, ' ') : NULL;

		if (!end)
			continue;
		*end = '\0';
		points[n++] = start + 1;
	}
	while (n--)
		if (umount2(points[n], 0) < 0 && errno == EBUSY)
			mount(NULL, points[n], NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

/* Waits until no process is left: all of them are PID 1's descendants, and in the end its children. */
static bool wait_for_none(uint64_t until)
{
	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0 && errno == ECHILD)
			return true;
		if (pid > 0)
			continue;
		if (time_now_ns() >= until)
			return false;
		usleep(1000);
	}
}

static void kill_everything(uint64_t grace_ns)
{
	uint64_t now = time_now_ns();

	if (getpid() != 1)
		return;
	if (grace_ns) {
		kill(-1, SIGTERM);
		if (wait_for_none(now + MIN(grace_ns, 60 * NS)))
			return;
	}
	kill(-1, SIGKILL);
	wait_for_none(time_now_ns() + NS);
}

void system_end(struct agent *a, bool restart, uint64_t grace_ns)
{
	volumes_thaw(a); /* who waits for one cannot be killed */
	kill_everything(grace_ns);
	sync();
	volumes_done(a);
	layers_done(a);
	if (a->role == ROLE_GUEST)
		unmount_all(a);
	sync();
	if (getpid() == 1)
		reboot(restart ? RB_AUTOBOOT : RB_POWER_OFF);
	_exit(0);
}

void poweroff_open(struct agent *a, uint32_t ch, struct cursor *request)
{
	struct proto_stop s;
	int r = proto_stop_decode(request, &s);

	if (r < 0) {
		agent_refuse(a, ch, r, "malformed POWEROFF request");
		return;
	}
	mux_opened(a->mux, ch, NULL);
	mux_close(a->mux, ch, 0, NULL);
	link_drain(a->link, LAST_WORDS_MS);
	system_end(a, s.restart, s.grace_ns);
}
