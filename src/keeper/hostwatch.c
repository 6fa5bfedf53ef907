/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM in the machine has directories of the host, whose events the machine's own kernel does not have: they are
 * watched here, on the host (watchers.c), and the VM's monitor is told, by a channel of its keeper's, what others
 * change there. This is one VM: what its monitor asks, and what it is told.
 *
 * The monitor is hostile: what it asks for is looked up beneath the VM's mounts through no link, has to be the very
 * directory that it has, and costs one of a limited number of watches; an answer that it does not read stops its
 * questions, and events that it does not read are lost, which it is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "keeper/watchers.h"
#include "proto/link.h"
#include "proto/messages.h"

#define MAX_WATCHES 65536u
#define STREAM_OUT 0
#define STREAM_IN 1

/* ------------------------------------------------------------------------------------------------ answers */

static void put(struct hostwatch *h, enum hostwatch_op op, uint32_t id, uint64_t quiet_ns)
{
	struct hostwatch_record rec = {.op = op, .id = id, .quiet_ns = quiet_ns};

	if (hostwatch_encode(&h->out, &rec) < 0)
		hostwatch_end(h, -ENOMEM);
}

/* What the other side takes. */
void hostwatch_send(struct hostwatch *h)
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
		watchers_listen(h->watchers);
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
	struct watchset *set = &h->watchers->set;
	char path[32];
	int wd;

	if (h->owner.count >= MAX_WATCHES || watchset_has(set, &h->owner, rec->id))
		return false;
	fd = open_asked(h, rec);
	if (fd < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	wd = inotify_add_watch(set->notify, path, WATCHSET_EVENTS);
	if (wd < 0 || watchset_put(set, &h->owner, rec->id, wd, MAX_WATCHES) < 0)
		return false;
	*ret_quiet = quiet(fd);
	return true;
}

static void serve_one(struct hostwatch *h, const struct hostwatch_record *rec)
{
	uint64_t quiet_ns = 0;

	switch (rec->op) {
	case HOSTWATCH_ADD:
		put(h, add(h, rec, &quiet_ns) ? HOSTWATCH_ADDED : HOSTWATCH_REFUSED, rec->id, quiet_ns);
		break;
	case HOSTWATCH_REMOVE:
		watchset_remove(&h->watchers->set, &h->owner, rec->id);
		break;
	default:
		watchset_clear(&h->watchers->set, &h->owner);
	}
}

static void serve(struct hostwatch *h)
{
	struct cursor c = cursor_of(h->in.data, h->in.len);
	size_t taken;
	int r = 1;

	while (r > 0 && h->out.len < HOSTWATCH_HIGH) {
		r = hostwatch_decode(&c, false, &h->asked);
		if (r > 0)
			serve_one(h, &h->asked);
	}
	if (r < 0)
		hostwatch_end(h, r);
	taken = h->in.len - c.left;
	if (taken) {
		buf_consume(&h->in, taken);
		mux_consumed(h->mux, h->ch, STREAM_IN, taken);
	}
	hostwatch_send(h);
}

/* ------------------------------------------------------------------------------------------------ events */

static void put_grown(struct hostwatch *h)
{
	if (h->growing.any && hostwatch_encode(&h->out, &h->growing.rec) < 0)
		hostwatch_end(h, -ENOMEM);
	h->growing.any = false;
}

void hostwatch_note(struct hostwatch *h, uint32_t id, const struct inotify_event *ev)
{
	struct hostwatch_record *rec = &h->growing.rec;
	const char *name = ev->len ? ev->name : "";

	h->lost |= h->out.len >= HOSTWATCH_HIGH;
	/* Once something is lost all else is of no use, but that a watch is gone. */
	if (h->lost && !(ev->mask & IN_IGNORED))
		return;
	if (h->growing.any && rec->id == id && streq(rec->text, name)) {
		rec->mask |= ev->mask;
		return;
	}
	put_grown(h);
	h->growing.any = true;
	rec->op = HOSTWATCH_EVENT;
	rec->id = id;
	rec->mask = ev->mask;
	snprintf(rec->text, sizeof(rec->text), "%s", name);
}

void hostwatch_noted(struct hostwatch *h)
{
	put_grown(h);
	if (h->lost)
		put(h, HOSTWATCH_LOST, 0, 0);
	h->lost = false;
	hostwatch_send(h);
}

/* ----------------------------------------------------------------------------------------------- the channel */

static void on_opened(void *arg, uint32_t ch, void *user, struct cursor *reply)
{
	struct hostwatch *h = arg;

	put(h, HOSTWATCH_HELLO, 0, 0);
	hostwatch_send(h);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct hostwatch *h = arg;

	if (stream != STREAM_IN || buf_put(&h->in, p, len) < 0)
		hostwatch_end(h, -EPROTO);
	else
		serve(h);
}

static void on_writable(void *arg, uint32_t ch, void *user, unsigned stream)
{
	struct hostwatch *h = arg;

	hostwatch_send(h);
	serve(h);
}

static void on_closed(void *arg, uint32_t ch, void *user, int code, const char *text)
{
	hostwatch_end(arg, 0);
}

static void on_eof(void *arg, uint32_t ch, void *user, unsigned stream)
{
	hostwatch_end(arg, 0);
}

static const struct mux_callbacks callbacks = {
	.opened = on_opened, .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};

static void on_link_end(struct link *l, int r, const char *why, void *arg)
{
	hostwatch_end(arg, 0);
}

static void take_sources(struct hostwatch *h, int *sources, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		h->sources[i] = TAKE_FD(sources[i]);
	h->num_sources = count;
}

int hostwatch_new(struct watchers *w, int link_fd, int *sources, unsigned count, struct hostwatch **ret)
{
	struct hostwatch *h = count <= HOSTWATCH_SHARES ? calloc(1, sizeof(*h)) : NULL;
	int r;

	if (!h) {
		close(link_fd);
		return -ENOMEM;
	}
	h->watchers = w;
	r = link_client(w->loop, link_fd, &callbacks, on_link_end, h, &h->link);
	if (r < 0) {
		close(link_fd);
		free(h);
		return r;
	}
	h->mux = link_mux(h->link);
	take_sources(h, sources, count);
	r = mux_open(h->mux, PROTO_KEEPER_WATCH, NULL, NULL, &h->ch);
	if (r < 0)
		return hostwatch_free(h), r;
	*ret = h;
	return 0;
}

void hostwatch_free(struct hostwatch *h)
{
	watchset_clear(&h->watchers->set, &h->owner);
	link_free(h->link);
	for (unsigned i = 0; i < h->num_sources; i++)
		fd_close(h->sources[i]);
	buf_done(&h->in);
	buf_done(&h->out);
	free(h);
}
