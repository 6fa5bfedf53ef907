/* SPDX-License-Identifier: Apache-2.0 */
/* The port and memory buses. See bus.h. */
#include "vmm/bus.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

int bus_add(struct bus *bus, const char *name, uint64_t base, uint64_t size, bus_fn fn, void *arg)
{
	if (!size || base + size - 1 < base)
		return -EINVAL;
	if (bus->count >= BUS_MAX_RANGES)
		return -ENOSPC;
	for (unsigned i = 0; i < bus->count; i++) {
		const struct bus_range *r = &bus->ranges[i];

		if (base <= r->base ? r->base - base < size : base - r->base < r->size)
			return -EEXIST;
	}
	bus->ranges[bus->count++] = (struct bus_range){.name = name, .base = base, .size = size, .fn = fn, .arg = arg};
	return 0;
}

void bus_access(struct bus *bus, uint64_t addr, uint8_t *data, unsigned len, bool write)
{
	for (unsigned i = 0; i < bus->count; i++) {
		struct bus_range *r = &bus->ranges[i];

		if (addr < r->base || !range_inside(addr - r->base, len, r->size))
			continue;
		r->accesses++;
		r->fn(r->arg, addr - r->base, data, len, write);
		return;
	}
	bus->unclaimed++;
	if (!write)
		memset(data, 0xff, len);
}

uint64_t bus_value(const uint8_t *data, unsigned len)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < len && i < 8; i++)
		v |= (uint64_t)data[i] << (8 * i);
	return v;
}

void bus_answer(uint8_t *data, unsigned len, uint64_t value)
{
	for (unsigned i = 0; i < len; i++)
		data[i] = i < 8 ? (uint8_t)(value >> (8 * i)) : 0;
}
