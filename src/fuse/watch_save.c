/* SPDX-License-Identifier: Apache-2.0 */
/* What the peer may have cached, in a snapshot of it and after. See watch.h. */
#include <errno.h>

#include "fuse/watch_own.h"

void watch_save(struct watch *w, struct buf *out)
{
	pthread_mutex_lock(&w->lock);
	known_save(&w->known, out);
	pthread_mutex_unlock(&w->lock);
}

int watch_load(struct watch *w, struct cursor *in)
{
	int r;

	if (!w)
		return -ENOTSUP;
	pthread_mutex_lock(&w->lock);
	r = known_load(&w->known, in);
	pthread_mutex_unlock(&w->lock);
	return r;
}

/* Where the watch is only asked for, what changes until it is there would be seen by nobody. */
static void compare_directory(struct watch *w, struct findings *f, struct known_node *dir)
{
	if (!watch_ensure(w, dir) || dir->pending) {
		watch_lose_directory(w, f, dir);
		return;
	}
	if (dir->listed && !dir->attr_known)
		watch_listing_stale(w, f, dir);
	if (!dir->names)
		watch_check_node(w, f, dir);
	for (struct known_name *n = dir->children, *next; n; n = next) {
		next = n->dir_next;
		watch_check_name(w, f, n, 0);
	}
}

void watch_compare(struct watch *w, void (*stale)(void *arg, const struct watch_stale *), void *arg)
{
	struct findings f = {0};

	pthread_mutex_lock(&w->lock);
	for (struct known_node *node = known_next(&w->known, NULL); node; node = known_next(&w->known, node))
		if (node->children || node->listed || (node->attr_known && S_ISDIR(node->attr.st_mode)))
			compare_directory(w, &f, node);
		else if (!node->names)
			watch_check_node(w, &f, node);
	pthread_mutex_unlock(&w->lock);
	watch_tell(&f, stale, arg);
}
