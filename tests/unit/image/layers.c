/* SPDX-License-Identifier: Apache-2.0 */
/* Tar layers to a flat EROFS file. See layers.h. */
#include "layers.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "image/index.h"
#include "image/merge.h"

const struct layer_limits layers_limits = {
	.max_entries = 1U << 22, .max_bytes = 1ULL << 38, .max_depth = 1024, .max_path = 65536};

ssize_t layers_read_fd(void *arg, void *p, size_t len, struct sm_error *err)
{
	ssize_t n = read(*(const int *)arg, p, len);

	return n < 0 ? error_sys(err, errno, "read the layer") : n;
}

static int copy_blob(int from, int to, uint64_t offset, uint64_t size)
{
	static char zero[BLOCK_SIZE];
	char block[BLOCK_SIZE];

	for (uint64_t at = 0; at < size; at += BLOCK_SIZE) {
		off_t data = lseek(from, (off_t)at, SEEK_DATA);

		if (data < 0)
			break;
		at = (uint64_t)data & ~(uint64_t)(BLOCK_SIZE - 1);
		if (pread_full(from, block, BLOCK_SIZE, (off_t)at) != BLOCK_SIZE)
			return -EIO;
		if (memcmp(block, zero, BLOCK_SIZE) != 0 &&
		    pwrite_full(to, block, BLOCK_SIZE, (off_t)(offset + at)) < 0)
			return -EIO;
	}
	return 0;
}

static int convert(int tar_fd, int blob_fd, int index_fd, struct tree *t, unsigned i, struct erofs_blob *blob,
		   struct sm_error *err)
{
	struct tar_input input = {.read = layers_read_fd, .arg = &tar_fd};
	struct index_reader *index;
	struct layer_stats stats;
	int r = layer_convert(&input, &layers_limits, blob_fd, index_fd, &stats, err);

	if (r < 0)
		return r;
	r = index_open(index_fd, &index, err);
	if (r < 0)
		return r;
	blob->size = index_totals(index)->blob_size;
	r = merge_layer(t, index, i + 1, i, err);
	index_close(index);
	return r;
}

int layers_build(const int *tar_fds, unsigned n, int out_fd, struct erofs_result *ret, struct sm_error *err)
{
	static const uint8_t uuid[16] = {1};
	struct erofs_blob blobs[TEST_MAX_LAYERS] = {0};
	int blob_fds[TEST_MAX_LAYERS];
	struct tree t;
	int r = tree_init(&t);

	for (unsigned i = 0; i < n; i++)
		blob_fds[i] = memfd_create("blob", MFD_CLOEXEC);
	for (unsigned i = 0; r == 0 && i < n; i++) {
		_fd_ int index_fd = memfd_create("index", MFD_CLOEXEC);

		r = convert(tar_fds[i], blob_fds[i], index_fd, &t, i, &blobs[i], err);
		if (r < 0)
			error_wrap(err, r, "layer %u", i + 1);
	}
	if (r == 0)
		r = erofs_write(&t, blobs, n, uuid, out_fd, ret, err);
	if (r == 0 && ftruncate(out_fd, (off_t)ret->window_size) < 0)
		r = -errno;
	for (unsigned i = 0; i < n; i++) {
		if (r == 0 && blobs[i].used)
			r = copy_blob(blob_fds[i], out_fd, blobs[i].offset, blobs[i].size);
		close(blob_fds[i]);
	}
	tree_done(&t);
	return r;
}
