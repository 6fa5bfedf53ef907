/* SPDX-License-Identifier: Apache-2.0 */
/* One inotify instance for many. See watchset.h. */
#include "base/watchset.h"

#include <errno.h>
#include <stdlib.h>

static struct watchset_entry **id_bucket(const struct watchset *s, const struct watchset_owner *o, uint32_t id)
{
	return (struct watchset_entry **)&s->by_id[(id + o->salt * 977u) % WATCHSET_BUCKETS];
}

static struct watchset_entry **wd_bucket(const struct watchset *s, int wd)
{
	return (struct watchset_entry **)&s->by_wd[(unsigned)wd % WATCHSET_BUCKETS];
}

static struct watchset_entry *find_id(const struct watchset *s, const struct watchset_owner *o, uint32_t id)
{
	struct watchset_entry *e = *id_bucket(s, o, id);

	while (e && (e->id != id || e->owner != o))
		e = e->id_next;
	return e;
}

struct watchset_entry *watchset_next(const struct watchset *s, int wd, const struct watchset_entry *after)
{
	struct watchset_entry *e = after ? after->wd_next : *wd_bucket(s, wd);

	while (e && e->wd != wd)
		e = e->wd_next;
	return e;
}

static int enter(struct watchset *s, struct watchset_owner *o, uint32_t id, int wd, unsigned most)
{
	struct watchset_entry **of_id = id_bucket(s, o, id), **of_wd = wd_bucket(s, wd), *e = NULL;
	unsigned same = 0;

	while ((e = watchset_next(s, wd, e)))
		same += e->owner == o;
	if (o->count >= most || same >= WATCHSET_SAME)
		return -ENOSPC;
	if (find_id(s, o, id))
		return -EEXIST;
	e = malloc(sizeof(*e));
	if (!e)
		return -ENOMEM;
	*e = (struct watchset_entry){.owner = o, .id = id, .wd = wd, .id_next = *of_id, .wd_next = *of_wd};
	*of_id = *of_wd = e;
	o->count++;
	return 0;
}

/* Its IN_IGNORED finds nobody. */
void watchset_unless_wanted(struct watchset *s, int wd)
{
	if (!watchset_next(s, wd, NULL))
		inotify_rm_watch(s->notify, wd);
}

static void forget(struct watchset *s, struct watchset_entry *e)
{
	struct watchset_entry **at;

	for (at = id_bucket(s, e->owner, e->id); *at != e; at = &(*at)->id_next)
		;
	*at = e->id_next;
	for (at = wd_bucket(s, e->wd); *at != e; at = &(*at)->wd_next)
		;
	*at = e->wd_next;
	e->owner->count--;
	free(e);
}

int watchset_put(struct watchset *s, struct watchset_owner *o, uint32_t id, int wd, unsigned most)
{
	int r = enter(s, o, id, wd, most);

	if (r < 0)
		watchset_unless_wanted(s, wd);
	return r;
}

bool watchset_has(const struct watchset *s, const struct watchset_owner *o, uint32_t id)
{
	return find_id(s, o, id);
}

static void remove_entry(struct watchset *s, struct watchset_entry *e)
{
	int wd = e->wd;

	forget(s, e);
	watchset_unless_wanted(s, wd);
}

void watchset_remove(struct watchset *s, struct watchset_owner *o, uint32_t id)
{
	struct watchset_entry *e = find_id(s, o, id);

	if (e)
		remove_entry(s, e);
}

void watchset_clear(struct watchset *s, struct watchset_owner *o)
{
	for (unsigned i = 0; i < WATCHSET_BUCKETS && o->count; i++) {
		for (struct watchset_entry *e = s->by_id[i], *next; e; e = next) {
			next = e->id_next;
			if (e->owner == o)
				remove_entry(s, e);
		}
	}
}

void watchset_ended(struct watchset *s, int wd)
{
	struct watchset_entry *e;

	while ((e = watchset_next(s, wd, NULL)))
		forget(s, e);
}

unsigned watchset_directories(const struct watchset *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WATCHSET_BUCKETS; i++)
		for (const struct watchset_entry *e = s->by_wd[i]; e; e = e->wd_next)
			n += watchset_next(s, e->wd, NULL) == e;
	return n;
}
