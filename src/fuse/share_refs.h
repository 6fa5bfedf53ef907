/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one client of a shared tree holds: how often it looked up each node, and what it was last shown of it. So a
 * client can give back no reference but its own, names no node that it did not look up, and all of it is given back
 * when it is gone. Internal to the server; not thread-safe.
 */
#ifndef FUSE_SHARE_REFS_H
#define FUSE_SHARE_REFS_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/error.h"

struct share_ref {
	struct share_ref *next; /* hash chain */
	uint64_t nodeid, count;
	bool shown; /* the three below are what it saw last */
	int64_t size;
	struct timespec mtime, ctime;
};

struct share_refs {
	struct share_ref **buckets;
	size_t num_buckets, count, max;
};

int share_refs_init(struct share_refs *r, size_t max) MUST_CHECK;
/* Frees the table alone; the references are the caller's to give back: share_refs_pop. */
void share_refs_done(struct share_refs *r);
struct share_ref *share_refs_find(const struct share_refs *r, uint64_t nodeid);
/* One reference more: 0, -ENOMEM, -ENFILE (max). */
int share_refs_add(struct share_refs *r, uint64_t nodeid) MUST_CHECK;
/* Gives up to count back: how many it had. */
uint64_t share_refs_drop(struct share_refs *r, uint64_t nodeid, uint64_t count);
/* Takes any node out: false when there is none. */
bool share_refs_pop(struct share_refs *r, uint64_t *ret_nodeid, uint64_t *ret_count);
void share_ref_show(struct share_ref *ref, const struct stat *st);
bool share_ref_is(const struct share_ref *ref, const struct stat *st);

#endif
