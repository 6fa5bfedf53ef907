/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decompression: two bytes choose the sizes of the pieces, the rest is the compressed layer. Two runs with pieces of
 * other sizes must agree in bytes and verdict, and a single gzip member must agree with zlib.
 */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/util.h"
#include "oci/decoder.h"

#define MAX_UNPACKED (1 << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 1: all decoded; 0: refused; -1: over the limit. */
static int decode(enum oci_compression kind, const uint8_t *in, size_t len, size_t in_step, size_t out_step,
		  struct buf *ret)
{
	struct decoder *d;
	const char *why = NULL;
	bool drained = true;
	size_t at = 0;
	int verdict = 1;

	if (decoder_new(kind, &d) < 0)
		abort();
	while (verdict == 1 && (at < len || !drained)) {
		size_t n = MIN(in_step, len - at);
		uint8_t *copy = malloc(n + !n), *out = malloc(out_step);
		struct decoder_buffers b = {copy, n, out, out_step};

		memcpy(copy, in + at, n);
		if (decoder_run(d, &b, &why) < 0)
			verdict = why ? 0 : (abort(), 0);
		at += n - b.in_len;
		drained = b.in_len == 0 && b.out_len;
		buf_put(ret, out, out_step - b.out_len);
		free(copy);
		free(out);
		if (verdict == 1 && ret->len > MAX_UNPACKED)
			verdict = -1;
	}
	if (verdict == 1 && decoder_finish(d, &why) < 0)
		verdict = 0;
	decoder_free(d);
	return verdict;
}

/* zlib's opinion of one member with nothing behind it: 1 whole, 0 not, -1 do not know. */
static int zlib_decode(const uint8_t *in, size_t len, struct buf *ret)
{
	z_stream z = {.next_in = (void *)in, .avail_in = (unsigned)len};
	uint8_t out[4096];
	int r;

	if (inflateInit2(&z, 31) != Z_OK)
		return -1;
	do {
		z.next_out = out;
		z.avail_out = sizeof(out);
		r = inflate(&z, Z_NO_FLUSH);
		buf_put(ret, out, sizeof(out) - z.avail_out);
	} while (r == Z_OK && ret->len <= MAX_UNPACKED);
	inflateEnd(&z);
	if (ret->len > MAX_UNPACKED)
		return -1;
	return r == Z_STREAM_END ? (z.avail_in == 0 ? 1 : -1) : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf one = {0}, two = {0}, three = {0};
	enum oci_compression kind;
	const char *name = NULL;
	int first, second;

	if (size < 2 || compression_detect(data + 2, size - 2, &kind, &name) < 0)
		return 0;
	first = decode(kind, data + 2, size - 2, data[0] % 64 + 1, data[1] % 128 + 8, &one);
	second = decode(kind, data + 2, size - 2, 1 << 16, 1 << 16, &two);
	/* Over the limit, the two stop at other places. */
	if (first >= 0 && second >= 0 &&
	    (first != second ||
	     (first == 1 && (one.len != two.len || memcmp(one.data ?: data, two.data ?: data, one.len)))))
		abort();
	if (kind == OCI_GZIP && second == 1 && zlib_decode(data + 2, size - 2, &three) == 1 &&
	    (three.len != two.len || memcmp(three.data ?: data, two.data ?: data, two.len)))
		abort();
	buf_done(&one);
	buf_done(&two);
	buf_done(&three);
	return 0;
}
