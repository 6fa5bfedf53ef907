/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command prints, kept within a limit: the first half of the limit as it comes, behind it a ring of the last
 * bytes. All of it is kept as long as it fits. Zero-initialise but for max.
 */
#ifndef LIB_COLLECT_H
#define LIB_COLLECT_H

#include "base/error.h"

struct collect {
	size_t max;	 /* bytes kept at most */
	char *data;	 /* of the buffer, which is one byte larger than cap */
	size_t cap, len; /* len == max: from here on the ring turns */
	size_t at;	 /* of the ring's oldest byte, behind the head */
	uint64_t total;
	bool failed; /* no memory: what came then is lost */
};

void collect_put(struct collect *c, const void *p, size_t len);
/* What was kept, in order, with a NUL behind it; the buffer goes to the caller (ret->data, to free). -ENOMEM. */
int collect_finish(struct collect *c, struct sm_output *ret) MUST_CHECK;
void collect_done(struct collect *c);

#endif
