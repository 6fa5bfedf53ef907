/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image of a Docker archive (`docker save`, `podman save`, `skopeo copy … docker-archive:`): manifest.json names
 * members by path. Its layers carry no digest of their own: the configuration's diff IDs hold their content.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/json.h"
#include "oci/source.h"

/* Whether a tag in the archive is the reference that the user gave, both in normal form. */
static bool tag_is(const char *tag, const struct oci_ref *want)
{
	struct oci_ref have;
	bool same;

	if (oci_ref_parse(tag, &have, NULL) < 0)
		return false;
	same = streq(have.name, want->name) && streq(have.tag ?: "", want->tag ?: "");
	oci_ref_done(&have);
	return same;
}

static void list_tags(const struct docker_doc *doc, char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = 0;
	for (size_t i = 0; i < doc->num_images; i++)
		for (char **t = doc->images[i].tags; t && *t && used + SHOW_SIZE < size; t++) {
			char one[SHOW_SIZE];

			used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? ", " : "", show(*t, one));
		}
}

/* *ret_tag: the tag that was asked for, or the image's first, or NULL. */
static int choose(const struct oci_source *src, const struct docker_doc *doc, const struct docker_image **ret,
		  const char **ret_tag, struct sm_error *err)
{
	char tags[512];
	struct oci_ref want;
	int r;

	list_tags(doc, tags, sizeof(tags));
	if (!src->tag && doc->num_images == 1) {
		*ret = &doc->images[0];
		*ret_tag = (*ret)->tags ? (*ret)->tags[0] : NULL;
		return 0;
	}
	if (!src->tag)
		return doc->num_images
			       ? error_set(err, SM_ERROR_INVALID, EINVAL,
					   "there are several images in it, add the name of one of them: %s", tags)
			       : error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no image in it");
	r = oci_ref_parse(src->tag, &want, err);
	if (r < 0)
		return r;
	*ret = NULL;
	for (size_t i = 0; !*ret && i < doc->num_images; i++)
		for (char **t = doc->images[i].tags; !*ret && t && *t; t++)
			if (tag_is(*t, &want)) {
				*ret = &doc->images[i];
				*ret_tag = *t;
			}
	oci_ref_done(&want);
	if (!*ret)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no image '%s' in it, only %s", src->tag,
				 *tags ? tags : "one without a name");
	return 0;
}

/* Docker names the configuration by its digest; where the name is one, hold it to that. */
static int check_config_name(const char *name, const char *text, size_t len, struct sm_error *err)
{
	char want[72] = "sha256:", have[OCI_DIGEST_SIZE];
	const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	size_t n = strcspn(base, ".");
	int r;

	if (n != 64)
		return 0;
	memcpy(want + 7, base, 64);
	if (!digest_valid(want))
		return 0;
	r = digest_of(want, text, len, have);
	if (r < 0)
		return error_sys(err, -r, "configuration %s", want);
	if (!streq(want, have))
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "configuration %s has digest %s", want, have);
	return 0;
}

static int open_layers(const struct oci_source *src, const struct docker_image *image, unsigned max_layers,
		       struct oci_image *ret, struct sm_error *err)
{
	size_t n = 0;

	while (image->layers[n])
		n++;
	if (n > max_layers)
		return error_set(err, SM_ERROR_LIMIT, EFBIG, "manifest.json has %zu layers, the limit is %u", n,
				 max_layers);
	ret->layers = calloc(n + 1, sizeof(*ret->layers));
	if (!ret->layers)
		return error_sys(err, ENOMEM, "layers");
	ret->num_layers = (unsigned)n;
	for (unsigned i = 0; i < n; i++) {
		struct extent e = {.fd = -1};
		char buf[SHOW_SIZE], *member;
		int r = src->store->open(src->store, image->layers[i], &e, err);

		if (r == -ENOENT)
			return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "layer %u (%s) is missing", i,
					 show(image->layers[i], buf));
		if (r < 0)
			return error_wrap(err, r, "layer %u", i);
		member = strdup(image->layers[i]);
		r = member ? image_set_layer(ret, i, &e, member, err) : error_sys(err, ENOMEM, "layers");
		extent_close(&e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int resolve_image(const struct oci_source *src, const struct docker_image *image, const char *platform,
			 unsigned max_layers, struct oci_image *ret, struct sm_error *err)
{
	_free_ char *config = NULL;
	char buf[SHOW_SIZE];
	size_t len;
	int r = store_read(src->store, image->config, JSON_MAX_BYTES, &config, &len, err);

	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "configuration %s is missing",
				 show(image->config, buf));
	if (r == 0)
		r = check_config_name(image->config, config, len, err);
	if (r == 0)
		r = open_layers(src, image, max_layers, ret, err);
	return r < 0 ? r : image_set_config(ret, TAKE_PTR(config), len, platform, true, err);
}

int resolve_docker(const struct oci_source *src, const char *platform, unsigned max_layers, struct oci_image *ret,
		   struct sm_error *err)
{
	const struct docker_image *image;
	struct docker_doc doc = {0};
	_free_ char *text = NULL;
	const char *tag = NULL;
	size_t len;
	int r = store_read(src->store, "manifest.json", JSON_MAX_BYTES, &text, &len, err);

	if (r == -ENOENT)
		return error_set(err, SM_ERROR_NOT_FOUND, ENOENT, "there is no manifest.json in it");
	if (r == 0)
		r = docker_parse(text, len, "manifest.json", &doc, err);
	if (r < 0)
		return r;
	r = choose(src, &doc, &image, &tag, err);
	if (r == 0)
		r = resolve_image(src, image, platform, max_layers, ret, err);
	if (r == 0 && tag)
		r = image_set_name(ret, tag, err);
	docker_done(&doc);
	return r;
}
