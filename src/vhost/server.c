/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that waits for the front end and speaks with it. See server.h. */
#include "vhost/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vhost/vhost_user.h"

struct vhost_server {
	struct fuse_session *session;
	char *path;
	int fd;	      /* as given: listening or connected */
	int conn;     /* atomic: the front end's connection; -1: not yet */
	int stop_fd;  /* eventfd: give up */
	int ended_fd; /* eventfd, stays readable: the thread has no more to do */
	int result;   /* these two are written before ended_fd is */
	struct sm_error err;
	bool running;
	pthread_t thread;
};

static bool is_listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

/* The front end's connection, or -errno; -ECANCELED when stopped before. */
static int get_connection(struct vhost_server *s)
{
	struct pollfd p[2] = {{.fd = s->stop_fd, .events = POLLIN}, {.fd = s->fd, .events = POLLIN}};
	int sock;

	if (!is_listening(s->fd))
		return s->fd;
	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return -errno;
	if (p[0].revents)
		return -ECANCELED;
	sock = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	return sock < 0 ? -errno : sock;
}

static void *server_run(void *arg)
{
	struct vhost_server *s = arg;
	int r;

	/* Modes are the peer's to choose: a umask of this thread's own (and its children's), the process's stays. */
	if (unshare(CLONE_FS) == 0)
		umask(0);
	r = get_connection(s);
	if (r < 0 && r != -ECANCELED)
		error_sys(&s->err, -r, "accept a vhost-user front end");
	if (r >= 0) {
		int sock = r;

		__atomic_store_n(&s->conn, sock, __ATOMIC_RELEASE);
		r = vhost_user_serve(sock, s->stop_fd, s->session, &s->err);
		shutdown(sock, SHUT_RDWR);
	}
	s->result = r == -ECANCELED ? 0 : r;
	eventfd_write(s->ended_fd, 1);
	return NULL;
}

static int start_thread(struct vhost_server *s)
{
	sigset_t all, before;
	int r;

	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&s->thread, NULL, server_run, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	s->running = r == 0;
	return r;
}

int vhost_server_start(struct sm_fs_backend *be, const struct fuse_session_options *options, int fd, const char *path,
		       struct vhost_server **ret, struct sm_error *err)
{
	struct vhost_server *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (r == 0) {
		*s = (struct vhost_server){.fd = fd, .conn = -1, .stop_fd = eventfd(0, EFD_CLOEXEC), .ended_fd = -1};
		s->ended_fd = eventfd(0, EFD_CLOEXEC);
		s->path = path ? strdup(path) : NULL;
		r = s->stop_fd < 0 || s->ended_fd < 0 ? -errno : path && !s->path ? -ENOMEM : 0;
	} else {
		fd_close(fd);
	}
	if (r == 0)
		r = fuse_session_new(be, options, &s->session);
	if (r == 0)
		r = start_thread(s);
	if (r < 0) {
		vhost_server_stop(s);
		return error_sys(err, -r, "vhost-user server%s%s", path ? " on " : "", path ? path : "");
	}
	*ret = s;
	return 0;
}

int vhost_server_wait(struct vhost_server *s, int cancel_fd, struct sm_error *err)
{
	struct pollfd p[2] = {{.fd = s->ended_fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return error_sys(err, errno, "wait for a vhost-user front end");
	if (!p[0].revents)
		return error_set(err, SM_ERROR_CANCELLED, ECANCELED, "stopped");
	if (s->result < 0 && err)
		*err = s->err;
	return s->result;
}

struct vhost_server *vhost_server_stop(struct vhost_server *s)
{
	int conn;

	if (!s)
		return NULL;
	if (s->running) {
		eventfd_write(s->stop_fd, 1);
		conn = __atomic_load_n(&s->conn, __ATOMIC_ACQUIRE);
		if (conn >= 0)
			shutdown(conn, SHUT_RDWR); /* it may wait for the rest of a message */
		pthread_join(s->thread, NULL);
	}
	if (s->path)
		unlink(s->path);
	if (s->conn != s->fd)
		fd_close(s->conn);
	fd_close(s->fd);
	fd_close(s->stop_fd);
	fd_close(s->ended_fd);
	fuse_session_free(s->session);
	free(s->path);
	free(s);
	return NULL;
}

void vhost_server_get_stats(struct vhost_server *s, struct fuse_session_stats *ret)
{
	fuse_session_get_stats(s->session, ret);
}
