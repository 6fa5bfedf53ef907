/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a guest ends itself: the ACPI sleep control and reset registers (ACPI 6.4, 4.8.3.7), and the two older ways to
 * reset a PC that kernels fall back to (port 0xcf9, the keyboard controller's pulse).
 */
#ifndef VMM_POWER_H
#define VMM_POWER_H

#include <stdbool.h>
#include <stdint.h>

#define POWER_SLEEP_CONTROL 0
#define POWER_SLEEP_STATUS 1
#define POWER_RESET 2
#define POWER_RESET_VALUE 1
#define POWER_SLEEP_TYPE_OFF 5 /* of S5, the one sleep state */

struct power {
	void (*off)(void *arg);
	void (*reset)(void *arg);
	void *arg;
};

/* bus_fns; arg is the struct power. */
void power_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);
void power_cf9_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);
void power_kbd_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write);

#endif
