/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a stream of watch records, from either side (the first byte chooses). What decodes is what the receivers
 * rely on, encodes again, and is the same then. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/hostwatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct hostwatch_record *r, bool from_host)
{
	if (r->id > HOSTWATCH_MAX_ID || r->share >= HOSTWATCH_SHARES ||
	    memchr(r->text, '\0', sizeof(r->text)) == NULL || r->text[0] == '/' || strstr(r->text, "//"))
		abort();
	if (from_host ? strchr(r->text, '/') || strcmp(r->text, "..") == 0 || strcmp(r->text, ".") == 0
		      : strncmp(r->text, "../", 3) == 0 || strstr(r->text, "/../") || strstr(r->text, "/./"))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hostwatch_record r, again;
	struct cursor c = cursor_of(data, size);
	bool from_host = cursor_u8(&c) & 1;
	int e;

	while ((e = hostwatch_decode(&c, from_host, &r)) > 0) {
		struct buf b = {0};
		struct cursor copy;

		check(&r, from_host);
		if (hostwatch_encode(&b, &r) < 0)
			abort();
		copy = cursor_of(b.data, b.len);
		if (hostwatch_decode(&copy, from_host, &again) != 1 || copy.left || r.op != again.op ||
		    r.id != again.id || r.mask != again.mask || r.ino != again.ino || r.quiet_ns != again.quiet_ns ||
		    r.share != again.share || strcmp(r.text, again.text) != 0)
			abort();
		buf_done(&b);
	}
	return 0;
}
