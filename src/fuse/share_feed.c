/* SPDX-License-Identifier: Apache-2.0 */
/* One watcher for all clients of a shared tree. See share_feed.h. */
#include "fuse/share_feed.h"

#include <errno.h>
#include <pthread.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "base/watchset.h"
#include "fuse/share_peer.h"
#include "fuse/watch.h"

#define OUT_MAX (1u * MIB) /* events that a client has not taken */
#define IN_MAX (64u * KIB) /* bytes that are read of a feed at once */
#define MOST_AT_ONCE 16u   /* reads of events */
#define GATHER_MS 4	   /* events come in flocks, and each message wakes a program */
#define OF_STOP UINT64_MAX /* what epoll's data says: a feed's number, or */
#define OF_NOTIFY (UINT64_MAX - 1)

struct share_feed {
	struct watchset_owner owner; /* first */
	struct share_feed *next;
	uint64_t number;
	int sock;
	bool failed; /* to be ended when the events at hand have been told */
	struct buf in, out;
};

struct share_feeds {
	struct sm_fs_backend *be;
	const struct sm_fs_ops *ops;
	pthread_mutex_t lock; /* guards all below */
	bool running;
	pthread_t thread;
	int epoll, stop;
	struct share_feed *list;
	uint64_t last_number;
	struct watchset set;
};

static struct share_feed *find_feed(struct share_feeds *fs, uint64_t number)
{
	struct share_feed *f = fs->list;

	while (f && f->number != number)
		f = f->next;
	return f;
}

/* -------------------------------------------------------------------------------------------------- feeds */

static void end_feed(struct share_feeds *fs, struct share_feed *f)
{
	struct share_feed **at = &fs->list;

	watchset_clear(&fs->set, &f->owner);
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	fd_close(f->sock); /* and nothing more of it comes by epoll */
	buf_done(&f->in);
	buf_done(&f->out);
	free(f);
}

static int begin_feed(struct share_feeds *fs, struct share_feed **ret, int *ret_fd)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct share_feed *f;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	f = calloc(1, sizeof(*f));
	if (f) {
		ev.data.u64 = f->number = ++fs->last_number;
		f->owner.salt = (uint32_t)f->number;
	}
	if (!f || epoll_ctl(fs->epoll, EPOLL_CTL_ADD, pair[0], &ev) < 0) {
		close(pair[0]);
		close(pair[1]);
		free(f);
		return -ENOMEM;
	}
	f->sock = pair[0];
	f->next = fs->list;
	fs->list = f;
	*ret = f;
	*ret_fd = pair[1];
	return 0;
}

/* What the client takes; what it does not take now it is asked again for. */
static void send_out(struct share_feeds *fs, struct share_feed *f)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.u64 = f->number};
	size_t sent = 0;

	while (sent < f->out.len) {
		ssize_t n = send(f->sock, f->out.data + sent, f->out.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			f->failed |= errno != EAGAIN;
			break;
		}
		sent += (size_t)n;
	}
	buf_consume(&f->out, sent);
	if (!f->out.len)
		ev.events = EPOLLIN;
	f->failed |= f->out.len > OUT_MAX || f->out.error || epoll_ctl(fs->epoll, EPOLL_CTL_MOD, f->sock, &ev) < 0;
}

/* Numbers that it watches no longer. */
static void read_in(struct share_feeds *fs, struct share_feed *f)
{
	struct cursor c;
	ssize_t n;

	if (buf_reserve(&f->in, IN_MAX) < 0) {
		f->failed = true;
		return;
	}
	n = recv(f->sock, f->in.data + f->in.len, IN_MAX, MSG_DONTWAIT);
	f->failed |= n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	f->in.len += n > 0 ? (size_t)n : 0;
	c = cursor_of(f->in.data, f->in.len);
	while (c.left >= sizeof(uint32_t))
		watchset_remove(&fs->set, &f->owner, cursor_u32(&c));
	buf_consume(&f->in, f->in.len - c.left);
}

/* ------------------------------------------------------------------------------------------------- events */

static void put_event(struct share_feed *f, uint32_t id, const struct inotify_event *ev)
{
	size_t len = ev->len ? strnlen(ev->name, ev->len) : 0;

	if (f->out.len > OUT_MAX)
		return;
	buf_put_u32(&f->out, id);
	buf_put_u32(&f->out, ev->mask);
	buf_put_u16(&f->out, (uint16_t)len);
	buf_put(&f->out, ev->name, len);
}

static void tell(struct share_feeds *fs, const struct inotify_event *ev)
{
	struct watchset_entry *e = NULL;

	while ((e = watchset_next(&fs->set, ev->wd, e)))
		put_event((struct share_feed *)e->owner, e->id, ev);
	if (ev->mask & IN_IGNORED)
		watchset_ended(&fs->set, ev->wd);
}

static void fail_all(struct share_feeds *fs)
{
	for (struct share_feed *f = fs->list; f; f = f->next)
		f->failed = true;
}

/* Under the lock, so that a watch that was just made is known. In a flood others have their turn in between. */
static void read_events(struct share_feeds *fs)
{
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	for (unsigned turn = 0; turn < MOST_AT_ONCE && (n = read(fs->set.notify, buf, sizeof(buf))) > 0; turn++) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *ev = (const struct inotify_event *)(const void *)(buf + at);

			at += (ssize_t)(sizeof(*ev) + ev->len);
			if (ev->mask & IN_Q_OVERFLOW)
				fail_all(fs);
			else
				tell(fs, ev);
		}
		for (struct share_feed *f = fs->list; f; f = f->next)
			if (f->out.len)
				send_out(fs, f);
	}
}

static void handle(struct share_feeds *fs, const struct epoll_event *ev)
{
	struct share_feed *f = ev->data.u64 == OF_NOTIFY ? NULL : find_feed(fs, ev->data.u64);

	if (ev->data.u64 == OF_NOTIFY)
		read_events(fs);
	if (f && ev->events & EPOLLOUT)
		send_out(fs, f);
	if (f && ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_in(fs, f);
	for (struct share_feed *next, *g = fs->list; g; g = next) {
		next = g->next;
		if (g->failed)
			end_feed(fs, g);
	}
}

static void *run(void *arg)
{
	struct share_feeds *fs = arg;
	struct epoll_event events[16];
	struct pollfd stop = {.fd = fs->stop, .events = POLLIN};
	bool stopping = false;

	while (!stopping) {
		int n = epoll_wait(fs->epoll, events, ARRAY_SIZE(events), -1);

		if (n < 0 && errno != EINTR)
			break;
		for (int i = 0; i < n && !stopping; i++) {
			stopping = events[i].data.u64 == OF_STOP ||
				   (events[i].data.u64 == OF_NOTIFY && poll(&stop, 1, GATHER_MS) > 0);
			if (stopping)
				break;
			pthread_mutex_lock(&fs->lock);
			handle(fs, &events[i]);
			pthread_mutex_unlock(&fs->lock);
		}
	}
	return NULL;
}

/* --------------------------------------------------------------------------------------------------- life */

/* Under the lock. */
static int start(struct share_feeds *fs)
{
	struct epoll_event notify = {.events = EPOLLIN, .data.u64 = OF_NOTIFY};
	struct epoll_event stop = {.events = EPOLLIN, .data.u64 = OF_STOP};
	int r;

	if (fs->set.notify < 0)
		fs->set.notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fs->running || fs->set.notify < 0)
		return fs->set.notify < 0 ? -errno : 0;
	fs->epoll = epoll_create1(EPOLL_CLOEXEC);
	fs->stop = eventfd(0, EFD_CLOEXEC);
	if (fs->epoll < 0 || fs->stop < 0 || epoll_ctl(fs->epoll, EPOLL_CTL_ADD, fs->set.notify, &notify) < 0 ||
	    epoll_ctl(fs->epoll, EPOLL_CTL_ADD, fs->stop, &stop) < 0)
		r = -errno;
	else
		r = share_start_thread(&fs->thread, run, fs, false);
	fs->running = r == 0;
	if (r < 0) {
		fs->epoll = fd_close(fs->epoll);
		fs->stop = fd_close(fs->stop);
	}
	return r;
}

/* Under the lock, with the watch's number. */
static int enter(struct share_feeds *fs, uint64_t *feed, uint32_t id, int wd, bool fresh, int *ret_fd)
{
	struct share_feed *old = find_feed(fs, *feed), *f = fresh ? NULL : old;
	int r;

	if (!fresh && (!f || f->failed))
		return -EPIPE;
	r = fresh ? begin_feed(fs, &f, ret_fd) : 0;
	if (r == 0)
		r = watchset_put(&fs->set, &f->owner, id, wd, SHARE_MAX_WATCHES);
	if (r < 0 && fresh && f) {
		end_feed(fs, f);
		*ret_fd = fd_close(*ret_fd);
	} else if (r == 0 && fresh) {
		*feed = f->number;
		if (old)
			end_feed(fs, old);
	}
	return r;
}

int share_feeds_watch(struct share_feeds *fs, uint64_t *feed, uint64_t nodeid, uint32_t id, bool fresh, int *ret_fd)
{
	int r, wd;

	pthread_mutex_lock(&fs->lock);
	r = start(fs);
	/* Everybody's watch of a directory is one and the same: nobody says for what. */
	wd = r < 0 ? r : fs->ops->watch(fs->be, nodeid, fs->set.notify, WATCHSET_EVENTS);
	r = wd > 0 ? enter(fs, feed, id, wd, fresh, ret_fd) : wd < 0 ? wd : -EIO;
	if (wd > 0 && r < 0)
		watchset_unless_wanted(&fs->set, wd);
	pthread_mutex_unlock(&fs->lock);
	return r;
}

void share_feeds_end(struct share_feeds *fs, uint64_t feed)
{
	struct share_feed *f;

	pthread_mutex_lock(&fs->lock);
	f = find_feed(fs, feed);
	if (f)
		end_feed(fs, f);
	pthread_mutex_unlock(&fs->lock);
}

void share_feeds_get_stats(struct share_feeds *fs, struct share_feeds_stats *ret)
{
	*ret = (struct share_feeds_stats){0};
	pthread_mutex_lock(&fs->lock);
	for (const struct share_feed *f = fs->list; f; f = f->next) {
		ret->feeds++;
		ret->watched += f->owner.count;
	}
	ret->directories = watchset_directories(&fs->set);
	pthread_mutex_unlock(&fs->lock);
}

int share_feeds_new(struct sm_fs_backend *be, const struct sm_fs_ops *ops, struct share_feeds **ret)
{
	struct share_feeds *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return -ENOMEM;
	fs->be = be;
	fs->ops = ops;
	fs->set.notify = fs->epoll = fs->stop = -1;
	pthread_mutex_init(&fs->lock, NULL);
	*ret = fs;
	return 0;
}

struct share_feeds *share_feeds_free(struct share_feeds *fs)
{
	if (!fs)
		return NULL;
	if (fs->running) {
		(void)eventfd_write(fs->stop, 1);
		pthread_join(fs->thread, NULL);
	}
	while (fs->list)
		end_feed(fs, fs->list);
	fd_close(fs->set.notify);
	fd_close(fs->epoll);
	fd_close(fs->stop);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
	return NULL;
}
