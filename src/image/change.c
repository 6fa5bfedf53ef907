/* SPDX-License-Identifier: Apache-2.0 */
/* Changing names, and removing images. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/store.h"

static int tag_locked(struct image_store *store, json_t *refs, const char *ref, const char *name, struct sm_error *err)
{
	char id[HEX_SIZE];
	json_t *record;
	int r = ref_resolve(store, refs, ref, id, NULL, err);

	if (r < 0)
		return r;
	r = record_read(store, "images", id, &record, err);
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image %s in the store", ref);
	if (r < 0)
		return r;
	json_decref(record);
	if (json_object_set_new(refs, name, json_string(id)) < 0)
		return error_sys(err, ENOMEM, "%s", name);
	return refs_write_locked(store, refs, err);
}

int image_tag(struct image_store *store, const char *ref, const char *name, struct sm_error *err)
{
	_free_ char *full = NULL;
	_fd_ int lock = -1;
	json_t *refs;
	int r = ref_name(name, &full, err);

	if (r == 0)
		r = store_lock(store, &lock, err);
	if (r == 0)
		r = refs_read(store, &refs, err);
	if (r < 0)
		return r;
	r = tag_locked(store, refs, ref, full, err);
	json_decref(refs);
	return r;
}

/* Takes one name away, or with NULL all that the image has. *ret_left: how many it keeps. */
static int drop_names(json_t *refs, const char *id, const char *name, unsigned *ret_dropped, unsigned *ret_left)
{
	const char *key;
	json_t *value;
	void *next;

	*ret_dropped = *ret_left = 0;
	json_object_foreach_safe(refs, next, key, value)
	{
		if (!streq(json_string_value(value), id))
			continue;
		if (name && !streq(key, name)) {
			++*ret_left;
			continue;
		}
		json_object_del(refs, key);
		++*ret_dropped;
	}
	return 0;
}

/* The record goes aside: prune removes it, unless a VM needs it. */
static int put_aside(struct image_store *store, const char *id, const char *ref, struct sm_error *err)
{
	char from[STORE_PATH_MAX], to[STORE_PATH_MAX];

	if (renameat(store->fd, store_path(from, "images", id, ".json"), store->fd,
		     store_path(to, "removed", id, ".json")) < 0) {
		if (errno == ENOENT)
			return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image %s in the store", ref);
		return error_sys(err, errno, "remove %s/%s", store->dir, from);
	}
	return store_sync_dir(store, "images", err);
}

static int remove_locked(struct image_store *store, json_t *refs, const char *ref, struct sm_error *err)
{
	_free_ char *name = NULL;
	unsigned dropped, left;
	char id[HEX_SIZE];
	int r = ref_resolve(store, refs, ref, id, &name, err);

	if (r < 0)
		return r;
	drop_names(refs, id, name, &dropped, &left);
	/* The names first: a crash in between leaves an image without a name, not a name without an image. */
	r = dropped ? refs_write_locked(store, refs, err) : 0;
	if (r == 0 && !left)
		r = put_aside(store, id, ref, err);
	return r;
}

int image_remove(struct image_store *store, const char *ref, struct sm_error *err)
{
	_fd_ int lock = -1;
	json_t *refs;
	int r = store_lock(store, &lock, err);

	if (r == 0)
		r = refs_read(store, &refs, err);
	if (r < 0)
		return r;
	r = remove_locked(store, refs, ref, err);
	json_decref(refs);
	return r;
}
