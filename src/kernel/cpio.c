/* SPDX-License-Identifier: Apache-2.0 */
/* The newc writer. See cpio.h. */
#include "kernel/cpio.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"

#define CPIO_BLOCK 4096

static int pad(struct cpio *c, size_t align)
{
	return buf_put_zero(&c->out, (size_t)align_up(c->out.len, align) - c->out.len);
}

static int put_entry(struct cpio *c, const char *path, uint32_t ino, uint32_t mode, const void *data, size_t len,
		     unsigned major, unsigned minor)
{
	size_t name_len = strlen(path) + 1;

	if (len > UINT32_MAX || name_len > 4096)
		return -EFBIG;
	/* magic, inode, mode, uid, gid, links, mtime, size, device, special device, name length, checksum */
	buf_printf(&c->out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ino, mode, 0, 0,
		   S_ISDIR(mode) ? 2 : 1, 0, (uint32_t)len, 0, 0, major, minor, (uint32_t)name_len, 0);
	buf_put(&c->out, path, name_len);
	pad(c, 4);
	buf_put(&c->out, data, len);
	pad(c, 4);
	return c->out.error;
}

int cpio_add(struct cpio *c, const char *path, uint32_t mode, const void *data, size_t len)
{
	return put_entry(c, path, ++c->next_inode, mode, data, len, 0, 0);
}

int cpio_add_device(struct cpio *c, const char *path, uint32_t mode, unsigned major, unsigned minor)
{
	return put_entry(c, path, ++c->next_inode, mode, "", 0, major, minor);
}

int cpio_end(struct cpio *c)
{
	int r = put_entry(c, "TRAILER!!!", 0, 0, "", 0, 0, 0);

	return r < 0 ? r : pad(c, CPIO_BLOCK);
}

void cpio_done(struct cpio *c)
{
	buf_done(&c->out);
}
