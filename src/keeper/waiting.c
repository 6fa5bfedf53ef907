/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of the process that carried connections to a VM (forward.c) when that VM is suspended: it keeps the
 * listening sockets, and nothing else of the VM's, and accepts no connection. The first one starts supermachine-wake,
 * which resumes the VM by the library; that, or whoever else resumes it, takes the sockets over from here by a socket
 * in the VM's directory, so a connection that waits in the kernel's queue is accepted by the VM's next forwarder.
 *
 * A system call filter seals it. What it would start would be sealed as well, so a process beside it, which does
 * nothing else and hears of no connection, starts supermachine-wake when it is told to, and ends with it.
 *
 * It ends when that has come to its end, or the VM is suspended no more for another reason: it was stopped, or removed.
 * If it cannot be resumed, those who wait are refused, and others may try a second later. Killed, it leaves a suspended
 * VM whose ports are closed until it is resumed otherwise.
 */
#include "keeper/waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/filter.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/util.h"
#include "keeper/record.h"

#define BACKLOG 16
#define AGAIN_NS 1000000000ull /* after a VM could not be resumed */
#define LOOK_NS 2000000000ull  /* where nothing tells of changes in the VM's directory, and in any case */

struct waiter {
	const struct waiting *w;
	const struct forward_port *ports;
	unsigned count;
	struct loop *loop;
	struct loop_source *listeners[FORWARD_MAX], *pause, *look, *starter_src, *taker_src;
	int dirfd, notify, socket;
	int taker;   /* who has the sockets too, and has not said that they are served; -1 */
	int starter; /* who starts the waker; -1: there is nobody any more */
	bool waking; /* it runs */
	bool paused, handed_over;
};

/* Connections are looked for while nobody is at it already. */
static void listen_or_not(struct waiter *w)
{
	bool on = !w->paused && w->taker < 0 && !w->waking;

	for (unsigned i = 0; i < w->count; i++)
		loop_modify(w->listeners[i], on ? EPOLLIN : 0);
}

static void end_unless_suspended(struct waiter *w)
{
	if (faccessat(w->dirfd, VM_SUSPENDED, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		loop_stop(w->loop, 0);
}

/* ----------------------------------------------------------------------------------------- waking */

/* Whoever is in the queue is told that there is nobody. */
static void refuse(struct waiter *w)
{
	const struct linger now = {.l_onoff = 1};

	for (unsigned i = 0; i < w->count; i++) {
		int fd;

		while ((fd = accept4(w->ports[i].fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
			fd_close(fd);
		}
	}
}

static void wait_a_little(struct waiter *w)
{
	w->paused = true;
	loop_timer_at(w->pause, time_now_ns() + AGAIN_NS);
	listen_or_not(w);
}

/* The waker has ended: its wait status, or -errno if it could not be started. Or the starter has been killed. */
static void on_starter(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct waiter *w = arg;
	int status = -1;
	ssize_t n = recv(w->starter, &status, sizeof(status), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n != sizeof(status)) {
		w->starter_src = loop_remove(src);
		w->starter = fd_close(w->starter);
	}
	w->waking = false;
	if (status != 0)
		refuse(w);
	wait_a_little(w); /* it runs, and who woke it is about to say so; or it does not */
	end_unless_suspended(w);
}

static void on_connection(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct waiter *w = arg;

	if (w->waking)
		return;
	w->waking = w->starter >= 0 && send(w->starter, "w", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
	if (!w->waking) {
		refuse(w);
		wait_a_little(w);
	}
	listen_or_not(w);
}

static void on_pause_over(struct loop *loop, struct loop_source *src, void *arg)
{
	struct waiter *w = arg;

	w->paused = false;
	listen_or_not(w);
}

/* --------------------------------------------------------------------------------------- the starter */

static int run_waker(const struct waiting *waiting)
{
	const char *id = strrchr(waiting->dir, '/');
	const char *argv[] = {waiting->waker, id ? id + 1 : waiting->dir, NULL};
	_free_ char *path = NULL;
	_fd_ int log = asprintf(&path, "%s/keeper.log", waiting->dir) < 0
			       ? (path = NULL, -1)
			       : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	struct process_options o = {.argv = argv, .cwd = "/", .fds = {-1, -1, log}};
	struct sm_error err = {0};
	int status = 0;
	pid_t pid = process_start(&o, NULL, &err);

	if (pid < 0)
		dprintf(log, "%s\n", err.message);
	return pid < 0 ? (int)pid : process_wait(pid, &status) < 0 ? -ECHILD : status;
}

/* For as long as the other end is there. */
static _Noreturn void start_wakers(int fd, const struct waiting *waiting)
{
	char word;

	process_close_others(&fd, 1);
	while (recv(fd, &word, 1, 0) == 1) {
		int status = run_waker(waiting);

		if (send(fd, &status, sizeof(status), MSG_NOSIGNAL) != sizeof(status))
			break;
	}
	_exit(0);
}

/* Nobody waits for it: it ends with this process. */
static int begin_starter(struct waiter *w)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		start_wakers(pair[1], w->w);
	close(pair[1]);
	w->starter = pair[0];
	return pid < 0 ? -errno : loop_add(w->loop, w->starter, EPOLLIN, on_starter, w, &w->starter_src);
}

/* faccessat has two ways into the kernel; names that go are those of sockets (forward.c, too). */
static int seal(void)
{
	static const int calls[] = {SYS_accept4,    SYS_setsockopt, SYS_getsockopt, SYS_faccessat,
				    SYS_faccessat2, SYS_unlink,	    SYS_unlinkat,   -1};

	return filter_process(NULL, 0, (const int *const[]){calls, NULL});
}

/* ------------------------------------------------------------------------------------ handing over */

/* The taker has said that the sockets are served, or has gone. */
static void on_taker(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct waiter *w = arg;
	char word = 0;
	ssize_t n = recv(w->taker, &word, 1, MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	w->taker_src = loop_remove(src);
	w->taker = fd_close(w->taker);
	if (n == 1 && word == WAITING_DONE) {
		w->handed_over = true;
		loop_stop(loop, 0);
	}
	listen_or_not(w);
	end_unless_suspended(w);
}

static int hand_over(struct waiter *w, int fd)
{
	for (unsigned i = 0; i < w->count; i++) {
		struct waiting_port p = {.left = w->count - 1 - i, .guest_port = w->ports[i].at.guest_port};
		int r = fd_send(fd, &p, sizeof(p), &w->ports[i].fd, 1);

		if (r < 0)
			return r;
	}
	return loop_add(w->loop, fd, EPOLLIN, on_taker, w, &w->taker_src);
}

static bool peer_allowed(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && (cred.uid == geteuid() || cred.uid == 0);
}

/* One at a time: whoever starts the VM holds its lock. */
static void on_socket(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct waiter *w = arg;
	int fd = accept4(w->socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (w->taker >= 0 || !peer_allowed(fd) || hand_over(w, fd) < 0) {
		fd_close(fd);
		return;
	}
	w->taker = fd;
	listen_or_not(w);
}

/* ------------------------------------------------------------------------------------- its own life */

static void on_change(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct waiter *w = arg;
	char sink[4096];

	while (read(w->notify, sink, sizeof(sink)) > 0)
		;
	end_unless_suspended(w);
}

static void on_look(struct loop *loop, struct loop_source *src, void *arg)
{
	end_unless_suspended(arg);
	loop_timer_at(src, time_now_ns() + LOOK_NS);
}

static int listen_for_takers(struct waiter *w)
{
	_free_ char *path = NULL;

	if (asprintf(&path, "%s/" WAITING_SOCKET, w->w->dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	unlink(path); /* of one that was killed */
	w->socket = unix_listen(path, BACKLOG);
	if (w->socket < 0)
		return w->socket;
	fd_set_nonblock(w->socket, true);
	return 0;
}

static int begin(struct waiter *w)
{
	struct loop_source *src;
	int r = listen_for_takers(w);

	if (r == 0)
		r = loop_new(&w->loop);
	if (r == 0)
		r = begin_starter(w);
	if (r == 0)
		r = loop_add_timer(w->loop, on_pause_over, w, &w->pause);
	if (r == 0)
		r = loop_add_timer(w->loop, on_look, w, &w->look);
	if (r == 0)
		r = loop_add(w->loop, w->socket, EPOLLIN, on_socket, w, &src);
	for (unsigned i = 0; r == 0 && i < w->count; i++)
		r = loop_add(w->loop, w->ports[i].fd, EPOLLIN, on_connection, w, &w->listeners[i]);
	if (r < 0)
		return r;
	w->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->notify >= 0 &&
	    inotify_add_watch(w->notify, w->w->dir, IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF) >= 0)
		r = loop_add(w->loop, w->notify, EPOLLIN, on_change, w, &src);
	loop_timer_at(w->look, time_now_ns() + LOOK_NS);
	return r;
}

int waiting_run(const struct waiting *waiting, const struct forward_port *ports, unsigned count)
{
	struct waiter w = {.w = waiting,
			   .ports = ports,
			   .count = count,
			   .socket = -1,
			   .notify = -1,
			   .taker = -1,
			   .starter = -1,
			   .dirfd = open(waiting->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	int r;

	if (w.dirfd < 0 || faccessat(w.dirfd, VM_SUSPENDED, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	r = begin(&w);
	r = r < 0 ? r : seal();
	/* The watch is there now: what happened before it is seen here. */
	if (r == 0 && faccessat(w.dirfd, VM_SUSPENDED, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		r = loop_run(w.loop);
	/* The ports are free, or another's, from here on; what goes with the process needs no tidying, but for the
	 * name. */
	if (w.socket >= 0)
		unlinkat(w.dirfd, WAITING_SOCKET, 0);
	/* The VM may be seen to run before its taker has said so. */
	return r < 0 ? r : w.handed_over || w.taker >= 0 ? WAITING_HANDED_OVER : 0;
}
