/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the daemon's socket protocol: what is written is read back, and broken bytes are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "machine/wire.h"
#include "proto/messages.h"

static void test_header(void **state)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct wire_header h;

	assert_int_equal(wire_put(&b, WIRE_SPAWN, "abc", 3), 0);
	assert_int_equal(b.len, WIRE_HEADER + 3);
	assert_int_equal(wire_header_decode(b.data, &h), 0);
	assert_int_equal(h.type, WIRE_SPAWN);
	assert_int_equal(h.len, 3);
	assert_int_equal(wire_put(&b, WIRE_SPAWN, "", WIRE_MAX + 1), -EMSGSIZE);
}

static void test_broken_headers(void **state)
{
	_cleanup_(buf_done) struct buf b = {0};
	struct wire_header h;

	wire_put(&b, WIRE_STATUS, NULL, 0);
	for (size_t i = 0; i < WIRE_HEADER; i++) {
		if (i == 4 || i == 5 || i == 8 || i == 9) /* any type, any length below the limit */
			continue;
		b.data[i] ^= 0xff;
		assert_int_equal(wire_header_decode(b.data, &h), -EPROTO);
		b.data[i] ^= 0xff;
	}
	assert_int_equal(wire_header_decode(b.data, &h), 0);
}

static void test_error(void **state)
{
	struct sm_error e = {.kind = SM_ERROR_HOST, .code = ENOENT, .message = "no kernel"}, back = {0};
	_cleanup_(buf_done) struct buf b = {0};
	struct cursor c;

	assert_int_equal(wire_error_encode(&b, &e), 0);
	c = cursor_of(b.data, b.len);
	wire_error_decode(&c, &back);
	assert_int_equal(back.kind, SM_ERROR_HOST);
	assert_int_equal(back.code, ENOENT);
	assert_string_equal(back.message, "no kernel");
}

/* Whatever comes, the result is an error with a code: a caller must never take it for success. */
static void test_an_error_stays_an_error(void **state)
{
	struct sm_error e = {0};
	_cleanup_(buf_done) struct buf b = {0};
	_free_ char *longer = calloc(1, 5000);
	struct cursor c = cursor_of("", 0);

	wire_error_decode(&c, &e);
	assert_true(e.code > 0 && e.kind != SM_ERROR_NONE && *e.message);
	memset(longer, 'x', 4999);
	tlv_put_u64(&b, 1, 0);		/* kind: none */
	tlv_put_u64(&b, 2, UINT64_MAX); /* code */
	tlv_put_str(&b, 3, longer);
	c = cursor_of(b.data, b.len);
	wire_error_decode(&c, &e);
	assert_true(e.code > 0 && e.code < 4096 && e.kind != SM_ERROR_NONE);
	assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
}

static void test_status(void **state)
{
	struct seat_machine_status s = {.running = true,
					.daemon_pid = 12,
					.emulator_pid = 34,
					.memory = 1ULL << 40,
					.cpus = 2,
					.uptime_ns = 5,
					.busy = 3,
					.boot_id = "0123456789abcdef0123456789abcdef"},
				   back;
	_cleanup_(buf_done) struct buf b = {0};
	struct cursor c;

	assert_int_equal(wire_status_encode(&b, &s), 0);
	c = cursor_of(b.data, b.len);
	assert_int_equal(wire_status_decode(&c, &back), 0);
	assert_true(back.running);
	assert_int_equal(back.daemon_pid, 12);
	assert_int_equal(back.emulator_pid, 34);
	assert_int_equal(back.memory, 1ULL << 40);
	assert_int_equal(back.cpus, 2);
	assert_int_equal(back.uptime_ns, 5);
	assert_int_equal(back.busy, 3);
	assert_string_equal(back.boot_id, s.boot_id);
	for (size_t len = 1; len < b.len; len++) { /* every cut is refused, or is a status with fewer fields */
		struct seat_machine_status part;
		int r;

		c = cursor_of(b.data, len);
		r = wire_status_decode(&c, &part);
		assert_true(r == 0 || r == -EPROTO);
	}
	tlv_put_str(&b, 8, "a boot id that is much longer than there is room for");
	c = cursor_of(b.data, b.len);
	assert_int_equal(wire_status_decode(&c, &back), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header), cmocka_unit_test(test_broken_headers),
		cmocka_unit_test(test_error),  cmocka_unit_test(test_an_error_stays_an_error),
		cmocka_unit_test(test_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
