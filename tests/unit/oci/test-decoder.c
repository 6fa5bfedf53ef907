/* SPDX-License-Identifier: Apache-2.0 */
/* Decoders: every split of input and output gives the same bytes; members, frames, ends in the wrong place, garbage
 * behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/util.h"
#include "oci/decoder.h"

/* Compressible, and longer than any window of a test's buffers. */
static void fill(uint8_t *p, size_t len)
{
	uint32_t x = 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1103515245 + 12345;
		p[i] = (uint8_t)((x >> 16) % 37 == 0 ? x >> 24 : i >> 4);
	}
}

static void add_gzip(struct buf *b, const void *p, size_t len)
{
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	buf_reserve(b, deflateBound(&z, len) + 64);
	z.next_in = (void *)p;
	z.avail_in = (unsigned)len;
	z.next_out = b->data + b->len;
	z.avail_out = (unsigned)(b->cap - b->len);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	b->len += z.total_out;
	deflateEnd(&z);
}

static void add_zstd(struct buf *b, const void *p, size_t len)
{
	size_t n;

	buf_reserve(b, ZSTD_compressBound(len));
	n = ZSTD_compress(b->data + b->len, b->cap - b->len, p, len, 3);
	assert_false(ZSTD_isError(n));
	b->len += n;
}

/* Decodes all of in, at most in_step bytes a call, into pieces of out_step. 0 and *ret filled, or -EBADMSG and *why. */
static int decode(enum oci_compression kind, const uint8_t *in, size_t len, size_t in_step, size_t out_step,
		  struct buf *ret, const char **why)
{
	struct decoder *d;
	size_t at = 0;
	int r = decoder_new(kind, &d);
	bool drained = true;

	assert_int_equal(r, 0);
	while (r == 0 && (at < len || !drained)) {
		size_t n = MIN(in_step, len - at);
		/* Copies of exact size, so that the sanitizer sees any byte read or written beyond. */
		uint8_t *copy = malloc(n + !n), *out = malloc(out_step);
		struct decoder_buffers b = {copy, n, out, out_step};

		memcpy(copy, in + at, n);
		r = decoder_run(d, &b, why);
		at += n - b.in_len;
		drained = b.in_len == 0 && b.out_len;
		buf_put(ret, out, out_step - b.out_len);
		free(copy);
		free(out);
	}
	if (r == 0)
		r = decoder_finish(d, why);
	decoder_free(d);
	return r;
}

static void same(enum oci_compression kind, const struct buf *stored, const void *want, size_t want_len, size_t in_step,
		 size_t out_step)
{
	struct buf got = {0};
	const char *why = "";
	int r = decode(kind, stored->data, stored->len, in_step, out_step, &got, &why);

	if (r < 0)
		fail_msg("steps %zu, %zu: %s", in_step, out_step, why);
	assert_int_equal(got.len, want_len);
	assert_memory_equal(got.data ? got.data : (const void *)"", want, want_len);
	buf_done(&got);
}

static void bad(enum oci_compression kind, const uint8_t *p, size_t len, const char *want)
{
	static const size_t steps[] = {7, 4096};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct buf got = {0};
		const char *why = "";
		int r = decode(kind, p, len, steps[i], 4096, &got, &why);

		if (r != -EBADMSG || !strstr(why, want))
			fail_msg("steps of %zu: got %d '%s', expected '%s'", steps[i], r, why, want);
		buf_done(&got);
	}
}

static void make(enum oci_compression kind, struct buf *b, const uint8_t *p, size_t len)
{
	if (kind == OCI_GZIP)
		add_gzip(b, p, len);
	else if (kind == OCI_ZSTD)
		add_zstd(b, p, len);
	else
		buf_put(b, p, len);
}

static void test_splits(void **state)
{
	static const size_t steps[] = {1, 3, 17, 511, 4096, 70000};
	size_t len = 70000;
	uint8_t *data = malloc(len);

	fill(data, len);
	for (enum oci_compression kind = OCI_PLAIN; kind <= OCI_ZSTD; kind++) {
		struct buf b = {0};

		/* Members of all sizes, none and one byte among them. */
		make(kind, &b, data, 1000);
		make(kind, &b, data + 1000, 0);
		make(kind, &b, data + 1000, 1);
		make(kind, &b, data + 1001, len - 1001);
		for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
			for (size_t j = 0; j < ARRAY_SIZE(steps); j++)
				same(kind, &b, data, len, steps[i], steps[j]);
		buf_done(&b);
	}
	free(data);
}

/* The end of each member in every position of the input buffer. */
static void test_member_ends(void **state)
{
	uint8_t data[300];

	fill(data, sizeof(data));
	for (enum oci_compression kind = OCI_GZIP; kind <= OCI_ZSTD; kind++)
		for (size_t cut = 0; cut <= sizeof(data); cut += 47) {
			struct buf b = {0};

			make(kind, &b, data, cut);
			make(kind, &b, data + cut, sizeof(data) - cut);
			for (size_t step = 1; step <= b.len; step += step < 32 ? 1 : 5)
				same(kind, &b, data, sizeof(data), step, 128);
			buf_done(&b);
		}
}

static void test_truncated(void **state)
{
	uint8_t data[800];

	fill(data, sizeof(data));
	for (enum oci_compression kind = OCI_GZIP; kind <= OCI_ZSTD; kind++) {
		struct buf b = {0};
		size_t first;

		make(kind, &b, data, 400);
		first = b.len;
		make(kind, &b, data + 400, 400);
		for (size_t n = 0; n < b.len; n += n % 16 == 11 ? 6 : 1)
			if (n != first)
				bad(kind, b.data, n, "ends too early");
		buf_done(&b);
	}
}

static void test_garbage(void **state)
{
	uint8_t data[1000];

	fill(data, sizeof(data));
	for (enum oci_compression kind = OCI_GZIP; kind <= OCI_ZSTD; kind++) {
		struct buf b = {0};

		make(kind, &b, data, sizeof(data));
		buf_put(&b, "some words that start nothing", 29);
		bad(kind, b.data, b.len, "garbage behind the last");
		b.len -= 29;
		buf_put_zero(&b, 512);
		bad(kind, b.data, b.len, "garbage behind the last");
		buf_done(&b);
	}
}

/* Every single inverted byte is noticed, by the format or by its checksum. */
static void test_corrupt(void **state)
{
	uint8_t data[600];
	struct buf b = {0};

	fill(data, sizeof(data));
	add_gzip(&b, data, sizeof(data));
	for (size_t i = 10; i < b.len; i++) { /* the header's time and system are nobody's business */
		struct buf got = {0};
		const char *why = "";

		b.data[i] ^= 0xff;
		if (decode(OCI_GZIP, b.data, b.len, 4096, 4096, &got, &why) != -EBADMSG)
			fail_msg("byte %zu: not noticed", i);
		buf_done(&got);
		b.data[i] ^= 0xff;
	}
	b.data[b.len - 6] ^= 1; /* in the CRC */
	bad(OCI_GZIP, b.data, b.len, "checksum");
	buf_done(&b);
}

static void test_gzip_header(void **state)
{
	/* With extra field, name, comment and header CRC, which few tools write. */
	static const uint8_t head[] = {0x1f, 0x8b, 8, 0x1c, 0,	 0,   0,   0,	0, 3,	4, 0,
				       'A',  'B',  0, 0,    'n', 'a', 'm', 'e', 0, 'c', 0};
	static const uint8_t method[] = {0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	uint8_t data[500];
	struct buf plain = {0}, b = {0};

	fill(data, sizeof(data));
	add_gzip(&plain, data, sizeof(data));
	buf_put(&b, head, sizeof(head));
	buf_put(&b, plain.data + 10, plain.len - 10);
	for (size_t step = 1; step < 40; step++)
		same(OCI_GZIP, &b, data, sizeof(data), step, 64);
	bad(OCI_GZIP, method, sizeof(method), "the gzip header");
	buf_done(&plain);
	buf_done(&b);
}

static void test_zstd_frames(void **state)
{
	static const uint8_t skippable[] = {0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'x', 'y', 'z'};
	/* A frame header that asks for a window of 2 GiB: exponent 21, mantissa 0. */
	static const uint8_t wide[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00};
	uint8_t data[5000];
	struct buf b = {0};

	fill(data, sizeof(data));
	buf_put(&b, skippable, sizeof(skippable));
	add_zstd(&b, data, 2000);
	buf_put(&b, skippable, sizeof(skippable));
	add_zstd(&b, data + 2000, 3000);
	buf_put(&b, skippable, sizeof(skippable));
	for (size_t step = 1; step < 60; step++)
		same(OCI_ZSTD, &b, data, sizeof(data), step, 256);
	bad(OCI_ZSTD, wide, sizeof(wide), "window");
	/* Formats before 1.0, alone and behind a frame of today, are none of ours, whatever the library can do. */
	for (uint8_t version = 0x22; version <= 0x27; version++) {
		const uint8_t old[] = {version, 0xb5, 0x2f, 0xfd, 4, 0xfd, 4, 0x42};

		bad(OCI_ZSTD, old, sizeof(old), "the zstd data is corrupt");
		buf_put(&b, old, sizeof(old));
		bad(OCI_ZSTD, b.data, b.len, "garbage behind the last zstd frame");
		b.len -= sizeof(old);
	}
	buf_done(&b);
}

static void test_detect(void **state)
{
	static const struct {
		const char *p;
		size_t len;
		enum oci_compression kind;
	} good[] = {
		{"", 0, OCI_PLAIN},
		{"\x1f", 1, OCI_PLAIN},
		{"\x1f\x8b\x08", 3, OCI_GZIP},
		{"\x28\xb5\x2f\xfd", 4, OCI_ZSTD},
		{"\x50\x2a\x4d\x18", 4, OCI_ZSTD},
		{"\x28\xb5\x2f\xfe", 4, OCI_PLAIN},
		{"BZx", 3, OCI_PLAIN},
	};
	enum oci_compression kind;
	const char *name = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(compression_detect((const uint8_t *)good[i].p, good[i].len, &kind, &name), 0);
		assert_int_equal(kind, good[i].kind);
	}
	assert_int_equal(compression_detect((const uint8_t *)"BZh9", 4, &kind, &name), -ENOTSUP);
	assert_string_equal(name, "bzip2");
	assert_int_equal(compression_detect((const uint8_t *)"\xfd"
							     "7zXZ\0",
					    6, &kind, &name),
			 -ENOTSUP);
	assert_string_equal(name, "xz");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_splits),	    cmocka_unit_test(test_member_ends),
		cmocka_unit_test(test_truncated),   cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_corrupt),	    cmocka_unit_test(test_gzip_header),
		cmocka_unit_test(test_zstd_frames), cmocka_unit_test(test_detect),
	};

	return cmocka_run_group_tests_name("oci-decoder", tests, NULL, NULL);
}
