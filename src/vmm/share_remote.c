/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's end of a watch on the host. See share_remote.h. */
#include "vmm/share_remote.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/watch.h"
#include "proto/hostwatch.h"

/* What the machine's kernel believes of the host's files (machine/emulator.c), in its ticks, and some: a tick more at
 * either end, and the way from one to the other. */
#define HOLD_NS 115000000ULL
#define MERGE_NS 4000000ULL   /* what comes within this time is held back together */
#define ARRIVALS 64u	      /* more than HOLD_NS / MERGE_NS */
#define IN_MAX (1u * MIB)     /* more waits at the host */
#define OUT_HIGH (256u * KIB) /* no more is asked beyond it */
#define OUT_MAX (1u * MIB)
#define CHUNK 65536u

struct arrival {
	uint64_t end; /* of the bytes that it stands for, counted from the stream's begin */
	uint64_t due;
};

struct share_remote {
	struct watch *watch;
	int fd;
	pthread_mutex_t lock; /* of what goes out: */
	struct buf out;
	size_t sent;
	bool cut; /* nothing more goes out: the stream is about to end */
	/* the thread's own */
	struct buf in;
	uint64_t taken; /* bytes before in.data */
	struct arrival arrivals[ARRIVALS];
	unsigned num_arrivals;
	struct watch_batch batch;
	struct hostwatch_record record;
};

/* ------------------------------------------------------------------------------------------- what is asked */

/* Under the lock. */
static void flush(struct share_remote *r)
{
	while (!r->cut && r->sent < r->out.len) {
		ssize_t n = send(r->fd, r->out.data + r->sent, r->out.len - r->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			r->cut = true;
		else
			r->sent += (size_t)n;
	}
	r->out.len = r->sent = 0;
}

static bool put(struct share_remote *r, const struct hostwatch_record *rec, size_t most)
{
	bool ok;

	pthread_mutex_lock(&r->lock);
	ok = !r->cut && r->out.len < most && hostwatch_encode(&r->out, rec) == 0;
	if (ok)
		flush(r);
	pthread_mutex_unlock(&r->lock);
	return ok;
}

/* What cannot be taken back must not go on: the whole stream ends, and with it all watches. */
static void put_or_end(struct share_remote *r, const struct hostwatch_record *rec)
{
	if (put(r, rec, OUT_MAX))
		return;
	pthread_mutex_lock(&r->lock);
	r->cut = true;
	shutdown(r->fd, SHUT_RDWR);
	pthread_mutex_unlock(&r->lock);
}

/* path: "SHARE" or "SHARE/...". */
static bool on_add(void *arg, int wd, const char *path, uint64_t ino)
{
	struct hostwatch_record rec = {.op = HOSTWATCH_ADD, .id = (uint32_t)wd, .ino = ino};
	unsigned long share;
	char *rest;

	share = strtoul(path, &rest, 10);
	if (rest == path || share >= HOSTWATCH_SHARES || (*rest && *rest != '/') || strlen(rest) >= sizeof(rec.text))
		return false;
	rec.share = (uint8_t)share;
	strcpy(rec.text, *rest ? rest + 1 : "");
	return put(arg, &rec, OUT_HIGH);
}

static void on_remove(void *arg, int wd)
{
	put_or_end(arg, &(struct hostwatch_record){.op = HOSTWATCH_REMOVE, .id = (uint32_t)wd});
}

static void on_reset(void *arg)
{
	put_or_end(arg, &(struct hostwatch_record){.op = HOSTWATCH_RESET});
}

/* --------------------------------------------------------------------------------------------- what is told */

static void deliver(struct share_remote *r, void (*stale)(void *, const struct watch_stale *), void *arg)
{
	if (r->batch.len)
		watch_remote_events(r->watch, r->batch.bytes, r->batch.len, stale, arg);
	r->batch.len = 0;
}

static void put_event(struct share_remote *r, int wd, uint32_t mask, const char *name,
		      void (*stale)(void *, const struct watch_stale *), void *arg)
{
	if (watch_batch_put(&r->batch, wd, mask, name))
		return;
	deliver(r, stale, arg);
	(void)!watch_batch_put(&r->batch, wd, mask, name);
}

static int handle(struct share_remote *r, void (*stale)(void *, const struct watch_stale *), void *arg)
{
	const struct watch_remote remote = {.add = on_add, .remove = on_remove, .reset = on_reset, .arg = r};
	const struct hostwatch_record *rec = &r->record;

	if (rec->op == HOSTWATCH_EVENT) {
		if (rec->id < WATCH_REMOTE_FIRST)
			return -EPROTO;
		put_event(r, (int)rec->id, rec->mask & WATCH_EVENT_BITS, rec->text, stale, arg);
		return 0;
	}
	deliver(r, stale, arg);
	switch (rec->op) {
	case HOSTWATCH_HELLO:
		watch_remote_begin(r->watch, &remote);
		break;
	case HOSTWATCH_LOST:
		put_event(r, -1, IN_Q_OVERFLOW, "", stale, arg);
		deliver(r, stale, arg);
		break;
	default:
		watch_remote_added(r->watch, (int)rec->id, rec->op == HOSTWATCH_ADDED, rec->quiet_ns, stale, arg);
	}
	return 0;
}

/* All records that have been held back for long enough. */
static int handle_due(struct share_remote *r, void (*stale)(void *, const struct watch_stale *), void *arg)
{
	uint64_t now = time_now_ns(), end = r->taken;
	struct cursor c;
	unsigned n = 0;
	int e = 0;

	while (n < r->num_arrivals && r->arrivals[n].due <= now)
		end = r->arrivals[n++].end;
	if (!n)
		return 0;
	r->num_arrivals -= n;
	memmove(r->arrivals, r->arrivals + n, r->num_arrivals * sizeof(r->arrivals[0]));
	c = cursor_of(r->in.data, (size_t)(end - r->taken));
	while (e == 0 && (e = hostwatch_decode(&c, true, &r->record)) > 0)
		e = handle(r, stale, arg);
	deliver(r, stale, arg);
	r->taken = end - c.left;
	buf_consume(&r->in, (size_t)(c.p - r->in.data));
	return e;
}

static void note_arrival(struct share_remote *r)
{
	struct arrival a = {.end = r->taken + r->in.len, .due = time_now_ns() + HOLD_NS};
	struct arrival *last = r->num_arrivals ? &r->arrivals[r->num_arrivals - 1] : NULL;

	if (last && (a.due - last->due < MERGE_NS || r->num_arrivals == ARRIVALS))
		*last = a;
	else
		r->arrivals[r->num_arrivals++] = a;
}

/* 0: it goes on. */
static int receive(struct share_remote *r)
{
	while (r->in.len < IN_MAX) {
		ssize_t n;

		if (buf_reserve(&r->in, CHUNK) < 0)
			return -ENOMEM;
		n = recv(r->fd, r->in.data + r->in.len, CHUNK, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		r->in.len += (size_t)n;
		note_arrival(r);
	}
	return 0;
}

void share_remote_step(struct share_remote *r, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	int e;

	if (!r || r->fd < 0)
		return;
	pthread_mutex_lock(&r->lock);
	flush(r);
	pthread_mutex_unlock(&r->lock);
	e = receive(r);
	if (e == 0)
		e = handle_due(r, stale, arg);
	if (e == 0)
		return;
	watch_remote_end(r->watch, stale, arg); /* nothing more is asked from here on */
	r->fd = fd_close(r->fd);
}

/* ------------------------------------------------------------------------------------------------- poll, life */

int share_remote_fd(const struct share_remote *r)
{
	return r ? r->fd : -1;
}

short share_remote_events(struct share_remote *r)
{
	short events = 0;

	if (!r)
		return 0;
	pthread_mutex_lock(&r->lock);
	events |= r->out.len ? POLLOUT : 0;
	pthread_mutex_unlock(&r->lock);
	return (short)(events | (r->in.len < IN_MAX ? POLLIN : 0));
}

int share_remote_timeout(const struct share_remote *r, int most)
{
	uint64_t now = time_now_ns();

	if (!r || !r->num_arrivals)
		return most;
	if (r->arrivals[0].due <= now)
		return 0;
	return (int)MIN((uint64_t)most, (r->arrivals[0].due - now) / 1000000 + 1);
}

int share_remote_new(int fd, struct watch *watch, struct share_remote **ret)
{
	struct share_remote *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->watch = watch;
	r->fd = fd;
	pthread_mutex_init(&r->lock, NULL);
	*ret = r;
	return 0;
}

struct share_remote *share_remote_free(struct share_remote *r)
{
	if (!r)
		return NULL;
	fd_close(r->fd);
	buf_done(&r->in);
	buf_done(&r->out);
	pthread_mutex_destroy(&r->lock);
	free(r);
	return NULL;
}
