/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supermachine-keeper --watch: a process on the host beside a VM in the machine, which watches the directories that the
 * VM has of it (inotify) and tells the VM's monitor, by a channel of the keeper's, what others change there: the
 * machine's own kernel has no events of them. It ends with the VM.
 *
 * It is sealed: it opens what openat2 finds and watches directories, and that is all. The monitor is hostile: what it
 * asks for is looked up beneath the VM's mounts through no link, has to be the very directory that it has, and costs
 * one of a limited number of watches; an answer that it does not read stops its questions, and events that it does not
 * read are lost in the kernel's queue, which it is told.
 */
#include "keeper/hostwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/filter.h"
#include "base/loop.h"
#include "base/util.h"
#include "proto/hostwatch.h"
#include "proto/link.h"
#include "proto/messages.h"

/* Those that fuse/watch.c asks for where it watches by itself. */
#define EVENTS                                                                                                         \
	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_ONLYDIR |   \
	 IN_EXCL_UNLINK)
#define MAX_WATCHES 65536u
#define BUCKETS 4096u
#define OUT_HIGH (128u * KIB) /* then nothing is read, neither questions nor events */
#define GATHER_NS 16000000ull /* events come in flocks, and each message wakes five programs */
#define STREAM_OUT 0
#define STREAM_IN 1

struct watched {
	uint32_t id;
	int wd;
	struct watched *id_next, *wd_next;
};

/* One event that may still grow: those in a row about one name are told as one. */
struct growing {
	bool any;
	struct hostwatch_record rec;
};

struct hostwatch {
	struct loop *loop;
	struct link *link;
	struct mux *mux;
	uint32_t ch;
	int sources[HOSTWATCH_SHARES];
	unsigned num_sources;
	int notify;
	struct loop_source *events, *gather;
	struct watched *by_id[BUCKETS], *by_wd[BUCKETS];
	unsigned num_watched;
	struct buf in, out;
	struct growing growing;
	struct hostwatch_record asked;
};

/* ------------------------------------------------------------------------------------------------ tables */

static struct watched **find_id(struct hostwatch *h, uint32_t id)
{
	struct watched **at = &h->by_id[id % BUCKETS];

	while (*at && (*at)->id != id)
		at = &(*at)->id_next;
	return at;
}

static struct watched **find_wd(struct hostwatch *h, int wd)
{
	struct watched **at = &h->by_wd[(unsigned)wd % BUCKETS];

	while (*at && (*at)->wd != wd)
		at = &(*at)->wd_next;
	return at;
}

static int remember(struct hostwatch *h, uint32_t id, int wd)
{
	struct watched *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	*e = (struct watched){
		.id = id, .wd = wd, .id_next = h->by_id[id % BUCKETS], .wd_next = h->by_wd[(unsigned)wd % BUCKETS]};
	h->by_id[id % BUCKETS] = h->by_wd[(unsigned)wd % BUCKETS] = e;
	h->num_watched++;
	return 0;
}

static void forget(struct hostwatch *h, struct watched *e)
{
	*find_id(h, e->id) = e->id_next;
	*find_wd(h, e->wd) = e->wd_next;
	free(e);
	h->num_watched--;
}

/* ------------------------------------------------------------------------------------------------ answers */

static void put(struct hostwatch *h, enum hostwatch_op op, uint32_t id, uint64_t quiet_ns)
{
	struct hostwatch_record rec = {.op = op, .id = id, .quiet_ns = quiet_ns};

	if (hostwatch_encode(&h->out, &rec) < 0)
		loop_stop(h->loop, -ENOMEM);
}

/* What the other side takes. */
static void send_out(struct hostwatch *h)
{
	size_t sent = 0;

	while (sent < h->out.len) {
		size_t n = MIN(h->out.len - sent, mux_credit(h->mux, h->ch, STREAM_OUT));

		n = MIN(n, (size_t)PROTO_MAX_PAYLOAD);
		if (!n || mux_send(h->mux, h->ch, STREAM_OUT, h->out.data + sent, n) < 0)
			break;
		sent += n;
	}
	buf_consume(&h->out, sent);
	if (!h->out.len)
		loop_modify(h->events, EPOLLIN);
}

/* ------------------------------------------------------------------------------------------------ questions */

/* The very directory, or -errno. */
static int open_asked(const struct hostwatch *h, const struct hostwatch_record *rec)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	struct stat st;
	int fd;

	if (rec->share >= h->num_sources || h->sources[rec->share] < 0)
		return -ENOENT;
	fd = (int)syscall(SYS_openat2, h->sources[rec->share], rec->text[0] ? rec->text : ".", &how, sizeof(how));
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || st.st_ino != rec->ino || !fd_raises_events(fd)) {
		fd_close(fd);
		return -ENOENT;
	}
	return fd;
}

/* For how long the directory has been as it is. */
static uint64_t quiet(int fd)
{
	struct timespec now;
	struct stat st;
	int64_t ns;

	if (fstat(fd, &st) < 0 || clock_gettime(CLOCK_REALTIME, &now) < 0)
		return 0;
	ns = (int64_t)(now.tv_sec - st.st_ctim.tv_sec) * 1000000000 + now.tv_nsec - st.st_ctim.tv_nsec;
	return ns < 0 ? 0 : (uint64_t)ns;
}

static bool add(struct hostwatch *h, const struct hostwatch_record *rec, uint64_t *ret_quiet)
{
	_fd_ int fd = -1;
	char path[32];
	int wd;

	if (h->num_watched >= MAX_WATCHES || *find_id(h, rec->id))
		return false;
	fd = open_asked(h, rec);
	if (fd < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	wd = inotify_add_watch(h->notify, path, EVENTS);
	if (wd < 0 || *find_wd(h, wd)) /* one directory under two ids: the second goes without */
		return false;
	*ret_quiet = quiet(fd);
	if (remember(h, rec->id, wd) == 0)
		return true;
	inotify_rm_watch(h->notify, wd);
	return false;
}

static void drop(struct hostwatch *h, struct watched *e)
{
	if (!e)
		return;
	inotify_rm_watch(h->notify, e->wd); /* its IN_IGNORED finds nobody */
	forget(h, e);
}

static void serve_one(struct hostwatch *h, const struct hostwatch_record *rec)
{
	uint64_t quiet_ns = 0;

	switch (rec->op) {
	case HOSTWATCH_ADD:
		put(h, add(h, rec, &quiet_ns) ? HOSTWATCH_ADDED : HOSTWATCH_REFUSED, rec->id, quiet_ns);
		break;
	case HOSTWATCH_REMOVE:
		drop(h, *find_id(h, rec->id));
		break;
	default:
		for (unsigned i = 0; i < BUCKETS; i++)
			while (h->by_id[i])
				drop(h, h->by_id[i]);
	}
}

static void serve(struct hostwatch *h)
{
	struct cursor c = cursor_of(h->in.data, h->in.len);
	size_t taken;
	int r = 1;

	while (r > 0 && h->out.len < OUT_HIGH) {
		r = hostwatch_decode(&c, false, &h->asked);
		if (r > 0)
			serve_one(h, &h->asked);
	}
	if (r < 0)
		loop_stop(h->loop, r);
	taken = h->in.len - c.left;
	if (taken) {
		buf_consume(&h->in, taken);
		mux_consumed(h->mux, h->ch, STREAM_IN, taken);
	}
	send_out(h);
}

/* ------------------------------------------------------------------------------------------------ events */

static void put_grown(struct hostwatch *h)
{
	if (h->growing.any && hostwatch_encode(&h->out, &h->growing.rec) < 0)
		loop_stop(h->loop, -ENOMEM);
	h->growing.any = false;
}

static void note(struct hostwatch *h, const struct inotify_event *ev)
{
	struct watched *e = *find_wd(h, ev->wd);
	struct hostwatch_record *rec = &h->growing.rec;
	const char *name = ev->len ? ev->name : "";

	if (!e)
		return;
	if (h->growing.any && rec->id == e->id && streq(rec->text, name)) {
		rec->mask |= ev->mask;
	} else {
		put_grown(h);
		h->growing.any = true;
		rec->op = HOSTWATCH_EVENT;
		rec->id = e->id;
		rec->mask = ev->mask;
		snprintf(rec->text, sizeof(rec->text), "%s", name);
	}
	if (ev->mask & IN_IGNORED)
		forget(h, e);
}

/* Those of one read. False: there are no more. */
static bool read_events(struct hostwatch *h, bool *lost)
{
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(h->notify, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const struct inotify_event *)(const void *)(buf + at);

		at += (ssize_t)(sizeof(*ev) + ev->len);
		*lost |= ev->mask & IN_Q_OVERFLOW;
		if (!*lost || ev->mask & IN_IGNORED)
			note(h, ev);
	}
	return n > 0;
}

/* Once something is lost all that waits is of no use. */
static void on_gathered(struct loop *loop, struct loop_source *src, void *arg)
{
	struct hostwatch *h = arg;
	bool lost = false;

	while ((h->out.len < OUT_HIGH || lost) && read_events(h, &lost))
		;
	put_grown(h);
	if (lost)
		put(h, HOSTWATCH_LOST, 0, 0);
	send_out(h);
}

/* They are listened for again when what was there has been sent. */
static void on_events(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct hostwatch *h = arg;

	loop_modify(src, 0);
	loop_timer_at(h->gather, time_now_ns() + GATHER_NS);
}

/* ----------------------------------------------------------------------------------------------- the channel */

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct hostwatch *h = arg;

	put(h, HOSTWATCH_HELLO, 0, 0);
	send_out(h);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct hostwatch *h = arg;

	if (stream != STREAM_IN || buf_put(&h->in, p, len) < 0)
		loop_stop(h->loop, -EPROTO);
	else
		serve(h);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct hostwatch *h = arg;

	send_out(h);
	serve(h);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	loop_stop(((struct hostwatch *)arg)->loop, 0);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	loop_stop(((struct hostwatch *)arg)->loop, 0);
}

static const struct mux_callbacks callbacks = {
	.opened = on_opened, .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	loop_stop(((struct hostwatch *)arg)->loop, 0);
}

static int begin(struct hostwatch *h, int link_fd)
{
	int r = loop_new(&h->loop);

	h->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r == 0 && h->notify < 0)
		r = -errno;
	if (r == 0)
		r = loop_add(h->loop, h->notify, EPOLLIN, on_events, h, &h->events);
	if (r == 0)
		r = loop_add_timer(h->loop, on_gathered, h, &h->gather);
	if (r == 0)
		r = link_client(h->loop, link_fd, &callbacks, on_link_end, h, &h->link);
	if (r == 0)
		h->mux = link_mux(h->link);
	return r < 0 ? r : mux_open(h->mux, PROTO_KEEPER_WATCH, NULL, NULL, &h->ch);
}

static const int syscalls[] = {SYS_openat2, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_fstatfs, -1};

int hostwatch_run(int link_fd, const char *const *sources, unsigned count)
{
	struct hostwatch *h = calloc(1, sizeof(*h));
	int r;

	if (!h || count > HOSTWATCH_SHARES)
		return -EINVAL;
	/* One that is not there, or a file, has nothing to be watched. */
	for (unsigned i = 0; i < count; i++)
		h->sources[h->num_sources++] = open(sources[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = begin(h, link_fd);
	if (r == 0)
		r = filter_process(NULL, 0, (const int *const[]){syscalls, NULL});
	if (r == 0)
		r = loop_run(h->loop);
	/* What goes with the process needs no tidying. */
	return r;
}
