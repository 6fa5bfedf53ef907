/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 of a few bytes in hexadecimal: names of what is kept by what it was made from. Who includes this links
 * Nettle. */
#ifndef BASE_SHA256HEX_H
#define BASE_SHA256HEX_H

#include <nettle/sha2.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The first `digits` (even, at most 64) of it, and a NUL. */
static inline void sha256_hex(const void *p, size_t len, size_t digits, char *ret)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx h;

	sha256_init(&h);
	sha256_update(&h, len, p);
	sha256_digest(&h, sizeof(digest), digest);
	for (size_t i = 0; i < digits / 2; i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

#endif
