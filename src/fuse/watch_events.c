/* SPDX-License-Identifier: Apache-2.0 */
/* What the events of watched directories say of what the peer has. See watch.h. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "fuse/watch_own.h"

#define MOST_NEWS 256u /* names that the peer does not know, told of in one step: a flood is not for watchers */

void watch_name_stale(struct watch *w, struct findings *f, struct known_name *n, mode_t made, mode_t gone)
{
	watch_found(w, f,
		    (struct watch_stale){
			    .what = WATCH_NAME, .parent = n->parent->id, .name = n->name, .made = made, .gone = gone});
	known_name_remove(&w->known, n);
}

static void attr_stale(struct watch *w, struct findings *f, struct known_node *node, bool contents)
{
	watch_found(w, f, (struct watch_stale){.what = contents ? WATCH_CONTENTS : WATCH_ATTR, .nodeid = node->id});
	node->attr_known = false;
}

void watch_listing_stale(struct watch *w, struct findings *f, struct known_node *dir)
{
	watch_found(w, f, (struct watch_stale){.what = WATCH_LISTING, .nodeid = dir->id});
	dir->attr_known = dir->listed = false;
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

void watch_check_node(struct watch *w, struct findings *f, struct known_node *node)
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

void watch_check_name(struct watch *w, struct findings *f, struct known_name *n, uint32_t mask)
{
	struct known_node *node = n->node;
	struct sm_fs_entry e;

	look(w, n->parent, n->name, &e);
	if (e.nodeid != (node ? node->id : 0))
		watch_name_stale(w, f, n, can_be_told(&e), e.nodeid ? 0 : has_gone(w, node, mask));
	else if (node)
		check_attr(w, f, node, &e.attr);
}

void watch_lose_directory(struct watch *w, struct findings *f, struct known_node *dir)
{
	for (struct known_name *n = dir->children, *next; n; n = next) {
		next = n->dir_next;
		if (n->node && n->node->attr_known)
			attr_stale(w, f, n->node, true);
		watch_name_stale(w, f, n, 0, 0);
	}
	if (dir->listed)
		watch_listing_stale(w, f, dir);
	else if (dir->attr_known)
		attr_stale(w, f, dir, true);
}

static void lose_all(struct watch *w, struct findings *f)
{
	w->lost = w->events;
	for (struct known_node *node = known_next(&w->known, NULL); node; node = known_next(&w->known, node))
		watch_lose_directory(w, f, node);
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
		watch_found(w, f, (struct watch_stale){.parent = dir->id, .name = name, .made = can_be_told(&e)});
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
		watch_lose_directory(w, f, dir);
		return;
	}
	if (!ev->len || mask & WATCH_NAME_EVENTS) {
		*watch_slot(w, dir->id, "") = w->events;
		if (dir->listed && mask & WATCH_NAME_EVENTS)
			watch_listing_stale(w, f, dir);
		else
			watch_check_node(w, f, dir);
	}
	if (!ev->len)
		return;
	*watch_slot(w, dir->id, ev->name) = w->events;
	n = known_name_find(&w->known, dir, ev->name);
	if (n && n->node)
		*watch_slot(w, n->node->id, "") = w->events;
	if (n && mask & WATCH_NAME_EVENTS)
		watch_check_name(w, f, n, mask);
	else if (n && n->node)
		watch_check_node(w, f, n->node);
	else if (!n && mask & (IN_CREATE | IN_MOVED_TO) && (w->paths || !(mask & IN_ISDIR)))
		check_new(w, f, dir, ev->name);
}

/* Those in a row about one name (a file made, written, closed) cost one look: at what it has come to. */
void watch_handle(struct watch *w, struct findings *f, const char *buf, size_t len)
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

void watch_tell(struct findings *f, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	for (size_t i = 0; i < f->count; i++)
		if (f->list[i].nodeid || f->list[i].name)
			stale(arg, &f->list[i]);
	watch_findings_done(f);
}

static int step_inotify(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	do {
		struct findings f;

		n = read(w->notify, buf, sizeof(buf));
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		pthread_mutex_lock(&w->lock);
		f = w->late;
		w->late = (struct findings){0};
		if (n > 0)
			watch_handle(w, &f, buf, (size_t)n);
		pthread_mutex_unlock(&w->lock);
		watch_tell(&f, stale, arg);
	} while (n > 0);
	return 0;
}

static void step_feeds(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	bool more;

	do {
		struct findings f = {0};

		pthread_mutex_lock(&w->lock);
		more = watch_feeds_step(w, &f);
		pthread_mutex_unlock(&w->lock);
		watch_tell(&f, stale, arg);
	} while (more);
}

int watch_step(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	int r;

	w->news = 0;
	r = step_inotify(w, stale, arg);
	step_feeds(w, stale, arg);
	return r;
}
