/* SPDX-License-Identifier: Apache-2.0 */
/* Digest syntax and hashing by OpenSSL, which uses the CPU's SHA instructions. See digest.h. */
#include "oci/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

static const struct algorithm {
	const char *name;
	const char *prefix;
	size_t digits;
} algorithms[] = {{"sha256", "sha256:", 64}, {"sha512", "sha512:", 128}};

static const struct algorithm *algorithm_of(const char *digest)
{
	for (size_t i = 0; i < ARRAY_SIZE(algorithms); i++)
		if (str_starts(digest, algorithms[i].prefix))
			return &algorithms[i];
	return NULL;
}

bool digest_valid(const char *digest)
{
	const struct algorithm *a = algorithm_of(digest);
	const char *hex;

	if (!a)
		return false;
	hex = digest + strlen(a->prefix);
	return strspn(hex, "0123456789abcdef") == a->digits && hex[a->digits] == 0;
}

const char *digest_hex(const char *digest)
{
	return strchr(digest, ':') + 1;
}

int hasher_init(struct hasher *h, const char *digest)
{
	const struct algorithm *a = algorithm_of(digest);
	EVP_MD_CTX *ctx;

	if (!a)
		return -EINVAL;
	ctx = EVP_MD_CTX_new();
	if (!ctx)
		return -ENOMEM;
	if (EVP_DigestInit_ex(ctx, a == &algorithms[0] ? EVP_sha256() : EVP_sha512(), NULL) != 1) {
		EVP_MD_CTX_free(ctx);
		return -ENOMEM;
	}
	h->ctx = ctx;
	h->algorithm = a->name;
	return 0;
}

void hasher_done(struct hasher *h)
{
	EVP_MD_CTX_free(h->ctx);
	h->ctx = NULL;
}

int hasher_update(struct hasher *h, const void *p, size_t len)
{
	return EVP_DigestUpdate(h->ctx, p, len) == 1 ? 0 : -EIO;
}

int hasher_finish(struct hasher *h, char ret[static OCI_DIGEST_SIZE])
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	int at;

	if (EVP_DigestFinal_ex(h->ctx, md, &len) != 1)
		return -EIO;
	at = snprintf(ret, OCI_DIGEST_SIZE, "%s:", h->algorithm);
	for (unsigned i = 0; i < len; i++)
		at += snprintf(ret + at, OCI_DIGEST_SIZE - (size_t)at, "%02x", md[i]);
	return 0;
}

int digest_of(const char *like, const void *p, size_t len, char ret[static OCI_DIGEST_SIZE])
{
	struct hasher h = {0};
	int r = hasher_init(&h, like);

	if (r == 0)
		r = hasher_update(&h, p, len);
	if (r == 0)
		r = hasher_finish(&h, ret);
	hasher_done(&h);
	return r;
}
