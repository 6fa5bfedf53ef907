/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine in two files: `memory` (ram.h) and `state`. The format of `state`, little-endian:
 *
 *	"SMSTATE\0", u32 version
 *	sections {u32 tag, u32 length, bytes}, in this order:
 *		VM	u64 memory at boot, u32 cpus, u64 window size, u64 window address
 *		RAM	which chunks the memory file has (ram.h)
 *		CHAIN	instead of that: the memory file has what differs from others (overlay.h)
 *		ARCH	CPU identity, clock, platform, vCPUs (x86_64/arch_state.c)
 *		DEV	u32 slot, the function's record (virtio/pci_state.c); one a device, by rising slot
 *	u32 0, u32 CRC-32C of everything before
 *
 * A state file is hostile input. What is wrong with it is said before the guest runs, and nothing of it is believed
 * beyond what a guest could have brought about itself.
 */
#ifndef VMM_SNAPSHOT_H
#define VMM_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/error.h"
#include "vmm/config.h"

struct vm;

#define SNAPSHOT_STATE_MAX (128U << 20) /* most of it what the guest has of shared directories */
#define SNAPSHOT_VERSION 1

static const char snapshot_magic[8] = "SMSTATE";

enum snapshot_tag {
	SNAPSHOT_END = 0,
	SNAPSHOT_VM = 1,
	SNAPSHOT_RAM = 2,
	SNAPSHOT_ARCH = 3,
	SNAPSHOT_DEV = 4,
	SNAPSHOT_CHAIN = 6,
};

struct snapshot {
	uint8_t *data;
	uint64_t memory; /* that the guest booted with: a machine that can plug memory may have more */
	uint64_t window_gpa;
	bool over; /* its memory is an overlay (overlay.h) */
	struct cursor ram, arch;
	struct cursor devices; /* all DEV sections, their heads included */
	bool pluggable;	       /* one of them is for memory to be plugged */
};

/* How its memory is saved: whole, or as an overlay over the first `keep` files that it came from (overlay.h). */
struct snapshot_memory {
	bool over, lean;
	unsigned keep;
};

/* What of a machine can be had only while it stands still; its memory is not in it. */
struct snapshot_image {
	struct buf arch, devices;
	uint8_t *touched; /* ram_touched, or overlay_changed */
	struct snapshot_memory memory;
};

/* Of a machine that stands still, with the lock held: its vCPUs and devices, which may finish what they are at, which
 * changes RAM. */
int snapshot_take_state(struct vm *vm, struct buf *arch, struct buf *devices, struct sm_error *err) MUST_CHECK;
/* The same, and what its memory is. snapshot_image_done also after a failure. */
int snapshot_take(struct vm *vm, const struct snapshot_memory *memory, struct snapshot_image *ret,
		  struct sm_error *err) MUST_CHECK;
/*
 * Writes two empty files. The memory must be as it was then: in a machine that stands still since, or in a copy of the
 * process that was made then (fork). *ret_bytes: what the memory file holds.
 */
int snapshot_write(const struct vm *vm, const struct snapshot_image *img, int state, int memory, uint64_t *ret_bytes,
		   struct sm_error *err) MUST_CHECK;
void snapshot_image_done(struct snapshot_image *img);

/* Reads a state file and checks that it is whole and was made of a machine of this shape. */
int snapshot_open(struct snapshot *s, int fd, const struct vmm_config *cfg, struct sm_error *err) MUST_CHECK;
/* Loads vCPUs and devices of a machine that is made and has not run, or whose devices were reset; its RAM is there
 * already. */
int snapshot_load(struct vm *vm, struct snapshot *s, struct sm_error *err) MUST_CHECK;
void snapshot_done(struct snapshot *s);

/* For both: takes the next section, which must be of this kind; false: it is not. */
bool snapshot_section(struct cursor *c, enum snapshot_tag tag, struct cursor *ret);
/* "the state file is damaged: what"; returns the error. */
int snapshot_corrupt(const char *what, struct sm_error *err);

#endif
