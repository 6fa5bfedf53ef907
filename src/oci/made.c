/* SPDX-License-Identifier: Apache-2.0 */
/* An image that is made here: the layers of another one, and mostly one more, an uncompressed tar in a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "oci/digest.h"
#include "oci/source.h"

#define LAYER "layer"

struct store_file {
	struct store base;
	int fd;
	uint64_t size;
};

/* The layers below have no name: they are where they were put before, or not to be had. */
static int file_open(struct store *self, const char *name, struct extent *ret, struct sm_error *err)
{
	struct store_file *f = CONTAINER_OF(self, struct store_file, base);
	int fd;

	if (!name || !streq(name, LAYER))
		return -ENOENT;
	fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return error_sys(err, errno, "the new layer");
	*ret = (struct extent){.fd = fd, .size = f->size};
	return 0;
}

static void file_free(struct store *self)
{
	struct store_file *f = CONTAINER_OF(self, struct store_file, base);

	fd_close(f->fd);
	free(f);
}

int oci_open_layer_file(int fd, const char *what, struct oci_source **ret, struct sm_error *err)
{
	struct oci_source *src = calloc(1, sizeof(*src));
	struct store_file *f = calloc(1, sizeof(*f));
	struct stat st;

	if (!src || !f || !(src->spec = strdup(what))) {
		free(src);
		free(f);
		return error_sys(err, ENOMEM, "%s", what);
	}
	f->base = (struct store){.open = file_open, .free = file_free};
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	src->store = &f->base;
	src->kind = SOURCE_LAYOUT;
	if (f->fd < 0 || fstat(f->fd, &st) < 0) {
		int code = errno;

		oci_close(src);
		return error_sys(err, code, "%s", what);
	}
	f->size = (uint64_t)st.st_size;
	*ret = src;
	return 0;
}

int oci_file_diff_id(int fd, char ret[static OCI_DIGEST_SIZE], struct sm_error *err)
{
	struct extent e = {.fd = fd, .size = UINT64_MAX};
	_free_ uint8_t *chunk = malloc(MIB);
	struct hasher h;
	uint64_t at = 0;
	ssize_t n;

	if (!chunk || hasher_init(&h, "sha256:0000000000000000000000000000000000000000000000000000000000000000") < 0)
		return error_sys(err, ENOMEM, "the new layer");
	while ((n = extent_read(&e, at, chunk, MIB)) > 0) {
		hasher_update(&h, chunk, (size_t)n);
		at += (uint64_t)n;
	}
	if (n < 0)
		return error_sys(err, (int)-n, "read the new layer");
	hasher_finish(&h, ret);
	return 0;
}

/* What is stored is what it unpacks to. */
static int set_top(struct oci_layer *top, uint64_t size)
{
	top->size = size;
	top->member = strdup(LAYER);
	return top->member ? 0 : -ENOMEM;
}

int oci_made_image(const struct oci_source *src, char *config_json, const struct oci_layer *below, unsigned count,
		   bool top, struct oci_image *ret, struct sm_error *err)
{
	const struct store_file *f = CONTAINER_OF(src->store, struct store_file, base);
	struct oci_image img = {.layers = calloc(count + 1, sizeof(*img.layers))};
	struct oci_layer *last = img.layers ? &img.layers[count] : NULL;
	int r;

	if (!img.layers) {
		free(config_json);
		return error_sys(err, ENOMEM, "layers");
	}
	img.num_layers = count + top;
	if (count)
		memcpy(img.layers, below, count * sizeof(*below));
	r = image_set_config(&img, config_json, strlen(config_json), NULL, false, err);
	if (r == 0 && top && set_top(last, f->size) < 0)
		r = error_sys(err, ENOMEM, "layers");
	if (top)
		memcpy(last->digest, last->diff_id, sizeof(last->diff_id));
	if (r < 0) {
		oci_image_done(&img);
		return source_wrap(src, r, err);
	}
	*ret = img;
	return 0;
}
