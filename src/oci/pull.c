/* SPDX-License-Identifier: Apache-2.0 */
/* A registry as a source of images: manifests, indexes and configurations, each whole and verified. See oci.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/json.h"
#include "oci/registry.h"
#include "oci/source.h"

#define ACCEPT                                                                                                         \
	"application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "         \
	"application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

int oci_open_registry(const char *ref, const struct oci_registry_options *o, struct oci_source **ret,
		      struct sm_error *err)
{
	struct oci_source *src = calloc(1, sizeof(*src));
	struct oci_place place = {0};
	int r;

	if (!src)
		return error_sys(err, ENOMEM, "%s", ref);
	src->kind = SOURCE_REGISTRY;
	src->spec = strdup(ref);
	r = src->spec ? oci_ref_parse(ref, &src->ref, err) : error_sys(err, ENOMEM, "%s", ref);
	if (r == 0)
		r = oci_ref_place(&src->ref, &place, err);
	if (r == 0)
		r = registry_new(&place, o, &src->registry, err);
	if (r < 0) {
		oci_close(src);
		return r;
	}
	*ret = src;
	return 0;
}

/* Gets a whole document; a connection that breaks within it is tried once more. */
static int fetch(const struct oci_source *src, const struct registry_request *req, const char *what, char **ret,
		 size_t *ret_len, struct sm_error *err)
{
	for (unsigned n = 0;; n++) {
		struct http_answer a;
		bool temporary = false;
		struct http *h;
		int r = registry_get(src->registry, req, &h, &a, err);

		if (r < 0)
			return r;
		r = http_read_all(h, JSON_MAX_BYTES, what, ret, ret_len, &temporary, err);
		registry_put(src->registry, h);
		if (r == 0 || !temporary || n)
			return r;
		r = registry_pause(src->registry, n, NULL, err);
		if (r < 0)
			return r;
	}
}

static int verify(const char *digest, const char *what, const char *text, size_t len, struct sm_error *err)
{
	char have[OCI_DIGEST_SIZE];
	int r = digest_of(digest, text, len, have);

	if (r < 0)
		return error_sys(err, -r, "%s", what);
	if (!streq(have, digest))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG,
				 "the registry sends %s with another content: that has digest %s", what, have);
	return 0;
}

int registry_root(struct oci_source *src, struct sm_error *err)
{
	const char *digest = src->ref.digest;
	struct registry_request req = {.kind = "manifests", .name = digest ? digest : src->ref.tag, .accept = ACCEPT};
	int r;

	if (src->root)
		return 0;
	r = fetch(src, &req, "the manifest", &src->root, &src->root_len, err);
	if (r == 0 && digest)
		r = verify(digest, "the manifest", src->root, src->root_len, err);
	if (r == 0 && digest_of(digest ? digest : "sha256:", src->root, src->root_len, src->root_digest) < 0)
		r = error_sys(err, ENOMEM, "manifest");
	if (r < 0) {
		free(src->root);
		src->root = NULL;
	}
	return r;
}

int oci_peek(struct oci_source *src, const char *platform, char ret[static OCI_DIGEST_SIZE], struct sm_error *err)
{
	int r = registry_root(src, err);

	if (r == 0)
		r = resolve_peek(src, platform, ret, err);
	return source_wrap(src, r, err);
}

int registry_read(const struct oci_source *src, const struct descriptor *d, const char *what, char **ret,
		  size_t *ret_len, struct sm_error *err)
{
	bool manifest = d->kind == MEDIA_INDEX || d->kind == MEDIA_MANIFEST;
	struct registry_request req = {
		.kind = manifest ? "manifests" : "blobs", .name = d->digest, .accept = manifest ? ACCEPT : NULL};
	_free_ char *text = NULL;
	int r = fetch(src, &req, what, &text, ret_len, err);

	if (r == 0 && *ret_len != d->size)
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s has %zu bytes, its descriptor says %llu", what,
			      *ret_len, (unsigned long long)d->size);
	if (r == 0)
		r = verify(d->digest, what, text, *ret_len, err);
	if (r == 0)
		*ret = TAKE_PTR(text);
	return r;
}
