/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the error model, the buffer and the bounded cursor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/cursor.h"

static void test_error_gathers_context(void **state)
{
	struct sm_error err = {0};
	int r = error_sys(&err, ENOENT, "open %s", "/a");

	assert_int_equal(r, -ENOENT);
	r = error_wrap(&err, r, "image %s", "x");
	assert_int_equal(r, -ENOENT);
	assert_int_equal(err.kind, SM_ERROR_NOT_FOUND);
	assert_string_equal(err.message, "image x: open /a: No such file or directory");
	assert_int_equal(error_set(NULL, SM_ERROR_LIMIT, E2BIG, "no storage is allowed"), -E2BIG);
}

static void test_error_wrap_without_a_cause_uses_errno(void **state)
{
	struct sm_error err = {0};

	error_wrap(&err, -EEXIST, "name");
	assert_int_equal(err.kind, SM_ERROR_EXISTS);
	assert_string_equal(err.message, "name: File exists");
	assert_int_equal(error_sys(&err, EIO, "read"), -EIO);
	assert_int_equal(err.kind, SM_ERROR_IO);
}

static void test_error_message_is_cut_not_overrun(void **state)
{
	struct sm_error err = {0};
	char big[3000];

	memset(big, 'x', sizeof(big));
	big[sizeof(big) - 1] = 0;
	error_set(&err, SM_ERROR_INVALID, EINVAL, "%s", big);
	error_wrap(&err, -EINVAL, "%s", big);
	error_sys(&err, EIO, "%s", big);
	assert_int_equal(strlen(err.message), SM_ERROR_MESSAGE_SIZE - 1);
}

static void test_what_buf_writes_cursor_reads(void **state)
{
	struct buf b = {0};
	struct cursor c;

	buf_put_u8(&b, 1);
	buf_put_u16(&b, 0x203);
	buf_put_u32(&b, 0x4050607);
	buf_put_u64(&b, 0x8090a0b0c0d0e0fULL);
	buf_put(&b, "name", 5);
	buf_printf(&b, "%d-%s", 42, "z");
	c = cursor_of(b.data, b.len);
	assert_int_equal(cursor_u8(&c), 1);
	assert_int_equal(cursor_u16(&c), 0x203);
	assert_int_equal(cursor_u32(&c), 0x4050607);
	assert_true(cursor_u64(&c) == 0x8090a0b0c0d0e0fULL);
	assert_string_equal(cursor_str(&c), "name");
	assert_memory_equal(cursor_take(&c, 4), "42-z", 4);
	assert_false(c.bad);
	assert_int_equal(c.left, 0);
	buf_consume(&b, 1);
	assert_int_equal(b.data[0], 3);
	buf_done(&b);
}

static void test_cursor_past_the_end_stays_bad(void **state)
{
	const uint8_t bytes[3] = {1, 2, 3};
	struct cursor c = cursor_of(bytes, sizeof(bytes));

	assert_int_equal(cursor_u32(&c), 0);
	assert_true(c.bad);
	assert_int_equal(cursor_u8(&c), 0); /* even what would fit */
	assert_null(cursor_take(&c, 0));
	c = cursor_of(bytes, sizeof(bytes));
	assert_null(cursor_str(&c)); /* no NUL inside */
	assert_true(c.bad);
}

static void test_buf_refuses_sizes_that_overflow(void **state)
{
	struct buf b = {0};

	assert_int_equal(buf_reserve(&b, SIZE_MAX - 10), -ENOMEM);
	assert_int_equal(buf_put_u8(&b, 1), -ENOMEM); /* sticky */
	assert_int_equal(b.len, 0);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_gathers_context),
		cmocka_unit_test(test_error_wrap_without_a_cause_uses_errno),
		cmocka_unit_test(test_error_message_is_cut_not_overrun),
		cmocka_unit_test(test_what_buf_writes_cursor_reads),
		cmocka_unit_test(test_cursor_past_the_end_stays_bad),
		cmocka_unit_test(test_buf_refuses_sizes_that_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
