/* SPDX-License-Identifier: Apache-2.0 */
/* Coherence with what others change. See watch.h. */
#include "fuse/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/mux.h"

#define NAME_VALID_NS (86400ULL * 1000000000ULL)
/* Of attributes, a directory's apart: somebody may give a file a second name where nobody watches, and change it there.
 */
#define ATTR_VALID_NS (30ULL * 1000000000ULL)
#define MAX_NAMES (1u << 18) /* about 40 MiB of records */
#define NAME_EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define EVENTS (NAME_EVENTS | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_ONLYDIR | IN_EXCL_UNLINK)

#define SLOTS 4096u
#define MOST_NEWS 256u /* names that the peer does not know, told of in one step: a flood is not for watchers */

/* What became stale, collected under the lock, told outside of it; names are copies. */
struct findings {
	struct watch_stale *list;
	size_t count, room;
};

struct watch {
	struct sm_fs_backend *be;
	const struct sm_fs_ops *ops;
	int fd;
	pthread_mutex_t lock; /* all below */
	struct known known;
	struct findings late; /* found by a hook: told by the next step */
	bool paths;
	unsigned news; /* told in this step */
	uint64_t refused, events, stale;
	uint64_t lost;	      /* the event at which everything was taken for changed */
	uint64_t last[SLOTS]; /* by hash of a name or a node: the last event that touched it */
};

/* ----------------------------------------------------------------------------------------------- findings */

/* Puts a component before what stands at *at; false: too long. */
static bool prepend(char *buf, size_t *at, const char *name)
{
	size_t len = strlen(name);

	if (*at < len + 1)
		return false;
	if (buf[*at])
		buf[--*at] = '/';
	*at -= len;
	memcpy(buf + *at, name, len);
	return true;
}

/* From the session's root down to the node, or to a name in it. NULL: unknown, or longer than a path may be. */
static char *path_of(struct watch *w, uint64_t id, const char *name)
{
	char buf[PATH_MAX], child[8];
	size_t at = sizeof(buf) - 1;
	const struct known_node *node = known_find(&w->known, id);

	buf[at] = '\0';
	if (name && !prepend(buf, &at, name))
		return NULL;
	for (; node && node->names; node = node->names->parent)
		if (!prepend(buf, &at, node->names->name))
			return NULL;
	if (!node || (node->id & FUSE_MUX_ID_MASK) != SM_FS_ROOT)
		return NULL;
	if (node->id != SM_FS_ROOT) {
		snprintf(child, sizeof(child), "%u", (unsigned)(node->id >> FUSE_MUX_SHIFT) - 1);
		if (!prepend(buf, &at, child))
			return NULL;
	}
	return strdup(buf + at);
}

static void found(struct watch *w, struct findings *f, struct watch_stale what)
{
	if (f->count == f->room) {
		size_t room = MAX(f->room * 2, (size_t)64);
		struct watch_stale *grown = realloc(f->list, room * sizeof(*grown));

		if (!grown)
			return; /* no memory: it stays stale until its validity ends */
		f->list = grown;
		f->room = room;
	}
	if (w->paths)
		what.path = what.name ? path_of(w, what.parent, what.name) : path_of(w, what.nodeid, NULL);
	what.name = what.name ? strdup(what.name) : NULL;
	f->list[f->count++] = what;
	w->stale++;
}

static void findings_done(struct findings *f)
{
	for (size_t i = 0; i < f->count; i++) {
		free((char *)f->list[i].name);
		free((char *)f->list[i].path);
	}
	free(f->list);
	*f = (struct findings){0};
}

/* --------------------------------------------------------------------------------------------- life */

int watch_new(struct sm_fs_backend *be, const struct sm_fs_ops *ops, struct watch **ret)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->be = be;
	w->ops = ops;
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	r = w->fd < 0 ? -errno : known_init(&w->known, MAX_NAMES);
	if (r < 0) {
		fd_close(w->fd);
		free(w);
		return r;
	}
	pthread_mutex_init(&w->lock, NULL);
	*ret = w;
	return 0;
}

struct watch *watch_free(struct watch *w)
{
	if (!w)
		return NULL;
	close(w->fd); /* and with it every watch */
	known_done(&w->known);
	pthread_mutex_destroy(&w->lock);
	findings_done(&w->late);
	free(w);
	return NULL;
}

int watch_fd(const struct watch *w)
{
	return w->fd;
}

void watch_paths(struct watch *w)
{
	w->paths = true;
}

void watch_get_stats(struct watch *w, struct watch_stats *ret)
{
	pthread_mutex_lock(&w->lock);
	*ret = (struct watch_stats){.names = w->known.num_names,
				    .directories = w->known.num_watches,
				    .refused = w->refused,
				    .events = w->events,
				    .stale = w->stale};
	pthread_mutex_unlock(&w->lock);
}

static void unwatch(struct watch *w, struct known_node *node)
{
	int wd = node->wd;

	if (wd < 0)
		return;
	known_set_watch(&w->known, node, -1);
	inotify_rm_watch(w->fd, wd); /* its IN_IGNORED finds nobody */
}

void watch_reset(struct watch *w)
{
	int fd;

	if (!w)
		return;
	/* A new instance under the old number drops all watches and all queued events at once. */
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	pthread_mutex_lock(&w->lock);
	if (fd >= 0)
		dup3(fd, w->fd, O_CLOEXEC);
	fd_close(fd);
	known_done(&w->known);
	findings_done(&w->late);
	if (known_init(&w->known, MAX_NAMES) < 0)
		w->known.max_names = 0;
	pthread_mutex_unlock(&w->lock);
}

/* -------------------------------------------------------------------------------------------------- hooks */

/* The slot of a name in a directory, or of a node (name ""). Two that share one are only asked about more often. */
static uint64_t *slot(struct watch *w, uint64_t id, const char *name)
{
	return &w->last[(known_hash(id, name) >> 32) % SLOTS];
}

static bool untouched(struct watch *w, const struct watch_mark *mark, uint64_t id, const char *name)
{
	return *slot(w, id, name) <= mark->at && w->lost <= mark->at;
}

/* Watches a directory from now on. Under the lock; the backend calls nothing back. */
static bool ensure_watched(struct watch *w, struct known_node *dir)
{
	int wd;

	if (dir->wd >= 0)
		return true;
	if (dir->refused)
		return false;
	wd = w->ops->watch(w->be, dir->id, w->fd, EVENTS);
	if (wd <= 0) {
		dir->refused = true;
		w->refused++;
		return false;
	}
	if (known_find_wd(&w->known, wd)) /* one directory under two ids: the second goes without */
		return false;
	known_set_watch(&w->known, dir, wd);
	return true;
}

static struct watch_mark begin(struct watch *w, uint64_t dir, bool making)
{
	struct watch_mark mark = {.nodeid = dir};
	struct known_node *node;

	if (!w)
		return mark;
	pthread_mutex_lock(&w->lock);
	node = w->known.num_names < w->known.max_names ? known_enter(&w->known, dir) : known_find(&w->known, dir);
	if (node && ensure_watched(w, node)) {
		mark.watched = true;
		mark.at = w->events;
	}
	if (node && making) {
		mark.attr_known = node->attr_known;
		node->attr_known = false;
	}
	pthread_mutex_unlock(&w->lock);
	return mark;
}

struct watch_mark watch_begin(struct watch *w, uint64_t dir)
{
	return begin(w, dir, false);
}

struct watch_mark watch_making(struct watch *w, uint64_t dir)
{
	return begin(w, dir, true);
}

/* Attributes may be believed where every change of them makes an event: of a directory, those of its own watch; of
 * anything else, those of the only directory that it is in. */
static bool attr_is_watched(const struct known_node *node, const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return node->wd >= 0;
	return st->st_nlink == 1 && node->names && node->names->parent->wd >= 0;
}

static void record_attr(struct known_node *node, const struct stat *st, uint64_t *valid_ns)
{
	node->attr_known = *valid_ns && attr_is_watched(node, st);
	if (!node->attr_known)
		return;
	node->attr = *st;
	node->written = false;
	*valid_ns = MAX(*valid_ns, S_ISDIR(st->st_mode) ? NAME_VALID_NS : ATTR_VALID_NS);
}

void watch_entry(struct watch *w, const struct watch_mark *mark, const char *name, struct sm_fs_entry *e)
{
	struct known_node *dir, *node = NULL;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	dir = mark->watched ? known_find(&w->known, mark->nodeid) : NULL;
	if (e->nodeid)
		node = dir && dir->wd >= 0 ? known_enter(&w->known, e->nodeid) : known_find(&w->known, e->nodeid);
	if (node)
		node->refs++;
	if (dir && dir->wd >= 0 && untouched(w, mark, dir->id, name) && e->entry_valid_ns && (node || !e->nodeid) &&
	    known_name_set(&w->known, dir, name, node))
		e->entry_valid_ns = MAX(e->entry_valid_ns, NAME_VALID_NS);
	if (node && untouched(w, mark, dir ? dir->id : 0, name) && untouched(w, mark, node->id, ""))
		record_attr(node, &e->attr, &e->attr_valid_ns);
	pthread_mutex_unlock(&w->lock);
}

struct watch_mark watch_begin_attr(struct watch *w, uint64_t nodeid)
{
	struct watch_mark mark = {.nodeid = nodeid};
	struct known_node *node;

	if (!w)
		return mark;
	pthread_mutex_lock(&w->lock);
	node = known_find(&w->known, nodeid);
	mark.watched = node && (node->names || node->wd >= 0); /* what events of it there are will be seen */
	mark.at = w->events;
	pthread_mutex_unlock(&w->lock);
	return mark;
}

void watch_attr(struct watch *w, const struct watch_mark *mark, const struct stat *st, uint64_t *valid_ns)
{
	struct known_node *node;

	if (!w || !mark->watched)
		return;
	pthread_mutex_lock(&w->lock);
	node = known_find(&w->known, mark->nodeid);
	if (node && untouched(w, mark, node->id, ""))
		record_attr(node, st, valid_ns);
	pthread_mutex_unlock(&w->lock);
}

void watch_written(struct watch *w, uint64_t nodeid)
{
	struct known_node *node;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	node = known_find(&w->known, nodeid);
	if (node)
		node->written = true;
	pthread_mutex_unlock(&w->lock);
}

/* A name's record, and the directory as the peer changed it; NULL: none. */
static struct known_name *changed_name(struct watch *w, uint64_t dir, const char *name)
{
	struct known_node *node = known_find(&w->known, dir);

	if (!node)
		return NULL;
	node->attr_known = false;
	return known_name_find(&w->known, node, name);
}

void watch_removed(struct watch *w, uint64_t dir, const char *name)
{
	struct known_name *n;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	n = changed_name(w, dir, name);
	if (n) {
		if (n->node)
			n->node->attr_known = false; /* its link count */
		known_name_remove(&w->known, n);
	}
	pthread_mutex_unlock(&w->lock);
}

/* The peer's dentry has moved with the validity that it had: where that cannot be watched, it has to go. */
static void place(struct watch *w, uint64_t dir, const char *name, struct known_node *node)
{
	struct known_node *to = known_find(&w->known, dir);

	if (node && (!to || to->wd < 0 || !known_name_set(&w->known, to, name, node)))
		found(w, &w->late, (struct watch_stale){.what = WATCH_NAME, .parent = dir, .name = name});
	if (node)
		node->attr_known = false; /* its change time */
}

void watch_renamed(struct watch *w, uint64_t dir, const char *name, uint64_t new_dir, const char *new_name,
		   bool exchange)
{
	struct known_node *moved, *back;
	struct known_name *n;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	n = changed_name(w, dir, name);
	moved = n ? n->node : NULL;
	if (n)
		known_name_remove(&w->known, n);
	n = changed_name(w, new_dir, new_name);
	back = n ? n->node : NULL;
	if (n)
		known_name_remove(&w->known, n);
	place(w, new_dir, new_name, moved);
	if (exchange)
		place(w, dir, name, back);
	else if (back)
		back->attr_known = false; /* its link count */
	pthread_mutex_unlock(&w->lock);
}

uint64_t watch_child(struct watch *w, uint64_t dir, const char *name)
{
	const struct known_node *node;
	const struct known_name *n;
	uint64_t id;

	pthread_mutex_lock(&w->lock);
	node = known_find(&w->known, dir);
	n = node ? known_name_find(&w->known, node, name) : NULL;
	id = n && n->node ? n->node->id : 0;
	pthread_mutex_unlock(&w->lock);
	return id;
}

void watch_forget(struct watch *w, uint64_t nodeid, uint64_t count)
{
	struct known_node *node;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	node = known_find(&w->known, nodeid);
	if (node && nodeid != SM_FS_ROOT) {
		node->refs -= MIN(node->refs, count);
		if (!node->refs) {
			unwatch(w, node);
			known_drop(&w->known, node);
		}
	}
	pthread_mutex_unlock(&w->lock);
}

/* ------------------------------------------------------------------------------------------------- events */

static void name_stale(struct watch *w, struct findings *f, struct known_name *n, mode_t made, mode_t gone)
{
	found(w, f,
	      (struct watch_stale){
		      .what = WATCH_NAME, .parent = n->parent->id, .name = n->name, .made = made, .gone = gone});
	known_name_remove(&w->known, n);
}

static void attr_stale(struct watch *w, struct findings *f, struct known_node *node, bool contents)
{
	found(w, f, (struct watch_stale){.what = contents ? WATCH_CONTENTS : WATCH_ATTR, .nodeid = node->id});
	node->attr_known = false;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Compares what the peer was shown with what is there now. */
static void check_attr(struct watch *w, struct findings *f, struct known_node *node, const struct stat *now)
{
	const struct stat *a = &node->attr;

	if (!node->attr_known)
		return;
	if (!node->written && (a->st_size != now->st_size || !same_time(&a->st_mtim, &now->st_mtim)))
		attr_stale(w, f, node, true);
	else if (a->st_mode != now->st_mode || a->st_uid != now->st_uid || a->st_gid != now->st_gid ||
		 a->st_nlink != now->st_nlink || (!node->written && !same_time(&a->st_ctim, &now->st_ctim)))
		attr_stale(w, f, node, false);
}

static void check_node(struct watch *w, struct findings *f, struct known_node *node)
{
	struct stat now = {0};
	uint64_t valid;

	if (!node->attr_known)
		return;
	if (w->ops->getattr(w->be, node->id, false, 0, &now, &valid) < 0)
		attr_stale(w, f, node, true);
	else
		check_attr(w, f, node, &now);
}

/* What was seen of the directory while the name was being made has been taken for the peer's own doing. */
void watch_not_made(struct watch *w, const struct watch_mark *mark)
{
	struct known_node *dir;

	if (!w || !mark->attr_known)
		return;
	pthread_mutex_lock(&w->lock);
	dir = known_find(&w->known, mark->nodeid);
	if (dir && !dir->attr_known) {
		dir->attr_known = true;
		check_node(w, &w->late, dir);
	}
	pthread_mutex_unlock(&w->lock);
}

/* Looks a name up as the peer would; nodeid 0: it is absent. */
static void look(struct watch *w, const struct known_node *dir, const char *name, struct sm_fs_entry *ret)
{
	static const struct sm_fs_caller who = {0};

	*ret = (struct sm_fs_entry){0};
	if (w->ops->lookup(w->be, &who, dir->id, name, ret) < 0)
		ret->nodeid = 0;
	else if (ret->nodeid && w->ops->forget)
		w->ops->forget(w->be, ret->nodeid, 1);
}

/* What the peer's watchers may be told to have come: with its kernel's own means, none of which makes a mount. */
static mode_t can_be_told(const struct sm_fs_entry *e)
{
	mode_t type = e->attr.st_mode & S_IFMT;

	return e->nodeid && !e->submount && (S_ISREG(type) || S_ISDIR(type) || S_ISLNK(type)) ? type : 0;
}

bool watch_is_dead(struct watch *w, uint64_t nodeid)
{
	struct stat now = {0};
	uint64_t valid;

	return w->ops->getattr(w->be, nodeid, false, 0, &now, &valid) == 0 && now.st_nlink == 0;
}

/*
 * A directory that is told to be gone is dead to the peer's kernel for good. One that was only moved would be dead
 * under its new name, too: so only one that certainly is.
 */
static mode_t has_gone(struct watch *w, const struct known_node *node, uint32_t mask)
{
	if (!node || !(mask & (IN_DELETE | IN_MOVED_FROM)))
		return 0;
	if (!(mask & IN_ISDIR))
		return S_IFREG;
	return watch_is_dead(w, node->id) ? S_IFDIR : 0;
}

static void check_name(struct watch *w, struct findings *f, struct known_name *n, uint32_t mask)
{
	struct known_node *node = n->node;
	struct sm_fs_entry e;

	look(w, n->parent, n->name, &e);
	if (e.nodeid != (node ? node->id : 0))
		name_stale(w, f, n, can_be_told(&e), e.nodeid ? 0 : has_gone(w, node, mask));
	else if (node)
		check_attr(w, f, node, &e.attr);
}

/* The directory is not watched any more: whatever the peer has of it may become stale unseen. */
static void lose_directory(struct watch *w, struct findings *f, struct known_node *dir)
{
	for (struct known_name *n = dir->children, *next; n; n = next) {
		next = n->dir_next;
		if (n->node && n->node->attr_known)
			attr_stale(w, f, n->node, true);
		name_stale(w, f, n, 0, 0);
	}
	if (dir->attr_known)
		attr_stale(w, f, dir, true);
}

static void lose_all(struct watch *w, struct findings *f)
{
	w->lost = w->events;
	for (struct known_node *node = known_next(&w->known, NULL); node; node = known_next(&w->known, node))
		lose_directory(w, f, node);
}

/*
 * A name that the peer does not know has appeared: maybe one more of a file that it does, and news in any case. (Where
 * no more names are recorded, it may be the peer's own.)
 */
static void check_new(struct watch *w, struct findings *f, const struct known_node *dir, const char *name)
{
	struct known_node *node;
	struct sm_fs_entry e;

	look(w, dir, name, &e);
	node = e.nodeid && e.attr.st_nlink > 1 ? known_find(&w->known, e.nodeid) : NULL;
	if (node && !S_ISDIR(e.attr.st_mode))
		check_attr(w, f, node, &e.attr);
	if (w->paths && can_be_told(&e) && w->known.num_names < w->known.max_names && w->news++ < MOST_NEWS)
		found(w, f, (struct watch_stale){.parent = dir->id, .name = name, .made = can_be_told(&e)});
}

/* mask: of this event and of those before it that were about the same name. */
static void handle(struct watch *w, struct findings *f, const struct inotify_event *ev, uint32_t mask)
{
	struct known_node *dir;
	struct known_name *n;

	w->events++;
	if (mask & IN_Q_OVERFLOW) {
		lose_all(w, f);
		return;
	}
	dir = known_find_wd(&w->known, ev->wd);
	if (!dir)
		return;
	if (mask & (IN_IGNORED | IN_UNMOUNT)) {
		known_set_watch(&w->known, dir, -1);
		lose_directory(w, f, dir);
		return;
	}
	if (!ev->len || mask & NAME_EVENTS) {
		*slot(w, dir->id, "") = w->events;
		check_node(w, f, dir);
	}
	if (!ev->len)
		return;
	*slot(w, dir->id, ev->name) = w->events;
	n = known_name_find(&w->known, dir, ev->name);
	if (n && n->node)
		*slot(w, n->node->id, "") = w->events;
	if (n && mask & NAME_EVENTS)
		check_name(w, f, n, mask);
	else if (n && n->node)
		check_node(w, f, n->node);
	else if (!n && mask & (IN_CREATE | IN_MOVED_TO) && (w->paths || !(mask & IN_ISDIR)))
		check_new(w, f, dir, ev->name);
}

/*
 * One buffer of events. Those in a row about one name (a file made, written, closed) cost one look: at what it has
 * come to.
 */
static void handle_all(struct watch *w, struct findings *f, const char *buf, size_t len)
{
	uint32_t mask = 0;

	for (size_t at = 0; at < len;) {
		const struct inotify_event *ev = (const struct inotify_event *)(buf + at), *next;

		at += sizeof(*ev) + ev->len;
		next = at < len ? (const struct inotify_event *)(buf + at) : NULL;
		mask |= ev->mask;
		if (next && next->wd == ev->wd && next->len == ev->len && memcmp(next->name, ev->name, ev->len) == 0)
			continue;
		handle(w, f, ev, mask);
		mask = 0;
	}
}

int watch_step(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	w->news = 0;
	do {
		struct findings f;

		n = read(w->fd, buf, sizeof(buf));
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		pthread_mutex_lock(&w->lock);
		f = w->late;
		w->late = (struct findings){0};
		if (n > 0)
			handle_all(w, &f, buf, (size_t)n);
		pthread_mutex_unlock(&w->lock);
		for (size_t i = 0; i < f.count; i++)
			if (f.list[i].nodeid || f.list[i].name)
				stale(arg, &f.list[i]);
		findings_done(&f);
	} while (n > 0);
	return 0;
}
