/* SPDX-License-Identifier: Apache-2.0 */
/* A session in a snapshot of its peer. See session_save.h. */
#include "fuse/session_save.h"

#include <errno.h>

#include "base/util.h"
#include "fuse/request.h"

#define VERSION 1
#define HANDLE_RECORD 21U

static void save_handles(struct fuse_session *s, const struct fuse_session_files *files, struct buf *out)
{
	struct fuse_handles *h = &s->handles;

	pthread_rwlock_rdlock(&h->lock);
	buf_put_u32(out, h->used);
	for (uint32_t i = 0; i < h->count; i++) {
		const struct fuse_handle *slot = &h->slots[i];

		if (!slot->used)
			continue;
		buf_put_u32(out, i);
		buf_put_u32(out, slot->generation);
		buf_put_u64(out, slot->nodeid);
		buf_put_u8(out, slot->is_dir);
		buf_put_u32(out, slot->is_dir ? 0 : files->flags(files->arg, slot->nodeid, slot->fh));
	}
	pthread_rwlock_unlock(&h->lock);
}

int fuse_session_save(struct fuse_session *s, const struct fuse_session_files *files, struct buf *out)
{
	if (s->dax || s->backing)
		return -EOPNOTSUPP;
	buf_put_u32(out, VERSION);
	buf_put_u32(out, (uint32_t)__atomic_load_n(&s->state, __ATOMIC_ACQUIRE));
	buf_put_u64(out, s->features);
	buf_put_u32(out, s->minor);
	buf_put_u32(out, s->options.max_write);
	save_handles(s, files, out);
	buf_put_u8(out, s->watch != NULL);
	if (s->watch)
		watch_save(s->watch, out);
	return out->error;
}

/* How each is open stands in the place of the backend's handle until it has one. */
static int load_handles(struct fuse_session *s, struct cursor *in)
{
	uint32_t count = cursor_u32(in);
	int r = count > in->left / HANDLE_RECORD ? -EPROTO : 0;

	for (uint32_t i = 0; i < count && r == 0; i++) {
		struct fuse_handle h = {0};
		uint32_t slot = cursor_u32(in);

		h.generation = cursor_u32(in);
		h.nodeid = cursor_u64(in);
		h.is_dir = cursor_u8(in);
		h.fh = cursor_u32(in);
		r = in->bad || slot >= s->options.max_handles ? -EPROTO : handles_restore(&s->handles, slot, &h);
	}
	handles_restored(&s->handles);
	return r;
}

int fuse_session_load(struct fuse_session *s, struct cursor *in)
{
	uint32_t state, max_write;
	int r;

	if (cursor_u32(in) != VERSION || s->state != STATE_NEW || s->handles.used || s->dax || s->backing)
		return -ENOTSUP;
	state = cursor_u32(in);
	s->features = cursor_u64(in);
	s->minor = cursor_u32(in);
	max_write = cursor_u32(in);
	if (in->bad || state > STATE_ENDED || state == STATE_INIT)
		return -EPROTO;
	/* What the peer was promised has to hold. (That it opens no directories, it can be anywhere.) */
	if (max_write != s->options.max_write ||
	    s->features & ~(session_wanted_features(s) | FUSE_NO_OPENDIR_SUPPORT) ||
	    (state == STATE_READY && s->minor < SESSION_LEAST_MINOR) || s->minor > SESSION_MINOR)
		return -ENOTSUP;
	r = load_handles(s, in);
	if (r == 0 && cursor_u8(in))
		r = watch_load(s->watch, in);
	if (r == 0 && in->bad)
		r = -EPROTO;
	if (r < 0) {
		fuse_session_reopen(s, NULL);
		return r;
	}
	__atomic_store_n(&s->state, (int)state, __ATOMIC_RELEASE);
	return 0;
}

void fuse_session_reopen(struct fuse_session *s, const struct fuse_session_files *files)
{
	struct fuse_handles *h = &s->handles;

	pthread_rwlock_wrlock(&h->lock);
	for (uint32_t i = 0; i < h->count; i++) {
		struct fuse_handle *slot = &h->slots[i];
		uint32_t flags = (uint32_t)slot->fh;

		if (!slot->used)
			continue;
		slot->fh = 0;
		if (files && files->open(files->arg, slot->nodeid, slot->is_dir, flags, &slot->fh) == 0)
			continue;
		slot->used = false;
		slot->generation++;
		slot->next_free = h->free_head;
		h->free_head = i;
		h->used--;
	}
	pthread_rwlock_unlock(&h->lock);
}
