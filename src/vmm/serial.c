/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550A. See serial.h. */
#include "vmm/serial.h"

#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_THRI 0x02
#define IIR_NONE 0x01
#define IIR_THRI 0x02
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_IDLE 0x60	 /* holding register and transmitter empty */
#define MSR_PRESENT 0xb0 /* carrier, data set ready, clear to send */

static void raise_thri(struct serial *s)
{
	if (!(s->ier & IER_THRI))
		return;
	s->thr_empty = true;
	if (s->irq)
		s->irq(s->arg);
}

static void write_reg(struct serial *s, unsigned reg, uint8_t v)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		if (dlab) {
			s->divisor = (uint16_t)((s->divisor & 0xff00) | v);
			break;
		}
		if (!(s->mcr & MCR_LOOP))
			s->out(s->arg, v);
		raise_thri(s); /* sent at once, so the register is empty again */
		break;
	case REG_IER:
		if (dlab) {
			s->divisor = (uint16_t)((s->divisor & 0x00ff) | v << 8);
			break;
		}
		v &= 0x0f;
		if (!(v & IER_THRI))
			s->thr_empty = false;
		else if (!(s->ier & IER_THRI)) {
			s->ier = v;
			raise_thri(s);
		}
		s->ier = v;
		break;
	case REG_IIR_FCR:
		s->fcr = v;
		break;
	case REG_LCR:
		s->lcr = v;
		break;
	case REG_MCR:
		s->mcr = v & 0x1f;
		break;
	case REG_SCR:
		s->scr = v;
		break;
	default:
		break; /* LSR and MSR are read-only */
	}
}

/* In loop-back mode the four modem outputs come back as inputs: how drivers probe for a real chip. */
static uint8_t modem_status(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_PRESENT;
	return (uint8_t)((s->mcr & 0x0c) << 4 | (s->mcr & 0x02) << 3 | (s->mcr & 0x01) << 5);
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t fifo = s->fcr & FCR_ENABLE ? IIR_FIFO : 0;

	if (!s->thr_empty)
		return IIR_NONE | fifo;
	s->thr_empty = false;
	return IIR_THRI | fifo;
}

static uint8_t read_reg(struct serial *s, unsigned reg)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		return dlab ? (uint8_t)s->divisor : 0;
	case REG_IER:
		return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
	case REG_IIR_FCR:
		return read_iir(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return LSR_IDLE;
	case REG_MSR:
		return modem_status(s);
	default:
		return s->scr;
	}
}

void serial_access(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	struct serial *s = arg;

	for (unsigned i = 0; i < len; i++) {
		unsigned reg = (unsigned)(off + i) & 7;

		if (write)
			write_reg(s, reg, data[i]);
		else
			data[i] = read_reg(s, reg);
	}
}
