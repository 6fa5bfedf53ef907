/* SPDX-License-Identifier: Apache-2.0 */
/* Coherence with what others change. See watch.h. */
#include "fuse/watch_own.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "fuse/mux.h"

#define NAME_VALID_NS (86400ULL * 1000000000ULL)
/* Of attributes, a directory's apart: somebody may give a file a second name where nobody watches, and change it there.
 */
#define ATTR_VALID_NS (30ULL * 1000000000ULL)
#define PENDING_VALID_NS 100000000ULL /* of what is asked for before its watch, elsewhere, is there */
#define MAX_NAMES (1u << 18)	      /* about 40 MiB of records */

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

char *watch_path_of(struct watch *w, uint64_t id, const char *name)
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

void watch_found(struct watch *w, struct findings *f, struct watch_stale what)
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
		what.path = what.name ? watch_path_of(w, what.parent, what.name) : watch_path_of(w, what.nodeid, NULL);
	what.name = what.name ? strdup(what.name) : NULL;
	f->list[f->count++] = what;
	w->stale++;
}

void watch_findings_done(struct findings *f)
{
	for (size_t i = 0; i < f->count; i++) {
		free((char *)f->list[i].name);
		free((char *)f->list[i].path);
	}
	free(f->list);
	*f = (struct findings){0};
}

/* --------------------------------------------------------------------------------------------- life */

static int poll_for(struct watch *w, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN};

	return epoll_ctl(w->fd, EPOLL_CTL_ADD, fd, &ev);
}

int watch_new(struct sm_fs_backend *be, const struct sm_fs_ops *ops, struct watch **ret)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->be = be;
	w->ops = ops;
	w->next_remote = WATCH_REMOTE_FIRST;
	watch_feeds_init(w);
	w->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	w->fd = epoll_create1(EPOLL_CLOEXEC);
	r = w->notify < 0 || w->fd < 0 || poll_for(w, w->notify) < 0 ? -errno : known_init(&w->known, MAX_NAMES);
	if (r < 0) {
		fd_close(w->notify);
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
	close(w->notify); /* and with it every watch */
	watch_feeds_done(w);
	close(w->fd);
	known_done(&w->known);
	pthread_mutex_destroy(&w->lock);
	watch_findings_done(&w->late);
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
	if (watch_is_remote(wd))
		w->remote.remove(w->remote.arg, wd);
	else if (watch_is_feed(wd))
		watch_feed_remove(w, wd);
	else
		inotify_rm_watch(w->notify, wd); /* its IN_IGNORED finds nobody */
}

void watch_reset(struct watch *w)
{
	int fd;

	if (!w)
		return;
	/* A new instance under the old number drops all watches and all queued events at once. */
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	pthread_mutex_lock(&w->lock);
	if (fd >= 0 && dup3(fd, w->notify, O_CLOEXEC) >= 0)
		(void)poll_for(w, w->notify);
	fd_close(fd);
	watch_feeds_done(w);
	if (w->remote.add)
		w->remote.reset(w->remote.arg);
	known_done(&w->known);
	watch_findings_done(&w->late);
	if (known_init(&w->known, MAX_NAMES) < 0)
		w->known.max_names = 0;
	pthread_mutex_unlock(&w->lock);
}

/* -------------------------------------------------------------------------------------------------- hooks */

uint64_t *watch_slot(struct watch *w, uint64_t id, const char *name)
{
	return &w->last[(known_hash(id, name) >> 32) % WATCH_SLOTS];
}

static bool untouched(struct watch *w, const struct watch_mark *mark, uint64_t id, const char *name)
{
	return *watch_slot(w, id, name) <= mark->at && w->lost <= mark->at;
}

bool watch_ensure(struct watch *w, struct known_node *dir)
{
	int wd;

	if (dir->wd >= 0)
		return true;
	if (dir->refused)
		return false;
	wd = watch_feeds_ask(w, dir->id);
	if (wd == -EREMOTE && watch_remote_ask(w, dir))
		return true;
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

enum intent { TO_LOOK_UP, TO_LIST, TO_MAKE };

static struct watch_mark begin(struct watch *w, uint64_t dir, enum intent intent)
{
	struct watch_mark mark = {.nodeid = dir};
	struct known_node *node;

	if (!w)
		return mark;
	pthread_mutex_lock(&w->lock);
	node = w->known.num_names < w->known.max_names ? known_enter(&w->known, dir) : known_find(&w->known, dir);
	if (node && watch_ensure(w, node)) {
		mark.watched = true;
		mark.at = w->events;
	}
	mark.written = w->written;
	mark.making = intent == TO_MAKE;
	if (node && intent == TO_MAKE) {
		mark.attr_known = node->attr_known;
		mark.listed = node->listed;
		node->attr_known = node->listed = false;
	}
	if (mark.watched && intent == TO_LIST)
		node->listed = true;
	pthread_mutex_unlock(&w->lock);
	return mark;
}

struct watch_mark watch_begin(struct watch *w, uint64_t dir)
{
	return begin(w, dir, TO_LOOK_UP);
}

struct watch_mark watch_listing(struct watch *w, uint64_t dir, bool kept)
{
	return begin(w, dir, kept ? TO_LIST : TO_LOOK_UP);
}

struct watch_mark watch_making(struct watch *w, uint64_t dir)
{
	return begin(w, dir, TO_MAKE);
}

/* Attributes may be believed where every change of them makes an event: of a directory, those of its own watch; of
 * anything else, those of the only directory that it is in. NULL: nowhere. */
static const struct known_node *attr_watcher(const struct known_node *node, const struct stat *st)
{
	const struct known_node *dir = S_ISDIR(st->st_mode)		  ? node
				       : st->st_nlink == 1 && node->names ? node->names->parent
									  : NULL;

	return dir && dir->wd >= 0 ? dir : NULL;
}

/* How long it may be believed. Where the watch is pending it is recorded, so that later events can be told, but not
 * believed for long: what happens until then is not seen. */
static uint64_t validity(const struct known_node *dir, uint64_t given, uint64_t watched)
{
	return dir->pending ? MIN(given, PENDING_VALID_NS) : MAX(given, watched);
}

/* A name that the peer has looked up is believed for long even there, until the watch's answer says better. (One that
 * it makes need not be: what makes many would be told of all of them.) */
static uint64_t name_validity(struct watch *w, const struct watch_mark *mark, struct known_node *dir, const char *name,
			      uint64_t given)
{
	if (!dir->pending || mark->making)
		return validity(dir, given, NAME_VALID_NS);
	known_name_find(&w->known, dir, name)->pending = true;
	return NAME_VALID_NS;
}

static void record_attr(struct known_node *node, const struct stat *st, uint64_t *valid_ns)
{
	const struct known_node *dir = attr_watcher(node, st);

	node->attr_known = *valid_ns && dir;
	if (!node->attr_known)
		return;
	node->attr = *st;
	node->written = false;
	*valid_ns = validity(dir, *valid_ns, S_ISDIR(st->st_mode) ? NAME_VALID_NS : ATTR_VALID_NS);
}

void watch_entry(struct watch *w, const struct watch_mark *mark, const char *name, struct sm_fs_entry *e)
{
	struct known_node *dir, *node = NULL;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	dir = mark->watched ? known_find(&w->known, mark->nodeid) : NULL;
	if (e->nodeid)
		node = dir && dir->wd >= 0 ? known_enter(&w->known, e->nodeid)
					   : watch_find_told(w, e->nodeid, &e->attr, e->attr_valid_ns);
	if (node) {
		node->refs++;
		watch_length_told(node, mark, &e->attr, e->attr_valid_ns);
	}
	if (dir && dir->wd >= 0 && untouched(w, mark, dir->id, name) && e->entry_valid_ns && (node || !e->nodeid) &&
	    known_name_set(&w->known, dir, name, node))
		e->entry_valid_ns = name_validity(w, mark, dir, name, e->entry_valid_ns);
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
	mark.written = w->written;
	pthread_mutex_unlock(&w->lock);
	return mark;
}

void watch_attr(struct watch *w, const struct watch_mark *mark, const struct stat *st, uint64_t *valid_ns)
{
	struct known_node *node;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	node = watch_find_told(w, mark->nodeid, st, *valid_ns);
	if (node)
		watch_length_told(node, mark, st, *valid_ns);
	if (node && mark->watched && untouched(w, mark, node->id, ""))
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
	if (node) {
		node->written = true;
		node->length_told = false;
		node->written_at = ++w->written;
	}
	pthread_mutex_unlock(&w->lock);
}

void watch_length_set(struct watch *w, struct watch_mark *mark)
{
	struct known_node *node;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	mark->written = ++w->written;
	node = known_find(&w->known, mark->nodeid);
	if (node)
		node->written_at = mark->written;
	pthread_mutex_unlock(&w->lock);
}

/* A name's record, and the directory as the peer changed it; NULL: none. */
static struct known_name *changed_name(struct watch *w, uint64_t dir, const char *name)
{
	struct known_node *node = known_find(&w->known, dir);

	if (!node)
		return NULL;
	node->attr_known = node->listed = false;
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
		if (n->node) {
			n->node->attr_known = false; /* its link count */
			n->node->unlinked = true;
		}
		known_name_remove(&w->known, n);
	}
	pthread_mutex_unlock(&w->lock);
}

/* The peer's dentry has moved with the validity that it had: where that cannot be watched, it has to go. */
static void place(struct watch *w, uint64_t dir, const char *name, struct known_node *node)
{
	struct known_node *to = known_find(&w->known, dir);

	if (node && (!to || to->wd < 0 || !known_name_set(&w->known, to, name, node) || to->pending))
		watch_found(w, &w->late, (struct watch_stale){.what = WATCH_NAME, .parent = dir, .name = name});
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
	if (exchange) {
		place(w, dir, name, back);
	} else if (back) {
		back->attr_known = false; /* its link count */
		back->unlinked = true;
	}
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

/* What was seen of the directory while the name was being made has been taken for the peer's own doing. */
void watch_not_made(struct watch *w, const struct watch_mark *mark)
{
	struct known_node *dir;

	if (!w || !(mark->attr_known || mark->listed))
		return;
	pthread_mutex_lock(&w->lock);
	dir = known_find(&w->known, mark->nodeid);
	if (dir && mark->listed && !untouched(w, mark, dir->id, ""))
		watch_listing_stale(w, &w->late, dir);
	else if (dir && mark->listed)
		dir->listed = true;
	if (dir && mark->attr_known && !dir->attr_known) {
		dir->attr_known = true;
		watch_check_node(w, &w->late, dir);
	}
	pthread_mutex_unlock(&w->lock);
}
