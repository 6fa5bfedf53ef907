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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define MAX_THREADS 16
#define REQUEST_ROOM (FUSE_SESSION_MAX_WRITE + 4096)
#define HELPER_LIMIT_MS 10000

struct fuse_dev {
	struct fuse_session *session;
	char *mountpoint;
	int fd;
	bool by_helper;
	bool gone; /* a worker has seen ENODEV: unmounted from outside; atomic */
	unsigned num_threads;
	pthread_t threads[MAX_THREADS];
};

/* --------------------------------------------------------------------------------------------- mounting */

static int mount_as_root(const char *mountpoint, const struct fuse_dev_options *o, int *ret_fd, struct sm_error *err)
{
	char data[128];
	struct stat st;
	_fd_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return error_sys(err, errno, "open /dev/fuse");
	if (stat(mountpoint, &st) < 0)
		return error_sys(err, errno, "mount point %s", mountpoint);
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions%s", fd,
		 st.st_mode & S_IFMT, o->allow_other ? ",allow_other" : "");
	if (mount(o->source, mountpoint, "fuse.supermachine", MS_NOSUID | MS_NODEV, data) < 0)
		return error_sys(err, errno, "mount on %s", mountpoint);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* fusermount3 in a child: it mounts, and sends the descriptor back over the socket that _FUSE_COMMFD names. */
static pid_t start_helper(const char *mountpoint, const char *options, int sock)
{
	pid_t pid = fork();
	char number[16];

	if (pid != 0)
		return pid;
	snprintf(number, sizeof(number), "%d", sock);
	setenv("_FUSE_COMMFD", number, 1);
	fd_set_cloexec(sock, false);
	execlp("fusermount3", "fusermount3", "-o", options, "--", mountpoint, (char *)NULL);
	_exit(127);
}

static int mount_by_helper(const char *mountpoint, const struct fuse_dev_options *o, int *ret_fd, struct sm_error *err)
{
	char options[256], byte;
	int pair[2], fd = -1, status = 0;
	size_t count = 1;
	struct pollfd p;
	pid_t pid;

	snprintf(options, sizeof(options), "fsname=%s,subtype=supermachine,default_permissions%s", o->source,
		 o->allow_other ? ",allow_other" : "");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_sys(err, errno, "socketpair");
	pid = start_helper(mountpoint, options, pair[1]);
	close(pair[1]);
	p = (struct pollfd){.fd = pair[0], .events = POLLIN};
	if (pid > 0 && poll(&p, 1, HELPER_LIMIT_MS) == 1)
		fd_recv(pair[0], &byte, 1, &fd, &count);
	close(pair[0]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (pid > 0 && count == 1 && fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return error_set(err, SM_ERROR_HOST, ENOENT, "fusermount3 not found: apt-get install fuse3");
	return error_set(err, SM_ERROR_HOST, EPERM, "fusermount3 could not mount on %s", mountpoint);
}

static void unmount(struct fuse_dev *dev)
{
	if (!dev->by_helper) {
		umount2(dev->mountpoint, MNT_DETACH);
		return;
	}
	pid_t pid = fork();

	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "--", dev->mountpoint, (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

/* --------------------------------------------------------------------------------------------- serving */

struct worker {
	struct fuse_dev *dev;
	uint8_t *request, *reply;
	int fd;
};

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

static void *worker_run(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		struct iovec in = {.iov_base = w->request}, out = {.iov_base = w->reply, .iov_len = REQUEST_ROOM};
		ssize_t n = read(w->fd, w->request, REQUEST_ROOM);

		if (n < 0 &&
		    (errno == EINTR || errno == ENOENT || errno == EAGAIN)) /* ENOENT: interrupted before we read it */
			continue;
		if (n <= 0)
			break; /* ENODEV: unmounted */
		in.iov_len = (size_t)n;
		n = fuse_session_serve(w->dev->session, &in, 1, &out, 1);
		/* ENOENT: the asking process was killed meanwhile; nothing to do about any error here. */
		if (n > 0 && write(w->fd, w->reply, (size_t)n) < 0 && errno == ENODEV)
			break;
	}
	__atomic_store_n(&w->dev->gone, true, __ATOMIC_RELEASE);
	worker_free(w);
	return NULL;
}

static unsigned thread_count(const struct fuse_dev_options *o)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = o->threads ? o->threads : cpus > 2 ? (unsigned)cpus : 2;

	return MIN(n, MAX_THREADS);
}

static int start_workers(struct fuse_dev *dev, unsigned count, struct sm_error *err)
{
	for (unsigned i = 0; i < count; i++) {
		struct worker *w = worker_new(dev);
		int r = w ? -pthread_create(&dev->threads[i], NULL, worker_run, w) : -ENOMEM;

		if (r < 0) {
			if (w)
				worker_free(w);
			return i ? 0 : error_sys(err, -r, "start a thread for %s", dev->mountpoint);
		}
		dev->num_threads++;
	}
	return 0;
}

int fuse_dev_mount(struct sm_fs_backend *backend, const char *mountpoint, const struct fuse_dev_options *options,
		   struct fuse_dev **ret, struct sm_error *err)
{
	struct fuse_dev_options o = options ? *options : (struct fuse_dev_options){0};
	struct fuse_dev *dev = calloc(1, sizeof(*dev));
	int r;

	o.source = o.source ? o.source : "supermachine";
	if (!dev || !(dev->mountpoint = realpath(mountpoint, NULL))) {
		r = error_sys(err, dev ? errno : ENOMEM, "mount point %s", mountpoint);
		free(dev);
		return r;
	}
	dev->fd = -1;
	dev->by_helper = geteuid() != 0;
	r = fuse_session_new(backend, &o.session, &dev->session);
	if (r == 0)
		r = dev->by_helper ? mount_by_helper(dev->mountpoint, &o, &dev->fd, err)
				   : mount_as_root(dev->mountpoint, &o, &dev->fd, err);
	if (r == 0)
		r = start_workers(dev, thread_count(&o), err);
	if (r < 0) {
		if (dev->fd < 0) { /* nothing is mounted */
			fuse_session_free(dev->session);
			free(dev->mountpoint);
			free(dev);
		} else {
			fuse_dev_unmount(dev);
		}
		return r;
	}
	*ret = dev;
	return 0;
}

int fuse_dev_wait(struct fuse_dev *dev)
{
	for (unsigned i = 0; i < dev->num_threads; i++)
		pthread_join(dev->threads[i], NULL);
	dev->num_threads = 0;
	return 0;
}

struct fuse_dev *fuse_dev_unmount(struct fuse_dev *dev)
{
	if (!dev)
		return NULL;
	/* Once it is gone the mount point is somebody else's business. */
	if (!__atomic_load_n(&dev->gone, __ATOMIC_ACQUIRE))
		unmount(dev);
	fuse_dev_wait(dev);
	fd_close(dev->fd);
	fuse_session_free(dev->session);
	free(dev->mountpoint);
	free(dev);
	return NULL;
}

void fuse_dev_get_stats(struct fuse_dev *dev, struct fuse_session_stats *ret)
{
	fuse_session_get_stats(dev->session, ret);
}
