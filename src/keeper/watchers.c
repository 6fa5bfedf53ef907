/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-keeper --watch, a process on the host beside a VM in the machine, which watches the directories that the
 * VM has of it (hostwatch.c) and ends with it; and --watch-group, which does so for all VMs of a share group: a
 * directory is watched once, however many of them have it. These are handed over on its socket (watchgroup.c), and it
 * ends when there has been none for a while.
 *
 * It is sealed: it opens what openat2 finds, watches directories, and takes what is handed over, and that is all.
 */
#include "keeper/hostwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/filter.h"
#include "base/util.h"
#include "keeper/watchers.h"
#include "keeper/watchgroup.h"

#define GATHER_NS 16000000ull /* events come in flocks, and each message wakes five programs */
#define IDLE_NS 1000000000ull

/* ------------------------------------------------------------------------------------------------- events */

void watchers_listen(struct watchers *w)
{
	loop_modify(w->events, EPOLLIN);
}

static void tell(struct watchers *w, const struct inotify_event *ev)
{
	struct watchset_entry *e = NULL;

	while ((e = watchset_next(&w->set, ev->wd, e)))
		hostwatch_note((struct hostwatch *)e->owner, e->id, ev);
	if (ev->mask & IN_IGNORED)
		watchset_ended(&w->set, ev->wd);
}

/* Those of one read. False: there are no more. */
static bool read_events(struct watchers *w)
{
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(w->set.notify, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const struct inotify_event *)(const void *)(buf + at);

		at += (ssize_t)(sizeof(*ev) + ev->len);
		for (struct hostwatch *h = w->list; h && ev->mask & IN_Q_OVERFLOW; h = h->next)
			h->lost = true;
		tell(w, ev);
	}
	return n > 0;
}

/* While nobody can be told any more, what happens waits in the kernel. (Once something is lost it need not.) */
static bool somebody_listens(const struct watchers *w)
{
	for (const struct hostwatch *h = w->list; h; h = h->next)
		if (h->lost || h->out.len < HOSTWATCH_HIGH)
			return true;
	return false;
}

static void on_gathered(struct loop *loop, struct loop_source *src, void *arg)
{
	struct watchers *w = arg;

	while (somebody_listens(w) && read_events(w))
		;
	for (struct hostwatch *h = w->list; h; h = h->next)
		hostwatch_noted(h);
}

/* They are listened for again when what was there has been sent. */
static void on_events(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct watchers *w = arg;

	loop_modify(src, 0);
	loop_timer_at(w->gather, time_now_ns() + GATHER_NS);
}

/* ---------------------------------------------------------------------------------------------------- VMs */

void hostwatch_end(struct hostwatch *h, int r)
{
	if (!h->ended)
		h->watchers->result = r;
	h->ended = true;
	loop_timer_at(h->watchers->reap, time_now_ns());
}

static void on_reap(struct loop *loop, struct loop_source *src, void *arg)
{
	struct watchers *w = arg;

	for (struct hostwatch **at = &w->list, *h; (h = *at);) {
		if (!h->ended) {
			at = &h->next;
			continue;
		}
		*at = h->next;
		hostwatch_free(h);
	}
	if (!w->list && w->listener < 0)
		loop_stop(w->loop, w->result);
	else if (!w->list)
		loop_timer_at(w->idle, time_now_ns() + IDLE_NS);
}

static int add_vm(struct watchers *w, int link_fd, int *sources, unsigned count)
{
	struct hostwatch *h;
	int r = hostwatch_new(w, link_fd, sources, count, &h);

	for (unsigned i = 0; i < count; i++)
		fd_close(sources[i]); /* what was not taken */
	if (r < 0)
		return r;
	h->owner.salt = (uint32_t)link_fd;
	h->next = w->list;
	w->list = h;
	return 0;
}

static int begin(struct watchers *w)
{
	int r = loop_new(&w->loop);

	w->listener = -1;
	w->set.notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r == 0 && w->set.notify < 0)
		r = -errno;
	if (r == 0)
		r = loop_add(w->loop, w->set.notify, EPOLLIN, on_events, w, &w->events);
	if (r == 0)
		r = loop_add_timer(w->loop, on_gathered, w, &w->gather);
	return r < 0 ? r : loop_add_timer(w->loop, on_reap, w, &w->reap);
}

/* What goes with the process needs no tidying. */
static int run_sealed(struct watchers *w)
{
	static const int calls[] = {SYS_openat2, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_fstatfs, -1};
	static const int of_group[] = {SYS_accept4, SYS_openat, SYS_flock, SYS_unlink, -1};
	int r = filter_process(NULL, 0, (const int *const[]){calls, w->listener < 0 ? NULL : of_group, NULL});

	return r < 0 ? r : loop_run(w->loop);
}

int hostwatch_run(int link_fd, const char *const *sources, unsigned count)
{
	struct watchers *w = calloc(1, sizeof(*w));
	int fds[HOSTWATCH_SHARES], r;

	if (!w || count > HOSTWATCH_SHARES)
		return -EINVAL;
	/* One that is not there, or a file, has nothing to be watched. */
	for (unsigned i = 0; i < count; i++)
		fds[i] = open(sources[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = begin(w);
	if (r == 0)
		r = add_vm(w, link_fd, fds, count);
	return r < 0 ? r : run_sealed(w);
}

/* -------------------------------------------------------------------------------------------------- a group */

/* Without the lock somebody is about to come. It is kept until this process is gone. */
static void on_idle(struct loop *loop, struct loop_source *src, void *arg)
{
	struct watchers *w = arg;
	struct pollfd p = {.fd = w->listener, .events = POLLIN};
	int lock;

	if (w->list)
		return;
	lock = open(w->lock, O_RDWR | O_CLOEXEC);
	/* Its directory is gone: nobody can come. */
	if ((lock < 0 && errno == ENOENT) ||
	    (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0 && poll(&p, 1, 0) == 0)) {
		unlink(w->socket);
		loop_stop(loop, 0);
		return;
	}
	fd_close(lock);
	loop_timer_at(src, time_now_ns() + IDLE_NS);
}

/* Whoever connects is this user, and has the lock: a message, and its answer. */
static void on_connection(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct watchers *w = arg;
	_fd_ int sock = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);
	int sources[HOSTWATCH_SHARES], link = -1, count;
	uint8_t done = 1;

	if (sock < 0)
		return;
	count = watchgroup_receive(sock, &link, sources);
	if (count >= 0 && add_vm(w, link, sources, (unsigned)count) == 0)
		(void)!write_full(sock, &done, 1);
}

int hostwatch_serve_group(int listener, const char *socket, const char *lock)
{
	struct watchers *w = calloc(1, sizeof(*w));
	struct loop_source *src;
	int r = w ? begin(w) : -ENOMEM;

	if (r == 0)
		r = loop_add(w->loop, listener, EPOLLIN, on_connection, w, &src);
	if (r == 0)
		r = loop_add_timer(w->loop, on_idle, w, &w->idle);
	if (r < 0)
		return r;
	w->listener = listener;
	w->socket = socket;
	w->lock = lock;
	loop_timer_at(w->idle, time_now_ns() + IDLE_NS);
	return run_sealed(w);
}
