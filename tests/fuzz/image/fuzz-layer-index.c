/* SPDX-License-Identifier: Apache-2.0 */
/* The records of a layer index, under a header that is right -> merge -> EROFS -> check. With an odd first byte the
 * bytes are the whole file. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/fileio.h"
#include "fuzz.h"
#include "image/index.h"
#include "image/merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make_file(const uint8_t *records, size_t size, uint16_t count, uint32_t blob_blocks, struct buf *out)
{
	struct buf hashed = {0};
	uint8_t digest[EVP_MAX_MD_SIZE];

	buf_put(out, "smlayer", 8);
	buf_put_u32(out, INDEX_VERSION);
	buf_put_u32(out, 0);
	buf_put_u64(out, count);
	buf_put_u64(out, size);
	buf_put_u64(out, (uint64_t)(blob_blocks % 16384) * BLOCK_SIZE);
	buf_put_u64(out, 0);
	buf_put(&hashed, records, size);
	buf_put(&hashed, out->data, out->len);
	if (EVP_Digest(hashed.data, hashed.len, digest, NULL, EVP_sha256(), NULL) != 1)
		abort();
	buf_done(&hashed);
	buf_put(out, digest, 32);
	buf_put(out, records, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cursor c = cursor_of(data, size);
	bool raw = cursor_u8(&c) & 1;
	uint16_t count = cursor_u16(&c);
	uint32_t blocks = cursor_u32(&c);
	struct erofs_blob blobs[1] = {0};
	struct index_reader *index;
	struct buf file = {0};
	struct tree t;
	int fd;

	if (c.bad || tree_init(&t) < 0)
		return 0;
	if (raw)
		buf_put(&file, c.p, c.left);
	else
		make_file(c.p, c.left, count, blocks, &file);
	fd = memfd_create("index", MFD_CLOEXEC);
	if (fd < 0 || pwrite_full(fd, file.data, file.len, 0) < 0)
		abort();
	if (index_open(fd, &index, NULL) == 0) {
		blobs[0].size = index_totals(index)->blob_size;
		if (merge_layer(&t, index, 1, 0, NULL) == 0)
			fuzz_write_and_check(&t, blobs, 1);
		index_close(index);
	}
	close(fd);
	buf_done(&file);
	tree_done(&t);
	return 0;
}
