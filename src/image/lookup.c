/* SPDX-License-Identifier: Apache-2.0 */
/* What is where in an image of the store: its layers merged in memory, without their contents. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/merge.h"
#include "image/path.h"
#include "image/store.h"

#define MAX_LOOK 65536u

struct image_tree {
	struct tree tree;
	struct buf path;
};

static int merge_one(struct image_store *store, struct tree *t, const struct image_info *image, unsigned i,
		     struct sm_error *err)
{
	char path[STORE_PATH_MAX], hex[HEX_SIZE];
	struct index_reader *index;
	_fd_ int fd = -1;
	int r;

	if (!sha256_digits(image->diff_ids[i], hex))
		return error_sys(err, EINVAL, "layer %u", i + 1);
	fd = openat(store->fd, store_path(path, "layers", hex, ""), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_sys(err, errno, "open %s/%s", store->dir, path);
	r = index_open(fd, &index, err);
	if (r < 0)
		return r;
	r = merge_layer(t, index, i + 1, i, err);
	index_close(index);
	return r;
}

int image_tree_open(struct image_store *store, const struct image_info *image, struct image_tree **ret,
		    struct sm_error *err)
{
	struct image_tree *t = calloc(1, sizeof(*t));
	int r = t ? tree_init(&t->tree) : -ENOMEM;

	if (r < 0) {
		free(t);
		return error_sys(err, -r, "image %.12s", image->id);
	}
	for (unsigned i = 0; r == 0 && i < image->num_layers; i++)
		r = merge_one(store, &t->tree, image, i, err);
	if (r < 0) {
		image_tree_close(t);
		return error_wrap(err, r, "image %.12s", image->id);
	}
	*ret = t;
	return 0;
}

struct image_tree *image_tree_close(struct image_tree *t)
{
	if (!t)
		return NULL;
	tree_done(&t->tree);
	buf_done(&t->path);
	free(t);
	return NULL;
}

int image_tree_look(struct image_tree *t, const char *path, enum image_place *ret, struct sm_error *err)
{
	struct tar_bytes raw = {(const uint8_t *)path, strlen(path)};
	uint16_t type;
	int r = path_normalise(raw, MAX_LOOK, INDEX_MAX_DEPTH, &t->path, err);

	if (r < 0)
		return r;
	r = merge_look(&t->tree, (struct tar_bytes){t->path.data, t->path.len}, &type);
	if (r < 0 && r != -ENOTDIR && r != -ELOOP && r != -ENAMETOOLONG)
		return error_sys(err, -r, "%s", path);
	*ret = r < 0 ? IMAGE_UNREACHABLE : S_ISDIR(type) ? IMAGE_DIRECTORY : type ? IMAGE_OTHER : IMAGE_NOTHING;
	return 0;
}
