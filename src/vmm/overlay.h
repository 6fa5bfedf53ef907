/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM in several files: a memory file (ram.h), and over it others that have only what differs from what is
 * beneath them. All are images of all RAM; the first counts where a bitmap of chunks says so, of the others each has a
 * bitmap of its pages, and of a page that several have the last one's counts.
 *
 * Where a machine has its memory from files, a page that it has written is a copy of its own, so what differs is known
 * without having been watched. Saved over the first `keep` of these, that is what it has of its own and what came from
 * the rest: a branch's memory is another file over the same ones as its parent's, and a diff snapshot's lies over its
 * parent's.
 */
#ifndef VMM_OVERLAY_H
#define VMM_OVERLAY_H

#include "vmm/ram.h"

/* Whether this memory came from so many files at least, and from none if it is to be saved over none. */
bool overlay_possible(const struct ram *ram, unsigned keep);
/* Which pages may differ from what the first `keep` files hold: as ram_touched, a bit a page, malloc'ed; NULL: no
 * memory. */
uint8_t *overlay_changed(const struct ram *ram, unsigned keep);

struct overlay_options {
	unsigned keep;
	bool lean; /* pages that hold what the files hold are left out, which takes a look at each */
};
/* Writes these (to an empty file) and appends to `out` what overlay_load needs. *ret_bytes: data written. */
int overlay_save(const struct ram *ram, const uint8_t *changed, const struct overlay_options *o, int fd,
		 struct buf *out, uint64_t *ret_bytes, struct sm_error *err) MUST_CHECK;
/* Maps all of them under RAM, before anything has touched it. under: lowest first, as many as `in` wants, with none a
 * file over nothing. They must stay open. */
int overlay_load(struct ram *ram, const int *under, unsigned num_under, int fd, struct cursor *in,
		 struct sm_error *err) MUST_CHECK;

#endif
