/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-fs against a random guest: the real device and its threads, a real session, the memory backend behind it; or
 * no share at all. See fuzz_device.h. Requests get a plausible header, so that they reach the operations; what follows
 * it is the script's.
 */
#include "fuzz_device.h"

#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuse/memory.h"
#include "fuse/session.h"
#include "virtio/fs.h"

/* What one input's device serves; the engine runs one input at a time. */
static struct {
	struct sm_fs_backend *be;
	struct fuse_session *session;
} share;

static ssize_t serve(void *arg, const struct iovec *in, int num_in, const struct iovec *out, int num_out)
{
	return fuse_session_serve(share.session, in, num_in, out, num_out);
}

/* A session that has had its INIT: an input need not guess one, though it may send more. */
static void greet(void)
{
	struct {
		struct fuse_in_header h;
		struct fuse_init_in in;
	} request = {.h = {.len = sizeof(request), .opcode = FUSE_INIT},
		     .in = {.major = 7, .minor = 38, .flags = ~0u, .flags2 = ~0u}};
	uint8_t reply[256];
	struct iovec in = {&request, sizeof(request)}, out = {reply, sizeof(reply)};

	if (fuse_session_serve(share.session, &in, 1, &out, 1) <= 0)
		abort();
}

static struct virtio_device *make(struct driver *d, struct cursor *in)
{
	struct fuse_memory_options mo = {.max_bytes = MIB, .max_nodes = 64};
	struct virtio_fs_options o = {.name = "fs", .tag = "tag", .threads = 2};
	struct virtio_device *dev;

	if (cursor_u8(in) != 0xff) {
		o.serve = serve;
		if (fuse_memory_new(&mo, &share.be) < 0 || fuse_session_new(share.be, NULL, &share.session) < 0)
			abort();
		greet();
	}
	return virtio_fs_new(&d->mem, d->loop, &o, &dev) < 0 ? NULL : dev;
}

static void done(struct driver *d)
{
	share.session = fuse_session_free(share.session);
	share.be = fuse_memory_free(share.be);
}

static void header(struct cursor *in, unsigned queue, uint8_t *p, size_t room)
{
	struct fuse_in_header h = {.opcode = cursor_u8(in) % 54, .unique = cursor_u16(in), .nodeid = cursor_u8(in) % 8};

	h.len = (uint32_t)sizeof(h) + cursor_u16(in) % 200;
	memcpy(p, &h, MIN(room, sizeof(h)));
}

const struct fuzz_device fuzz_device = {
	.make = make, .header = header, .header_size = sizeof(struct fuse_in_header), .done = done};
