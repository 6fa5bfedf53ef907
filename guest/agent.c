/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's core: one link, the table of services, the reaping of children. */
#include "guest/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "guest/boot.h"
#include "guest/spawn.h"

/* HELLO attributes; all optional to the peer. */
#define ATTR_ROLE 0x8001
#define ATTR_KERNEL 0x8002
#define ATTR_UPTIME_NS 0x8003

/* The last of the modules that SETUP needs; those behind it may come later. */
#define ROOT_MODULE "nd_pmem.ko"

struct service {
	uint16_t service;
	bool before_setup; /* a guest that is no container yet has it */
	void (*open)(struct agent *a, uint32_t ch, struct cursor *request);
};

static const struct service services[] = {
	{PROTO_EXEC, false, exec_open},		  {PROTO_SETUP, true, setup_open},
	{PROTO_CONNECT, false, connect_open},	  {PROTO_POWEROFF, true, poweroff_open},
	{PROTO_READ_FILE, false, read_file_open}, {PROTO_WRITE_FILE, false, write_file_open},
	{PROTO_STATS, true, stats_open},	  {PROTO_SYNC_CLOCK, true, clock_open},
	{PROTO_PREPARE, true, prepare_open},	  {PROTO_COPY, false, copy_open},
	{PROTO_HOLD, false, hold_open},		  {PROTO_RESUME, true, resume_open},
	{PROTO_ADOPT, false, adopt_open},	  {PROTO_SECRET, false, secret_open},
	{PROTO_WATCH, false, watch_open},	  {PROTO_LISTEN, false, listen_open},
	{PROTO_ACCEPT, false, accept_open},
};

void agent_refuse(struct agent *a, uint32_t ch, int code, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	mux_close(a->mux, ch, code < 0 ? code : -EIO, text);
}

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct agent *a = arg;

	for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
		if (services[i].service != service)
			continue;
		if (a->role == ROLE_GUEST && !a->set_up && !services[i].before_setup)
			agent_refuse(a, ch, -ENOTCONN, "the guest has no image yet");
		else if (a->lost && !services[i].before_setup)
			agent_refuse(a, ch, -ENOTCONN, "the guest is a copy that has not been resumed");
		else
			services[i].open(a, ch, request);
		return;
	}
	agent_refuse(a, ch, -EOPNOTSUPP, "the agent has no service %u", service);
}

static int say_hello(struct agent *a);

/* On a stream that begins anew the other side speaks first: nothing must be under way on it before. */
static void on_hello(void *arg, struct cursor *attributes, uint16_t version)
{
	struct agent *a = arg;

	if (!a->greeted && say_hello(a) < 0)
		loop_stop(a->loop, -ENOMEM);
}

static const struct mux_callbacks agent_callbacks = {.hello = on_hello, .open = on_open};

static void on_child(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct agent *a = arg;
	struct signalfd_siginfo info;
	struct rusage usage;
	int status;
	pid_t pid;

	while (read(a->signal_fd, &info, sizeof(info)) == sizeof(info))
		continue;
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		bool was_init = pid == a->init_pid;

		spawn_reaped(a, pid);
		exec_reaped(a, pid, was_init, status, &usage);
	}
}

/* By whoever started it, too. */
static uint64_t ignored_signals(void)
{
	uint64_t set = 0;

	for (int sig = 1; sig <= 64; sig++) {
		unsigned long have[8] = {0}; /* the kernel's own struct sigaction, whose first member is the handler */

		if (syscall(SYS_rt_sigaction, sig, NULL, have, 8) == 0 && have[0] == (unsigned long)(uintptr_t)SIG_IGN)
			set |= 1ULL << (sig - 1);
	}
	return set;
}

int agent_init(struct agent *a, enum agent_role role)
{
	sigset_t chld;
	int r;

	*a = (struct agent){.role = role,
			    .proc_fd = -1,
			    .sys_fd = -1,
			    .dev_fd = -1,
			    .cgroup_fd = -1,
			    .shares_fd = -1,
			    .init_fd = -1,
			    .loader_fd = -1,
			    .memory_fd = -1,
			    .signal_fd = -1};
	signal(SIGPIPE, SIG_IGN);
	a->ignored = ignored_signals();
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	a->signal_fd = signalfd(-1, &chld, SFD_NONBLOCK | SFD_CLOEXEC);
	if (a->signal_fd < 0)
		return -errno;
	r = loop_new(&a->loop);
	if (r == 0)
		r = loop_add(a->loop, a->signal_fd, EPOLLIN, on_child, a, NULL);
	return r;
}

void agent_done(struct agent *a)
{
	proto_setup_done(&a->setup);
	loop_free(a->loop);
	fd_close(a->signal_fd);
	fd_close(a->proc_fd);
	fd_close(a->sys_fd);
	fd_close(a->dev_fd);
	fd_close(a->cgroup_fd);
	fd_close(a->shares_fd);
	fd_close(a->init_fd);
	fd_close(a->loader_fd);
	free(a->stale);
}

static void on_end(struct link *l, int r, const char *why, void *arg)
{
	struct agent *a = arg;

	/* A guest that was restored finds the link gone that its original had: nothing to spend a console's line on. */
	if (r < 0 && r != -ECONNRESET && r != -ENOTCONN)
		log_warn("agent", "link: %s", why);
	a->link = link_free(l);
	loop_stop(a->loop, r);
}

static int say_hello(struct agent *a)
{
	static const char *const roles[] = {[ROLE_GUEST] = "guest", [ROLE_MACHINE] = "machine", [ROLE_FD] = "process"};
	struct utsname u;
	struct buf b = {0};
	int r;

	tlv_put_str(&b, ATTR_ROLE, roles[a->role]);
	if (uname(&u) == 0)
		tlv_put_str(&b, ATTR_KERNEL, u.release);
	tlv_put_u64(&b, ATTR_UPTIME_NS, time_now_ns());
	r = b.error ? b.error : mux_hello(a->mux, &b);
	buf_done(&b);
	a->greeted = r == 0;
	return r;
}

/* Until the link ends, or its stream begins anew: then *ret_fd is that. */
static int serve(struct agent *a, int fd, bool greet, int *ret_fd)
{
	int r = mux_new(MUX_SERVER, &agent_callbacks, a, PROTO_DEFAULT_WINDOW, &a->mux);

	*ret_fd = -1;
	a->again = a->greeted = false;

	if (r < 0) {
		fd_close(fd);
		return r;
	}
	r = link_new(a->loop, fd, a->mux, on_end, a, &a->link);
	if (r < 0) {
		a->mux = mux_free(a->mux);
		fd_close(fd);
		return r;
	}
	r = greet ? say_hello(a) : 0;
	if (r == 0) {
		link_flush(a->link);
		if (a->modules_left)
			a->loader_fd = boot_modules_behind(a->modules_pos, ROOT_MODULE, &a->loader_pid);
		a->modules_left = false;
		r = a->link ? loop_run(a->loop) : -ECONNRESET;
	}
	a->lost = a->role == ROLE_GUEST && a->set_up;
	if (a->again && a->link && (*ret_fd = link_release(a->link)) >= 0)
		a->link = NULL;
	exec_abandon_all(a);
	listen_abandon_all(a);
	tunnel_abandon_all(a);
	a->link = link_free(a->link);
	a->mux = NULL;
	return r;
}

int agent_serve(struct agent *a, int fd)
{
	bool greet = true;
	int r;

	do {
		r = serve(a, fd, greet, &fd);
		greet = false;
	} while (fd >= 0);
	return r;
}
