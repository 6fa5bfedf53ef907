/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decompression of a layer, fed piece by piece: nothing (plain), gzip (RFC 1952, any number of members; isa-l, several
 * times quicker than zlib), zstd (RFC 8878, any number of frames, skippable ones too). Bytes behind the last member or
 * frame that start no further one are an error, as is an end before a member's end. Memory is bounded: 64 KiB and the
 * tables for gzip, the window for zstd (at most 128 MiB, what `zstd -22 --ultra` asks for; the usual levels ask for 2
 * to 8).
 */
#ifndef OCI_DECODER_H
#define OCI_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "oci/oci.h"

struct decoder;

struct decoder_buffers {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
};

/* The compression that the first bytes of a blob show (6 are enough); -ENOTSUP with *ret_name set: a known one that
 * images do not use. */
int compression_detect(const uint8_t *p, size_t len, enum oci_compression *ret, const char **ret_name) MUST_CHECK;

int decoder_new(enum oci_compression kind, struct decoder **ret) MUST_CHECK;
struct decoder *decoder_free(struct decoder *d);

/* Decodes until the input is used up or the output full, and moves b's pointers on. 0, or -EBADMSG with *ret_why
 * (static). All input used and room left in the output: nothing is held back. */
int decoder_run(struct decoder *d, struct decoder_buffers *b, const char **ret_why) MUST_CHECK;

/* At the end of the input: 0, or -EBADMSG with *ret_why when it ended inside a member. */
int decoder_finish(struct decoder *d, const char **ret_why) MUST_CHECK;

#endif
