/* SPDX-License-Identifier: Apache-2.0 */
/* Digest syntax and hashing by Nettle, which uses the CPU's SHA instructions. See digest.h. */
#include "oci/digest.h"

#include <errno.h>
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

	if (!a)
		return -EINVAL;
	h->algorithm = a->name;
	if (a == &algorithms[0])
		sha256_init(&h->sha256);
	else
		sha512_init(&h->sha512);
	return 0;
}

static bool is_sha256(const struct hasher *h)
{
	return h->algorithm == algorithms[0].name;
}

void hasher_update(struct hasher *h, const void *p, size_t len)
{
	if (is_sha256(h))
		sha256_update(&h->sha256, len, p);
	else
		sha512_update(&h->sha512, len, p);
}

void hasher_finish(struct hasher *h, char ret[static OCI_DIGEST_SIZE])
{
	uint8_t md[SHA512_DIGEST_SIZE];
	size_t len = is_sha256(h) ? SHA256_DIGEST_SIZE : SHA512_DIGEST_SIZE;
	int at;

	if (is_sha256(h))
		sha256_digest(&h->sha256, len, md);
	else
		sha512_digest(&h->sha512, len, md);
	at = snprintf(ret, OCI_DIGEST_SIZE, "%s:", h->algorithm);
	for (size_t i = 0; i < len; i++)
		at += snprintf(ret + at, OCI_DIGEST_SIZE - (size_t)at, "%02x", md[i]);
}

int digest_of(const char *like, const void *p, size_t len, char ret[static OCI_DIGEST_SIZE])
{
	struct hasher h;
	int r = hasher_init(&h, like);

	if (r < 0)
		return r;
	hasher_update(&h, p, len);
	hasher_finish(&h, ret);
	return 0;
}
