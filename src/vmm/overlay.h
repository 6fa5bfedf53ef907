/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM in two files: the memory file that the machine came from, and over it one that has only what differs from
 * that. Both are images of all RAM; a page of the second counts where a bitmap says so.
 *
 * Where a machine has its memory from a file (ram.h), a page that it has written is a copy of its own, so what differs
 * is known without having been watched. One that came from two files already is saved over the first of them: there are
 * never more than two.
 */
#ifndef VMM_OVERLAY_H
#define VMM_OVERLAY_H

#include "vmm/ram.h"

/* Which pages may differ from the base: as ram_touched, a bit a page, malloc'ed; NULL: no memory. */
uint8_t *overlay_changed(const struct ram *ram);
/* Writes these (to an empty file) and appends to `out` what overlay_load needs. *ret_bytes: data written. */
int overlay_save(const struct ram *ram, const uint8_t *changed, int fd, struct buf *out, uint64_t *ret_bytes,
		 struct sm_error *err) MUST_CHECK;
/* Maps both under RAM, before anything has touched it. base -1: there is none, and `in` may not want it. */
int overlay_load(struct ram *ram, int base, int fd, struct cursor *in, struct sm_error *err) MUST_CHECK;

#endif
