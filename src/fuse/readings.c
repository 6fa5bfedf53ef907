/* SPDX-License-Identifier: Apache-2.0 */
/* Directories that are read without having been opened. See readings.h. */
#include "fuse/readings.h"

#include <string.h>

#include "fuse/request.h"

void readings_init(struct fuse_readings *r)
{
	pthread_mutex_init(&r->lock, NULL);
	r->count = 0;
}

void readings_done(struct fuse_readings *r)
{
	pthread_mutex_destroy(&r->lock);
}

static struct fuse_reading take_out_locked(struct fuse_readings *r, unsigned i)
{
	struct fuse_reading taken = r->list[i];
	unsigned left = r->count - i - 1;

	memmove(&r->list[i], &r->list[i + 1], left * sizeof(r->list[0]));
	__atomic_store_n(&r->count, r->count - 1, __ATOMIC_RELAXED);
	return taken;
}

/* offset NULL: whatever it has come to. */
static bool take_out(struct fuse_readings *r, uint64_t nodeid, const uint64_t *offset, struct fuse_reading *ret)
{
	bool found = false;

	if (!__atomic_load_n(&r->count, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->count && !found; i++) {
		found = r->list[i].nodeid == nodeid && (!offset || r->list[i].at == *offset);
		if (found)
			*ret = take_out_locked(r, i);
	}
	pthread_mutex_unlock(&r->lock);
	return found;
}

void readings_forget(struct fuse_session *s, uint64_t nodeid)
{
	struct fuse_reading reading;

	while (take_out(&s->readings, nodeid, NULL, &reading))
		session_releasedir(s, reading.nodeid, reading.fh);
}

void readings_close_all(struct fuse_session *s)
{
	struct fuse_readings *r = &s->readings;

	pthread_mutex_lock(&r->lock);
	for (unsigned i = 0; i < r->count; i++)
		session_releasedir(s, r->list[i].nodeid, r->list[i].fh);
	__atomic_store_n(&r->count, 0, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&r->lock);
}

int reading_take(struct fuse_session *s, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t offset,
		 struct fuse_reading *ret)
{
	struct sm_fs_open o = {0};
	int r = 0;

	/* From the beginning it is always a new one: names made since are to be seen. */
	if (offset && take_out(&s->readings, nodeid, &offset, ret))
		return 0;
	if (s->ops->opendir)
		r = s->ops->opendir(s->be, who, nodeid, &o);
	*ret = (struct fuse_reading){.nodeid = nodeid, .fh = o.fh, .at = offset, .flags = o.flags};
	return r;
}

void reading_put(struct fuse_session *s, const struct fuse_reading *reading, bool over)
{
	struct fuse_readings *r = &s->readings;
	struct fuse_reading closed = *reading;

	if (!over) {
		pthread_mutex_lock(&r->lock);
		over = r->count == FUSE_READINGS;
		if (over)
			closed = take_out_locked(r, 0);
		r->list[r->count] = *reading;
		__atomic_store_n(&r->count, r->count + 1, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&r->lock);
	}
	if (over)
		session_releasedir(s, closed.nodeid, closed.fh);
}
