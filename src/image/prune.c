/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Garbage collection. Under the store's lock all the way: nobody can pin, name or remove meanwhile; loads that are
 * under way have their pins. What stays is marked first, {"image hex", "meta hex", "layer hex"}; a record that cannot
 * be read stops it, since what it needs is unknown.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/store.h"

struct image_prune {
	struct image_store *store;
	int lock;
	json_t *keep;
	json_t *refs;
	struct image_prune_result dead; /* temporaries removed on the way */
};

int image_prune_begin(struct image_store *store, struct image_prune **ret, struct sm_error *err)
{
	struct image_prune *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_sys(err, ENOMEM, "prune");
	p->store = store;
	p->lock = -1;
	p->keep = json_object();
	r = p->keep ? store_lock(store, &p->lock, err) : error_sys(err, ENOMEM, "prune");
	if (r == 0)
		r = pin_collect_locked(store, p->keep, &p->dead, err);
	if (r == 0)
		r = refs_read(store, &p->refs, err);
	if (r < 0) {
		image_prune_end(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct image_prune *image_prune_end(struct image_prune *p)
{
	if (p) {
		json_decref(p->keep);
		json_decref(p->refs);
		fd_close(p->lock);
		free(p);
	}
	return NULL;
}

static int keep(struct image_prune *p, const char *kind, const char *hex)
{
	char key[STORE_PATH_MAX];

	snprintf(key, sizeof(key), "%s %s", kind, hex);
	return json_object_set_new(p->keep, key, json_true()) < 0 ? -ENOMEM : 0;
}

static bool kept(const struct image_prune *p, const char *kind, const char *hex)
{
	char key[STORE_PATH_MAX];

	snprintf(key, sizeof(key), "%s %s", kind, hex);
	return json_object_get(p->keep, key) != NULL;
}

/* One pass over records: which go, and what the others need. */
struct sweep {
	struct image_prune *prune;
	const char *dir;
	bool named_only; /* a record without a name stays only if something holds it */
	bool held_only;	 /* any record does */
	struct image_prune_result *result;
};

static bool has_name(const json_t *refs, const char *id)
{
	for (void *it = json_object_iter((json_t *)(uintptr_t)refs); it;
	     it = json_object_iter_next((json_t *)(uintptr_t)refs, it))
		if (streq(json_string_value(json_object_iter_value(it)), id))
			return true;
	return false;
}

static int sweep_record(void *arg, const char *id, json_t *record)
{
	struct sweep *s = arg;
	struct image_prune *p = s->prune;
	char path[STORE_PATH_MAX];
	struct stat st;
	const char *hex;
	int r;

	if (!kept(p, "image", id) && (s->held_only || (s->named_only && !has_name(p->refs, id)))) {
		store_path(path, s->dir, id, ".json");
		if (fstatat(p->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			s->result->bytes += (uint64_t)st.st_blocks * 512;
		if (unlinkat(p->store->fd, path, 0) < 0)
			return -errno;
		s->result->images++;
		return 0;
	}
	r = keep(p, "meta", record_key(record));
	for (unsigned i = 0; r == 0 && (hex = record_layer(record, i)); i++)
		r = keep(p, "layer", hex);
	return r;
}

static int sweep_records(struct image_prune *p, const char *dir, bool named_only, bool held_only,
			 struct image_prune_result *result, struct sm_error *err)
{
	struct sweep s = {.prune = p, .dir = dir, .named_only = named_only, .held_only = held_only, .result = result};
	struct sm_error local = {0};
	int r = record_each(p->store, dir, sweep_record, &s, &local);

	if (r < 0) {
		if (local.kind == SM_ERROR_NONE)
			error_sys(&local, -r, "%s/%s", p->store->dir, dir);
		if (err)
			*err = local;
	}
	return r;
}

/* Removes a file that nothing keeps. */
static int drop(struct image_prune *p, const char *dir, const char *name, bool blob, struct image_prune_result *result)
{
	char path[STORE_PATH_MAX + NAME_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (fstatat(p->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || remove_tree_at(p->store->fd, path) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (blob)
		result->blobs++;
	else
		result->temporaries++;
	result->bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

/* kind: what keeps a file of 64 digits in this directory; NULL for a directory of records. */
static int sweep_dir(struct image_prune *p, const char *dir, const char *kind, struct image_prune_result *result,
		     struct sm_error *err)
{
	int fd = openat(p->store->fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		fd_close(fd);
		return error_sys(err, errno, "read %s/%s", p->store->dir, dir);
	}
	while (r == 0 && (de = readdir(d))) {
		const char *name = de->d_name;
		bool good;

		if (streq(name, ".") || streq(name, ".."))
			continue;
		if (kind)
			good = is_hex64(name, strlen(name)) && kept(p, kind, name);
		else /* other names are what a killed writer left */
			good = strlen(name) == 64 + strlen(".json") && is_hex64(name, 64) && streq(name + 64, ".json");
		if (!good)
			r = drop(p, dir, name, kind && !streq(dir, "layers"), result);
		if (r < 0)
			error_sys(err, -r, "remove %s/%s/%s", p->store->dir, dir, name);
	}
	closedir(d);
	return r;
}

/* refs.json.*.tmp of a killed writer: nobody else writes while the lock is held. */
static int sweep_root(struct image_prune *p, struct image_prune_result *result, struct sm_error *err)
{
	int fd = openat(p->store->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		fd_close(fd);
		return error_sys(err, errno, "read %s", p->store->dir);
	}
	while (r == 0 && (de = readdir(d)))
		if (str_starts(de->d_name, "refs.json."))
			r = drop(p, ".", de->d_name, false, result);
	closedir(d);
	return r < 0 ? error_sys(err, -r, "clean %s", p->store->dir) : 0;
}

int image_prune_with(struct image_prune *p, bool all, const char *const *in_use, size_t num_in_use,
		     struct image_prune_result *ret, struct sm_error *err)
{
	struct image_prune_result result = p->dead;
	int r = 0;

	for (size_t i = 0; r == 0 && i < num_in_use; i++)
		if (keep(p, "image", in_use[i]) < 0)
			r = error_sys(err, ENOMEM, "prune");
	if (r == 0)
		r = sweep_records(p, "images", all, false, &result, err);
	if (r == 0)
		r = sweep_records(p, "removed", true, true, &result, err);
	if (r == 0)
		r = sweep_dir(p, "meta", "meta", &result, err);
	if (r == 0)
		r = sweep_dir(p, "layers", "layer", &result, err);
	if (r == 0)
		r = sweep_dir(p, "blobs", "layer", &result, err);
	if (r == 0)
		r = sweep_dir(p, "images", NULL, &result, err);
	if (r == 0)
		r = sweep_dir(p, "removed", NULL, &result, err);
	if (r == 0)
		r = sweep_root(p, &result, err);
	if (r == 0)
		*ret = result;
	return r;
}

int image_prune(struct image_store *store, bool all, const char *const *in_use, size_t num_in_use,
		struct image_prune_result *ret, struct sm_error *err)
{
	struct image_prune *p;
	int r = image_prune_begin(store, &p, err);

	if (r < 0)
		return r;
	r = image_prune_with(p, all, in_use, num_in_use, ret, err);
	image_prune_end(p);
	return r;
}
