/* SPDX-License-Identifier: Apache-2.0 */
/* The platform's small devices: buses, serial port, console, power registers, I/O APIC, image window. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "vmm/bus.h"
#include "vmm/console.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/window.h"
#include "vmm/x86_64/ioapic.h"

/* What a device did, seen from outside. */
struct seen {
	char text[256];
	size_t len;
	int irqs, offs, resets, msis;
	uint64_t addr;
	uint32_t data;
};

static void access_echo(void *arg, uint64_t off, uint8_t *data, unsigned len, bool write)
{
	uint64_t *last = arg;

	if (write)
		*last = off << 32 | bus_value(data, len);
	else
		bus_answer(data, len, off + 1);
}

static void test_bus(void **state)
{
	struct bus bus = {0};
	uint64_t last = 0;
	uint8_t data[8] = {1, 2, 3, 4};

	assert_int_equal(bus_add(&bus, "a", 0x100, 0x10, access_echo, &last), 0);
	assert_int_equal(bus_add(&bus, "b", 0x110, 0x10, access_echo, &last), 0);
	assert_int_equal(bus_add(&bus, "c", 0x10f, 1, access_echo, &last), -EEXIST);
	assert_int_equal(bus_add(&bus, "c", 0xff, 0x100, access_echo, &last), -EEXIST);
	assert_int_equal(bus_add(&bus, "c", 0x200, 0, access_echo, &last), -EINVAL);
	assert_int_equal(bus_add(&bus, "c", UINT64_MAX, 2, access_echo, &last), -EINVAL);
	bus_access(&bus, 0x112, data, 2, true);
	assert_int_equal(last, 2ULL << 32 | 0x0201);
	bus_access(&bus, 0x105, data, 4, false);
	assert_int_equal(bus_value(data, 4), 6);
	/* Over a range's end: nobody's. */
	bus_access(&bus, 0x10f, data, 2, false);
	assert_int_equal(bus_value(data, 2), 0xffff);
	bus_access(&bus, UINT64_MAX, data, 8, false);
	assert_true(bus_value(data, 8) == UINT64_MAX);
	assert_int_equal(bus.unclaimed, 2);
	assert_int_equal(bus.ranges[1].accesses, 1);
}

static void out_byte(void *arg, uint8_t byte)
{
	struct seen *s = arg;

	if (s->len < sizeof(s->text) - 1)
		s->text[s->len++] = (char)byte;
}

static void count_irq(void *arg)
{
	((struct seen *)arg)->irqs++;
}

static uint8_t in8(struct serial *s, unsigned reg)
{
	uint8_t v = 0;

	serial_access(s, reg, &v, 1, false);
	return v;
}

static void out8(struct serial *s, unsigned reg, uint8_t v)
{
	serial_access(s, reg, &v, 1, true);
}

static void test_serial_output(void **state)
{
	struct seen seen = {0};
	struct serial s = {.out = out_byte, .irq = count_irq, .arg = &seen};

	for (const char *c = "hi"; *c; c++) {
		assert_int_equal(in8(&s, 5) & 0x20, 0x20);
		out8(&s, 0, (uint8_t)*c);
	}
	assert_string_equal(seen.text, "hi");
	assert_int_equal(seen.irqs, 0);
	/* The divisor is not output. */
	out8(&s, 3, 0x83);
	out8(&s, 0, 1);
	out8(&s, 1, 2);
	assert_int_equal(in8(&s, 0), 1);
	assert_int_equal(in8(&s, 1), 2);
	out8(&s, 3, 3);
	assert_string_equal(seen.text, "hi");
	assert_int_equal(in8(&s, 1), 0);
}

static void test_serial_interrupt(void **state)
{
	struct seen seen = {0};
	struct serial s = {.out = out_byte, .irq = count_irq, .arg = &seen};

	assert_int_equal(in8(&s, 2) & 0x0f, 0x01);
	out8(&s, 1, 0x02); /* enabling it with an empty register interrupts at once */
	assert_int_equal(seen.irqs, 1);
	assert_int_equal(in8(&s, 2) & 0x0f, 0x02);
	assert_int_equal(in8(&s, 2) & 0x0f, 0x01); /* the read cleared it */
	out8(&s, 0, 'x');
	assert_int_equal(seen.irqs, 2);
	out8(&s, 1, 0x00);
	assert_int_equal(in8(&s, 2) & 0x0f, 0x01);
	out8(&s, 0, 'y');
	assert_int_equal(seen.irqs, 2);
}

/* What Linux does to find out which chip it has. */
static void test_serial_probe(void **state)
{
	struct seen seen = {0};
	struct serial s = {.out = out_byte, .irq = count_irq, .arg = &seen};

	out8(&s, 1, 0x0f);
	assert_int_equal(in8(&s, 1), 0x0f);
	out8(&s, 1, 0);
	assert_int_equal(in8(&s, 1), 0);
	out8(&s, 4, 0x1a); /* loop-back with OUT2 and RTS */
	assert_int_equal(in8(&s, 6) & 0xf0, 0x90);
	out8(&s, 0, 'x');
	assert_int_equal(seen.len, 0);
	out8(&s, 4, 0);
	out8(&s, 2, 0x01);
	assert_int_equal(in8(&s, 2) & 0xc0, 0xc0);
	out8(&s, 7, 0x5a);
	assert_int_equal(in8(&s, 7), 0x5a);
}

static void put(struct console *c, const char *s)
{
	while (*s)
		console_put(c, (uint8_t)*s++);
}

static void test_console(void **state)
{
	struct console c;
	char got[CONSOLE_TAIL], line[64];
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	console_init(&c, fds[1]);
	put(&c, "one\ntwo");
	assert_int_equal(read(fds[0], got, sizeof(got)), 4);
	console_flush(&c);
	assert_int_equal(read(fds[0], got, sizeof(got)), 3);
	assert_false(c.panicked);
	put(&c, "\n[    1.5] Kernel panic - not syncing: Attempted to kill init!\nmore\n");
	assert_true(c.panicked);
	assert_non_null(strstr(c.panic_line, "Attempted to kill init"));
	put(&c, "Kernel panic - not syncing: second\n");
	assert_null(strstr(c.panic_line, "second"));
	/* A reader that never reads costs output, not time; the tail has the last of it all the same. */
	for (int i = 0; i < 20000; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		put(&c, line);
	}
	assert_true(c.dropped > 0);
	assert_true(console_tail(&c, got, 100) < 100);
	assert_int_equal(strncmp(got, "line 199", 8), 0);
	assert_non_null(strstr(got, "line 19999\n"));
	assert_true(console_tail(&c, got, sizeof(got)) > 4000);
	close(fds[0]);
	close(fds[1]);
}

static void off(void *arg)
{
	((struct seen *)arg)->offs++;
}

static void reset(void *arg)
{
	((struct seen *)arg)->resets++;
}

static void test_power(void **state)
{
	struct seen seen = {0};
	struct power p = {.off = off, .reset = reset, .arg = &seen};
	uint8_t v = 0x20 | 3 << 2;

	power_access(&p, POWER_SLEEP_CONTROL, &v, 1, true);
	assert_int_equal(seen.offs, 0); /* another sleep state */
	v = POWER_SLEEP_TYPE_OFF << 2;
	power_access(&p, POWER_SLEEP_CONTROL, &v, 1, true);
	assert_int_equal(seen.offs, 0); /* not enabled */
	v |= 0x20;
	power_access(&p, POWER_SLEEP_CONTROL, &v, 1, true);
	assert_int_equal(seen.offs, 1);
	v = POWER_RESET_VALUE;
	power_access(&p, POWER_RESET, &v, 1, true);
	assert_int_equal(seen.resets, 1);
	v = 0x06;
	power_cf9_access(&p, 0, &v, 1, true);
	assert_int_equal(seen.resets, 2);
	v = 0xfe;
	power_kbd_access(&p, 0, &v, 1, true);
	assert_int_equal(seen.resets, 3);
	power_access(&p, POWER_SLEEP_STATUS, &v, 1, false);
	assert_int_equal(v, 0);
}

static void msi(void *arg, uint64_t addr, uint32_t data)
{
	struct seen *s = arg;

	s->msis++;
	s->addr = addr;
	s->data = data;
}

static void io_write(struct ioapic *io, uint8_t index, uint32_t v)
{
	uint8_t d[4] = {index};

	ioapic_access(io, 0, d, 4, true);
	bus_answer(d, 4, v);
	ioapic_access(io, 0x10, d, 4, true);
}

static uint32_t io_read(struct ioapic *io, uint8_t index)
{
	uint8_t d[4] = {index};

	ioapic_access(io, 0, d, 4, true);
	ioapic_access(io, 0x10, d, 4, false);
	return (uint32_t)bus_value(d, 4);
}

static void test_ioapic(void **state)
{
	struct seen seen = {0};
	struct ioapic io;

	ioapic_init(&io, msi, &seen);
	assert_int_equal(io_read(&io, 1) >> 16 & 0xff, LAYOUT_IOAPIC_PINS - 1);
	assert_int_equal(io_read(&io, 0x10 + 2 * 2) & 0x10000, 0x10000);
	ioapic_edge(&io, 2);
	assert_int_equal(seen.msis, 0);
	io_write(&io, 0x11 + 2 * 2, 3u << 24);
	io_write(&io, 0x10 + 2 * 2, 0x31); /* unmasking delivers what waited */
	assert_int_equal(seen.msis, 1);
	assert_int_equal(seen.addr, 0xfee03000);
	assert_int_equal(seen.data, 0x31);
	ioapic_edge(&io, 2);
	assert_int_equal(seen.msis, 2);
	assert_int_equal(io_read(&io, 0x11 + 2 * 2), 3u << 24);
	/* Nothing there. */
	io_write(&io, 0x10 + 2 * LAYOUT_IOAPIC_PINS, 0);
	assert_int_equal(io_read(&io, 0x10 + 2 * LAYOUT_IOAPIC_PINS), 0);
	io_write(&io, 0xff, 0);
	assert_int_equal(io_read(&io, 0xff), 0);
	ioapic_edge(&io, LAYOUT_IOAPIC_PINS);
	assert_int_equal(seen.msis, 2);
}

static void test_window(void **state)
{
	int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC);
	struct vmm_file parts[] = {{.fd = a, .size = 3 * 4096, .offset = 0},
				   {.fd = b, .size = 5000, .offset = 16 * 4096}};
	struct sm_error err = {0};
	struct window w;

	assert_int_equal(ftruncate(a, 3 * 4096), 0);
	assert_int_equal(pwrite_full(a, "first", 5, 2 * 4096), 0);
	assert_int_equal(ftruncate(b, 5000), 0);
	assert_int_equal(pwrite_full(b, "second", 6, 4990), 0);
	assert_int_equal(window_map(&w, 2 * MIB, parts, 2, &err), 0);
	assert_memory_equal(w.host + 2 * 4096, "first", 5);
	assert_memory_equal(w.host + 16 * 4096 + 4990, "second", 6);
	assert_int_equal(w.host[3 * 4096], 0); /* a hole */
	assert_int_equal(w.host[2 * MIB - 1], 0);
	assert_int_equal(window_repair(&w), 0); /* nothing is wrong */
	assert_int_equal(ftruncate(a, 100), 0);
	assert_int_equal(window_repair(&w), 1);
	assert_int_equal(w.repairs, 1);
	assert_int_equal(w.host[2 * 4096], 0); /* no SIGBUS */
	assert_memory_equal(w.host + 16 * 4096 + 4990, "second", 6);
	assert_int_equal(ftruncate(b, 0), 0);
	assert_int_equal(window_repair(&w), 2);
	assert_int_equal(w.host[16 * 4096 + 4990], 0);
	window_unmap(&w);
	parts[1].fd = -1;
	assert_true(window_map(&w, 2 * MIB, parts, 2, &err) < 0);
	assert_non_null(strstr(err.message, "part 1"));
	close(a);
	close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bus),
		cmocka_unit_test(test_serial_output),
		cmocka_unit_test(test_serial_interrupt),
		cmocka_unit_test(test_serial_probe),
		cmocka_unit_test(test_console),
		cmocka_unit_test(test_power),
		cmocka_unit_test(test_ioapic),
		cmocka_unit_test(test_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
