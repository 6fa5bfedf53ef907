/* SPDX-License-Identifier: Apache-2.0 */
/* Digests as descriptors carry them, "sha256:<64 hex>" and "sha512:<128 hex>" (OCI image-spec descriptor.md, section
 * "Digests"). */
#ifndef OCI_DIGEST_H
#define OCI_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "oci/oci.h"

/* A registered algorithm that is supported and its number of lower-case hex digits. Only what passes may become part of
 * a path. */
bool digest_valid(const char *digest);

/* The hex digits behind the algorithm, of a valid digest. */
const char *digest_hex(const char *digest);

struct hasher {
	void *ctx;	       /* EVP_MD_CTX, NULL: not in use */
	const char *algorithm; /* static: "sha256", "sha512" */
};

/* Starts hashing by the algorithm of a valid digest. 0, -ENOMEM. hasher_done frees, also a zeroed one. */
int hasher_init(struct hasher *h, const char *digest) MUST_CHECK;
void hasher_done(struct hasher *h);
int hasher_update(struct hasher *h, const void *p, size_t len) MUST_CHECK;
/* Ends it: writes "algorithm:hex". */
int hasher_finish(struct hasher *h, char ret[static OCI_DIGEST_SIZE]) MUST_CHECK;

/* One go: digest of these bytes by the algorithm of `like`. */
int digest_of(const char *like, const void *p, size_t len, char ret[static OCI_DIGEST_SIZE]) MUST_CHECK;

#endif
