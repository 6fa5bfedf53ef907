/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks whose file system has found that it cannot be written to (the host's disk is full, and with it the journal is
 * given up). Linux 6.1 of late goes on with such an ext4 as before, and tries to write its superblock anew for each
 * page that a program writes: to a disk that is read-only it does not. So the disk becomes that at the first such
 * error, of which fanotify tells (FAN_FS_ERROR, Linux 5.16). What was read or can be read stays readable.
 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fanotify.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

struct watch {
	int dev_fd; /* the agent's */
	int events;
	char name[32]; /* "vdb": kept open, the disk would keep what the kernel knows of it when another takes its place
			*/
};

static void on_error(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct watch *w = arg;
	const int on = 1;
	_fd_ int disk = openat(w->dev_fd, w->name, O_RDONLY | O_CLOEXEC);

	if (disk < 0 || ioctl(disk, BLKROSET, &on) < 0)
		log_warn("agent", "make %s read-only: %s", w->name, strerror(errno));
	loop_remove(src);
	fd_close(w->events);
	free(w);
}

/* The C library at hand need not know these calls. */
static int open_watch(const char *place)
{
	const unsigned init = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID;
	_fd_ int fd = (int)syscall(SYS_fanotify_init, init, O_RDONLY);

	if (fd < 0 || syscall(SYS_fanotify_mark, fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, (uint64_t)FAN_FS_ERROR,
			      AT_FDCWD, place) < 0)
		return -errno;
	return TAKE_FD(fd);
}

void disk_error_watch(struct agent *a, const char *device, const char *place)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r = w ? w->events = open_watch(place) : -ENOMEM;

	if (r >= 0) {
		w->dev_fd = a->dev_fd;
		snprintf(w->name, sizeof(w->name), "%.31s", device + strlen("/dev/"));
		r = loop_add(a->loop, w->events, EPOLLIN, on_error, w, NULL);
		if (r < 0)
			fd_close(w->events);
	}
	if (r >= 0)
		return;
	log_debug("agent", "errors of %s are not watched for: %s", device, strerror(-r)); /* an older kernel's */
	free(w);
}
