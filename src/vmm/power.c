/* SPDX-License-Identifier: Apache-2.0 */
/* Power-off and reset. See power.h. */
#include "vmm/power.h"

#include <string.h>

#define SLEEP_ENABLE 0x20
#define SLEEP_TYPE(v) ((v) >> 2 & 7)
#define CF9_RESET 0x04
#define KBD_PULSE_RESET 0xfe

void power_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct power *p = arg;

	for (unsigned i = 0; i < len; i++) {
		if (!write)
			data[i] = 0;
		else if (off + i == POWER_SLEEP_CONTROL && (data[i] & SLEEP_ENABLE) &&
			 SLEEP_TYPE(data[i]) == POWER_SLEEP_TYPE_OFF)
			p->off(p->arg);
		else if (off + i == POWER_RESET && data[i] == POWER_RESET_VALUE)
			p->reset(p->arg);
	}
}

void power_cf9_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct power *p = arg;

	if (!write)
		memset(data, 0, len);
	else if (data[0] & CF9_RESET)
		p->reset(p->arg);
}

/* Status reads say "ready for a command", so that a kernel that falls back to the pulse does not wait first. */
void power_kbd_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct power *p = arg;

	if (!write)
		memset(data, 0, len);
	else if (data[0] == KBD_PULSE_RESET)
		p->reset(p->arg);
}
