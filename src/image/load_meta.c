/* SPDX-License-Identifier: Apache-2.0 */
/* Merging the layers of an image into its metadata blob. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/erofs.h"
#include "image/load.h"
#include "image/merge.h"

static int merge_one(struct load *l, struct tree *t, unsigned i, struct erofs_blob *blobs, struct sm_error *err)
{
	char path[STORE_PATH_MAX];
	_fd_ int fd =
		openat(l->store->fd, store_path(path, "layers", l->hex[i], ""), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct index_reader *index;
	int r;

	if (fd < 0)
		return error_sys(err, errno, "open %s/%s", l->store->dir, path);
	r = index_open(fd, &index, err);
	if (r == 0) {
		blobs[l->first[i]].size = index_totals(index)->blob_size;
		l->layout.stripped[i] = index_totals(index)->stripped;
		r = merge_layer(t, index, i + 1, l->first[i], err);
		index_close(index);
	}
	if (r == -EUCLEAN) /* ours, not the image's: it can be made again */
		unlinkat(l->store->fd, path, 0);
	return r < 0 ? load_layer_error(l, i, r, err) : 0;
}

static int set_parts(struct load *l, const struct erofs_blob *blobs, struct sm_error *err)
{
	l->layout.parts = calloc(l->img.num_layers + 1, sizeof(*l->layout.parts));
	if (!l->layout.parts)
		return error_sys(err, ENOMEM, "metadata");
	for (unsigned i = 0; i < l->img.num_layers; i++)
		if (blobs[i].used)
			l->layout.parts[l->layout.num_parts++] =
				(struct record_part){i, blobs[i].offset, blobs[i].size};
	return 0;
}

/* The same layers give the same bytes, so what is there already need not change: running VMs may have it mapped. */
static bool already_there(struct load *l, const char *path)
{
	struct stat st;

	return fstatat(l->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       (uint64_t)st.st_size == l->layout.meta_size;
}

static int write_metadata(struct load *l, struct tree *t, struct erofs_blob *blobs, struct sm_error *err)
{
	char tmp[STORE_PATH_MAX], final[STORE_PATH_MAX];
	struct erofs_result result;
	uint8_t uuid[16];
	_fd_ int fd = -1;
	int r;

	for (unsigned i = 0; i < sizeof(uuid); i++) {
		char digits[3] = {l->layout.key[2 * i], l->layout.key[2 * i + 1], 0};

		uuid[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	store_path(tmp, "tmp", l->layout.key, ".meta");
	store_path(final, "meta", l->layout.key, "");
	r = tmp_open(l->store, tmp, NULL, NULL, &fd, err);
	if (r < 0)
		return r;
	r = erofs_write(t, blobs, l->img.num_layers, uuid, fd, &result, err);
	if (r == 0) {
		l->layout.meta_size = result.meta_size;
		l->layout.window_size = result.window_size;
		l->layout.inodes = result.inodes;
		if (!already_there(l, final))
			r = tmp_publish(l->store, fd, tmp, final, err);
	}
	unlinkat(l->store->fd, tmp, 0);
	return r < 0 ? r : store_sync_dir(l->store, "meta", err);
}

int load_metadata(struct load *l, struct sm_error *err)
{
	struct erofs_blob *blobs = calloc(l->img.num_layers + 1, sizeof(*blobs));
	struct tree t;
	int r = blobs ? tree_init(&t) : -ENOMEM;

	if (r < 0) {
		free(blobs);
		return error_sys(err, -r, "metadata");
	}
	for (unsigned i = 0; r == 0 && i < l->img.num_layers; i++) {
		r = load_progress(l, "metadata", i, l->img.num_layers, err);
		if (r == 0)
			r = merge_one(l, &t, i, blobs, err);
	}
	if (r == 0)
		r = write_metadata(l, &t, blobs, err);
	if (r == 0)
		r = set_parts(l, blobs, err);
	tree_done(&t);
	free(blobs);
	return r;
}
