/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image window: immutable files mapped read-only side by side, with zero pages between. The files are the host's,
 * and may shrink under us against all promises; then the guest reads zeros where the file ended, and one counter moves.
 */
#ifndef VMM_WINDOW_H
#define VMM_WINDOW_H

#include <stdint.h>

#include "base/error.h"
#include "vmm/config.h"

struct window {
	uint8_t *host;
	uint64_t size;
	const struct vmm_file *parts; /* of the configuration; their descriptors stay open */
	unsigned num_parts;
	uint64_t repairs; /* metric: parts found truncated and overlaid */
};

/* Reserves and maps. parts must outlive the window. On failure nothing stays mapped. */
int window_map(struct window *w, uint64_t size, const struct vmm_file *parts, unsigned num_parts,
	       struct sm_error *err) MUST_CHECK;
void window_unmap(struct window *w);
/*
 * After a fault: overlays what parts have lost with zero pages. Returns how many parts were (newly or again) found
 * short, 0 when none: then the fault has another cause; or -errno.
 */
int window_repair(struct window *w) MUST_CHECK;

#endif
