/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image window: immutable files mapped read-only side by side, with zero pages between. The files are the host's,
 * and may shrink under us against all promises; then the guest reads zeros where the file ended, and one counter moves.
 */
#ifndef VMM_WINDOW_H
#define VMM_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/config.h"

struct window {
	uint8_t *host;
	uint64_t size;
	const struct vmm_file *parts; /* of the configuration; their descriptors stay open */
	unsigned num_parts;
	uint64_t missing; /* bytes that the parts had lost when they were last mended */
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
/*
 * True if parts have shrunk since they were last mended. To be asked from time to time: a guest that takes interrupts
 * and touches what is lost gives no fault, KVM takes the page for one on its way from a disk and has the vCPU wait.
 */
bool window_shrunk(const struct window *w);

#endif
