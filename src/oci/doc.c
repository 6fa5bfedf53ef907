/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors, indexes, manifests and Docker's manifest.json. See doc.h. */
#include "oci/doc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/json.h"

/* No blob is larger, and sums of a few hundred sizes cannot overflow. */
#define MAX_BLOB_SIZE (1ULL << 50)
#define REF_NAME "org.opencontainers.image.ref.name"
#define FULL_NAME "io.containerd.image.name"

void descriptors_free(struct descriptor *list, size_t n)
{
	for (size_t i = 0; list && i < n; i++) {
		free(list[i].media_type);
		free(list[i].ref_name);
		free(list[i].full_name);
		free(list[i].os);
		free(list[i].architecture);
		free(list[i].variant);
	}
	free(list);
}

static int parse_annotations(json_t *obj, const char *what, struct descriptor *ret, struct sm_error *err)
{
	json_t *annotations, *platform;
	int r = json_get_object(obj, "annotations", false, what, &annotations, err);

	if (r == 0)
		r = json_get_object(obj, "platform", false, what, &platform, err);
	if (r == 0 && annotations)
		r = json_copy_string(annotations, REF_NAME, what, &ret->ref_name, err);
	if (r == 0 && annotations)
		r = json_copy_string(annotations, FULL_NAME, what, &ret->full_name, err);
	if (r < 0 || !platform)
		return r;
	r = json_copy_string(platform, "os", what, &ret->os, err);
	if (r == 0)
		r = json_copy_string(platform, "architecture", what, &ret->architecture, err);
	if (r == 0)
		r = json_copy_string(platform, "variant", what, &ret->variant, err);
	return r;
}

static int parse_descriptor(json_t *obj, const char *what, struct descriptor *ret, struct sm_error *err)
{
	char buf[SHOW_SIZE];
	const char *digest;
	int r;

	if (!json_is_object(obj))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: not a descriptor (an object)", what);
	r = json_copy_string(obj, "mediaType", what, &ret->media_type, err);
	if (r < 0)
		return r;
	if (!ret->media_type)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: 'mediaType' is missing", what);
	ret->kind = media_kind(ret->media_type);
	r = json_get_string(obj, "digest", true, what, &digest, err);
	if (r < 0)
		return r;
	if (!digest_valid(digest))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: '%s' is not a sha256 or sha512 digest", what,
				 show(digest, buf));
	snprintf(ret->digest, sizeof(ret->digest), "%s", digest);
	r = json_get_u64(obj, "size", true, MAX_BLOB_SIZE, what, &ret->size, err);
	return r < 0 ? r : parse_annotations(obj, what, ret, err);
}

/* Makes a list of n descriptors out of an array; errors say which: "what: layers[3]: …". */
static int parse_descriptors(json_t *array, const char *key, const char *what, struct descriptor **ret,
			     struct sm_error *err)
{
	size_t n = json_array_size(array);
	struct descriptor *list = calloc(n + 1, sizeof(*list));

	if (!list)
		return error_sys(err, ENOMEM, "%s", what);
	for (size_t i = 0; i < n; i++) {
		char where[256];
		int r;

		snprintf(where, sizeof(where), "%s: %s[%zu]", what, key, i);
		r = parse_descriptor(json_array_get(array, i), where, &list[i], err);
		if (r < 0) {
			descriptors_free(list, n);
			return r;
		}
	}
	*ret = list;
	return 0;
}

/* Reads a document that is an object of schema 2 and calls itself nothing but `want` (image-spec manifest.md: beware of
 * one that is two). */
static int read_document(const char *text, size_t len, const char *what, enum media_kind want, json_t **ret,
			 struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	char buf[SHOW_SIZE];
	const char *type;
	uint64_t version = 2;
	int r = json_read(text, len, what, &doc, err);

	if (r < 0)
		return r;
	if (!json_is_object(doc))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not a JSON object", what);
	r = json_get_u64(doc, "schemaVersion", false, UINT32_MAX, what, &version, err);
	if (r == 0)
		r = json_get_string(doc, "mediaType", false, what, &type, err);
	if (r < 0)
		return r;
	if (version != 2)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "%s has schema version %llu, only 2 is supported",
				 what, (unsigned long long)version);
	if (type && media_kind(type) != want)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s calls itself '%s', its descriptor says otherwise",
				 what, show(type, buf));
	if (json_object_get(doc, want == MEDIA_INDEX ? "layers" : "manifests"))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is both an index and a manifest", what);
	*ret = TAKE_PTR(doc);
	return 0;
}

int index_parse(const char *text, size_t len, const char *what, struct index_doc *ret, struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	json_t *list;
	int r = read_document(text, len, what, MEDIA_INDEX, &doc, err);

	if (r == 0)
		r = json_get_array(doc, "manifests", true, what, &list, err);
	if (r == 0)
		r = parse_descriptors(list, "manifests", what, &ret->children, err);
	if (r == 0)
		ret->num_children = json_array_size(list);
	return r;
}

void index_done(struct index_doc *doc)
{
	descriptors_free(doc->children, doc->num_children);
	*doc = (struct index_doc){0};
}

/* Everything of a kind we can serve, or the error that names what is not. */
static int check_manifest(const struct manifest_doc *doc, const char *what, struct sm_error *err)
{
	char buf[SHOW_SIZE];

	if (doc->config->kind != MEDIA_CONFIG)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "%s is not a container image: its configuration is of media type '%s'", what,
				 show(doc->config->media_type, buf));
	if (doc->config->size > JSON_MAX_BYTES)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s: its configuration is over %u bytes", what,
				 JSON_MAX_BYTES);
	for (size_t i = 0; i < doc->num_layers; i++) {
		const struct descriptor *d = &doc->layers[i];

		if (d->kind != MEDIA_LAYER && d->kind != MEDIA_FOREIGN_LAYER)
			return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
					 "%s: layer %zu is of unknown media type '%s'", what, i,
					 show(d->media_type, buf));
	}
	return 0;
}

static int manifest_fill(json_t *doc, const char *what, unsigned max_layers, struct manifest_doc *m,
			 struct sm_error *err)
{
	json_t *config, *layers, *one;
	int r = json_get_object(doc, "config", true, what, &config, err);

	if (r == 0)
		r = json_get_array(doc, "layers", true, what, &layers, err);
	if (r < 0)
		return r;
	if (json_array_size(layers) > max_layers)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s has %zu layers, the limit is %u", what,
				 json_array_size(layers), max_layers);
	one = json_array();
	if (!one || json_array_append(one, config) < 0)
		r = error_sys(err, ENOMEM, "%s", what);
	else
		r = parse_descriptors(one, "config", what, &m->config, err);
	json_decref(one);
	if (r == 0)
		r = parse_descriptors(layers, "layers", what, &m->layers, err);
	if (r == 0)
		m->num_layers = json_array_size(layers);
	return r < 0 ? r : check_manifest(m, what, err);
}

int manifest_parse(const char *text, size_t len, const char *what, unsigned max_layers, struct manifest_doc *ret,
		   struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	struct manifest_doc m = {0};
	int r = read_document(text, len, what, MEDIA_MANIFEST, &doc, err);

	if (r == 0)
		r = manifest_fill(doc, what, max_layers, &m, err);
	if (r < 0)
		manifest_done(&m);
	else
		*ret = m;
	return r;
}

void manifest_done(struct manifest_doc *doc)
{
	descriptors_free(doc->config, 1);
	descriptors_free(doc->layers, doc->num_layers);
	*doc = (struct manifest_doc){0};
}

int document_kind(const char *text, size_t len, const char *what, enum media_kind *ret, struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	const char *type;
	int r = json_read(text, len, what, &doc, err);

	if (r == 0)
		r = json_get_string(doc, "mediaType", false, what, &type, err);
	if (r < 0)
		return r;
	*ret = type ? media_kind(type) : json_object_get(doc, "manifests") ? MEDIA_INDEX : MEDIA_MANIFEST;
	return 0;
}

/* A name that a member of the archive can have; the archive's index does the rest. */
static int docker_image_parse(json_t *obj, const char *what, struct docker_image *ret, struct sm_error *err)
{
	const char *config;
	json_t *tags, *layers;
	int r;

	if (!json_is_object(obj))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not an object", what);
	r = json_get_string(obj, "Config", true, what, &config, err);
	if (r == 0)
		r = json_get_array(obj, "RepoTags", false, what, &tags, err);
	if (r == 0)
		r = json_get_array(obj, "Layers", true, what, &layers, err);
	if (r < 0)
		return r;
	ret->config = strdup(config);
	if (!ret->config)
		return error_sys(err, ENOMEM, "%s", what);
	r = json_copy_strings(tags, "RepoTags", what, &ret->tags, err);
	return r < 0 ? r : json_copy_strings(layers, "Layers", what, &ret->layers, err);
}

int docker_parse(const char *text, size_t len, const char *what, struct docker_doc *ret, struct sm_error *err)
{
	_cleanup_(json_cleanup) json_t *doc = NULL;
	struct docker_doc d = {0};
	int r = json_read(text, len, what, &doc, err);

	if (r < 0)
		return r;
	if (!json_is_array(doc))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s is not a JSON array", what);
	d.num_images = json_array_size(doc);
	d.images = calloc(d.num_images + 1, sizeof(*d.images));
	if (!d.images)
		return error_sys(err, ENOMEM, "%s", what);
	for (size_t i = 0; i < d.num_images; i++) {
		char where[256];

		snprintf(where, sizeof(where), "%s: image %zu", what, i);
		r = docker_image_parse(json_array_get(doc, i), where, &d.images[i], err);
		if (r < 0) {
			docker_done(&d);
			return r;
		}
	}
	*ret = d;
	return 0;
}

void docker_done(struct docker_doc *doc)
{
	for (size_t i = 0; doc->images && i < doc->num_images; i++) {
		free(doc->images[i].config);
		strings_free(doc->images[i].tags);
		strings_free(doc->images[i].layers);
	}
	free(doc->images);
	*doc = (struct docker_doc){0};
}
