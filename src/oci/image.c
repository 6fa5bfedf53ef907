/* SPDX-License-Identifier: Apache-2.0 */
/* oci_image: what both ways of resolving share. See oci.h and source.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/decoder.h"
#include "oci/digest.h"
#include "oci/json.h"
#include "oci/platform.h"
#include "oci/source.h"

void oci_image_done(struct oci_image *img)
{
	if (!img)
		return;
	free(img->name);
	config_done(&img->config);
	free(img->config_json);
	for (unsigned i = 0; i < img->num_layers; i++)
		free(img->layers[i].member);
	free(img->layers);
	*img = (struct oci_image){0};
}

int image_set_name(struct oci_image *img, const char *name, struct sm_error *err)
{
	struct oci_ref ref;
	int r = oci_ref_parse(name, &ref, NULL);

	if (r == -EINVAL)
		return 0;
	if (r == 0 && asprintf(&img->name, "%s%s%s", ref.name, ref.tag ? ":" : "@", ref.tag ?: ref.digest) < 0) {
		img->name = NULL;
		r = -ENOMEM;
	}
	if (r < 0)
		return error_sys(err, -r, "image name");
	oci_ref_done(&ref);
	return 0;
}

int image_set_layer(struct oci_image *img, unsigned i, const struct extent *e, char *member, struct sm_error *err)
{
	struct oci_layer *l = &img->layers[i];
	const char *name = NULL;
	uint8_t head[6];
	ssize_t n = extent_read(e, 0, head, sizeof(head));

	l->member = member;
	l->size = e->size;
	if (n < 0)
		return error_sys(err, (int)-n, "read layer %u", i);
	if (compression_detect(head, (size_t)n, &l->compression, &name) < 0)
		return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
				 "layer %u is compressed with %s; images use gzip or zstd", i, name);
	return 0;
}

static int check_platform(const struct oci_config *c, const char *platform, struct sm_error *err)
{
	struct platform want;
	char a[SHOW_SIZE], b[SHOW_SIZE];
	int r = platform_parse(platform, &want, err);

	if (r < 0)
		return r;
	/* Neither is stated: nothing to hold against it. */
	if (platform_rank(&want, c->os ?: want.os, c->architecture ?: want.architecture, c->variant) > 0)
		return 0;
	return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP, "the image is for %s/%s, not for %s/%s",
			 show(c->os ?: "linux", a), show(c->architecture ?: "?", b), want.os, want.architecture);
}

int image_set_config(struct oci_image *ret, char *config_json, size_t len, const char *platform, bool check,
		     struct sm_error *err)
{
	char id[OCI_DIGEST_SIZE], **diff_ids = NULL;
	unsigned n = 0;
	int r;

	ret->config_json = config_json;
	r = digest_of("sha256:", config_json, len, id);
	if (r < 0)
		return error_sys(err, -r, "configuration");
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	r = config_parse(config_json, len, "the configuration", &ret->config, &diff_ids, err);
	if (r < 0)
		return r;
	while (diff_ids[n])
		n++;
	if (n != ret->num_layers)
		r = error_set(err, SM_ERROR_CORRUPT, EBADMSG,
			      "the manifest has %u layers, the configuration %u diff_ids", ret->num_layers, n);
	for (unsigned i = 0; r == 0 && i < n; i++)
		snprintf(ret->layers[i].diff_id, sizeof(ret->layers[i].diff_id), "%s", diff_ids[i]);
	strings_free(diff_ids);
	return r == 0 && check ? check_platform(&ret->config, platform, err) : r;
}
