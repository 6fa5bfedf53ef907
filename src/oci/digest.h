/* SPDX-License-Identifier: Apache-2.0 */
/* Digests as descriptors carry them, "sha256:<64 hex>" and "sha512:<128 hex>" (OCI image-spec descriptor.md, section
 * "Digests"). */
#ifndef OCI_DIGEST_H
#define OCI_DIGEST_H

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stddef.h>

#include "oci/oci.h"

/* A registered algorithm that is supported and its number of lower-case hex digits. Only what passes may become part of
 * a path. */
bool digest_valid(const char *digest);

/* The hex digits behind the algorithm, of a valid digest. */
const char *digest_hex(const char *digest);

struct hasher {
	const char *algorithm; /* static: "sha256", "sha512"; NULL: not in use */
	union {
		struct sha256_ctx sha256;
		struct sha512_ctx sha512;
	};
};

/* Starts hashing by the algorithm of a valid digest, else -EINVAL. */
int hasher_init(struct hasher *h, const char *digest) MUST_CHECK;
void hasher_update(struct hasher *h, const void *p, size_t len);
/* Writes "algorithm:hex". */
void hasher_finish(struct hasher *h, char ret[static OCI_DIGEST_SIZE]);

/* One go: digest of these bytes by the algorithm of `like`. */
int digest_of(const char *like, const void *p, size_t len, char ret[static OCI_DIGEST_SIZE]) MUST_CHECK;

#endif
