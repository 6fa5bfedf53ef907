/* SPDX-License-Identifier: Apache-2.0 */
/* Directories whose events another kernel has. See watch.h. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/util.h"
#include "fuse/watch_own.h"

/* How old what this kernel has of a file of another may be, at most: it believes names for 0.1 s in a machine. */
#define OLDEST_NS 150000000ULL

void watch_remote_begin(struct watch *w, const struct watch_remote *remote)
{
	pthread_mutex_lock(&w->lock);
	w->remote = *remote;
	for (struct known_node *node = known_next(&w->known, NULL); node; node = known_next(&w->known, node))
		node->refused = false;
	pthread_mutex_unlock(&w->lock);
}

bool watch_remote_ask(struct watch *w, struct known_node *dir)
{
	struct stat st = {0};
	uint64_t valid;
	bool asked;
	char *path;

	if (!w->remote.add || w->next_remote == INT_MAX || w->ops->getattr(w->be, dir->id, false, 0, &st, &valid) < 0)
		return false;
	path = watch_path_of(w, dir->id, NULL);
	asked = path && w->remote.add(w->remote.arg, w->next_remote, path, st.st_ino);
	free(path);
	if (!asked)
		return false;
	known_set_watch(&w->known, dir, w->next_remote++);
	dir->pending = true;
	dir->asked_ns = time_now_ns();
	return true;
}

/* What was believed for long while the watch was pending may have changed unseen. */
static void take_back(struct watch *w, struct findings *f, struct known_node *dir)
{
	for (struct known_name *n = dir->children, *next; n; n = next) {
		next = n->dir_next;
		if (n->pending)
			watch_name_stale(w, f, n, 0, 0);
	}
	if (dir->listed)
		watch_listing_stale(w, f, dir);
}

static void settle(struct known_node *dir)
{
	for (struct known_name *n = dir->children; n; n = n->dir_next)
		n->pending = false;
}

/* What else was recorded meanwhile could not be believed for long: it need not be told. */
static void refuse(struct watch *w, struct findings *f, struct known_node *dir)
{
	known_set_watch(&w->known, dir, -1);
	dir->refused = true;
	dir->attr_known = false;
	w->refused++;
	take_back(w, f, dir);
	for (struct known_name *n = dir->children, *next; n; n = next) {
		next = n->dir_next;
		if (n->node)
			n->node->attr_known = false;
		known_name_remove(&w->known, n);
	}
}

void watch_remote_added(struct watch *w, int wd, bool added, uint64_t quiet_ns,
			void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	struct findings f = {0};
	struct known_node *dir;

	pthread_mutex_lock(&w->lock);
	dir = watch_is_remote(wd) ? known_find_wd(&w->known, wd) : NULL;
	if (dir && dir->pending && !added) {
		refuse(w, &f, dir);
	} else if (dir && dir->pending) {
		dir->pending = false;
		if (quiet_ns < time_now_ns() - dir->asked_ns + OLDEST_NS)
			take_back(w, &f, dir);
		settle(dir);
	}
	pthread_mutex_unlock(&w->lock);
	watch_tell(&f, stale, arg);
}

void watch_remote_events(struct watch *w, const char *buf, size_t len,
			 void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	struct findings f;

	w->news = 0;
	pthread_mutex_lock(&w->lock);
	f = w->late;
	w->late = (struct findings){0};
	watch_handle(w, &f, buf, len);
	pthread_mutex_unlock(&w->lock);
	watch_tell(&f, stale, arg);
}

void watch_remote_end(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	struct findings f = {0};

	pthread_mutex_lock(&w->lock);
	w->remote.add = NULL;
	for (struct known_node *node = known_next(&w->known, NULL); node; node = known_next(&w->known, node)) {
		if (!watch_is_remote(node->wd))
			continue;
		known_set_watch(&w->known, node, -1);
		node->refused = true;
		watch_lose_directory(w, &f, node);
	}
	pthread_mutex_unlock(&w->lock);
	watch_tell(&f, stale, arg);
}
