/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of a VM as the tar stream of an image's layer. The guest says what they are, and is not trusted: what comes
 * of it is the layer of an image, with which everybody is as careful as with one from anywhere else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "lib/copy.h"

#define PATH_ROOM 8192u
#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"

/* A directory that is open. */
struct level {
	size_t len;		/* of the path */
	bool held;		/* nothing was said of it yet */
	struct copy_entry what; /* held: what there is to say, of its own */
};

struct layer_tar {
	struct copy_in in;
	struct copy_tar *tar;
	char *const *points;
	char path[PATH_ROOM];
	struct level levels[COPY_MAX_DEPTH + 1];
	unsigned depth;
	char gone[COPY_MAX_NAME + 1]; /* in the open directory, unless something takes its place; "": nothing */
};

/* ------------------------------------------------------------------------------------------ held back */

static void forget(struct level *v)
{
	free((char *)v->what.name);
	free((void *)v->what.xattrs);
	*v = (struct level){.len = v->len};
}

static int hold_back(struct level *v, const struct copy_entry *e)
{
	void *xattrs = malloc(e->xattrs_len + 1);

	v->what = *e;
	v->what.name = strdup(e->name);
	v->what.link = "";
	v->what.xattrs = xattrs;
	v->held = true;
	if (!v->what.name || !xattrs)
		return -ENOMEM;
	if (e->xattrs_len)
		memcpy(xattrs, e->xattrs, e->xattrs_len);
	return 0;
}

/* Something is in them, after all. */
static int say_held(struct layer_tar *l, unsigned below, struct sm_error *err)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < below; i++) {
		if (!l->levels[i].held)
			continue;
		r = copy_tar_sink.entry(l->tar, &l->levels[i].what, i, err);
		forget(&l->levels[i]);
	}
	return r;
}

static int put(struct layer_tar *l, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	int r = say_held(l, depth, err);

	return r < 0 ? r : copy_tar_sink.entry(l->tar, e, depth, err);
}

/* An empty file that says something by its name, in the open directory at depth - 1. */
static int put_mark(struct layer_tar *l, const char *prefix, const char *name, unsigned depth, struct sm_error *err)
{
	char full[sizeof(WHITEOUT) + COPY_MAX_NAME];
	struct copy_entry e = {.kind = COPY_FILE, .name = full, .link = ""};
	int r;

	snprintf(full, sizeof(full), "%s%s", prefix, name);
	r = put(l, &e, depth, err);
	return r < 0 ? r : copy_tar_sink.file_end(l->tar, err);
}

static int say_gone(struct layer_tar *l, struct sm_error *err)
{
	int r = l->gone[0] ? put_mark(l, WHITEOUT, l->gone, l->depth, err) : 0;

	l->gone[0] = '\0';
	return r;
}

/* ----------------------------------------------------------------------------------------------- sink */

static bool leads_to_point(const struct layer_tar *l)
{
	size_t len = strlen(l->path);

	for (char *const *p = l->points; p && *p; p++)
		if (strncmp(*p, l->path, len) == 0 && (*p)[len] == '/')
			return true;
	return false;
}

static int on_dir(struct layer_tar *l, const struct copy_entry *e, unsigned depth, bool replaced, struct sm_error *err)
{
	struct level *v = &l->levels[depth];
	int r;

	v->len = strlen(l->path);
	l->depth = depth + 1;
	if (depth && (e->flags & COPY_NEW) && !replaced && leads_to_point(l)) {
		r = hold_back(v, e);
		return r < 0 ? error_sys(err, -r, "%s", l->path) : 0;
	}
	r = put(l, e, depth, err);
	return r == 0 && replaced ? put_mark(l, "", OPAQUE, depth + 1, err) : r;
}

static int on_entry(void *arg, const struct copy_entry *e, unsigned depth, struct sm_error *err)
{
	struct layer_tar *l = arg;
	size_t at = depth ? l->levels[depth - 1].len : 0;
	bool replaced = l->gone[0] && streq(l->gone, e->name);
	int r;

	if (depth == 0)
		return e->kind == COPY_DIR ? on_dir(l, e, 0, false, err)
					   : error_set(err, SM_ERROR_GUEST, EPROTO, "changes of what is no directory");
	if (at + strlen(e->name) + 2 > sizeof(l->path))
		return error_set(err, SM_ERROR_LIMIT, ENAMETOOLONG, "changes: a path is too long");
	l->path[at] = '/';
	memcpy(l->path + at + 1, e->name, strlen(e->name) + 1);
	if (str_starts(e->name, WHITEOUT))
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP,
				 "%s: an image cannot hold a name that begins with " WHITEOUT ": rename it first",
				 l->path);
	if (e->kind == COPY_SOCKET)
		return error_set(err, SM_ERROR_GUEST, EPROTO, "changes: %s is a socket", l->path);
	if (replaced)
		l->gone[0] = '\0';
	r = say_gone(l, err);
	if (r < 0)
		return r;
	if (e->kind == COPY_GONE) {
		snprintf(l->gone, sizeof(l->gone), "%s", e->name);
		return 0;
	}
	return e->kind == COPY_DIR ? on_dir(l, e, depth, replaced, err) : put(l, e, depth, err);
}

static int on_data(void *arg, uint64_t offset, const void *p, size_t len, struct sm_error *err)
{
	return copy_tar_sink.data(((struct layer_tar *)arg)->tar, offset, p, len, err);
}

static int on_file_end(void *arg, struct sm_error *err)
{
	return copy_tar_sink.file_end(((struct layer_tar *)arg)->tar, err);
}

static int on_up(void *arg, struct sm_error *err)
{
	struct layer_tar *l = arg;
	int r = say_gone(l, err);
	struct level *v = &l->levels[--l->depth];
	bool silent = v->held;

	forget(v);
	return r < 0 || silent ? r : copy_tar_sink.up(l->tar, err);
}

static const struct copy_sink sink = {on_entry, on_data, on_file_end, on_up};

/* ------------------------------------------------------------------------------------------- the whole */

int layer_tar_new(int fd, uint64_t max, char *const *points, struct layer_tar **ret)
{
	struct layer_tar *l = calloc(1, sizeof(*l));
	int r = l ? copy_tar_new(fd, &l->tar) : -ENOMEM;

	if (r < 0) {
		free(l);
		return r;
	}
	copy_tar_limit(l->tar, max);
	l->points = points;
	copy_in_init(&l->in, &sink, l);
	l->in.changes = true;
	*ret = l;
	return 0;
}

struct layer_tar *layer_tar_free(struct layer_tar *l)
{
	if (!l)
		return NULL;
	for (unsigned i = 0; i <= COPY_MAX_DEPTH; i++)
		forget(&l->levels[i]);
	copy_in_done(&l->in);
	copy_tar_free(l->tar);
	free(l);
	return NULL;
}

int layer_tar_feed(void *layer_tar, const void *p, size_t len, struct sm_error *err)
{
	return copy_in_feed(&((struct layer_tar *)layer_tar)->in, p, len, err);
}

bool layer_tar_ended(void *layer_tar)
{
	return ((struct layer_tar *)layer_tar)->in.ended;
}

uint64_t layer_tar_written(const struct layer_tar *l)
{
	return copy_tar_written(l->tar);
}

int layer_tar_finish(struct layer_tar *l, struct sm_error *err)
{
	return copy_tar_finish(l->tar, err);
}
