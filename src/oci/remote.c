/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blob of a registry, read in order while it comes. A connection that breaks is made again, and goes on where it
 * broke; each attempt begins at the registry, since where that had sent us may hold for a while alone. The reader holds
 * the bytes to their digest; here only as many are passed on as the manifest announced.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "oci/registry.h"

#define MAX_FAILURES 5
/* So much between two failures, and they are not counted together. */
#define ENOUGH_BETWEEN MIB

struct remote_blob {
	struct remote base;
	struct registry *reg;
	char digest[OCI_DIGEST_SIZE];
	uint64_t size, at;
	atomic_bool stop;
	struct http *h;	 /* NULL: no request is open */
	uint64_t skip;	 /* bytes that come once more, of a registry that cannot begin in the middle */
	bool open_ended; /* it did not say how much would come */
	unsigned failures;
	uint64_t failed_at;
};

static int wrong_size(const struct remote_blob *b, uint64_t have, struct sm_error *err)
{
	return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "the registry has %llu bytes of %s, the manifest says %llu",
			 (unsigned long long)have, b->digest, (unsigned long long)b->size);
}

static int request(struct remote_blob *b, struct sm_error *err)
{
	struct registry_request req = {.kind = "blobs", .name = b->digest, .from = b->at, .stop = &b->stop};
	struct http_answer a;
	uint64_t first;
	int r = registry_get(b->reg, &req, &b->h, &a, err);

	if (r < 0) {
		b->h = NULL;
		return r;
	}
	first = a.status == 206 ? a.first : 0;
	if (first > b->at)
		return error_set(err, SM_ERROR_CORRUPT, EBADMSG, "%s sends another part of %s than was asked for",
				 a.host, b->digest);
	b->skip = b->at - first;
	b->open_ended = a.length == HTTP_UNKNOWN;
	if (!b->open_ended && a.length != b->size - first)
		return wrong_size(b, first + a.length, err);
	return 0;
}

static void hang_up(struct remote_blob *b)
{
	if (b->h)
		registry_put(b->reg, b->h);
	b->h = NULL;
}

/* After a failure that another attempt may mend: 0: try again. */
static int give_up_or_wait(struct remote_blob *b, int r, struct sm_error *err)
{
	struct sm_error stopped = {0};

	if (b->at - b->failed_at >= ENOUGH_BETWEEN)
		b->failures = 0;
	b->failed_at = b->at;
	if (++b->failures > MAX_FAILURES)
		return error_wrap(err, r, "gave up after %u attempts, %llu of %llu bytes", b->failures,
				  (unsigned long long)b->at, (unsigned long long)b->size);
	r = registry_pause(b->reg, b->failures - 1, &b->stop, &stopped);
	if (r < 0 && err)
		*err = stopped;
	return r;
}

/* Up to len bytes of what is open: count, or -errno; *ret_again: it broke. */
static ssize_t read_open(struct remote_blob *b, void *p, size_t len, bool *ret_again, struct sm_error *err)
{
	ssize_t n;

	*ret_again = false;
	do {
		size_t want = b->skip ? (size_t)MIN(b->skip, len) : len;
		bool skipping = b->skip;

		n = http_read(b->h, p, want, ret_again, err);
		if (n > 0 && skipping)
			b->skip -= (uint64_t)n;
		if (n <= 0 || !skipping)
			break;
	} while (true);
	if (n != 0)
		return n;
	*ret_again = true;
	return error_set(err, SM_ERROR_NETWORK, ECONNRESET, "the registry ends %s at %llu of %llu bytes", b->digest,
			 (unsigned long long)b->at, (unsigned long long)b->size);
}

/* All has come: of an answer that did not say its length, is that all? What goes wrong now is no matter. */
static int check_end(struct remote_blob *b, struct sm_error *err)
{
	bool again, more;
	char byte;

	more = b->h && b->open_ended && http_read(b->h, &byte, 1, &again, NULL) > 0;
	hang_up(b);
	return more ? wrong_size(b, b->size + 1, err) : 0;
}

static ssize_t blob_read(struct remote *self, uint64_t at, void *p, size_t len, struct sm_error *err)
{
	struct remote_blob *b = CONTAINER_OF(self, struct remote_blob, base);
	size_t done = 0;

	if (at != b->at)
		return error_set(err, SM_ERROR_IO, ESPIPE, "%s is read out of order", b->digest);
	len = (size_t)MIN(len, b->size - b->at);
	while (done < len) {
		bool again = false;
		ssize_t n = b->h ? 0 : request(b, err);

		if (n == 0)
			n = read_open(b, (uint8_t *)p + done, len - done, &again, err);
		if (n > 0) {
			done += (size_t)n;
			b->at += (uint64_t)n;
			continue;
		}
		hang_up(b);
		/* A registry that answered before is away for a moment. */
		again = again || (b->at && n == -ECONNREFUSED);
		if (again)
			n = give_up_or_wait(b, (int)n, err);
		if (n < 0)
			return n;
	}
	if (b->at == b->size) {
		int r = check_end(b, err);

		if (r < 0)
			return r;
	}
	return (ssize_t)done;
}

static void blob_stop(struct remote *self)
{
	atomic_store(&CONTAINER_OF(self, struct remote_blob, base)->stop, true);
}

static void blob_close(struct remote *self)
{
	struct remote_blob *b = CONTAINER_OF(self, struct remote_blob, base);

	hang_up(b);
	free(b);
}

int remote_open(struct registry *reg, const char *digest, uint64_t size, struct extent *ret, struct sm_error *err)
{
	struct remote_blob *b = calloc(1, sizeof(*b));

	if (!b)
		return error_sys(err, ENOMEM, "%s", digest);
	b->base = (struct remote){.read = blob_read, .stop = blob_stop, .close = blob_close};
	b->reg = reg;
	b->size = size;
	memcpy(b->digest, digest, sizeof(b->digest));
	*ret = (struct extent){.fd = -1, .size = size, .remote = &b->base};
	return 0;
}
