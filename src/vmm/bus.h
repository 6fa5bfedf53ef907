/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who answers at which port or guest-physical address. Two small tables, one for ports and one for memory; filled
 * before the vCPUs start, then read-only. Accesses run under the monitor's device lock.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define BUS_MAX_RANGES 12

/* off: into the range; len: 1, 2, 4 or 8, entirely inside it. A read fills data[0..len). */
typedef void (*bus_fn)(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);

struct bus_range {
	const char *name; /* for the statistics */
	uint64_t base, size;
	bus_fn fn;
	void *arg;
	uint64_t accesses; /* metric */
};

struct bus {
	struct bus_range ranges[BUS_MAX_RANGES];
	unsigned count;
	uint64_t unclaimed; /* metric */
};

/* -EINVAL (empty or wrapping), -EEXIST (overlap), -ENOSPC. `name` must outlive the bus. */
int bus_add(struct bus *bus, const char *name, uint64_t base, uint64_t size, bus_fn fn, void *arg) MUST_CHECK;

/* Reads nobody claims are all ones, as on hardware; such writes vanish. */
void bus_access(struct bus *bus, uint64_t addr, uint8_t *data, unsigned len, bool write);

/* Little-endian helpers for the handlers. */
uint64_t bus_value(const uint8_t *data, unsigned len);
void bus_answer(uint8_t *data, unsigned len, uint64_t value);

#endif
