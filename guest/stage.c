/* SPDX-License-Identifier: Apache-2.0 */
/* See stage.h. Blocks as it likes: it is the command's own process. */
#include "guest/stage.h"

#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "guest/newfile.h"
#include "proto/stage.h"

#define CHUNK 65536u

static int copy_from(int from, int to, uint64_t size)
{
	uint8_t chunk[CHUNK];

	while (size) {
		ssize_t n = read(from, chunk, (size_t)MIN(size, (uint64_t)sizeof(chunk)));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET; /* who sends them has gone */
		r = write_full(to, chunk, (size_t)n);
		if (r < 0)
			return r;
		size -= (uint64_t)n;
	}
	return 0;
}

static int write_one(const struct stage *s, const struct proto_staged *f, const uint8_t *contents)
{
	struct newfile n;
	int r = newfile_begin(&n, f->path, true, f->mode);

	if (r == 0)
		r = s->fd < 0 ? write_full(n.fd, contents, (size_t)f->size) : copy_from(s->fd, n.fd, f->size);
	/* A program that is open for writing cannot be executed. */
	n.fd = fd_close(n.fd);
	if (r == 0)
		r = newfile_commit(&n);
	newfile_done(&n);
	return r;
}

int stage_write(const struct stage *s, const char **ret_path)
{
	const uint8_t *contents = s->contents;

	for (char *const *text = s->files; text && *text; text++) {
		struct proto_staged f;
		int r = proto_staged_parse(*text, &f);

		*ret_path = r == 0 ? f.path : *text;
		if (r == 0)
			r = write_one(s, &f, contents);
		if (r < 0)
			return r;
		if (s->fd < 0)
			contents += f.size;
	}
	return 0;
}
