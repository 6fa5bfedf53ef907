/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading an image into the store: resolve, pin, convert what is missing, merge, write the record and its name.
 *
 * The pin comes first and names everything that the load will make or rely on, so prune can run at any time. A load
 * that is killed leaves layers that nothing refers to, which the next load uses and prune removes; the record is
 * written last, so an image is there wholly or not at all.
 */
#include "image/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"

static void set_limits(struct image_limits *v, const struct image_limits *given)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	*v = *given;
	v->max_entries = v->max_entries ? v->max_entries : 4000000;
	v->max_layer_bytes = v->max_layer_bytes ? v->max_layer_bytes : 256 * GIB;
	v->max_image_bytes = v->max_image_bytes ? v->max_image_bytes : 1024 * GIB;
	v->max_layers = v->max_layers ? v->max_layers : 512;
	v->max_depth = v->max_depth ? v->max_depth : 1024;
	v->max_path = v->max_path ? v->max_path : 65536;
	v->threads = v->threads ? v->threads : (unsigned)MAX(cpus, 1);
}

static int set_layers(struct load *l, struct sm_error *err)
{
	unsigned n = l->img.num_layers;
	const char **hex = calloc(n + 1, sizeof(*hex));
	int r = 0;

	l->hex = calloc(n + 1, sizeof(*l->hex));
	l->first = calloc(n + 1, sizeof(*l->first));
	l->missing = calloc(n + 1, sizeof(*l->missing));
	l->layout.stripped = calloc(n + 1, sizeof(*l->layout.stripped));
	if (!hex || !l->hex || !l->first || !l->missing || !l->layout.stripped)
		r = error_sys(err, ENOMEM, "layers");
	for (unsigned i = 0; r == 0 && i < n; i++) {
		if (!sha256_digits(l->img.layers[i].diff_id, l->hex[i]))
			r = error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP, "layer %u: diff ID %s is not a sha256",
				      i + 1, l->img.layers[i].diff_id);
		hex[i] = l->hex[i];
		while (!streq(l->hex[l->first[i]], l->hex[i]))
			l->first[i]++;
	}
	if (r == 0 && layout_key(hex, n, l->layout.key) < 0)
		r = error_sys(err, ENOMEM, "layers");
	free(hex);
	return r;
}

/* Keeps all that the image will consist of, as yet made or not. */
static int pin_all(struct load *l, const char *id, struct sm_error *err)
{
	struct pin_item *items = calloc(l->img.num_layers + 2, sizeof(*items));
	_fd_ int lock = -1;
	unsigned n = 0;
	int r;

	if (!items)
		return error_sys(err, ENOMEM, "pin");
	items[n].kind = "image";
	memcpy(items[n++].hex, id, HEX_SIZE);
	items[n].kind = "meta";
	memcpy(items[n++].hex, l->layout.key, HEX_SIZE);
	for (unsigned i = 0; i < l->img.num_layers; i++) {
		items[n].kind = "layer";
		memcpy(items[n++].hex, l->hex[i], HEX_SIZE);
	}
	r = store_lock(l->store, &lock, err);
	if (r == 0)
		r = pin_create_locked(l->store, items, n, &l->pin, err);
	free(items);
	return r;
}

/* The record of the same image, if the store has it whole, brought up to date. */
static json_t *known_record(struct load *l, const char *id)
{
	const char *digest = l->img.manifest_digest[0] ? l->img.manifest_digest : l->img.id;
	json_t *record;

	if (record_read(l->store, "images", id, &record, NULL) < 0 &&
	    record_read(l->store, "removed", id, &record, NULL) < 0)
		return NULL;
	if (streq(record_key(record), l->layout.key) && record_complete(l->store, record) &&
	    json_object_set_new(record, "digest", json_string(digest)) == 0)
		return record;
	json_decref(record);
	return NULL;
}

static int make_image(struct load *l, json_t **ret, struct sm_error *err)
{
	struct sm_error local = {0};
	int r = -EUCLEAN;

	/* A second attempt makes a damaged index anew. */
	for (unsigned attempt = 0; r == -EUCLEAN && attempt < 2; attempt++) {
		local = (struct sm_error){0};
		r = load_layers(l, &local);
		if (r == 0)
			r = load_metadata(l, &local);
	}
	if (r < 0) {
		if (err)
			*err = local;
		return r;
	}
	*ret = record_make(&l->img, &l->layout);
	return *ret ? 0 : error_sys(err, ENOMEM, "image record");
}

int load_publish(struct load *l, const char *id, const json_t *record, const char *name, struct image_info *ret,
		 struct sm_error *err)
{
	char path[STORE_PATH_MAX];
	json_t *refs = NULL;
	_fd_ int lock = -1;
	int r = store_lock(l->store, &lock, err);

	if (r == 0)
		r = record_info(l->store, record, ret, err);
	if (r < 0)
		return r;
	r = refs_read(l->store, &refs, err);
	if (r == 0)
		r = record_write_locked(l->store, id, record, err);
	if (r == 0)
		unlinkat(l->store->fd, store_path(path, "removed", id, ".json"), 0);
	if (r == 0 && name) {
		r = json_object_set_new(refs, name, json_string(id)) < 0 ? error_sys(err, ENOMEM, "%s", name) : 0;
		if (r == 0)
			r = refs_write_locked(l->store, refs, err);
	}
	if (r == 0 && refs_of(refs, id, &ret->names) < 0)
		r = error_sys(err, ENOMEM, "names");
	json_decref(refs);
	if (r < 0)
		image_info_done(ret);
	return r;
}

static void set_built(json_t *record, const char *fingerprint)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	json_object_set_new(record, RECORD_FINGERPRINT, json_string(fingerprint));
	json_object_set_new(record, RECORD_BUILT, json_integer((json_int_t)now.tv_sec * 1000000000 + now.tv_nsec));
}

int load_resolved(struct load *l, const char *name, struct image_info *ret, struct sm_error *err)
{
	_free_ char *carried = NULL; /* the name that the source gives */
	char id[HEX_SIZE];
	json_t *record;
	int r;

	if (!sha256_digits(l->img.id, id))
		return error_set(err, SM_ERROR_UNSUPPORTED, EOPNOTSUPP, "configuration digest %s is not a sha256",
				 l->img.id);
	if (!name && l->img.name && ref_name(l->img.name, &carried, NULL) < 0)
		carried = NULL; /* with a digest, say: nothing that it could be called by */
	r = set_layers(l, err);
	if (r == 0)
		r = pin_all(l, id, err);
	if (r < 0)
		return r;
	record = known_record(l, id);
	if (!record)
		r = make_image(l, &record, err);
	if (r == 0 && l->fingerprint)
		set_built(record, l->fingerprint);
	if (r == 0) {
		r = load_publish(l, id, record, name ? name : carried, ret, err);
		json_decref(record);
	}
	return r;
}

void load_begin(struct load *l, const struct image_load_options *options)
{
	set_limits(&l->limits, &options->limits);
	l->progress = options->progress;
	pthread_mutex_init(&l->lock, NULL);
}

void load_done(struct load *l)
{
	oci_image_done(&l->img);
	image_unpin(l->pin);
	oci_close(l->oci);
	free(l->hex);
	free(l->first);
	free(l->missing);
	free(l->layout.parts);
	free(l->layout.stripped);
	pthread_mutex_destroy(&l->lock);
}

int image_load(struct image_store *store, const char *source, const struct image_load_options *options,
	       struct image_info *ret, struct sm_error *err)
{
	static const struct image_load_options defaults;
	struct load l = {.store = store, .source = source};
	_free_ char *name = NULL, *tmp = NULL;
	int r;

	options = options ? options : &defaults;
	r = options->name ? ref_name(options->name, &name, err) : 0;
	if (r < 0)
		return r;
	if (asprintf(&tmp, "%s/tmp", store->dir) < 0) {
		tmp = NULL;
		return error_sys(err, ENOMEM, "%s", source);
	}
	load_begin(&l, options);
	r = oci_open(source, tmp, &l.oci, err);
	if (r == 0)
		r = oci_resolve(l.oci, options->platform, l.limits.max_layers, &l.img, err);
	if (r == 0) {
		r = load_resolved(&l, name, ret, err);
		if (r < 0 && err && !str_starts(err->message, source))
			error_wrap(err, r, "%s", source);
	}
	load_done(&l);
	return r;
}
