/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 16550A for the early console: output only, never blocks the guest. Bytes go to `out` as they come; nothing is ever
 * received. (National Semiconductor PC16550D data sheet.)
 */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include <stdbool.h>
#include <stdint.h>

struct serial {
	void (*out)(void *arg, uint8_t byte);
	void (*irq)(void *arg); /* an edge on the interrupt line */
	void *arg;
	uint8_t ier, lcr, mcr, scr, fcr;
	uint16_t divisor;
	bool thr_empty; /* the "transmitter empty" interrupt is pending: reading IIR clears it */
};

#define SERIAL_PORTS 8

/* A bus_fn; arg is the struct serial. */
void serial_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);

#endif
