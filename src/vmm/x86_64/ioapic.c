/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC. See ioapic.h. */
#include "vmm/x86_64/ioapic.h"

#include <string.h>

#include "vmm/bus.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10

#define INDEX_ID 0
#define INDEX_VERSION 1
#define INDEX_ARBITRATION 2
#define INDEX_ENTRIES 0x10

#define ENTRY_MASKED (1ULL << 16)
#define ENTRY_READ_ONLY (1ULL << 12 | 1ULL << 14) /* delivery status, remote IRR */

void ioapic_init(struct ioapic *io, void (*msi)(void *arg, uint64_t addr, uint32_t data), void *arg)
{
	memset(io, 0, sizeof(*io));
	io->msi = msi;
	io->arg = arg;
	for (unsigned i = 0; i < LAYOUT_IOAPIC_PINS; i++)
		io->entries[i] = ENTRY_MASKED;
}

/* An entry says what a message-signalled interrupt says, in other places (82093AA 3.2.4; SDM 3A 10.11). */
static void deliver(struct ioapic *io, uint64_t entry)
{
	uint64_t addr = LAYOUT_LAPIC | (entry >> 56) << 12 | (entry >> 11 & 1) << 2;
	uint32_t data = (uint32_t)(entry & 0x7ff); /* vector, delivery mode */

	io->msi(io->arg, addr, data);
}

void ioapic_edge(struct ioapic *io, unsigned pin)
{
	if (pin >= LAYOUT_IOAPIC_PINS)
		return;
	if (io->entries[pin] & ENTRY_MASKED)
		io->pending[pin] = true;
	else
		deliver(io, io->entries[pin]);
}

static void write_entry(struct ioapic *io, unsigned pin, bool high, uint32_t v)
{
	uint64_t e = io->entries[pin];

	if (high)
		e = (e & 0xffffffffULL) | (uint64_t)v << 32;
	else
		e = (e & ~0xffffffffULL) | v;
	io->entries[pin] = e & 0xff0000000001ffffULL & ~ENTRY_READ_ONLY;
	if (!(e & ENTRY_MASKED) && io->pending[pin]) {
		io->pending[pin] = false;
		deliver(io, io->entries[pin]);
	}
}

static uint32_t read_index(const struct ioapic *io)
{
	unsigned i = io->select - INDEX_ENTRIES;

	switch (io->select) {
	case INDEX_ID:
	case INDEX_ARBITRATION:
		return (uint32_t)io->id << 24;
	case INDEX_VERSION:
		return 0x11 | (LAYOUT_IOAPIC_PINS - 1) << 16;
	default:
		if (io->select < INDEX_ENTRIES || i >= 2 * LAYOUT_IOAPIC_PINS)
			return 0;
		return (uint32_t)(io->entries[i / 2] >> (i % 2 ? 32 : 0));
	}
}

static void write_index(struct ioapic *io, uint32_t v)
{
	unsigned i = io->select - INDEX_ENTRIES;

	if (io->select == INDEX_ID)
		io->id = v >> 24 & 0x0f;
	else if (io->select >= INDEX_ENTRIES && i < 2 * LAYOUT_IOAPIC_PINS)
		write_entry(io, i / 2, i % 2, v);
}

void ioapic_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct ioapic *io = arg;

	if (!write)
		bus_answer(data, len, off == REG_SELECT ? io->select : off == REG_WINDOW ? read_index(io) : 0);
	else if (off == REG_SELECT)
		io->select = data[0];
	else if (off == REG_WINDOW && len == 4)
		write_index(io, (uint32_t)bus_value(data, 4));
}
