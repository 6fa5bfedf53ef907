/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device against a guest made of random bytes. The input is a script: write memory, post chains, ring
 * doorbells, poke registers, reset, let time pass, save and load. The device starts as a good driver leaves it, so that
 * a short input already reaches it. RAM ends at the end of a heap block, and one window has lost its file's second
 * half: what goes too far, or touches the window by load and store, is caught.
 */
#ifndef TESTS_FUZZ_DEVICE_H
#define TESTS_FUZZ_DEVICE_H

#include "base/cursor.h"
#include "driver.h"

struct fuzz_device {
	/* Makes the device; may take bytes of the input for its options. */
	struct virtio_device *(*make)(struct driver *d, struct cursor *in);
	/* One operation from outside the guest (a descriptor becomes readable, a target changes); NULL: none. */
	void (*outside)(struct driver *d, struct virtio_device *dev, struct cursor *in);
	/* Fills in the start of a request at `p` (room bytes), so that random ones get past the first check; NULL:
	 * none. */
	void (*header)(struct cursor *in, unsigned queue, uint8_t *p, size_t room);
	uint32_t header_size; /* length of a request's first buffer, mostly */
	bool status;	      /* requests mostly end with one writable byte */
	/* Before the device goes, and after. */
	void (*done)(struct driver *d);
};

/* Defined by each target. */
extern const struct fuzz_device fuzz_device;

#endif
