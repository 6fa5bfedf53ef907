/* SPDX-License-Identifier: Apache-2.0 */
/* See fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../unit/image/erofs_check.h"

void fuzz_write_and_check(struct tree *t, struct erofs_blob *blobs, uint32_t n)
{
	static const uint8_t uuid[16];
	int fd = memfd_create("erofs", MFD_CLOEXEC);
	struct erofs_result result;
	struct check c = {0};
	void *p;

	if (fd < 0)
		abort();
	if (erofs_write(t, blobs, n, uuid, fd, &result, NULL) < 0 || result.window_size > FUZZ_MAX_WINDOW) {
		close(fd);
		return;
	}
	if (ftruncate(fd, (off_t)result.window_size) < 0)
		abort();
	p = mmap(NULL, result.window_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		abort();
	c.data = p;
	c.size = result.window_size;
	if (erofs_check(&c) < 0) {
		fprintf(stderr, "unsound: %s\n", c.error);
		abort();
	}
	munmap(p, result.window_size);
	close(fd);
}
