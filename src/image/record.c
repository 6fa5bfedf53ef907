/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image records: what the store knows of an image, as JSON. Written by this code alone, yet every field is checked when
 * it is read. "config" is the configuration decoded, as `run` needs it; "config_json" its verified bytes, for whoever
 * wants the rest.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/sha256hex.h"
#include "base/util.h"
#include "image/erofs.h"
#include "image/store.h"

#define RECORD_VERSION 1
#define MAX_RECORD (64U << 20)

/* NULL becomes null, and a list an array. */
static json_t *string_or_null(const char *s)
{
	return s ? json_string(s) : json_null();
}

static json_t *list_or_null(char *const *v)
{
	json_t *list = v ? json_array() : json_null();

	for (; v && *v; v++)
		if (json_array_append_new(list, json_string(*v)) < 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

static json_t *config_make(const struct oci_config *c)
{
	return json_pack("{s:o,s:o,s:o,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "os", string_or_null(c->os),
			 "architecture", string_or_null(c->architecture), "variant", string_or_null(c->variant),
			 "created", (json_int_t)c->created, "entrypoint", list_or_null(c->entrypoint), "cmd",
			 list_or_null(c->cmd), "env", list_or_null(c->env), "user", string_or_null(c->user),
			 "working_dir", string_or_null(c->working_dir), "stop_signal", string_or_null(c->stop_signal),
			 "exposed_ports", list_or_null(c->exposed_ports), "volumes", list_or_null(c->volumes), "labels",
			 list_or_null(c->labels));
}

static json_t *layers_make(const struct oci_image *img, const struct record_layout *layout)
{
	json_t *layers = json_array();

	for (unsigned i = 0; layers && i < img->num_layers; i++) {
		const struct oci_layer *l = &img->layers[i];
		json_t *item = json_pack("{s:s,s:s,s:I,s:I}", "diff_id", l->diff_id, "digest", l->digest, "size",
					 (json_int_t)l->size, "stripped_xattrs", (json_int_t)layout->stripped[i]);

		json_array_append_new(layers, item);
	}
	return layers;
}

static json_t *parts_make(const struct record_layout *layout)
{
	json_t *parts = json_array();

	for (unsigned i = 0; parts && i < layout->num_parts; i++) {
		const struct record_part *p = &layout->parts[i];

		json_array_append_new(parts, json_pack("{s:i,s:I,s:I}", "layer", (int)p->layer, "offset",
						       (json_int_t)p->offset, "size", (json_int_t)p->size));
	}
	return parts;
}

json_t *record_make(const struct oci_image *img, const struct record_layout *layout)
{
	return json_pack("{s:i,s:s,s:s,s:o,s:o,s:{s:s,s:I,s:I},s:o,s:I,s:s}", "version", RECORD_VERSION, "id", img->id,
			 "digest", img->manifest_digest[0] ? img->manifest_digest : img->id, "config",
			 config_make(&img->config), "layers", layers_make(img, layout), "metadata", "key", layout->key,
			 "size", (json_int_t)layout->meta_size, "inodes", (json_int_t)layout->inodes, "parts",
			 parts_make(layout), "window_size", (json_int_t)layout->window_size, "config_json",
			 img->config_json);
}

const char *record_key(const json_t *record)
{
	return json_string_value(json_object_get(json_object_get(record, "metadata"), "key"));
}

const char *record_layer(const json_t *record, unsigned i)
{
	const char *digest =
		json_string_value(json_object_get(json_array_get(json_object_get(record, "layers"), i), "diff_id"));

	return digest ? digest + strlen("sha256:") : NULL;
}

static bool is_offset(const json_t *v)
{
	return json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) % 4096 == 0;
}

/* What the code that reads records relies on. */
static bool record_ok(const json_t *record, const char *id)
{
	const json_t *layers = json_object_get(record, "layers"), *parts = json_object_get(record, "parts"), *item;
	const char *own = json_string_value(json_object_get(record, "id")), *key = record_key(record);
	char hex[HEX_SIZE];
	size_t i;

	if (json_integer_value(json_object_get(record, "version")) != RECORD_VERSION || !json_is_array(layers) ||
	    !json_is_array(parts) || !own || !sha256_digits(own, hex) || !streq(hex, id) || !key ||
	    !is_hex64(key, strlen(key)) || !json_is_string(json_object_get(record, "digest")) ||
	    !json_is_object(json_object_get(record, "config")) ||
	    !is_offset(json_object_get(json_object_get(record, "metadata"), "size")) ||
	    !is_offset(json_object_get(record, "window_size")))
		return false;
	json_array_foreach(layers, i, item)
	{
		const char *digest = json_string_value(json_object_get(item, "diff_id"));

		if (!digest || !sha256_digits(digest, hex))
			return false;
	}
	json_array_foreach(parts, i, item)
	{
		json_int_t layer = json_integer_value(json_object_get(item, "layer"));

		if (layer < 0 || (size_t)layer >= json_array_size(layers) ||
		    !is_offset(json_object_get(item, "offset")) || !is_offset(json_object_get(item, "size")))
			return false;
	}
	return true;
}

int record_read(struct image_store *store, const char *dir, const char *id, json_t **ret, struct sm_error *err)
{
	char path[STORE_PATH_MAX];
	_free_ char *text = NULL;
	json_t *record;
	size_t len;
	int r = read_file_at(store->fd, store_path(path, dir, id, ".json"), MAX_RECORD, &text, &len);

	if (r == -ENOENT)
		return r;
	if (r < 0)
		return error_sys(err, -r, "read %s/%s", store->dir, path);
	record = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (!record_ok(record, id)) {
		json_decref(record);
		return error_set(err, SM_ERROR_CORRUPT, EUCLEAN,
				 "%s/%s is damaged, or of another version: remove that file and load the image again",
				 store->dir, path);
	}
	*ret = record;
	return 0;
}

int record_write_locked(struct image_store *store, const char *id, const json_t *record, struct sm_error *err)
{
	_free_ char *text = json_dumps(record, JSON_INDENT(1));
	char path[STORE_PATH_MAX];
	int r;

	store_path(path, "images", id, ".json");
	r = text ? write_file_atomic_at(store->fd, path, text, strlen(text), 0600) : -ENOMEM;
	return r < 0 ? error_sys(err, -r, "write %s/%s", store->dir, path) : 0;
}

int record_each(struct image_store *store, const char *dir, int (*fn)(void *arg, const char *id, json_t *record),
		void *arg, struct sm_error *err)
{
	int fd = openat(store->fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d) {
		fd_close(fd);
		return error_sys(err, errno, "read %s/%s", store->dir, dir);
	}
	while (r == 0 && (de = readdir(d))) {
		char id[HEX_SIZE] = "";
		json_t *record;

		if (strlen(de->d_name) != 64 + strlen(".json") || !is_hex64(de->d_name, 64) ||
		    !streq(de->d_name + 64, ".json"))
			continue;
		memcpy(id, de->d_name, 64);
		r = record_read(store, dir, id, &record, err);
		if (r == -ENOENT) { /* removed meanwhile */
			r = 0;
			continue;
		}
		if (r == 0) {
			r = fn(arg, id, record);
			json_decref(record);
		}
	}
	closedir(d);
	return r;
}

static char *copy_string(const json_t *object, const char *key, bool *bad)
{
	const json_t *v = json_object_get(object, key);
	char *s;

	if (!json_is_string(v))
		return NULL;
	s = strdup(json_string_value(v));
	*bad |= !s;
	return s;
}

static char **copy_list(const json_t *object, const char *key, bool *bad)
{
	const json_t *v = json_object_get(object, key), *item;
	char **list;
	size_t i;

	if (!json_is_array(v))
		return NULL;
	list = calloc(json_array_size(v) + 1, sizeof(*list));
	*bad |= !list;
	if (!list)
		return NULL;
	json_array_foreach(v, i, item)
	{
		list[i] = strdup(json_is_string(item) ? json_string_value(item) : "");
		*bad |= !list[i];
	}
	return list;
}

static bool copy_config(const json_t *c, struct image_info *ret)
{
	bool bad = false;

	ret->os = copy_string(c, "os", &bad);
	ret->architecture = copy_string(c, "architecture", &bad);
	ret->variant = copy_string(c, "variant", &bad);
	ret->created = json_integer_value(json_object_get(c, "created"));
	ret->entrypoint = copy_list(c, "entrypoint", &bad);
	ret->cmd = copy_list(c, "cmd", &bad);
	ret->env = copy_list(c, "env", &bad);
	ret->user = copy_string(c, "user", &bad);
	ret->working_dir = copy_string(c, "working_dir", &bad);
	ret->stop_signal = copy_string(c, "stop_signal", &bad);
	ret->exposed_ports = copy_list(c, "exposed_ports", &bad);
	ret->volumes = copy_list(c, "volumes", &bad);
	ret->labels = copy_list(c, "labels", &bad);
	return !bad;
}

static uint64_t allocated(struct image_store *store, const char *dir, const char *hex)
{
	char path[STORE_PATH_MAX];
	struct stat st;

	if (fstatat(store->fd, store_path(path, dir, hex, ""), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

static bool copy_layers(struct image_store *store, const json_t *record, struct image_info *ret)
{
	size_t n = json_array_size(json_object_get(record, "layers"));

	ret->diff_ids = calloc(n + 1, sizeof(*ret->diff_ids));
	if (!ret->diff_ids)
		return false;
	for (unsigned i = 0; i < n; i++) {
		const char *hex = record_layer(record, i);
		bool again = false;

		if (asprintf(&ret->diff_ids[i], "sha256:%s", hex) < 0) {
			ret->diff_ids[i] = NULL;
			return false;
		}
		ret->num_layers++;
		for (unsigned j = 0; j < i; j++)
			again |= streq(ret->diff_ids[j], ret->diff_ids[i]);
		if (!again)
			ret->allocated_size += allocated(store, "blobs", hex) + allocated(store, "layers", hex);
	}
	ret->allocated_size += allocated(store, "meta", record_key(record));
	return true;
}

static bool copy_part(struct image_store *store, const char *dir, const char *hex, const json_t *offset,
		      const json_t *size, struct image_info *ret)
{
	struct image_part *p = &ret->parts[ret->num_parts];

	if (asprintf(&p->path, "%s/%s/%s", store->dir, dir, hex) < 0) {
		p->path = NULL;
		return false;
	}
	p->offset = (uint64_t)json_integer_value(offset);
	p->size = (uint64_t)json_integer_value(size);
	ret->num_parts++;
	return true;
}

static bool copy_parts(struct image_store *store, const json_t *record, struct image_info *ret)
{
	const json_t *parts = json_object_get(record, "parts"), *item;
	bool good;
	size_t i;

	ret->parts = calloc(json_array_size(parts) + 1, sizeof(*ret->parts));
	if (!ret->parts)
		return false;
	good = copy_part(store, "meta", record_key(record), NULL,
			 json_object_get(json_object_get(record, "metadata"), "size"), ret);
	json_array_foreach(parts, i, item)
	{
		unsigned layer = (unsigned)json_integer_value(json_object_get(item, "layer"));

		good = good && copy_part(store, "blobs", record_layer(record, layer), json_object_get(item, "offset"),
					 json_object_get(item, "size"), ret);
	}
	ret->window_size = (uint64_t)json_integer_value(json_object_get(record, "window_size"));
	return good;
}

int record_info(struct image_store *store, const json_t *record, struct image_info *ret, struct sm_error *err)
{
	*ret = (struct image_info){0};
	sha256_digits(json_string_value(json_object_get(record, "id")), ret->id);
	snprintf(ret->digest, sizeof(ret->digest), "%s", json_string_value(json_object_get(record, "digest")));
	if (!copy_config(json_object_get(record, "config"), ret) || !copy_layers(store, record, ret) ||
	    !copy_parts(store, record, ret)) {
		image_info_done(ret);
		return error_sys(err, ENOMEM, "image %.12s", ret->id);
	}
	return 0;
}

static void list_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

void image_info_done(struct image_info *info)
{
	for (unsigned i = 0; i < info->num_parts; i++)
		free(info->parts[i].path);
	free(info->parts);
	list_free(info->names);
	list_free(info->entrypoint);
	list_free(info->cmd);
	list_free(info->env);
	list_free(info->exposed_ports);
	list_free(info->volumes);
	list_free(info->labels);
	list_free(info->diff_ids);
	free(info->os);
	free(info->architecture);
	free(info->variant);
	free(info->user);
	free(info->working_dir);
	free(info->stop_signal);
	*info = (struct image_info){0};
}

static bool file_at_least(struct image_store *store, const char *dir, const char *hex, uint64_t size)
{
	char path[STORE_PATH_MAX];
	struct stat st;

	return fstatat(store->fd, store_path(path, dir, hex, ""), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(st.st_mode) && (uint64_t)st.st_size >= size;
}

bool record_complete(struct image_store *store, const json_t *record)
{
	const json_t *parts = json_object_get(record, "parts"), *item;
	const char *hex;
	size_t i;

	if (!file_at_least(store, "meta", record_key(record),
			   (uint64_t)json_integer_value(json_object_get(json_object_get(record, "metadata"), "size"))))
		return false;
	for (unsigned n = 0; (hex = record_layer(record, n)); n++)
		if (!file_at_least(store, "layers", hex, 0) || !file_at_least(store, "blobs", hex, 0))
			return false;
	json_array_foreach(parts, i, item)
	{
		hex = record_layer(record, (unsigned)json_integer_value(json_object_get(item, "layer")));
		if (!file_at_least(store, "blobs", hex, (uint64_t)json_integer_value(json_object_get(item, "size"))))
			return false;
	}
	return true;
}

int layout_key(const char *const *diff_hex, unsigned n, char ret[static HEX_SIZE])
{
	_cleanup_(buf_done) struct buf text = {0};

	buf_printf(&text, "erofs %d\n", EROFS_LAYOUT_VERSION);
	for (unsigned i = 0; i < n; i++)
		buf_printf(&text, "%s\n", diff_hex[i]);
	if (!text.error)
		sha256_hex(text.data, text.len, 64, ret);
	return text.error;
}
