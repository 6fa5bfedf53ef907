/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what has happened (keeper/events.h), and following it: the common file and those of the VMs that run, watched
 * by inotify. A VM that begins to run shows in the directory of VMs, which the library touches then (launch.c). When a
 * VM is removed its lines come once more in the common file; their times tell which are new.
 */
#include "lib/events.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

#define LOOK_NS (10 * SECOND_NS) /* how often VMs are asked that may have died without a word */
#define HOME_NS SECOND_NS	 /* how often it is looked whether the home is still there, of which nothing tells */
#define CHUNK 65536
#define SKEW_NS 500000000ll

/* A file of events while it is followed; those of VMs are kept for `last_ns` when they have ended. */
struct source {
	char id[VM_ID_DIGITS + 1]; /* "": the common file */
	int dir, fd, watch;
	off_t at;
	int64_t last_ns;
};

struct reader {
	struct sm_client *c;
	const struct sm_events_options *o;
	int64_t from_ns;
	int notify, vms_watch, common_watch;
	struct source common;
	struct source **vms; /* by id */
	size_t num_vms;
	struct vm_event *batch; /* to be put in order, then given out */
	size_t num_batch, cap_batch;
	int error;
};

static int64_t wall_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ------------------------------------------------------------------------------------------ VMs known */

/* Where it is, or would be. */
static size_t place_of(const struct reader *r, const char *id)
{
	size_t low = 0, high = r->num_vms;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (strcmp(r->vms[mid]->id, id) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct source *find(const struct reader *r, const char *id)
{
	size_t i = place_of(r, id);

	return i < r->num_vms && streq(r->vms[i]->id, id) ? r->vms[i] : NULL;
}

static struct source *find_or_add(struct reader *r, const char *id)
{
	struct source *s = find(r, id), **more;
	size_t i = place_of(r, id);

	if (s)
		return s;
	more = realloc(r->vms, (r->num_vms + 1) * sizeof(struct source *));
	if (more)
		r->vms = more;
	s = more ? calloc(1, sizeof(*s)) : NULL;
	if (!s) {
		r->error = -ENOMEM;
		return NULL;
	}
	*s = (struct source){.dir = -1, .fd = -1, .watch = -1};
	snprintf(s->id, sizeof(s->id), "%s", id);
	memmove(r->vms + i + 1, r->vms + i, (r->num_vms - i) * sizeof(struct source *));
	r->vms[i] = s;
	r->num_vms++;
	return s;
}

/* ------------------------------------------------------------------------------------------ one file */

static void batch_add(struct reader *r, struct vm_event *e)
{
	struct vm_event *more;

	if (r->num_batch == r->cap_batch) {
		more = realloc(r->batch, (r->cap_batch ? 2 * r->cap_batch : 64) * sizeof(*more));
		if (!more) {
			r->error = -ENOMEM;
			vm_event_done(e);
			return;
		}
		r->batch = more;
		r->cap_batch = r->cap_batch ? 2 * r->cap_batch : 64;
	}
	r->batch[r->num_batch++] = *e;
}

static void take_line(struct reader *r, const char *line, size_t len)
{
	struct vm_event e;

	if (vm_event_parse(line, len, &e) < 0)
		return;
	if (e.time_ns < r->from_ns || (r->o->until_ns && e.time_ns >= r->o->until_ns))
		vm_event_done(&e);
	else
		batch_add(r, &e);
}

/* All whole lines from s->at on. */
static void read_rest(struct reader *r, struct source *s)
{
	_free_ char *buf = malloc(CHUNK);

	if (!buf)
		r->error = -ENOMEM;
	while (buf && s->fd >= 0) {
		ssize_t n = pread_full(s->fd, (uint8_t *)buf, CHUNK, s->at);
		size_t done = 0;

		for (const char *end; n > 0 && (end = memchr(buf + done, '\n', (size_t)n - done));
		     done = (size_t)(end - buf) + 1)
			take_line(r, buf + done, (size_t)(end - buf) - done);
		s->at += (off_t)done;
		if (!done && n == CHUNK)
			s->at += n; /* no line is that long */
		else if (!done)
			return;
	}
}

static void open_file(struct source *s, const char *name)
{
	fd_close(s->fd);
	s->fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	s->at = 0;
}

/* What is new in it, also in a file that has taken its place. */
static void read_new(struct reader *r, struct source *s)
{
	struct stat now, ours;

	read_rest(r, s);
	if (fstatat(s->dir, "events", &now, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (s->fd >= 0 && fstat(s->fd, &ours) == 0 && ours.st_ino == now.st_ino))
		return;
	open_file(s, "events");
	read_rest(r, s);
}

static void read_all(struct reader *r, struct source *s)
{
	open_file(s, "events.1");
	read_rest(r, s);
	open_file(s, "events");
	read_rest(r, s);
}

static void skip_all(struct source *s)
{
	struct stat st;

	open_file(s, "events");
	if (s->fd >= 0 && fstat(s->fd, &st) == 0)
		s->at = st.st_size;
}

/* -------------------------------------------------------------------------------------------- giving out */

static int by_time(const void *a, const void *b)
{
	const struct vm_event *x = a, *y = b;

	return (x->time_ns > y->time_ns) - (x->time_ns < y->time_ns);
}

/* Whether it came before, from the other file. */
static bool is_known(struct reader *r, const struct vm_event *e)
{
	struct source *s;

	if (!streq(e->type, "vm"))
		return false;
	s = find_or_add(r, e->id);
	if (!s || e->time_ns <= s->last_ns)
		return true;
	s->last_ns = e->time_ns;
	return false;
}

static int give_out(struct reader *r)
{
	int stop = 0;

	if (r->num_batch)
		qsort(r->batch, r->num_batch, sizeof(*r->batch), by_time);
	for (size_t i = 0; i < r->num_batch; i++) {
		struct vm_event *e = &r->batch[i];
		struct sm_event pub = {.time_ns = e->time_ns,
				       .type = e->type,
				       .action = e->action,
				       .id = e->id,
				       .name = e->name,
				       .image = e->image,
				       .labels = (const char *const *)e->labels,
				       .attributes = (const char *const *)e->attributes};

		if (!stop && !is_known(r, e))
			stop = r->o->event(r->o->arg, &pub);
		vm_event_done(e);
	}
	r->num_batch = 0;
	return stop ? 1 : r->error;
}

/* ----------------------------------------------------------------------------------------------- VMs */

static bool has_ended(int dir)
{
	return faccessat(dir, "exit.json", F_OK, 0) == 0;
}

/* A VM that runs, or begins to: its file is followed from now on. all: also what stands in it. */
static void watch_vm(struct reader *r, const char *id, bool all)
{
	struct source *s = find_or_add(r, id);
	char path[64];

	if (!s || s->watch >= 0)
		return;
	fd_close(s->dir);
	s->dir = vmdir_open(r->c, id, NULL);
	if (s->dir < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dir);
	s->watch = inotify_add_watch(r->notify, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
	if (all)
		read_all(r, s);
	else
		skip_all(s);
}

static void unwatch_vm(struct reader *r, struct source *s)
{
	if (s->watch >= 0)
		inotify_rm_watch(r->notify, s->watch);
	s->watch = -1;
	s->fd = fd_close(s->fd);
	s->dir = fd_close(s->dir);
}

/* Ended is asked first: what it wrote last is then there to be read. */
static void look_at_vm(struct reader *r, struct source *s)
{
	bool ended = has_ended(s->dir);

	read_new(r, s);
	if (ended)
		unwatch_vm(r, s);
}

static bool written_since(int dir, int64_t ns)
{
	struct stat st;

	return fstatat(dir, "events", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec >= ns;
}

/* The VMs that there are: those that run are followed, of the others what they have is read. */
static int scan_vms(struct reader *r, struct sm_error *err)
{
	char(*ids)[VM_ID_DIGITS + 1] = NULL;
	size_t count;
	int e = vmdir_list(r->c, &ids, &count, err);

	for (size_t i = 0; e == 0 && i < count; i++) {
		struct source s = {.fd = -1, .watch = -1};

		s.dir = vmdir_open(r->c, ids[i], NULL);
		if (s.dir < 0)
			continue;
		if (r->o->follow && !has_ended(s.dir))
			watch_vm(r, ids[i], r->o->since_ns != 0);
		else if (r->o->since_ns && written_since(s.dir, r->o->since_ns))
			read_all(r, &s);
		fd_close(s.fd);
		fd_close(s.dir);
	}
	free(ids);
	return e;
}

/* Has it written down that a keeper was killed: nobody else might look. */
static void ask_all(struct reader *r)
{
	for (size_t i = 0; i < r->num_vms; i++) {
		struct source *s = r->vms[i];
		struct vm_view v;

		if (s->watch < 0)
			continue;
		if (vm_view(r->c, s->id, &v, NULL) == 0)
			look_at_vm(r, s);
		else
			unwatch_vm(r, s);
	}
}

/* --------------------------------------------------------------------------------------------- follow */

static struct source *by_watch(struct reader *r, int watch)
{
	for (size_t i = 0; i < r->num_vms; i++)
		if (r->vms[i]->watch == watch)
			return r->vms[i];
	return NULL;
}

static void heed(struct reader *r, const struct inotify_event *e)
{
	const char *name = e->len ? e->name : "";
	struct source *s;

	if (e->mask & IN_Q_OVERFLOW) {
		read_new(r, &r->common);
		ask_all(r);
		if (scan_vms(r, NULL) < 0)
			r->error = -EIO;
	} else if (e->wd == r->common_watch) {
		if (streq(name, "events"))
			read_new(r, &r->common);
	} else if (e->wd == r->vms_watch) {
		if (vm_id_valid(name))
			watch_vm(r, name, true);
	} else if ((s = by_watch(r, e->wd))) {
		if (e->mask & IN_IGNORED)
			s->watch = -1;
		else if (streq(name, "events") || streq(name, "exit.json"))
			look_at_vm(r, s);
	}
}

/* 1: the caller wants to stop, or there is nothing more to come. */
static int await(struct reader *r, uint64_t *look_at)
{
	_Alignas(struct inotify_event) char events[8192];
	struct pollfd fds[2] = {{.fd = r->notify, .events = POLLIN}, {.fd = r->o->cancel_fd, .events = POLLIN}};
	uint64_t now = time_now_ns(), wait = *look_at > now ? *look_at - now : 0;
	int64_t left = r->o->until_ns ? r->o->until_ns - wall_clock() : INT64_MAX;
	struct stat home;
	ssize_t n;

	if (left <= 0)
		return 1;
	wait = MIN(MIN(wait, (uint64_t)left), HOME_NS);
	if (poll(fds, 2, (int)(wait / 1000000 + 1)) < 0 && errno != EINTR)
		return -errno;
	if (fds[1].revents)
		return 1;
	while ((n = read(r->notify, events, sizeof(events))) > 0) {
		for (char *p = events; p < events + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(void *)p;

			heed(r, e);
			p += sizeof(*e) + e->len;
		}
	}
	if (fstat(r->common.dir, &home) == 0 && home.st_nlink == 0)
		return -ENOENT;
	if (time_now_ns() >= *look_at) {
		ask_all(r);
		*look_at = time_now_ns() + LOOK_NS;
	}
	return 0;
}

static int start_watching(struct reader *r, struct sm_error *err)
{
	_free_ char *vms = NULL;

	if (!r->o->follow)
		return 0;
	r->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (r->notify < 0)
		return error_sys(err, errno, "watch for events");
	if (asprintf(&vms, "%s/vms", r->c->state_dir) < 0)
		return error_sys(err, ENOMEM, "watch for events");
	r->common_watch = inotify_add_watch(r->notify, r->c->state_dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
	r->vms_watch = inotify_add_watch(r->notify, vms, IN_MOVED_TO | IN_ATTRIB);
	if (r->common_watch < 0 || r->vms_watch < 0)
		return error_sys(err, errno, "watch %s for events", r->c->state_dir);
	return 0;
}

static int run(struct reader *r, struct sm_error *err)
{
	uint64_t look_at = time_now_ns() + LOOK_NS;
	_fd_ int vms = -1;
	int e;

	r->common.dir = open(r->c->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	vms = vmdir_lock(r->c, err); /* makes the directories, if this is the first call of all */
	if (r->common.dir < 0 || vms < 0)
		return vms < 0 ? vms : error_sys(err, errno, "open %s", r->c->state_dir);
	vms = fd_close(vms);
	e = start_watching(r, err);
	if (e < 0)
		return e;
	if (r->o->since_ns)
		read_all(r, &r->common);
	else
		skip_all(&r->common);
	e = scan_vms(r, err);
	if (e < 0)
		return e;
	e = give_out(r);
	while (e == 0 && r->o->follow) {
		e = await(r, &look_at);
		if (e >= 0) {
			int stop = give_out(r);

			e = stop ? stop : e;
		}
	}
	return e < 0 ? error_sys(err, -e, "events") : 0;
}

int sm_events(struct sm_client *client, const struct sm_events_options *options, struct sm_error *err)
{
	static const struct sm_events_options defaults = SM_EVENTS_OPTIONS_INIT;
	struct sm_events_options o = defaults;
	struct reader r = {.c = client, .o = &o, .notify = -1, .vms_watch = -1, .common_watch = -1};
	int e;

	options_copy(&o, sizeof(o), options, options ? options->size : 0);
	if (!o.event)
		return error_set(err, SM_ERROR_INVALID, EINVAL, "events: no function to give them to");
	/* The clock of the machine, where VMs may run, is not quite this one. */
	r.from_ns = o.since_ns ? o.since_ns : wall_clock() - SKEW_NS;
	r.common = (struct source){.dir = -1, .fd = -1, .watch = -1};
	e = run(&r, err);
	for (size_t i = 0; i < r.num_batch; i++)
		vm_event_done(&r.batch[i]);
	free(r.batch);
	for (size_t i = 0; i < r.num_vms; i++) {
		fd_close(r.vms[i]->fd);
		fd_close(r.vms[i]->dir);
		free(r.vms[i]);
	}
	free(r.vms);
	fd_close(r.common.fd);
	fd_close(r.common.dir);
	fd_close(r.notify);
	return e;
}
