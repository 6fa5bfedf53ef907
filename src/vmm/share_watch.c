/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the guest what others changed in its directories. See share_watch.h. */
#include "vmm/share_watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/watch.h"
#include "proto/refresh.h"
#include "vmm/share_remote.h"
#include "vmm/vm.h"

#define STACK_SIZE (256 * KIB)
#define PENDING_MAX (256 * KIB)
/* Events are gathered for this long; for longer while they are about what the guest does itself. */
#define GATHER_MS 8
#define GATHER_OWN_MS 32

/* What the watch finds is what the guest is told. */
_Static_assert(WATCH_NAME == (int)REFRESH_NAME && WATCH_ATTR == (int)REFRESH_ATTR &&
		       WATCH_CONTENTS == (int)REFRESH_CONTENTS && WATCH_LISTING == (int)REFRESH_LISTING,
	       "two rooms' names for the same");

struct share_watch {
	struct vm *vm;
	struct watch *watch;
	int fd, stop_fd, compare_fd;
	pthread_t thread;
	struct share_remote *remote; /* what the host watches; NULL: it does not */
	/* the thread's own */
	struct buf pending; /* records on their way; the first may be sent in part */
	size_t sent;
	bool lost; /* more than fits: everything is to be taken for changed */
	bool news; /* this step has found something that the guest did not do itself */
};

const int share_watch_syscalls[] = {SYS_poll,
				    SYS_ppoll,
				    SYS_read,
				    SYS_recvfrom,
				    SYS_shutdown,
				    SYS_sendto,
				    SYS_sendmsg,
				    SYS_inotify_add_watch,
				    SYS_inotify_rm_watch,
				    SYS_inotify_init1,
				    SYS_dup3,
				    SYS_fstatfs,
				    SYS_epoll_ctl,
				    -1};

static void put_record(struct share_watch *s, uint8_t what, const char *path)
{
	size_t len = strlen(path);

	if (s->lost || len > REFRESH_MAX - 1 || s->pending.len + len + 5 > PENDING_MAX ||
	    buf_reserve(&s->pending, len + 5) < 0) {
		s->lost = true;
		return;
	}
	buf_put_u32(&s->pending, (uint32_t)len + 1);
	buf_put_u8(&s->pending, what);
	buf_put(&s->pending, path, len);
}

static enum refresh_what record_of(const struct watch_stale *stale)
{
	if (stale->made)
		return S_ISDIR(stale->made)   ? REFRESH_MADE_DIRECTORY
		       : S_ISLNK(stale->made) ? REFRESH_MADE_LINK
					      : REFRESH_MADE_FILE;
	if (stale->gone)
		return S_ISDIR(stale->gone) ? REFRESH_GONE_DIRECTORY : REFRESH_GONE;
	return (enum refresh_what)stale->what;
}

static void on_stale(void *arg, const struct watch_stale *stale)
{
	struct share_watch *s = arg;

	s->news = true;
	if (stale->path)
		put_record(s, (uint8_t)record_of(stale), stale->path);
	else if (stale->what)
		s->lost = true; /* nobody knows where it is: a name that was moved meanwhile, say */
}

/* Sends what the stream takes. False: the guest's end is gone. */
static bool flush(struct share_watch *s)
{
	while (s->sent < s->pending.len) {
		ssize_t n =
			send(s->fd, s->pending.data + s->sent, s->pending.len - s->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		s->sent += (size_t)n;
	}
	s->pending.len = s->sent = 0;
	if (s->lost) {
		s->lost = false;
		put_record(s, REFRESH_ALL, "");
		return flush(s);
	}
	return true;
}

static void compare(struct share_watch *s)
{
	eventfd_t n;

	(void)eventfd_read(s->compare_fd, &n);
	watch_compare(s->watch, on_stale, s);
	if (s->lost) {
		s->lost = false;
		s->pending.len = s->sent = 0; /* nothing has been sent yet */
		put_record(s, REFRESH_ALL, "");
	}
	put_record(s, REFRESH_CAUGHT_UP, "");
}

static void *run(void *arg)
{
	struct share_watch *s = arg;
	int gather = GATHER_MS;
	struct pollfd p[5] = {{.fd = s->stop_fd, .events = POLLIN},
			      {.fd = watch_fd(s->watch), .events = POLLIN},
			      {.fd = s->fd},
			      {.fd = s->compare_fd, .events = POLLIN},
			      {.fd = share_remote_fd(s->remote), .events = POLLIN}};

	pthread_setname_np(pthread_self(), "fs"); /* one of the threads that serve files */
	vm_seal_server(s->vm);
	/* The time limit is for what the guest's own requests made stale. */
	while (poll(p, ARRAY_SIZE(p), share_remote_timeout(s->remote, 1000)) >= 0 || errno == EINTR) {
		bool event = p[1].revents;

		if (p[3].revents)
			compare(s);

		/* Events come in flocks, of the guest's own changes too: one awakening for all of a few milliseconds.
		 * What the guest changed itself has been recorded by then and agrees with what is found. */
		if (event && poll(p, 1, gather) > 0)
			break;
		s->news = false;
		/* A guest that has closed its end is told nothing any more. */
		if (p[0].revents || p[2].revents & (POLLHUP | POLLERR) || watch_step(s->watch, on_stale, s) < 0)
			break;
		share_remote_step(s->remote, on_stale, s);
		if (!flush(s))
			break;
		if (event)
			gather = s->news ? GATHER_MS : GATHER_OWN_MS;
		p[2].events = s->pending.len ? POLLOUT : 0;
		p[4].fd = share_remote_fd(s->remote);
		p[4].events = share_remote_events(s->remote);
	}
	return NULL;
}

static int start_thread(struct share_watch *s)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(&s->thread, &attr, run, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return r;
}

int share_watch_start(struct vm *vm, struct watch *watch, int host_fd, struct share_watch **ret, int *ret_guest,
		      struct sm_error *err)
{
	struct share_watch *s = calloc(1, sizeof(*s));
	int pair[2] = {-1, -1};
	int r = s ? 0 : -ENOMEM;

	if (r == 0) {
		*s = (struct share_watch){.vm = vm,
					  .watch = watch,
					  .fd = -1,
					  .stop_fd = eventfd(0, EFD_CLOEXEC),
					  .compare_fd = eventfd(0, EFD_CLOEXEC)};
		watch_paths(watch);
		if (s->stop_fd < 0 || s->compare_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			r = -errno;
		s->fd = pair[0];
	}
	if (r == 0 && host_fd >= 0)
		r = share_remote_new(host_fd, watch, &s->remote);
	if (r == 0)
		r = start_thread(s);
	if (r < 0) {
		fd_close(pair[1]);
		if (s) {
			fd_close(s->fd);
			fd_close(s->stop_fd);
			fd_close(s->compare_fd);
			share_remote_free(s->remote);
		}
		free(s);
		return error_sys(err, -r, "watch of shared directories");
	}
	*ret = s;
	*ret_guest = pair[1];
	return 0;
}

void share_watch_compare(struct share_watch *s)
{
	(void)eventfd_write(s->compare_fd, 1);
}

struct share_watch *share_watch_stop(struct share_watch *s)
{
	if (!s)
		return NULL;
	eventfd_write(s->stop_fd, 1);
	pthread_join(s->thread, NULL);
	buf_done(&s->pending);
	close(s->fd);
	close(s->stop_fd);
	close(s->compare_fd);
	share_remote_free(s->remote);
	free(s);
	return NULL;
}
