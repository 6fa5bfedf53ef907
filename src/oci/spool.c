/* SPDX-License-Identifier: Apache-2.0 */
/* Spooling of standard input and of archives that are compressed as a whole. See spool.h. */
#include "oci/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "oci/decoder.h"

#define SPOOL_BLOCK (256 * 1024)
#define SPOOL_RATIO 100
#define SPOOL_FREE GIB

int oci_spool_file(const char *dir, struct sm_error *err)
{
	char path[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	/* Some file systems have no O_TMPFILE: a name for a moment. */
	if (snprintf(path, sizeof(path), "%s/.supermachine-XXXXXX", dir) >= (int)sizeof(path))
		return error_sys(err, ENAMETOOLONG, "%s", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, errno, "create a file in %s", dir);
	unlink(path);
	return fd;
}

struct spooling {
	int in, out;
	struct decoder *decoder;
	uint8_t *in_block, *out_block;
	uint64_t bytes_in, bytes_out;
	const char *what, *dir;
};

/* Decodes one block of input and writes what comes of it. */
static int spool_block(struct spooling *s, size_t len, struct sm_error *err)
{
	struct decoder_buffers b = {.in = s->in_block, .in_len = len};

	s->bytes_in += len;
	do {
		const char *why = NULL;
		size_t n;
		int r;

		b.out = s->out_block;
		b.out_len = SPOOL_BLOCK;
		r = decoder_run(s->decoder, &b, &why);
		if (r < 0)
			return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: %s", s->what, why);
		n = SPOOL_BLOCK - b.out_len;
		s->bytes_out += n;
		if (s->bytes_out > SPOOL_FREE + s->bytes_in * SPOOL_RATIO)
			return error_set(err, SM_ERROR_LIMIT, EFBIG, "%s unpacks to over %d times its size", s->what,
					 SPOOL_RATIO);
		r = write_full(s->out, s->out_block, n);
		if (r < 0)
			return error_sys(err, -r, "write a copy of %s into %s", s->what, s->dir);
	} while (b.in_len || b.out_len == 0);
	return 0;
}

static int spool_all(struct spooling *s, struct sm_error *err)
{
	const char *why = NULL, *name = NULL;
	enum oci_compression kind = OCI_PLAIN;

	for (;;) {
		ssize_t n = read_full(s->in, s->in_block, SPOOL_BLOCK);
		int r;

		if (n < 0)
			return error_sys(err, (int)-n, "read %s", s->what);
		if (!s->decoder && compression_detect(s->in_block, (size_t)n, &kind, &name) < 0)
			return error_set(err, SM_ERROR_UNSUPPORTED, ENOTSUP,
					 "%s is compressed with %s, only gzip and zstd are known", s->what, name);
		if (!s->decoder && decoder_new(kind, &s->decoder) < 0)
			return error_sys(err, ENOMEM, "%s", s->what);
		if (n == 0)
			break;
		r = spool_block(s, (size_t)n, err);
		if (r < 0)
			return r;
	}
	if (decoder_finish(s->decoder, &why) < 0)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s: %s", s->what, why);
	return lseek(s->out, 0, SEEK_SET) < 0 ? error_sys(err, errno, "%s", s->what) : 0;
}

int spool(int fd, const char *dir, const char *what, struct sm_error *err)
{
	_fd_ int out = -1;
	struct spooling s = {.in = fd, .what = what, .dir = dir};
	int r;

	if (!s.dir)
		s.dir = getenv("TMPDIR");
	if (!s.dir || !*s.dir)
		s.dir = "/var/tmp";
	out = oci_spool_file(s.dir, err);
	if (out < 0)
		return out;
	s.out = out;
	s.in_block = malloc(SPOOL_BLOCK);
	s.out_block = malloc(SPOOL_BLOCK);
	r = s.in_block && s.out_block ? spool_all(&s, err) : error_sys(err, ENOMEM, "%s", what);
	free(s.in_block);
	free(s.out_block);
	decoder_free(s.decoder);
	return r < 0 ? r : TAKE_FD(out);
}
