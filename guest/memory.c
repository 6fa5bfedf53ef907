/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that copies of this guest get beyond what it booted with (virtio-mem). The kernel plugs it by itself as soon
 * as a copy runs; SETUP waits for it, so that the first command finds all of its memory. The kernel tells of each piece
 * by an event (Documentation/admin-guide/mm/memory-hotplug.rst), and the socket for these is open before the copies
 * are made, so none is missed. What the kernel has worked out at boot of the memory that it had then is raised.
 */
#include "guest/setup.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

#define DRIVER "bus/virtio/drivers/virtio_mem"
#define POLICY "devices/system/memory/auto_online_blocks"
#define KERNEL_EVENTS 1 /* the group that the kernel itself sends to */
/* Much longer than it takes; what hinders it is a host without time, and the keeper has a limit of its own for that. */
#define WAIT_NS 60000000000ULL

static uint64_t total(void)
{
	struct sysinfo info;

	return sysinfo(&info) < 0 ? 0 : (uint64_t)info.totalram * info.mem_unit;
}

static int open_events(void)
{
	int least = 0; /* one that is lost wakes as well */
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_EVENTS};
	_fd_ int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)) < 0 ||
	    bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

bool memory_prepare(struct agent *a)
{
	int r;

	if (!has_driver(a, DRIVER))
		return false;
	r = write_text_at(a->sys_fd, POLICY, "online");
	if (r == 0)
		r = a->memory_fd = open_events();
	if (r < 0)
		log_warn("agent", "plugging memory: %s", strerror(-r));
	a->memory_total = total();
	return r >= 0 && a->memory_total;
}

/* What they say does not matter. */
static void drain(int fd)
{
	char event[4096];

	while (recv(fd, event, sizeof(event), 0) > 0 || errno == EINTR || errno == ENOBUFS)
		continue;
}

/* What the kernel has worked out at boot of the memory that there was. */
static const struct {
	const char *file;
	uint64_t last_most; /* only the last number grows, and not beyond this; 0: all do */
} limits[] = {
	{"kernel/threads-max", 0},	  {"fs/file-max", 0},
	{"fs/epoll/max_user_watches", 0}, {"fs/inotify/max_user_watches", 1048576},
	{"net/ipv4/tcp_mem", 0},	  {"net/ipv4/udp_mem", 0},
	{"net/ipv4/tcp_rmem", 6 * MIB},	  {"net/ipv4/tcp_wmem", 4 * MIB},
	{"net/ipv4/tcp_max_orphans", 0},  {"net/ipv4/tcp_max_tw_buckets", 0},
};

/* By how much there is more memory. */
struct growth {
	uint64_t from, to; /* MiB */
};

static uint64_t scale(const struct growth *g, uint64_t v)
{
	/* What is so large is no limit. */
	return v >= 1ULL << 40 ? v : v * g->to / g->from;
}

/* The text of a limit's file, with more memory. */
static void scale_text(const struct growth *g, const char *text, uint64_t last_most, char *out, size_t size)
{
	size_t len = 0;
	char *end;

	out[0] = '\0';
	for (uint64_t v = strtoull(text, &end, 10); end != text && len < size; v = strtoull(text, &end, 10)) {
		bool last = end[strspn(end, " \t\n")] == '\0';

		if (!last_most)
			v = scale(g, v);
		else if (last)
			v = MAX(v, MIN(scale(g, v), last_most));
		len += (size_t)snprintf(out + len, size - len, "%llu ", (unsigned long long)v);
		text = end;
	}
}

static void scale_rlimit(const struct growth *g, int resource)
{
	struct rlimit l;

	if (getrlimit(resource, &l) < 0)
		return;
	l.rlim_cur = l.rlim_cur == RLIM_INFINITY ? l.rlim_cur : scale(g, l.rlim_cur);
	l.rlim_max = l.rlim_max == RLIM_INFINITY ? l.rlim_max : scale(g, l.rlim_max);
	if (setrlimit(resource, &l) < 0)
		log_debug("agent", "limit %d: %s", resource, strerror(errno));
}

/* Kernels without one of these have nothing to raise. */
static void raise_limits(struct agent *a)
{
	const struct growth g = {.from = a->memory_total / MIB, .to = total() / MIB};
	char path[64], text[128];

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		_free_ char *now = NULL;
		size_t len;

		snprintf(path, sizeof(path), "sys/%s", limits[i].file);
		if (read_file_at(a->proc_fd, path, sizeof(text), &now, &len) < 0)
			continue;
		scale_text(&g, now, limits[i].last_most, text, sizeof(text));
		if (write_text_at(a->proc_fd, path, text) < 0)
			log_debug("agent", "%s: %s", path, strerror(errno));
	}
	scale_rlimit(&g, RLIMIT_NPROC);
	scale_rlimit(&g, RLIMIT_SIGPENDING);
}

int memory_await(struct agent *a, uint64_t plugged, struct sm_error *err)
{
	uint64_t want = a->memory_total + plugged, until, have;

	if (!plugged)
		return 0;
	until = time_now_ns() + WAIT_NS;
	while ((have = total()) < want) {
		struct pollfd p = {.fd = a->memory_fd, .events = POLLIN};
		uint64_t now = time_now_ns();

		if (!a->memory_total || now > until)
			return error_set(err, SM_ERROR_GUEST, ENOMEM, "the guest has got %llu MiB of %llu MiB",
					 (unsigned long long)((have - MIN(have, a->memory_total)) / MIB),
					 (unsigned long long)(plugged / MIB));
		if (poll(&p, 1, (int)((until - now) / 1000000) + 1) > 0)
			drain(a->memory_fd);
	}
	a->memory_fd = fd_close(a->memory_fd);
	raise_limits(a);
	return 0;
}
