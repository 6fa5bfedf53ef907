/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of another one and a layer that is made here: gathered in a file without a name, then taken in as a load
 * takes one in (load.c), converter, pins and all. Killed, it leaves what a killed load leaves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/load.h"
#include "oci/amend.h"

struct image_commit {
	struct image_store *store;
	struct image_info base;
	struct image_pin *pin;
	json_t *record; /* of the base */
	char *name;	/* NULL: none */
	int fd;
	char fingerprint[HEX_SIZE]; /* "": none */
};

static int find_base(struct image_commit *c, const char *id, struct sm_error *err)
{
	int r = image_pin(c->store, id, &c->base, &c->pin, err);

	if (r < 0)
		return r;
	r = record_read(c->store, "images", c->base.id, &c->record, err);
	if (r == -ENOENT)
		r = record_read(c->store, "removed", c->base.id, &c->record, err);
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "no image %s in the store", id);
	return r;
}

int image_commit_begin(struct image_store *store, const char *base_id, const char *name, struct image_commit **ret,
		       struct sm_error *err)
{
	struct image_commit *c = calloc(1, sizeof(*c));
	_free_ char *tmp = NULL;
	int r = c ? 0 : error_sys(err, ENOMEM, "commit");

	if (r < 0)
		return r;
	c->store = store;
	c->fd = -1;
	if (name)
		r = ref_name(name, &c->name, err);
	if (r == 0)
		r = find_base(c, base_id, err);
	if (r == 0 && asprintf(&tmp, "%s/tmp", store->dir) < 0) {
		tmp = NULL;
		r = error_sys(err, ENOMEM, "commit");
	}
	if (r == 0) {
		c->fd = oci_spool_file(tmp, err);
		r = c->fd < 0 ? c->fd : 0;
	}
	if (r < 0) {
		image_commit_end(c);
		return r;
	}
	*ret = c;
	return 0;
}

const struct image_info *image_commit_base(const struct image_commit *c)
{
	return &c->base;
}

void image_commit_fingerprint(struct image_commit *c, const char *fingerprint)
{
	snprintf(c->fingerprint, sizeof(c->fingerprint), "%s", fingerprint);
}

int image_commit_fd(const struct image_commit *c)
{
	return c->fd;
}

struct image_commit *image_commit_end(struct image_commit *c)
{
	if (!c)
		return NULL;
	image_unpin(c->pin);
	image_info_done(&c->base);
	json_decref(c->record);
	fd_close(c->fd);
	free(c->name);
	free(c);
	return NULL;
}

/* The base's layers as its record has them. To free. */
static struct oci_layer *layers_of(const json_t *record, unsigned *ret_count)
{
	const json_t *list = json_object_get(record, "layers"), *item;
	struct oci_layer *v = calloc(json_array_size(list) + 1, sizeof(*v));
	size_t i;

	if (!v)
		return NULL;
	*ret_count = (unsigned)json_array_size(list);
	json_array_foreach(list, i, item)
	{
		const char *digest = json_string_value(json_object_get(item, "digest"));

		snprintf(v[i].digest, sizeof(v[i].digest), "%s", digest ? digest : "");
		v[i].size = (uint64_t)json_integer_value(json_object_get(item, "size"));
	}
	return v;
}

static int make_image(struct load *l, const struct image_commit *c, const struct oci_amend *amend, struct sm_error *err)
{
	const char *text = json_string_value(json_object_get(c->record, "config_json"));
	char diff_id[OCI_DIGEST_SIZE], *config = NULL;
	_free_ struct oci_layer *below = NULL;
	struct oci_amend a = *amend;
	bool top = lseek(c->fd, 0, SEEK_END) > 0;
	unsigned count = 0;
	int r = top ? oci_file_diff_id(c->fd, diff_id, err) : 0;

	a.diff_id = top ? diff_id : NULL;
	if (r == 0)
		r = oci_amend(text ? text : "", &a, &config, err);
	if (r < 0)
		return r;
	below = layers_of(c->record, &count);
	if (below && count + top <= l->limits.max_layers)
		return oci_made_image(l->oci, config, below, count, top, &l->img, err);
	free(config);
	return below ? error_set(err, SM_ERROR_LIMIT, E2BIG, "the image would have more than %u layers",
				 l->limits.max_layers)
		     : error_sys(err, ENOMEM, "layers");
}

int image_commit_finish(struct image_commit *c, const struct oci_amend *amend, const struct image_progress *progress,
			struct image_info *ret, struct sm_error *err)
{
	struct image_load_options o = {.progress = *progress};
	struct load l = {.store = c->store, .source = "commit"};
	int r;

	load_begin(&l, &o);
	l.fingerprint = c->fingerprint[0] ? c->fingerprint : NULL;
	r = oci_open_layer_file(c->fd, "commit", &l.oci, err);
	if (r == 0)
		r = make_image(&l, c, amend, err);
	if (r == 0)
		r = load_resolved(&l, c->name, ret, err);
	load_done(&l);
	return r;
}
