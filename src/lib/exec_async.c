/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command from somebody else's event loop: one descriptor that stands for all that its pump waits for (an epoll
 * instance), and one turn of the pump at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "lib/exec.h"

_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT, "one set of flags for both");

/*
 * Has slot i of the instance wait for these events of fd (-1: nothing any more). Of the caller's descriptors a
 * duplicate is watched: he may have given the same twice. Files are always ready: *ret_ready.
 */
static int watch(struct sm_exec *x, unsigned i, int fd, uint32_t events, bool *ret_ready)
{
	struct exec_watched *w = &x->watched[i];
	struct epoll_event ev = {.events = events};
	int r = 0;

	if (fd < 0 && w->fd >= 0) { /* closing a duplicate alone would leave it there */
		epoll_ctl(x->epoll, EPOLL_CTL_DEL, w->fd, NULL);
		w->fd = fd_close(w->fd);
	}
	if (fd < 0)
		return 0;
	if (w->fd >= 0) {
		if (w->events != events)
			r = epoll_ctl(x->epoll, EPOLL_CTL_MOD, w->fd, &ev);
		w->events = events;
		return r < 0 ? -errno : 0;
	}
	w->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	w->events = events;
	if (w->fd >= 0 && epoll_ctl(x->epoll, EPOLL_CTL_ADD, w->fd, &ev) == 0)
		return 0;
	r = -errno;
	w->fd = fd_close(w->fd);
	if (r != -EPERM)
		return r;
	*ret_ready = true;
	return 0;
}

static int watch_all(struct sm_exec *x)
{
	struct pollfd fds[EXEC_POLLS];
	bool ready = exec_finished(x);
	size_t queued = 0;
	int r;

	exec_polls(x, fds);
	if (!x->conn.error)
		mux_output(x->conn.mux, &queued);
	r = watch(x, EXEC_POLLS, x->conn.error ? -1 : x->conn.fd, EPOLLIN | (queued ? EPOLLOUT : 0), &ready);
	for (unsigned i = 0; i < EXEC_POLLS && r == 0; i++)
		r = watch(x, i, fds[i].fd, (uint32_t)fds[i].events, &ready);
	if (ready)
		exec_wake(x);
	return r;
}

int sm_exec_fd(struct sm_exec *x, struct sm_error *err)
{
	int r = 0;

	if (x->epoll < 0) {
		x->epoll = epoll_create1(EPOLL_CLOEXEC);
		r = x->epoll < 0 ? -errno : watch_all(x);
	}
	return r < 0 ? error_sys(err, -r, "command") : x->epoll;
}

int sm_exec_poll(struct sm_exec *x, struct sm_error *err)
{
	int r = exec_turn(x, err);

	if (r == 0 && x->epoll >= 0) {
		r = watch_all(x);
		if (r < 0)
			return error_sys(err, -r, "command");
	}
	return r < 0 ? r : exec_finished(x);
}
