/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The /dev/fuse door. See dev_fuse.h.
 *
 * Each worker reads one request, serves it into a buffer of its own and writes the reply: the kernel copies both ways,
 * so there is nothing to gain from iovecs here. read() returns ENODEV once the mount is gone, which ends the worker.
 */
#include "fuse/dev_fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/dev_mount.h"
#include "fuse/newer.h"
#include "fuse/dev_notify.h"
#include "fuse/dev_uring.h"

#define MAX_THREADS 16
#define FORGETS_GATHER_US 1000
#define SETTLE_TRIES 20
#define REQUEST_ROOM (FUSE_SESSION_MAX_WRITE + 4096)

/* A thread cancelled in these leaves their stack as it is: the sanitizer would take what lies there for live. */
#define NO_ASAN_FRAME __attribute__((no_sanitize("address")))

struct worker {
	struct fuse_dev *dev;
	uint8_t *request, *reply;
	int fd;
	pthread_t thread;
};

struct fuse_dev {
	struct fuse_session *session;
	char *mountpoint;
	int fd;
	int gone_fd; /* an eventfd, readable once a worker has seen that the mount is gone */
	struct dev_notify *notify;
	struct dev_uring *uring; /* NULL: requests come through the descriptors alone */
	unsigned reading;	 /* atomic: workers that serve what they have read */
	unsigned num_workers;
	struct worker *workers[MAX_THREADS];
};

/* --------------------------------------------------------------------------------------------- serving */

static void worker_free(struct worker *w)
{
	if (w->fd >= 0 && w->fd != w->dev->fd)
		close(w->fd);
	free(w->request);
	free(w->reply);
	free(w);
}

static struct worker *worker_new(struct fuse_dev *dev)
{
	struct worker *w = calloc(1, sizeof(*w));
	uint32_t from = (uint32_t)dev->fd;

	if (!w)
		return NULL;
	w->dev = dev;
	w->request = aligned_alloc(4096, REQUEST_ROOM);
	w->reply = aligned_alloc(4096, REQUEST_ROOM);
	w->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (w->fd >= 0 && ioctl(w->fd, FUSE_DEV_IOC_CLONE, &from) < 0)
		w->fd = fd_close(w->fd);
	if (w->fd < 0)
		w->fd = dev->fd; /* no clone to be had: share */
	if (!w->request || !w->reply) {
		worker_free(w);
		return NULL;
	}
	return w;
}

static void on_gone(void *arg)
{
	eventfd_write(((struct fuse_dev *)arg)->gone_fd, 1);
}

static void settle(void *arg)
{
	struct fuse_dev *dev = arg;
	struct pollfd p = {.fd = dev->fd, .events = POLLIN};

	for (int i = 0; i < SETTLE_TRIES; i++) {
		usleep(FORGETS_GATHER_US);
		if (poll(&p, 1, 0) == 0 && __atomic_load_n(&dev->reading, __ATOMIC_ACQUIRE) == 0)
			return;
	}
}

/*
 * INIT comes through a descriptor in any case; it is answered once, and by one thread. Forgets do, too: where nothing
 * else does they are given time to gather, since each would wake a thread.
 */
static void after_request(struct fuse_dev *dev, uint32_t opcode)
{
	const struct dev_uring_port port = {.gone = on_gone, .settle = settle, .arg = dev};

	if (!dev->uring || !fuse_session_over_uring(dev->session))
		return;
	if (opcode == FUSE_INIT)
		dev_uring_begin(dev->uring, dev->session, dev->fd, &port);
	else if ((opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET) && dev_uring_requests(dev->uring))
		usleep(FORGETS_GATHER_US);
}

/* Serves what it reads until the mount is gone. Cancelled (by end_workers) only while it waits for a request. */
NO_ASAN_FRAME static void serve_all(struct worker *w)
{
	for (;;) {
		struct iovec in = {.iov_base = w->request}, out = {.iov_base = w->reply, .iov_len = REQUEST_ROOM};
		uint32_t opcode;
		ssize_t n;

		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		n = read(w->fd, w->request, REQUEST_ROOM);
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (n < 0 &&
		    (errno == EINTR || errno == ENOENT || errno == EAGAIN)) /* ENOENT: interrupted before we read it */
			continue;
		if (n <= 0)
			break; /* ENODEV: unmounted */
		__atomic_fetch_add(&w->dev->reading, 1, __ATOMIC_ACQUIRE);
		in.iov_len = (size_t)n;
		opcode = ((const struct fuse_in_header *)(const void *)w->request)
				 ->opcode; /* the kernel sends it whole */
		n = fuse_session_serve(w->dev->session, &in, 1, &out, 1);
		__atomic_fetch_sub(&w->dev->reading, 1, __ATOMIC_RELEASE);
		/* ENOENT: the asking process was killed meanwhile; nothing to do about any error here. */
		if (n > 0 && write(w->fd, w->reply, (size_t)n) < 0 && errno == ENODEV)
			break;
		after_request(w->dev, opcode);
	}
}

NO_ASAN_FRAME static void *worker_run(void *arg)
{
	struct worker *w = arg;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	/* Modes are the peer's to choose: a umask of this thread's own, the process's stays as it is. */
	if (unshare(CLONE_FS) == 0)
		umask(0);
	serve_all(w);
	eventfd_write(w->dev->gone_fd, 1);
	return NULL;
}

static int open_backing(void *arg, int fd)
{
	struct newer_backing_map map = {.fd = fd};
	int id = ioctl(((struct fuse_dev *)arg)->fd, NEWER_IOC_BACKING_OPEN, &map);

	return id < 0 ? -errno : id;
}

static void close_backing(void *arg, uint32_t id)
{
	ioctl(((struct fuse_dev *)arg)->fd, NEWER_IOC_BACKING_CLOSE, &id); /* gone with the mount, if that is gone */
}

static unsigned thread_count(const struct fuse_dev_options *o)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = o->threads ? o->threads : cpus > 2 ? (unsigned)cpus : 2;

	return MIN(n, MAX_THREADS);
}

static int start_workers(struct fuse_dev *dev, unsigned count, struct sm_error *err)
{
	sigset_t all, before;
	int r = 0;

	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 0; r == 0 && i < count; i++) {
		struct worker *w = worker_new(dev);

		r = w ? -pthread_create(&w->thread, NULL, worker_run, w) : -ENOMEM;
		if (r == 0)
			dev->workers[dev->num_workers++] = w;
		else if (w)
			worker_free(w);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return dev->num_workers ? 0 : error_sys(err, -r, "start a thread for %s", dev->mountpoint);
}

/* Those that wait for a request end here; one that serves ends after it. */
static void end_workers(struct fuse_dev *dev)
{
	for (unsigned i = 0; i < dev->num_workers; i++)
		pthread_cancel(dev->workers[i]->thread);
	for (unsigned i = 0; i < dev->num_workers; i++) {
		pthread_join(dev->workers[i]->thread, NULL);
		worker_free(dev->workers[i]);
	}
}

int fuse_dev_mount(struct sm_fs_backend *backend, const char *mountpoint, const struct fuse_dev_options *options,
		   struct fuse_dev **ret, struct sm_error *err)
{
	struct fuse_dev_options o = options ? *options : (struct fuse_dev_options){0};
	struct fuse_dev *dev = calloc(1, sizeof(*dev));
	struct fuse_backing_port port = {.open = open_backing, .close = close_backing, .arg = dev};
	int r;

	if (!dev)
		return error_sys(err, ENOMEM, "mount on %s", mountpoint);
	if (geteuid() == 0) /* the kernel wants CAP_SYS_ADMIN for it */
		o.session.backing = &port;
	dev->fd = -1;
	dev->gone_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = dev->gone_fd < 0 ? error_sys(err, errno, "mount on %s", mountpoint) : 0;
	if (r == 0)
		r = dev_mountpoint(mountpoint, &dev->mountpoint, err);
	if (r == 0) {
		dev->uring = o.threads ? NULL : dev_uring_new();
		o.session.over_uring = dev->uring;
		r = fuse_session_new(backend, &o.session, &dev->session);
		if (r < 0)
			error_sys(err, -r, "serve %s", mountpoint);
	}
	if (r == 0)
		r = dev->fd = dev_mount(dev->mountpoint, o.source ? o.source : "supermachine", o.allow_other,
					o.session.read_only, err);
	if (r >= 0)
		r = start_workers(dev, thread_count(&o), err);
	if (r >= 0) {
		r = dev_notify_start(dev->session, dev->fd, &dev->notify);
		if (r < 0)
			error_sys(err, -r, "start a thread for %s", dev->mountpoint);
	}
	if (r < 0) {
		fuse_dev_unmount(dev);
		return r;
	}
	*ret = dev;
	return 0;
}

int fuse_dev_wait(struct fuse_dev *dev, int cancel_fd)
{
	struct pollfd p[2] = {{.fd = dev->gone_fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			return -errno;
	return p[0].revents ? 0 : -ECANCELED;
}

struct fuse_dev *fuse_dev_unmount(struct fuse_dev *dev)
{
	eventfd_t count;

	if (!dev)
		return NULL;
	/* Once it is gone the mount point is somebody else's business. */
	if (dev->fd >= 0 && eventfd_read(dev->gone_fd, &count) < 0)
		dev_unmount(dev->mountpoint);
	dev_notify_stop(dev->notify);
	end_workers(dev);
	dev_uring_free(dev->uring);
	dev->fd = fd_close(dev->fd); /* the last one: whoever still has files open gets ENOTCONN */
	fd_close(dev->gone_fd);
	fuse_session_free(dev->session);
	free(dev->mountpoint);
	free(dev);
	return NULL;
}

uint64_t fuse_dev_uring_requests(const struct fuse_dev *dev)
{
	return dev_uring_requests(dev->uring);
}

void fuse_dev_get_stats(struct fuse_dev *dev, struct fuse_session_stats *ret)
{
	fuse_session_get_stats(dev->session, ret);
}
