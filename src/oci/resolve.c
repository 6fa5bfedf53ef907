/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a layout's index.json, or what a registry calls by a name, to one image: entries by name, nested indexes (each
 * verified, none twice on one way down, so that no cycle can be followed), the best platform, its manifest, its
 * configuration, its layers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/json.h"
#include "oci/platform.h"
#include "oci/source.h"

#define MAX_INDEX_DEPTH 8
#define MAX_INDEXES 256 /* in all: an index of indexes must not multiply */

struct walk {
	const struct oci_source *src;
	struct platform want;
	const char *path[MAX_INDEX_DEPTH]; /* digests of the indexes on the way down */
	unsigned depth, indexes, others;   /* others: manifests for other platforms */
	char seen[256];			   /* their names, for the error */
	struct descriptor best;		   /* copies what is needed: digest, size, kind */
	int best_rank;
	bool best_unnamed; /* its descriptor says no platform: the configuration must */
};

static void note_other(struct walk *w, const struct descriptor *d)
{
	size_t used = strlen(w->seen);
	char a[SHOW_SIZE], b[SHOW_SIZE], c[SHOW_SIZE];

	w->others++;
	if (used < sizeof(w->seen) - 48)
		snprintf(w->seen + used, sizeof(w->seen) - used, "%s%.16s/%.16s%s%.8s", used ? ", " : "",
			 show(d->os ?: "?", a), show(d->architecture ?: "?", b), d->variant ? "/" : "",
			 show(d->variant ?: "", c));
}

static int visit(struct walk *w, const struct descriptor *d, struct sm_error *err);

static int visit_index(struct walk *w, const struct descriptor *d, struct sm_error *err)
{
	_free_ char *text = NULL;
	struct index_doc doc = {0};
	char what[OCI_DIGEST_SIZE + 16];
	size_t len;
	int r;

	for (unsigned i = 0; i < w->depth; i++)
		if (streq(w->path[i], d->digest))
			return error_set(err, SM_ERROR_CORRUPT, ELOOP, "index %s contains itself", d->digest);
	if (w->depth == MAX_INDEX_DEPTH || ++w->indexes > MAX_INDEXES)
		return error_set(err, SM_ERROR_LIMIT, ELOOP, "more than %u indexes, or more than %u inside each other",
				 MAX_INDEXES, MAX_INDEX_DEPTH);
	snprintf(what, sizeof(what), "index %s", d->digest);
	r = source_read_blob(w->src, d, what, &text, &len, err);
	if (r == 0)
		r = index_parse(text, len, what, &doc, err);
	if (r < 0)
		return r;
	w->path[w->depth++] = d->digest;
	for (size_t i = 0; r == 0 && i < doc.num_children; i++)
		r = visit(w, &doc.children[i], err);
	w->depth--;
	index_done(&doc);
	return r;
}

static int visit(struct walk *w, const struct descriptor *d, struct sm_error *err)
{
	bool unnamed = !d->os && !d->architecture;
	int rank;

	if (d->kind == MEDIA_INDEX)
		return visit_index(w, d, err);
	if (d->kind != MEDIA_MANIFEST)
		return 0;
	rank = unnamed ? 1 : platform_rank(&w->want, d->os ?: "", d->architecture ?: "", d->variant) * 2;
	/* "unknown/unknown" is an attestation, which builders put beside the images. */
	if (rank == 0 && !streq(d->os ?: "", "unknown"))
		note_other(w, d);
	if (rank > w->best_rank) {
		w->best_rank = rank;
		w->best_unnamed = unnamed;
		w->best = (struct descriptor){.kind = d->kind, .size = d->size};
		memcpy(w->best.digest, d->digest, sizeof(w->best.digest));
	}
	return 0;
}

/* Whether a name in the index is what the user's TAG means: all of it, or what follows its last ':'. */
static bool name_is(const char *name, const char *tag)
{
	const char *colon = name ? strrchr(name, ':') : NULL;

	return name && (streq(name, tag) || (colon && streq(colon + 1, tag)));
}

static bool same_name(const struct descriptor *a, const struct descriptor *b)
{
	return streq(a->ref_name ?: "", b->ref_name ?: "") && streq(a->full_name ?: "", b->full_name ?: "");
}

static void list_names(const struct index_doc *doc, char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = 0;
	for (size_t i = 0; i < doc->num_children && used + SHOW_SIZE < size; i++) {
		char one[SHOW_SIZE];

		used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? ", " : "",
					 show(doc->children[i].ref_name ?: doc->children[i].digest, one));
	}
}

/* The entry whose name the user means; further entries of the same name are its other platforms. */
static int choose_name(const struct oci_source *src, const struct index_doc *doc, size_t *ret, struct sm_error *err)
{
	char names[512];
	bool alike = true;

	if (doc->num_children == 0)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no image in it");
	list_names(doc, names, sizeof(names));
	for (size_t i = 1; i < doc->num_children; i++)
		alike = alike && same_name(&doc->children[0], &doc->children[i]);
	if (!src->tag && alike) {
		*ret = 0;
		return 0;
	}
	for (int exact = 1; exact >= 0; exact--)
		for (size_t i = 0; i < doc->num_children; i++) {
			const struct descriptor *d = &doc->children[i];
			const char *tag = src->tag ?: "latest";

			if (exact ? d->ref_name && streq(d->ref_name, tag)
				  : name_is(d->ref_name, tag) || name_is(d->full_name, tag)) {
				*ret = i;
				return 0;
			}
		}
	if (src->tag)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no image '%s' in it, only %s", src->tag,
				 names);
	return error_set(err, SM_ERROR_INVALID, EINVAL,
			 "there are several images in it, add the name of one of them: %s", names);
}

/* Letters, digits and separators that a reference's first part allows; else no name can be made of it. */
static bool usable_base(const char *s)
{
	return *s && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == strlen(s);
}

static int set_name(const struct oci_source *src, const struct descriptor *d, struct oci_image *ret,
		    struct sm_error *err)
{
	_free_ char *name = NULL;

	if (d->full_name)
		return image_set_name(ret, d->full_name, err);
	if (d->ref_name && (strchr(d->ref_name, '/') || strchr(d->ref_name, ':') || !src->base_name))
		return image_set_name(ret, d->ref_name, err);
	if (!src->base_name || !usable_base(src->base_name))
		return 0;
	if (asprintf(&name, "%s:%s", src->base_name, d->ref_name ?: "latest") < 0) {
		name = NULL;
		return error_sys(err, ENOMEM, "image name");
	}
	return image_set_name(ret, name, err);
}

/* Of a registry the descriptors are all there is until the layers are read. */
static void describe_layers(const struct manifest_doc *doc, struct oci_image *ret)
{
	for (unsigned i = 0; i < ret->num_layers; i++) {
		memcpy(ret->layers[i].digest, doc->layers[i].digest, sizeof(ret->layers[i].digest));
		ret->layers[i].size = doc->layers[i].size;
		ret->layers[i].unseen = true;
	}
}

static int open_layers(const struct oci_source *src, const struct manifest_doc *doc, struct oci_image *ret,
		       struct sm_error *err)
{
	ret->layers = calloc(doc->num_layers + 1, sizeof(*ret->layers));
	if (!ret->layers)
		return error_sys(err, ENOMEM, "layers");
	ret->num_layers = (unsigned)doc->num_layers;
	if (src->kind == SOURCE_REGISTRY) {
		describe_layers(doc, ret);
		return 0;
	}
	for (unsigned i = 0; i < ret->num_layers; i++) {
		const struct descriptor *d = &doc->layers[i];
		struct extent e = {.fd = -1};
		char *member = NULL;
		int r = source_open_blob(src, d->digest, &e, &member, err);

		memcpy(ret->layers[i].digest, d->digest, sizeof(d->digest));
		if (r == -ENOENT)
			return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "layer %u (%s) is missing%s", i, d->digest,
					 d->kind == MEDIA_FOREIGN_LAYER
						 ? ": it is one that its maker does not let others distribute"
						 : "");
		if (r < 0)
			return error_wrap(err, r, "layer %u (%s)", i, d->digest);
		if (e.size != d->size)
			r = error_set(err, SM_ERROR_CORRUPT, EBADMSG,
				      "layer %u (%s) has %llu bytes, its descriptor says %llu", i, d->digest,
				      (unsigned long long)e.size, (unsigned long long)d->size);
		if (r < 0)
			free(member);
		else
			r = image_set_layer(ret, i, &e, member, err);
		extent_close(&e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The manifest is chosen: read and check all that hangs on it. */
static int resolve_manifest(const struct walk *w, const char *text, size_t len, const char *platform,
			    unsigned max_layers, struct oci_image *ret, struct sm_error *err)
{
	struct manifest_doc doc = {0};
	char what[OCI_DIGEST_SIZE + 32], *config = NULL;
	size_t config_len;
	int r;

	snprintf(what, sizeof(what), "manifest %s", w->best.digest);
	r = manifest_parse(text, len, what, max_layers, &doc, err);
	if (r < 0)
		return r;
	memcpy(ret->manifest_digest, w->best.digest, sizeof(ret->manifest_digest));
	r = open_layers(w->src, &doc, ret, err);
	if (r == 0) {
		snprintf(what, sizeof(what), "configuration %s", doc.config->digest);
		r = source_read_blob(w->src, doc.config, what, &config, &config_len, err);
	}
	if (r == 0)
		r = image_set_config(ret, config, config_len, platform, w->best_unnamed, err);
	manifest_done(&doc);
	return r;
}

static int no_platform(const struct walk *w, struct sm_error *err)
{
	if (w->others == 0)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no image manifest in it");
	return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "there is no image for %s/%s%s%s in it, only for %s",
			 w->want.os, w->want.architecture, *w->want.variant ? "/" : "", w->want.variant, w->seen);
}

/* The best manifest of the entries that are called as the one at `first` is: into w->best. */
static int choose_manifest(struct walk *w, const struct index_doc *doc, size_t first, struct sm_error *err)
{
	int r = 0;

	for (size_t i = first; r == 0 && i < doc->num_children; i++)
		if (same_name(&doc->children[first], &doc->children[i]))
			r = visit(w, &doc->children[i], err);
	return r < 0 ? r : w->best_rank ? 0 : no_platform(w, err);
}

static int resolve_index(struct walk *w, const struct index_doc *doc, const char *platform, unsigned max_layers,
			 struct oci_image *ret, struct sm_error *err)
{
	_free_ char *text = NULL;
	char what[OCI_DIGEST_SIZE + 16];
	size_t first = 0, len;
	int r = choose_name(w->src, doc, &first, err);

	if (r == 0)
		r = choose_manifest(w, doc, first, err);
	if (r < 0)
		return r;
	snprintf(what, sizeof(what), "manifest %s", w->best.digest);
	r = source_read_blob(w->src, &w->best, what, &text, &len, err);
	if (r == 0)
		r = resolve_manifest(w, text, len, platform, max_layers, ret, err);
	return r < 0 ? r : set_name(w->src, &doc->children[first], ret, err);
}

/* skopeo's dir: has no index.json: its manifest.json is the root, an index or a manifest. Its digest is nobody's to
 * check: computed here. */
static int resolve_dir(struct walk *w, const char *text, size_t len, const char *platform, unsigned max_layers,
		       struct oci_image *ret, struct sm_error *err)
{
	struct index_doc doc = {0};
	enum media_kind kind;
	int r = document_kind(text, len, "manifest.json", &kind, err);

	if (r < 0)
		return r;
	if (kind == MEDIA_INDEX) {
		r = index_parse(text, len, "manifest.json", &doc, err);
		if (r == 0)
			r = resolve_index(w, &doc, platform, max_layers, ret, err);
		index_done(&doc);
		return r;
	}
	w->best_unnamed = true;
	r = digest_of("sha256:", text, len, w->best.digest);
	if (r < 0)
		return error_sys(err, -r, "manifest.json");
	r = resolve_manifest(w, text, len, platform, max_layers, ret, err);
	return r < 0 ? r : set_name(w->src, &w->best, ret, err);
}

/* From a registry's answer to w->best; w->best_unnamed if that is the answer itself. */
static int choose_remote(struct walk *w, struct sm_error *err)
{
	const struct oci_source *src = w->src;
	struct index_doc doc = {0};
	enum media_kind kind;
	int r = document_kind(src->root, src->root_len, "the manifest", &kind, err);

	if (r < 0)
		return r;
	if (kind != MEDIA_INDEX) {
		w->best_unnamed = true;
		memcpy(w->best.digest, src->root_digest, sizeof(w->best.digest));
		return 0;
	}
	w->path[w->depth++] = src->root_digest;
	r = index_parse(src->root, src->root_len, "the index", &doc, err);
	/* All of it is what the name means, whatever its entries are called. */
	for (size_t i = 0; r == 0 && i < doc.num_children; i++)
		r = visit(w, &doc.children[i], err);
	index_done(&doc);
	return r < 0 ? r : w->best_rank ? 0 : no_platform(w, err);
}

static int resolve_remote(struct walk *w, const char *platform, unsigned max_layers, struct oci_image *ret,
			  struct sm_error *err)
{
	const struct oci_source *src = w->src;
	_free_ char *text = NULL;
	char what[OCI_DIGEST_SIZE + 16];
	size_t len;
	int r = choose_remote(w, err);

	if (r < 0)
		return r;
	if (streq(w->best.digest, src->root_digest))
		return resolve_manifest(w, src->root, src->root_len, platform, max_layers, ret, err);
	snprintf(what, sizeof(what), "manifest %s", w->best.digest);
	r = source_read_blob(src, &w->best, what, &text, &len, err);
	return r < 0 ? r : resolve_manifest(w, text, len, platform, max_layers, ret, err);
}

int resolve_peek(const struct oci_source *src, const char *platform, char ret[static OCI_DIGEST_SIZE],
		 struct sm_error *err)
{
	struct walk w = {.src = src};
	int r = platform_parse(platform, &w.want, err);

	if (r == 0)
		r = choose_remote(&w, err);
	if (r == 0)
		memcpy(ret, w.best.digest, OCI_DIGEST_SIZE);
	return r;
}

int resolve_layout(const struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret,
		   struct sm_error *err)
{
	const char *name = src->kind == SOURCE_DIR ? "manifest.json" : "index.json";
	struct walk w = {.src = src};
	struct index_doc doc = {0};
	_free_ char *text = NULL;
	size_t len;
	int r = platform_parse(platform, &w.want, err);

	if (r == 0 && src->kind == SOURCE_REGISTRY)
		return resolve_remote(&w, platform, max_layers, ret, err);
	if (r == 0)
		r = store_read(src->store, name, JSON_MAX_BYTES, &text, &len, err);
	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no %s in it", name);
	if (r < 0)
		return r;
	if (src->kind == SOURCE_DIR)
		return resolve_dir(&w, text, len, platform, max_layers, ret, err);
	r = index_parse(text, len, name, &doc, err);
	if (r == 0)
		r = resolve_index(&w, &doc, platform, max_layers, ret, err);
	index_done(&doc);
	return r;
}
