/* SPDX-License-Identifier: Apache-2.0 */
/* Plain, gzip and zstd behind one call. See decoder.h. */
#include "oci/decoder.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/util.h"

#define ZSTD_WINDOW_LOG_MAX 27

struct decoder {
	enum oci_compression kind;
	bool inside; /* a member or frame */
	bool any;    /* one has begun */
	struct inflate_state gzip;
	ZSTD_DStream *zstd;
	unsigned magic; /* bytes of the present frame's magic number that were seen */
	bool skippable; /* and which of the two it is */
};

int compression_detect(const uint8_t *p, size_t len, enum oci_compression *ret, const char **ret_name)
{
	static const uint8_t xz[6] = {0xfd, '7', 'z', 'X', 'Z', 0};

	if (len >= 2 && p[0] == 0x1f && p[1] == 0x8b)
		*ret = OCI_GZIP;
	else if (len >= 4 && p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd)
		*ret = OCI_ZSTD;
	else if (len >= 4 && (p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18)
		*ret = OCI_ZSTD; /* a skippable frame */
	else if (len >= 6 && memcmp(p, xz, 6) == 0)
		*ret_name = "xz";
	else if (len >= 4 && memcmp(p, "BZh", 3) == 0 && p[3] >= '1' && p[3] <= '9')
		*ret_name = "bzip2";
	else
		*ret = OCI_PLAIN;
	return *ret_name ? -ENOTSUP : 0;
}

int decoder_new(enum oci_compression kind, struct decoder **ret)
{
	struct decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->kind = kind;
	if (kind == OCI_GZIP) {
		isal_inflate_init(&d->gzip);
		d->gzip.crc_flag = ISAL_GZIP;
	} else if (kind == OCI_ZSTD) {
		d->zstd = ZSTD_createDStream();
		if (!d->zstd ||
		    ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX))) {
			decoder_free(d);
			return -ENOMEM;
		}
	}
	*ret = d;
	return 0;
}

struct decoder *decoder_free(struct decoder *d)
{
	if (d)
		ZSTD_freeDStream(d->zstd);
	free(d);
	return NULL;
}

static int run_plain(struct decoder_buffers *b)
{
	size_t n = MIN(b->in_len, b->out_len);

	memcpy(b->out, b->in, n);
	b->in += n;
	b->in_len -= n;
	b->out += n;
	b->out_len -= n;
	return 0;
}

static const char *gzip_reason(int code, bool first)
{
	switch (code) {
	case ISAL_INVALID_WRAPPER:
		return first ? "the gzip header is wrong" : "there is garbage behind the last gzip member";
	case ISAL_UNSUPPORTED_METHOD:
		return first ? "the gzip header names an unknown method"
			     : "there is garbage behind the last gzip member";
	case ISAL_INCORRECT_CHECKSUM:
		return "a gzip checksum is wrong";
	default:
		return "the gzip data is corrupt";
	}
}

static int run_gzip(struct decoder *d, struct decoder_buffers *b, const char **ret_why)
{
	struct inflate_state *s = &d->gzip;

	while (b->in_len || d->inside) {
		bool first = !d->any;
		uint32_t in = (uint32_t)MIN(b->in_len, UINT32_MAX), out = (uint32_t)MIN(b->out_len, UINT32_MAX);
		int r;

		if (!d->inside) {
			isal_inflate_reset(s);
			d->inside = true;
		}
		s->next_in = (uint8_t *)b->in; /* not written to: the library's type lacks const */
		s->avail_in = in;
		s->next_out = b->out;
		s->avail_out = out;
		r = isal_inflate(s);
		b->in += in - s->avail_in;
		b->in_len -= in - s->avail_in;
		b->out += out - s->avail_out;
		b->out_len -= out - s->avail_out;
		if (r < 0) {
			*ret_why = gzip_reason(r, first);
			return -EBADMSG;
		}
		if (s->block_state == ISAL_BLOCK_FINISH) {
			d->inside = false;
			d->any = true;
		}
		if (b->out_len == 0)
			break;
		if (d->inside && b->in_len == 0)
			break;
		if (s->avail_in == in && s->avail_out == out) {
			*ret_why = "the gzip data is corrupt"; /* no progress: never loop on it */
			return -EBADMSG;
		}
	}
	return 0;
}

/*
 * Holds the first four bytes of a frame, however they are split over calls, to the two magic numbers of RFC 8878. The
 * library would take those of formats before 1.0 too, with decoders that nobody looks after.
 */
static bool zstd_magic_fits(struct decoder *d, const uint8_t *p, size_t len)
{
	static const uint8_t frame[4] = {0x28, 0xb5, 0x2f, 0xfd}, skippable[4] = {0x50, 0x2a, 0x4d, 0x18};

	for (; d->magic < 4 && len; d->magic++, p++, len--) {
		if (d->magic == 0)
			d->skippable = (*p & 0xf0) == skippable[0];
		else if (d->skippable && *p != skippable[d->magic])
			return false;
		if (!d->skippable && *p != frame[d->magic])
			return false;
	}
	return true;
}

static const char *zstd_reason(ZSTD_ErrorCode code)
{
	switch (code) {
	case ZSTD_error_frameParameter_windowTooLarge:
		return "the zstd data needs a window of more than 128 MiB";
	case ZSTD_error_checksum_wrong:
		return "a zstd checksum is wrong";
	default:
		return "the zstd data is corrupt";
	}
}

static int run_zstd(struct decoder *d, struct decoder_buffers *b, const char **ret_why)
{
	for (;;) {
		ZSTD_inBuffer in = {b->in, b->in_len, 0};
		ZSTD_outBuffer out = {b->out, b->out_len, 0};
		unsigned seen = d->magic;
		size_t r;

		if (!zstd_magic_fits(d, b->in, b->in_len)) {
			*ret_why = d->any ? "there is garbage behind the last zstd frame" : "the zstd data is corrupt";
			return -EBADMSG;
		}
		/* Returns at a frame's end at the latest, so that the next one's magic number is always seen above. */
		r = ZSTD_decompressStream(d->zstd, &out, &in);
		b->in += in.pos;
		b->in_len -= in.pos;
		b->out += out.pos;
		b->out_len -= out.pos;
		if (ZSTD_isError(r)) {
			*ret_why = zstd_reason(ZSTD_getErrorCode(r));
			return -EBADMSG;
		}
		if (in.pos || out.pos)
			d->inside = r != 0;
		d->magic = r ? (unsigned)MIN(4, seen + in.pos) : 0;
		d->any = d->any || r == 0;
		if (b->in_len == 0 && (r == 0 || b->out_len))
			return 0;
		if (b->out_len == 0 || (in.pos == 0 && out.pos == 0))
			return 0;
	}
}

int decoder_run(struct decoder *d, struct decoder_buffers *b, const char **ret_why)
{
	switch (d->kind) {
	case OCI_GZIP:
		return run_gzip(d, b, ret_why);
	case OCI_ZSTD:
		return run_zstd(d, b, ret_why);
	default:
		return run_plain(b);
	}
}

int decoder_finish(struct decoder *d, const char **ret_why)
{
	if (d->kind == OCI_PLAIN || (!d->inside && d->any))
		return 0;
	*ret_why = d->kind == OCI_GZIP ? "the gzip data ends too early" : "the zstd data ends too early";
	return -EBADMSG;
}
