/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives of up to three layers -> convert -> merge -> EROFS -> check. The first byte says how many layers; two bytes
 * before each but the last its length in blocks. Header checksums are put right first: a fuzzer cannot guess them, and
 * anybody else can compute them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "fuzz.h"
#include "image/index.h"
#include "image/layer.h"
#include "image/merge.h"

#define BLOCK 512
#define MAX_LAYERS 3

struct source {
	const uint8_t *p;
	size_t left;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ssize_t source_read(void *arg, void *p, size_t len, struct sm_error *err)
{
	struct source *s = arg;
	size_t n = MIN(len, s->left);

	(void)err;
	if (n) {
		memcpy(p, s->p, n);
		s->p += n;
	}
	s->left -= n;
	return (ssize_t)n;
}

static void fix_checksums(uint8_t *p, size_t size)
{
	for (; size >= BLOCK; p += BLOCK, size -= BLOCK) {
		unsigned sum = 0;
		char text[9];

		if (memcmp(p + 257, "ustar", 5) != 0)
			continue;
		memset(p + 148, ' ', 8);
		for (unsigned i = 0; i < BLOCK; i++)
			sum += p[i];
		snprintf(text, sizeof(text), "%06o", sum & 0777777);
		memcpy(p + 148, text, 7);
	}
}

static int add_layer(struct tree *t, const uint8_t *p, size_t size, uint32_t i, struct erofs_blob *blob)
{
	static const struct layer_limits limits = {
		.max_entries = 1000, .max_bytes = 1 << 24, .max_depth = 64, .max_path = 4096};
	struct source source = {p, size};
	struct tar_input input = {.read = source_read, .arg = &source};
	int blob_fd = memfd_create("blob", MFD_CLOEXEC), index_fd = memfd_create("index", MFD_CLOEXEC);
	struct index_reader *index;
	struct layer_stats stats;
	struct sm_error err = {0};
	int r = layer_convert(&input, &limits, blob_fd, index_fd, &stats, &err);

	if (r < 0 && err.kind == SM_ERROR_NONE)
		abort(); /* every error says what it is */
	if (r == 0) {
		/* What the converter wrote, the reader takes. */
		if (index_open(index_fd, &index, NULL) < 0)
			abort();
		blob->size = index_totals(index)->blob_size;
		r = merge_layer(t, index, i + 1, i, &err);
		if (r == -EUCLEAN || (r < 0 && err.kind == SM_ERROR_NONE))
			abort();
		index_close(index);
	}
	close(blob_fd);
	close(index_fd);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct erofs_blob blobs[MAX_LAYERS] = {0};
	uint8_t *copy;
	struct tree t;
	uint32_t n;
	int r = 0;

	if (size < 1 || tree_init(&t) < 0)
		return 0;
	n = data[0] % MAX_LAYERS + 1;
	data++;
	size--;
	copy = malloc(size + 1);
	if (!copy)
		abort();
	memcpy(copy, data, size);
	for (uint32_t i = 0, at = 0; r == 0 && i < n; i++) {
		size_t len = size - at;

		if (i + 1 < n && len >= 2) {
			len = MIN(((size_t)copy[at] << 8 | copy[at + 1]) % 64 * BLOCK, len - 2);
			at += 2;
		}
		fix_checksums(copy + at, len);
		r = add_layer(&t, copy + at, len, i, &blobs[i]);
		at += (uint32_t)len;
	}
	if (r == 0)
		fuzz_write_and_check(&t, blobs, n);
	tree_done(&t);
	free(copy);
	return 0;
}
