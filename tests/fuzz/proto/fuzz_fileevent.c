/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the records of a watch: what decodes is what the library relies on, encodes again, and is the same then;
 * and a beginning of it is nothing yet, or the same fault. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/fileevent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct fileevent *e, const uint8_t *p, size_t used)
{
	static struct fileevent again;
	struct buf b = {0};
	size_t n = 0;

	if (e->kind > FILEEVENT_ERROR || !memchr(e->path, 0, sizeof(e->path)) || !memchr(e->to, 0, sizeof(e->to)))
		abort();
	if (e->kind != FILEEVENT_READY && e->kind != FILEEVENT_ERROR && e->path[0] != '/')
		abort();
	if (fileevent_put(&b, e->kind, e->directory, e->path, e->to) < 0 || b.len != used ||
	    memcmp(b.data, p, used) != 0)
		abort();
	if (fileevent_next(b.data, b.len, &again, &n) != 1 || n != used)
		abort();
	for (size_t i = 0; i < used && i < 64; i++)
		if (fileevent_next(p, i, &again, &n) != 0)
			abort();
	buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fileevent e;
	size_t used = 0;

	while (fileevent_next(data, size, &e, &used) > 0) {
		if (used > size)
			abort();
		check(&e, data, used);
		data += used;
		size -= used;
	}
	return 0;
}
