/* SPDX-License-Identifier: Apache-2.0 */
/* A sparse layer's header and bitmap: the input is the file. Whatever opens can be read, written, and opened again. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "virtio/blk_chain.h"
#include "virtio/blk_layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads and writes a little at both ends. */
static void use(struct blk_chain *chain)
{
	static uint8_t bytes[8192];
	struct iovec iov = {bytes, sizeof(bytes)};
	uint64_t size = blk_chain_size(chain), len = MIN(size, sizeof(bytes)), at[] = {0, size - len};

	for (unsigned i = 0; i < 2; i++) {
		(void)!blk_chain_read(chain, &iov, 1, at[i], len);
		(void)!blk_chain_write(chain, &iov, 1, at[i], 512);
		(void)!blk_chain_write_zeroes(chain, at[i], len, true);
	}
	if (blk_chain_flush(chain) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t header[BLK_BLOCK];
	struct blk_file files[2] = {{.fd = memfd_create("base", 0), .size = 4096}, {.fd = memfd_create("layer", 0)}};
	struct blk_file top = {.fd = files[1].fd};
	struct blk_chain *chain;
	size_t n = MIN(size, sizeof(header));

	/* A good header under the input's bytes: where those are zero it stays. */
	blk_header_format(1 + (size ? data[0] : 0) % 8 * 512 * 1000ULL + 511, header);
	for (size_t i = 1; i < n; i++)
		header[i] ^= data[i];
	if (ftruncate(files[0].fd, 4096) < 0 || pwrite(files[1].fd, header, sizeof(header), 0) < 0)
		abort();
	if (size > n && pwrite(files[1].fd, data + n, size - n, BLK_BLOCK) < 0)
		abort();
	/* Sizes that only a test machine with much memory could hold are not opened: the header alone is checked. */
	struct blk_header h;

	if (blk_header_parse(header, &h) == 0 && h.size > GIB)
		goto out;
	if (blk_chain_open(files, 2, NULL, &chain, NULL) == 0) {
		use(chain);
		blk_chain_free(chain);
	}
	for (unsigned i = 0; i < 2; i++) {
		if (blk_chain_open(files, 1, &top, &chain, NULL) < 0)
			break;
		use(chain);
		blk_chain_free(chain);
	}
out:
	close(files[0].fd);
	close(files[1].fd);
	return 0;
}
