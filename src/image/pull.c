/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pulling: what a name means in its registry, and into the store with it. A manifest is known by its digest, so an
 * image that is there needs nothing but a name; of any other only the layers that are not there are fetched, each
 * straight into its blob (load_layers.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/load.h"

struct search {
	struct image_store *store;
	const char *digest;
	char id[HEX_SIZE]; /* "": not found */
	json_t *record;
};

static int match_digest(void *arg, const char *id, json_t *record)
{
	struct search *s = arg;

	if (!streq(json_string_value(json_object_get(record, "digest")), s->digest) ||
	    !record_complete(s->store, record))
		return 0;
	memcpy(s->id, id, HEX_SIZE);
	s->record = json_incref(record);
	return 1;
}

/* The whole image of that manifest, pinned: 1, 0: there is none. */
static int find_known(struct load *l, const char *digest, struct search *s, struct sm_error *err)
{
	struct pin_item item = {.kind = "image"};
	_fd_ int lock = -1;
	int r = store_lock(l->store, &lock, err);

	*s = (struct search){.store = l->store, .digest = digest};
	if (r == 0)
		r = record_each(l->store, "images", match_digest, s, err);
	if (r == 0)
		r = record_each(l->store, "removed", match_digest, s, err);
	if (r <= 0)
		return r;
	memcpy(item.hex, s->id, HEX_SIZE);
	r = pin_create_locked(l->store, &item, 1, &l->pin, err);
	return r < 0 ? r : 1;
}

static int pull(struct load *l, const char *ref, const char *name, const char *platform, struct image_info *ret,
		struct sm_error *err)
{
	char digest[OCI_DIGEST_SIZE];
	struct search known = {0};
	int r = load_progress(l, "manifest", 0, 0, err);

	if (r == 0)
		r = oci_peek(l->oci, platform, digest, err);
	if (r == 0)
		r = find_known(l, digest, &known, err);
	if (r == 1) {
		r = load_publish(l, known.id, known.record, name, ret, err);
	} else if (r == 0) {
		r = oci_resolve(l->oci, platform, l->limits.max_layers, &l->img, err);
		if (r == 0)
			r = load_resolved(l, name, ret, err);
	}
	json_decref(known.record);
	if (r < 0 && err && !str_starts(err->message, ref))
		error_wrap(err, r, "%s", ref);
	return r;
}

int image_pull(struct image_store *store, const char *ref, const struct image_load_options *options,
	       const struct image_registry *registry, struct image_info *ret, struct sm_error *err)
{
	struct load l = {.store = store, .source = ref};
	struct oci_registry_options o = {.auth_file = registry->auth_file,
					 .stopped = load_is_stopped,
					 .arg = &l,
					 .stall_ms = registry->stall_ms,
					 .retry_ms = registry->retry_ms};
	_free_ char *name = NULL;
	struct oci_ref parsed = {0};
	int r = oci_ref_parse(ref, &parsed, err);

	if (r == 0)
		r = ref_key(&parsed, &name, err);
	oci_ref_done(&parsed);
	if (r < 0)
		return r;
	load_begin(&l, options);
	r = oci_open_registry(ref, &o, &l.oci, err);
	if (r == 0)
		r = pull(&l, ref, name, options->platform, ret, err);
	load_done(&l);
	return r;
}
