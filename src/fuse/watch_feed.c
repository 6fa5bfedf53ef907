/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories that a backend has watched elsewhere. See watch.h; what goes over the stream stands in share_feed.h.
 *
 * A watch's number says which feed it comes by, so that a peer's is only ever taken for one of its own.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "base/watchset.h"
#include "fuse/share_feed.h"
#include "fuse/watch_own.h"

#define SLOT_SHIFT 23
#define SEQUENCE ((1u << SLOT_SHIFT) - 1)
#define CHUNK 16384u
#define REMOVALS 1024u /* bytes of numbers that are sent together */
#define OUT_MAX (1u * MIB)

_Static_assert(WATCH_FEED_FIRST + ((uint64_t)WATCH_FEEDS << SLOT_SHIFT) <= WATCH_REMOTE_FIRST, "room for all feeds");

/* Whose directory this thread asks its backend to watch. */
static _Thread_local struct watch *asking;

bool watch_batch_put(struct watch_batch *b, int wd, uint32_t mask, const char *name)
{
	/* As the kernel lays it out, the name filled up with zeros. */
	size_t len = *name ? (strlen(name) / sizeof(struct inotify_event) + 1) * sizeof(struct inotify_event) : 0;
	struct inotify_event ev = {.wd = wd, .mask = mask, .len = (uint32_t)len};
	char *at = b->bytes + b->len;

	if (sizeof(b->bytes) - b->len < sizeof(ev) + len)
		return false;
	memcpy(at, &ev, sizeof(ev));
	memset(at + sizeof(ev), 0, len);
	memcpy(at + sizeof(ev), name, strlen(name));
	b->len += sizeof(ev) + len;
	return true;
}

void watch_feeds_init(struct watch *w)
{
	for (unsigned i = 0; i < WATCH_FEEDS; i++)
		w->feeds[i].fd = -1;
}

static void done(struct watch_feed *feed)
{
	fd_close(feed->fd);
	buf_done(&feed->in);
	buf_done(&feed->out);
	*feed = (struct watch_feed){.fd = -1};
}

void watch_feeds_done(struct watch *w)
{
	for (unsigned i = 0; i < WATCH_FEEDS; i++)
		done(&w->feeds[i]);
}

/* -------------------------------------------------------------------------------- for the backend that is asked */

int watch_feeds_ask(struct watch *w, uint64_t dir)
{
	int wd;

	asking = w;
	wd = w->ops->watch(w->be, dir, w->notify, WATCHSET_EVENTS);
	asking = NULL;
	return wd;
}

static struct watch_feed *find(struct watch *w, uint64_t number)
{
	for (unsigned i = 0; w && i < WATCH_FEEDS; i++)
		if (w->feeds[i].number == number)
			return &w->feeds[i];
	return NULL;
}

int watch_feed_number(uint64_t *feed)
{
	static uint64_t last;
	struct watch *w = asking;
	struct watch_feed *f = find(w, *feed);
	uint32_t first;
	int wd;

	if (!f) /* it has ended, or is another watch's */
		f = find(w, 0);
	if (!f)
		return w ? -ENOSPC : -EOPNOTSUPP;
	if (!f->number)
		f->number = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
	*feed = f->number;
	first = w->next_feed;
	do
		wd = WATCH_FEED_FIRST | (int)((size_t)(f - w->feeds) << SLOT_SHIFT) | (int)(w->next_feed++ & SEQUENCE);
	while (known_find_wd(&w->known, wd) && w->next_feed != first);
	return wd;
}

int watch_feed_begin(uint64_t feed, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct watch_feed *f = find(asking, feed);
	int r = !f || f->fd >= 0 ? -EINVAL : 0;

	if (r == 0 && epoll_ctl(asking->fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		r = -errno;
	if (r < 0)
		fd_close(fd);
	else
		f->fd = fd;
	return r;
}

void watch_feed_drop(uint64_t feed)
{
	struct watch_feed *f = find(asking, feed);

	if (f)
		done(f);
}

/* ------------------------------------------------------------------------------------------ what goes and comes */

/* What cannot be taken back must not go on: the feed ends, and with it all its watches. */
static void send_out(struct watch_feed *feed)
{
	size_t sent = 0;

	while (sent < feed->out.len) {
		ssize_t n = send(feed->fd, feed->out.data + sent, feed->out.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		sent += (size_t)n;
	}
	buf_consume(&feed->out, sent);
	if (feed->out.error || feed->out.len > OUT_MAX)
		shutdown(feed->fd, SHUT_RDWR);
}

void watch_feed_remove(struct watch *w, int wd)
{
	struct watch_feed *feed = &w->feeds[(wd - WATCH_FEED_FIRST) >> SLOT_SHIFT];

	if (feed->fd < 0)
		return;
	buf_put_u32(&feed->out, (uint32_t)wd);
	if (feed->out.len >= REMOVALS || feed->out.error)
		send_out(feed);
}

static void end(struct watch *w, struct findings *f, unsigned slot)
{
	done(&w->feeds[slot]);
	for (struct known_node *node = known_next(&w->known, NULL); node; node = known_next(&w->known, node)) {
		if (!watch_is_feed(node->wd) || (unsigned)(node->wd - WATCH_FEED_FIRST) >> SLOT_SHIFT != slot)
			continue;
		known_set_watch(&w->known, node, -1);
		watch_lose_directory(w, f, node);
	}
}

/* One event: 1, 0: it is not all there, -EPROTO. */
static int take_event(struct watch *w, struct findings *f, struct cursor *c, unsigned slot, struct watch_batch *batch)
{
	struct cursor at = *c;
	uint32_t wd = cursor_u32(&at), mask = cursor_u32(&at);
	uint16_t len = cursor_u16(&at);
	const void *bytes;
	char name[NAME_MAX + 1];

	if (at.bad)
		return 0;
	if (len > NAME_MAX || wd < WATCH_FEED_FIRST || (wd - WATCH_FEED_FIRST) >> SLOT_SHIFT != slot)
		return -EPROTO;
	bytes = cursor_take(&at, len);
	if (!bytes)
		return 0;
	memcpy(name, bytes, len);
	name[len] = '\0';
	if (strlen(name) != len || strchr(name, '/'))
		return -EPROTO;
	mask &= WATCH_EVENT_BITS;
	if (!watch_batch_put(batch, (int)wd, mask, name)) {
		watch_handle(w, f, batch->bytes, batch->len);
		batch->len = 0;
		(void)!watch_batch_put(batch, (int)wd, mask, name);
	}
	*c = at;
	return 1;
}

/* What is there of one; true: maybe more. */
static bool step(struct watch *w, struct findings *f, unsigned slot)
{
	struct watch_feed *feed = &w->feeds[slot];
	struct watch_batch batch = {0};
	struct cursor c;
	ssize_t n;
	int r = 1;

	if (feed->fd < 0)
		return false;
	send_out(feed);
	if (buf_reserve(&feed->in, CHUNK) < 0) {
		end(w, f, slot);
		return false;
	}
	n = recv(feed->fd, feed->in.data + feed->in.len, CHUNK, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	feed->in.len += n > 0 ? (size_t)n : 0;
	c = cursor_of(feed->in.data, feed->in.len);
	while (r > 0)
		r = take_event(w, f, &c, slot, &batch);
	watch_handle(w, f, batch.bytes, batch.len);
	buf_consume(&feed->in, feed->in.len - c.left);
	if (n <= 0 || r < 0)
		end(w, f, slot);
	return n > 0 && r == 0;
}

bool watch_feeds_step(struct watch *w, struct findings *f)
{
	bool more = false;

	for (unsigned i = 0; i < WATCH_FEEDS; i++)
		more |= step(w, f, i);
	return more;
}
