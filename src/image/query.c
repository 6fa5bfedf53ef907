/* SPDX-License-Identifier: Apache-2.0 */
/* Finding, listing and describing images. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/store.h"

static int info_with_names(struct image_store *store, const json_t *refs, const json_t *record, struct image_info *ret,
			   struct sm_error *err)
{
	int r = record_info(store, record, ret, err);

	if (r == 0 && refs_of(refs, ret->id, &ret->names) < 0) {
		image_info_done(ret);
		r = error_sys(err, ENOMEM, "names of images");
	}
	return r;
}

int image_find(struct image_store *store, const char *ref, struct image_info *ret, struct sm_error *err)
{
	json_t *refs, *record;
	int r = store_lookup(store, ref, &refs, &record, err);

	if (r < 0)
		return r;
	r = info_with_names(store, refs, record, ret, err);
	json_decref(refs);
	json_decref(record);
	return r;
}

int image_pin(struct image_store *store, const char *ref, struct image_info *ret, struct image_pin **ret_pin,
	      struct sm_error *err)
{
	struct pin_item item = {.kind = "image"};
	_fd_ int lock = -1;
	int r = store_lock(store, &lock, err);

	if (r == 0)
		r = image_find(store, ref, ret, err);
	if (r < 0)
		return r;
	memcpy(item.hex, ret->id, HEX_SIZE);
	r = pin_create_locked(store, &item, 1, ret_pin, err);
	if (r < 0)
		image_info_done(ret);
	return r;
}

struct listing {
	struct image_store *store;
	json_t *refs;
	struct image_info *v;
	size_t count, cap;
	struct sm_error *err;
	json_t *users; /* "dir/hex" -> how many images have the file */
};

static int list_add(void *arg, const char *id, json_t *record)
{
	struct listing *l = arg;
	int r;

	(void)id;
	if (l->count == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 16;
		struct image_info *v = realloc(l->v, cap * sizeof(*v));

		if (!v)
			return error_sys(l->err, ENOMEM, "list of images");
		l->v = v;
		l->cap = cap;
	}
	r = info_with_names(l->store, l->refs, record, &l->v[l->count], l->err);
	if (r == 0)
		l->count++;
	return r;
}

/* Calls fn once for each file of an image, by its path relative to the store. */
static void each_file(const struct image_info *info, void (*fn)(struct listing *l, const char *path, uint64_t *sum),
		      struct listing *l, uint64_t *sum)
{
	const char *meta = info->num_parts ? info->parts[0].path : NULL;
	char path[STORE_PATH_MAX];

	if (meta && strrchr(meta, '/'))
		fn(l, store_path(path, "meta", strrchr(meta, '/') + 1, ""), sum);
	for (unsigned i = 0; i < info->num_layers; i++) {
		bool again = false;

		for (unsigned j = 0; j < i; j++)
			again |= streq(info->diff_ids[j], info->diff_ids[i]);
		if (again)
			continue;
		fn(l, store_path(path, "blobs", info->diff_ids[i] + strlen("sha256:"), ""), sum);
		fn(l, store_path(path, "layers", info->diff_ids[i] + strlen("sha256:"), ""), sum);
	}
}

static void count_user(struct listing *l, const char *path, uint64_t *sum)
{
	json_int_t n = json_integer_value(json_object_get(l->users, path));

	(void)sum;
	json_object_set_new(l->users, path, json_integer(n + 1));
}

static void add_shared(struct listing *l, const char *path, uint64_t *sum)
{
	struct stat st;

	if (json_integer_value(json_object_get(l->users, path)) > 1 &&
	    fstatat(l->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
		*sum += (uint64_t)st.st_blocks * 512;
}

static void set_shared(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++)
		each_file(&l->v[i], count_user, l, NULL);
	for (size_t i = 0; i < l->count; i++)
		each_file(&l->v[i], add_shared, l, &l->v[i].shared_size);
}

static int newest_first(const void *a, const void *b)
{
	const struct image_info *x = a, *y = b;

	if (x->created != y->created)
		return x->created < y->created ? 1 : -1;
	return strcmp(x->id, y->id);
}

int image_list(struct image_store *store, struct image_info **ret, size_t *ret_count, struct sm_error *err)
{
	struct listing l = {.store = store, .err = err, .users = json_object()};
	int r = l.users ? refs_read(store, &l.refs, err) : error_sys(err, ENOMEM, "list of images");

	if (r == 0)
		r = record_each(store, "images", list_add, &l, err);
	if (r == 0 && l.count) {
		set_shared(&l);
		qsort(l.v, l.count, sizeof(*l.v), newest_first);
	}
	json_decref(l.refs);
	json_decref(l.users);
	if (r < 0) {
		image_list_free(l.v, l.count);
		return r;
	}
	*ret = l.v;
	*ret_count = l.count;
	return 0;
}

void image_list_free(struct image_info *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		image_info_done(&list[i]);
	free(list);
}

/* shared_size as image_list has it: 0 for an image that only VMs hold. */
static int shared_of(struct image_store *store, const char *id, uint64_t *ret, struct sm_error *err)
{
	struct image_info *list;
	size_t count;
	int r = image_list(store, &list, &count, err);

	if (r < 0)
		return r;
	*ret = 0;
	for (size_t i = 0; i < count; i++)
		if (streq(list[i].id, id))
			*ret = list[i].shared_size;
	image_list_free(list, count);
	return 0;
}

/* The record as it is, with names, sizes on disk and paths, and the configuration as JSON instead of its text. */
static int describe(struct image_store *store, const json_t *record, const struct image_info *info, uint64_t shared,
		    char **ret)
{
	const char *text = json_string_value(json_object_get(record, "config_json"));
	json_t *names = json_array(), *files = json_array(), *root = json_deep_copy(record);
	int r = -ENOMEM;

	for (char **n = info->names; n && *n; n++)
		json_array_append_new(names, json_string(*n));
	for (unsigned i = 0; i < info->num_parts; i++)
		json_array_append_new(files, json_pack("{s:s,s:I,s:I}", "path", info->parts[i].path, "offset",
						       (json_int_t)info->parts[i].offset, "size",
						       (json_int_t)info->parts[i].size));
	if (root && json_object_set_new(root, "names", names) == 0 && json_object_set_new(root, "parts", files) == 0 &&
	    json_object_set_new(root, "allocated_size", json_integer((json_int_t)info->allocated_size)) == 0 &&
	    json_object_set_new(root, "shared_size", json_integer((json_int_t)shared)) == 0) {
		json_object_set_new(root, "image_config", text ? json_loads(text, 0, NULL) : json_null());
		json_object_del(root, "config_json");
		*ret = json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		r = *ret ? 0 : -ENOMEM;
	}
	json_decref(root);
	return r;
}

int image_inspect_json(struct image_store *store, const char *ref, char **ret, struct sm_error *err)
{
	struct image_info info;
	json_t *refs, *record;
	uint64_t shared = 0;
	int r = store_lookup(store, ref, &refs, &record, err);

	if (r < 0)
		return r;
	r = info_with_names(store, refs, record, &info, err);
	if (r == 0) {
		r = shared_of(store, info.id, &shared, err);
		if (r == 0 && describe(store, record, &info, shared, ret) < 0)
			r = error_sys(err, ENOMEM, "%s", ref);
		image_info_done(&info);
	}
	json_decref(refs);
	json_decref(record);
	return r;
}
