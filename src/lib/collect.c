/* SPDX-License-Identifier: Apache-2.0 */
/* See collect.h. */
#include "lib/collect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define FIRST_SIZE 4096u

static size_t head_size(const struct collect *c)
{
	return c->max - c->max / 2;
}

/* Room for as many bytes as are to be kept, up to the limit, and a NUL. */
static bool grow(struct collect *c, size_t want)
{
	size_t cap = MIN(MAX(want, MAX(2 * c->cap, (size_t)FIRST_SIZE)), c->max);
	char *data;

	if (want <= c->cap && c->data)
		return true;
	data = realloc(c->data, cap + 1);
	if (!data) {
		c->failed = true;
		return false;
	}
	c->data = data;
	c->cap = cap;
	return true;
}

static void turn(struct collect *c, const char *p, size_t len)
{
	size_t size = c->max / 2, n;
	char *ring = c->data + head_size(c);

	if (len > size) { /* only its end will be seen */
		p += len - size;
		len = size;
	}
	while (len) {
		n = MIN(len, size - c->at);
		memcpy(ring + c->at, p, n);
		c->at = (c->at + n) % size;
		p += n;
		len -= n;
	}
}

void collect_put(struct collect *c, const void *p, size_t len)
{
	size_t fits = MIN(len, c->max - c->len);

	c->total += len;
	if (c->failed)
		return;
	if (fits) {
		if (!grow(c, c->len + fits))
			return;
		memcpy(c->data + c->len, p, fits);
		c->len += fits;
	}
	if (len > fits)
		turn(c, (const char *)p + fits, len - fits);
}

static void reverse(char *p, size_t len)
{
	for (size_t i = 0; i < len / 2; i++) {
		char swap = p[i];

		p[i] = p[len - 1 - i];
		p[len - 1 - i] = swap;
	}
}

int collect_finish(struct collect *c, struct sm_output *ret)
{
	bool truncated = c->total > c->len;

	if (c->failed || !grow(c, c->len))
		return -ENOMEM;
	if (c->at) { /* the oldest byte of the ring to its front */
		char *ring = c->data + head_size(c);
		size_t size = c->max / 2;

		reverse(ring, c->at);
		reverse(ring + c->at, size - c->at);
		reverse(ring, size);
	}
	c->data[c->len] = '\0';
	*ret = (struct sm_output){.data = c->data,
				  .length = c->len,
				  .head = truncated ? head_size(c) : c->len,
				  .total = c->total,
				  .truncated = truncated};
	*c = (struct collect){.max = c->max};
	return 0;
}

void collect_done(struct collect *c)
{
	free(c->data);
	*c = (struct collect){.max = c->max};
}
