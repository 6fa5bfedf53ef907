/* SPDX-License-Identifier: Apache-2.0 */
/* Notifications through /dev/fuse. See dev_notify.h. */
#include "fuse/dev_notify.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fuse/watch.h"

#define GATHER_MS 4

struct dev_notify {
	struct watch *watch;
	int fd, stop_fd;
	pthread_t thread;
};

/* A notification is a reply without a request: unique 0, and what it is about where the error would be. Kernels that
 * do not hold the node or the name answer ENOENT: nothing was stale there. */
static void notify(struct dev_notify *n, int code, const void *body, size_t size, const char *name)
{
	struct fuse_out_header out = {.error = code};
	struct iovec iov[3] = {{&out, sizeof(out)}, {(void *)body, size}, {(void *)name, name ? strlen(name) + 1 : 0}};

	out.len = (uint32_t)(iov[0].iov_len + iov[1].iov_len + iov[2].iov_len);
	if (writev(n->fd, iov, name ? 3 : 2) < 0)
		return;
}

static void on_stale(void *arg, const struct watch_stale *s)
{
	if (s->what == WATCH_NAME) {
		struct fuse_notify_inval_entry_out body = {.parent = s->parent, .namelen = (uint32_t)strlen(s->name)};

		notify(arg, FUSE_NOTIFY_INVAL_ENTRY, &body, sizeof(body), s->name);
	} else {
		/* off -1: the attributes alone; len 0: to the end */
		struct fuse_notify_inval_inode_out body = {.ino = s->nodeid, .off = s->what == WATCH_ATTR ? -1 : 0};

		notify(arg, FUSE_NOTIFY_INVAL_INODE, &body, sizeof(body), NULL);
	}
}

static void *run(void *arg)
{
	struct dev_notify *n = arg;
	struct pollfd p[2] = {{.fd = n->stop_fd, .events = POLLIN}, {.fd = watch_fd(n->watch), .events = POLLIN}};

	/* The time limit is for what the session's own requests made stale. */
	while (poll(p, 2, 1000) >= 0 || errno == EINTR) {
		if (p[0].revents)
			break;
		/* Events come in flocks, of the peer's own changes too: one awakening for all of a few milliseconds. */
		if (p[1].revents && poll(p, 1, GATHER_MS) > 0)
			break;
		if (watch_step(n->watch, on_stale, n) < 0)
			break;
	}
	return NULL;
}

int dev_notify_start(struct fuse_session *session, int fd, struct dev_notify **ret)
{
	struct watch *watch = fuse_session_watch(session);
	struct dev_notify *n;
	sigset_t all, before;
	int r;

	*ret = NULL;
	if (!watch)
		return 0;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	*n = (struct dev_notify){.watch = watch, .fd = fd, .stop_fd = eventfd(0, EFD_CLOEXEC)};
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* the program's signals are for its own threads */
	r = n->stop_fd < 0 ? -errno : -pthread_create(&n->thread, NULL, run, n);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r < 0) {
		fd_close(n->stop_fd);
		free(n);
		return r;
	}
	*ret = n;
	return 0;
}

struct dev_notify *dev_notify_stop(struct dev_notify *n)
{
	if (!n)
		return NULL;
	eventfd_write(n->stop_fd, 1);
	pthread_join(n->thread, NULL);
	close(n->stop_fd);
	free(n);
	return NULL;
}
