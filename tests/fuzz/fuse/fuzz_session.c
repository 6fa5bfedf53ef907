/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any request bytes in any order against a session over the memory backend: nothing crashes, leaks or hangs. The input
 * is a list of requests: u16 length, u8 flags (how the request is split into iovecs, how much room its reply has),
 * bytes. A valid INIT comes first unless the input's first byte is odd.
 */
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "fuse/memory.h"
#include "fuse/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void serve(struct fuse_session *s, const uint8_t *bytes, size_t len, uint8_t flags, uint8_t *reply)
{
	size_t split = flags & 1 ? len / 2 : len;
	struct iovec in[2] = {{.iov_base = (void *)(uintptr_t)bytes, .iov_len = split},
			      {.iov_base = (void *)(uintptr_t)(bytes + split), .iov_len = len - split}};
	struct iovec out[2] = {{.iov_base = reply, .iov_len = flags & 2 ? 16 : 4096},
			       {.iov_base = reply + 4096, .iov_len = flags & 4 ? 0 : 4096}};

	if (fuse_session_serve(s, in, 2, out, 2) > 8192)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuse_memory_options o = {.max_bytes = 1 << 20, .max_nodes = 256};
	struct {
		struct fuse_in_header h;
		struct fuse_init_in in;
	} init = {.h = {.len = sizeof(init), .opcode = FUSE_INIT, .unique = 1},
		  .in = {.major = 7, .minor = 38, .flags = FUSE_SETXATTR_EXT | FUSE_INIT_EXT | FUSE_DO_READDIRPLUS}};
	static uint8_t reply[8192];
	struct cursor c = cursor_of(data, size);
	struct sm_fs_backend *be;
	struct fuse_session *s;

	if (fuse_memory_new(&o, &be) < 0 ||
	    fuse_session_new(be, &(struct fuse_session_options){.max_handles = 64}, &s) < 0)
		abort();
	if (!(cursor_u8(&c) & 1))
		serve(s, (uint8_t *)&init, sizeof(init), 0, reply);
	while (!c.bad && c.left) {
		size_t len = cursor_u16(&c);
		uint8_t flags = cursor_u8(&c);
		const uint8_t *bytes;

		len = len > c.left ? c.left : len;
		bytes = cursor_take(&c, len);
		if (bytes && len >= sizeof(struct fuse_in_header)) {
			uint8_t *copy = malloc(len); /* exactly as long as it is, so that ASan sees a read past it */

			memcpy(copy, bytes, len);
			if (!(flags & 8)) /* mostly a right length, to get past the first check */
				((struct fuse_in_header *)copy)->len = (uint32_t)len;
			serve(s, copy, len, flags, reply);
			free(copy);
		}
	}
	fuse_session_free(s);
	fuse_memory_free(be);
	return 0;
}
