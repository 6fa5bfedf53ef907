/* SPDX-License-Identifier: Apache-2.0 */
/* The frame protocol's state machine: what it carries, and every rule that cuts a peer off. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pair.h"

#define WINDOW 1000u

static void test_hello_and_channel(void **state)
{
	for (size_t piece = 1; piece < 100; piece += 13) {
		struct seen c, s;
		struct buf req = {0};
		uint32_t ch = 0;

		assert_int_equal(pair_new(&c, &s, WINDOW), 0);
		assert_true(mux_ready(c.m) && mux_ready(s.m));
		buf_put(&req, "request", 7);
		assert_int_equal(mux_open(c.m, 42, &req, &c, &ch), 0);
		assert_int_equal(mux_send(c.m, ch, 0, "early", 5), -EINVAL);
		settle_pair(c.m, s.m, piece);
		assert_int_equal(s.service, 42);
		assert_int_equal(s.request.len, 7);
		assert_int_equal(c.openeds, 1);
		assert_ptr_equal(mux_user(c.m, ch), &c);
		assert_int_equal(mux_send(c.m, ch, 0, "hello", 5), 0);
		assert_int_equal(mux_send(s.m, ch, 1, "out", 3), 0);
		assert_int_equal(mux_send(s.m, ch, 2, "err", 3), 0);
		assert_int_equal(mux_send(s.m, ch, 0, "x", 1), -EINVAL);
		assert_int_equal(mux_send_event(c.m, ch, &req), 0);
		assert_int_equal(mux_send_eof(s.m, ch, 1), 0);
		assert_int_equal(mux_send_eof(s.m, ch, 1), -EINVAL);
		assert_int_equal(mux_send(s.m, ch, 1, "x", 1), -EINVAL);
		settle_pair(c.m, s.m, piece);
		assert_memory_equal(s.data[0].data, "hello", 5);
		assert_memory_equal(c.data[1].data, "out", 3);
		assert_memory_equal(c.data[2].data, "err", 3);
		assert_int_equal(c.eofs, 2);
		assert_int_equal(s.events, 1);
		assert_int_equal(mux_close(s.m, ch, -ENOSPC, "disk is full"), 0);
		settle_pair(c.m, s.m, piece);
		assert_int_equal(c.code, -ENOSPC);
		assert_string_equal(c.text, "disk is full");
		assert_int_equal(mux_close(c.m, ch, 0, NULL), -ENOENT);
		assert_null(mux_user(s.m, ch));
		buf_done(&req);
		seen_done(&c);
		seen_done(&s);
	}
}

static void test_credit(void **state)
{
	struct seen c, s;
	uint8_t bytes[WINDOW * 2] = {1};
	uint32_t ch;

	assert_int_equal(pair_new(&c, &s, WINDOW), 0);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	settle_pair(c.m, s.m, 64);
	c.hold = true;
	assert_int_equal(mux_credit(s.m, ch, 1), WINDOW);
	assert_int_equal(mux_send(s.m, ch, 1, bytes, WINDOW + 1), -EAGAIN);
	assert_int_equal(mux_send(s.m, ch, 1, bytes, WINDOW), 0);
	assert_int_equal(mux_send(s.m, ch, 1, bytes, 1), -EAGAIN);
	assert_int_equal(mux_send(s.m, ch, 2, bytes, WINDOW), 0); /* each stream has its own */
	settle_pair(c.m, s.m, 64);
	assert_int_equal(mux_credit(s.m, ch, 1), 0);
	mux_consumed(c.m, ch, 1, WINDOW / 2 - 1); /* too little to bother */
	settle_pair(c.m, s.m, 64);
	assert_int_equal(s.writables, 0);
	mux_consumed(c.m, ch, 1, 1);
	settle_pair(c.m, s.m, 64);
	assert_int_equal(s.writables, 1);
	assert_int_equal(mux_credit(s.m, ch, 1), WINDOW / 2);
	mux_consumed(c.m, ch, 1, 100000); /* more than was received is not granted */
	settle_pair(c.m, s.m, 64);
	assert_int_equal(mux_credit(s.m, ch, 1), WINDOW);
	seen_done(&c);
	seen_done(&s);
}

/* A producer that asks mux_credit first is stopped by a full queue, and told when there is room. */
static void test_output_high(void **state)
{
	static uint8_t block[65536];
	struct seen c, s;
	const char *why;
	uint32_t ch;
	size_t n, len;

	assert_int_equal(pair_new(&c, &s, 4u << 20), 0);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	settle_pair(c.m, s.m, 4096);
	while ((n = mux_credit(s.m, ch, 1)))
		assert_int_equal(mux_send(s.m, ch, 1, block, MIN(n, sizeof(block))), 0);
	mux_output(s.m, &len);
	assert_in_range(len, MUX_OUTPUT_HIGH, MUX_OUTPUT_HIGH + 1024);
	assert_int_equal(s.writables, 0);
	assert_int_equal(carry(s.m, c.m, 65536, &why), 0);
	assert_int_equal(s.writables, 1);
	assert_true(mux_credit(s.m, ch, 1) > 0);
	seen_done(&c);
	seen_done(&s);
}

static void test_refuse_and_cancel(void **state)
{
	struct seen c, s;
	uint32_t ch;

	assert_int_equal(pair_new(&c, &s, WINDOW), 0);
	s.refuse = true;
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	settle_pair(c.m, s.m, 64);
	assert_int_equal(c.code, -13);
	assert_int_equal(c.openeds, 0);
	assert_int_equal(s.closes, 0); /* its close was the second one */
	/* Cancelled before the answer came. */
	s.refuse = false;
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	assert_int_equal(mux_close(c.m, ch, 0, NULL), 0);
	settle_pair(c.m, s.m, 64);
	assert_int_equal(c.openeds, 0);
	assert_int_equal(s.closes, 1);
	seen_done(&c);
	seen_done(&s);
}

static void test_late_frames(void **state)
{
	struct seen c, s;
	uint32_t ch;

	/* What the peer had under way when we closed is no violation, and is not heard. */
	assert_int_equal(pair_new(&c, &s, WINDOW), 0);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	settle_pair(c.m, s.m, 64);
	mux_send(s.m, ch, 1, "late", 4);
	mux_send_eof(s.m, ch, 1);
	mux_close(c.m, ch, 0, NULL);
	settle_pair(c.m, s.m, 64);
	assert_int_equal(c.data[1].len, 0);
	assert_int_equal(c.eofs, 0);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &ch), 0);
	settle_pair(c.m, s.m, 64);
	assert_int_equal(c.openeds, 2);
	seen_done(&c);
	seen_done(&s);
}

static void test_abort(void **state)
{
	struct seen c, s, own = {0};
	uint32_t a, b;

	assert_int_equal(pair_new(&c, &s, WINDOW), 0);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &a), 0);
	assert_int_equal(mux_open(c.m, 1, NULL, NULL, &b), 0);
	settle_pair(c.m, s.m, 64);
	own.m = c.m;
	assert_int_equal(mux_set_handler(c.m, b, &seen_callbacks, &own), 0);
	mux_send(s.m, b, 1, "mine", 4);
	settle_pair(c.m, s.m, 64);
	assert_int_equal(own.data[1].len, 4);
	assert_int_equal(c.data[1].len, 0);
	mux_abort(c.m, -EPIPE, "gone");
	assert_int_equal(c.closes, 1);
	assert_int_equal(own.closes, 1);
	assert_int_equal(own.code, -EPIPE);
	assert_int_equal(mux_send(c.m, a, 0, "x", 1), -ENOENT);
	assert_true(mux_lost(c.m));
	/* Freed without an abort: only those with a handler of their own are told. */
	own.m = s.m;
	assert_int_equal(mux_set_handler(s.m, a, &seen_callbacks, &own), 0);
	seen_done(&s);
	assert_int_equal(own.closes, 2);
	assert_int_equal(own.code, -ECONNRESET);
	buf_done(&own.data[1]);
	seen_done(&c);
}

/* ------------------------------------------------------------------------------------------ violations */

static void frame(struct buf *b, uint32_t ch, uint8_t type, uint8_t stream, uint16_t reserved, const void *p,
		  size_t len)
{
	buf_put_u32(b, (uint32_t)len);
	buf_put_u32(b, ch);
	buf_put_u8(b, type);
	buf_put_u8(b, stream);
	buf_put_u16(b, reserved);
	buf_put(b, p, len);
}

static void hello_frame(struct buf *b, uint16_t version, uint16_t minimum, uint32_t window)
{
	struct buf p = {0};

	buf_put(&p, PROTO_MAGIC, PROTO_MAGIC_SIZE);
	buf_put_u16(&p, version);
	buf_put_u16(&p, minimum);
	buf_put_u32(&p, window);
	frame(b, 0, PROTO_HELLO, 0, 0, p.data, p.len);
	buf_done(&p);
}

/* Feeds raw frames to a fresh server (whose peer said HELLO and opened channel 5 if `opened`); true if it was cut off
 * for `why`. */
static bool cut_off(enum mux_role role, bool greeted, bool opened, const struct buf *bytes, const char *why)
{
	const char *said = "nothing";
	struct seen x = {0};
	struct buf b = {0};
	uint32_t ch;
	int r;

	if (mux_new(role, &seen_callbacks, &x, WINDOW, &x.m) < 0)
		return false;
	mux_hello(x.m, NULL);
	if (greeted)
		hello_frame(&b, 1, 1, WINDOW);
	if (opened && role == MUX_SERVER)
		frame(&b, 5, PROTO_OPEN, 0, 0, "\1\0", 2);
	if (opened && role == MUX_CLIENT) {
		assert_int_equal(mux_open(x.m, 1, NULL, NULL, &ch), 0);
		frame(&b, ch, PROTO_OPENED, 0, 0, NULL, 0);
	}
	assert_int_equal(b.len ? mux_feed(x.m, b.data, b.len, &said) : 0, 0);
	r = mux_feed(x.m, bytes->data, bytes->len, &said);
	buf_done(&b);
	if (r == -EPROTO)
		assert_int_equal(mux_feed(x.m, "x", 1, NULL), -EPROTO); /* and stays so */
	seen_done(&x);
	if (r == -EPROTO && !strstr(said, why))
		fprintf(stderr, "said '%s', not '%s'\n", said, why);
	return r == -EPROTO && strstr(said, why);
}

static void one(enum mux_role role, bool greeted, bool opened, uint32_t ch, uint8_t type, uint8_t stream,
		uint16_t reserved, const void *p, size_t len, const char *why)
{
	struct buf b = {0};

	frame(&b, ch, type, stream, reserved, p, len);
	if (!cut_off(role, greeted, opened, &b, why))
		fail_msg("not cut off: type %u stream %u, %s", type, stream, why);
	buf_done(&b);
}

static void test_violations(void **state)
{
	static uint8_t big[PROTO_MAX_PAYLOAD];
	enum mux_role S = MUX_SERVER, C = MUX_CLIENT;

	one(S, false, false, 5, PROTO_OPEN, 0, 0, "\1\0", 2, "no HELLO");
	one(S, false, false, 0, PROTO_HELLO, 0, 0, "SMAGENT\0\1\0\1\0\0\0\0\0", 16, "window");
	one(S, false, false, 0, PROTO_HELLO, 0, 0, "SMAGENX\0\1\0\1\0\1\0\0\0", 16, "not the agent");
	one(S, false, false, 0, PROTO_HELLO, 0, 0, "SMAGENT\0\3\0\3\0\1\0\0\0", 16, "version");
	one(S, false, false, 0, PROTO_HELLO, 0, 0, "SMAGENT\0", 8, "not the agent");
	one(S, true, false, 0, PROTO_HELLO, 0, 0, "SMAGENT\0\1\0\1\0\1\0\0\0", 16, "second HELLO");
	one(S, true, false, 0, PROTO_DATA, 0, 0, NULL, 0, "channel 0");
	one(S, true, false, 7, PROTO_HELLO, 0, 0, NULL, 0, "channel 0");
	one(S, true, false, 7, PROTO_OPEN, 0, 0, "\1", 1, "without a service");
	one(S, true, false, 7, PROTO_OPEN, 1, 0, "\1\0", 2, "reserved");
	one(S, true, false, 7, PROTO_OPEN, 0, 9, "\1\0", 2, "reserved");
	one(S, true, true, 5, PROTO_OPEN, 0, 0, "\1\0", 2, "in use");
	one(S, true, true, 6, PROTO_DATA, 0, 0, "x", 1, "not open");
	one(S, true, true, 6, PROTO_CLOSE, 0, 0, "\0\0\0\0", 4, "not open");
	one(S, true, true, 5, PROTO_OPENED, 0, 0, NULL, 0, "unexpected OPENED");
	one(S, true, true, 5, PROTO_DATA, 1, 0, "x", 1, "other direction");
	one(S, true, true, 5, PROTO_DATA, 3, 0, "x", 1, "other direction");
	one(S, true, true, 5, PROTO_DATA, 0, 0, big, WINDOW + 1, "beyond the credit");
	one(S, true, true, 5, PROTO_CREDIT, 1, 0, "\1\0\0\0", 4, "beyond the window");
	one(S, true, true, 5, PROTO_CREDIT, 0, 0, "\1\0\0\0", 4, "other direction");
	one(S, true, true, 5, PROTO_CREDIT, 1, 0, "\1\0\0", 3, "malformed CREDIT");
	one(S, true, true, 5, PROTO_CREDIT, 1, 0, "\1\0\0\0\0", 5, "malformed CREDIT");
	one(S, true, true, 5, PROTO_EOF, 0, 0, "x", 1, "payload");
	one(S, true, true, 5, PROTO_EOF, 2, 0, NULL, 0, "other direction");
	one(S, true, true, 5, PROTO_EVENT, 0, 0, big, 4097, "too long");
	one(S, true, true, 5, PROTO_CLOSE, 0, 0, "\1\0\0\0", 4, "malformed CLOSE");
	one(S, true, true, 5, PROTO_CLOSE, 0, 0, "\0\0\0", 3, "malformed CLOSE");
	one(S, true, true, 5, PROTO_CLOSE, 0, 0, "\0\0\0\0a\0b", 7, "malformed CLOSE");
	one(S, true, true, 5, PROTO_CLOSE, 0, 0, "\0\0\0\x80", 4, "malformed CLOSE");
	one(S, true, true, 5, 9, 0, 0, NULL, 0, "unknown");
	one(S, true, true, 5, 0, 0, 0, NULL, 0, "unknown");
	one(C, true, false, 5, PROTO_OPEN, 0, 0, "\1\0", 2, "OPEN from a server");
	one(C, true, true, 2, PROTO_OPENED, 0, 0, NULL, 0, "unexpected OPENED");
	one(C, true, true, 2, PROTO_DATA, 0, 0, "x", 1, "other direction");
}

static void test_more_violations(void **state)
{
	static const uint8_t request[8000] = {1}; /* said back, in OPENED */
	struct buf b = {0};

	frame(&b, 5, PROTO_EOF, 0, 0, NULL, 0);
	frame(&b, 5, PROTO_DATA, 0, 0, "x", 1);
	assert_true(cut_off(MUX_SERVER, true, true, &b, "DATA after EOF"));
	b.len = 0;
	frame(&b, 5, PROTO_EOF, 0, 0, NULL, 0);
	frame(&b, 5, PROTO_EOF, 0, 0, NULL, 0);
	assert_true(cut_off(MUX_SERVER, true, true, &b, "EOF after EOF"));
	b.len = 0;
	/* A length that is a lie is seen from the header alone, also when that comes in pieces. */
	buf_put_u32(&b, PROTO_MAX_PAYLOAD + 1);
	buf_put_zero(&b, 8);
	assert_true(cut_off(MUX_SERVER, true, true, &b, "too long"));
	b.len = 0;
	for (uint32_t i = 0; i <= PROTO_MAX_CHANNELS; i++)
		frame(&b, 100 + i, PROTO_OPEN, 0, 0, "\1\0", 2);
	assert_true(cut_off(MUX_SERVER, true, false, &b, "too many channels"));
	b.len = 0;
	/* Asks for ever and never reads the answers. */
	for (uint32_t i = 0; i < 3000; i++) {
		frame(&b, 100 + i, PROTO_OPEN, 0, 0, request, sizeof(request));
		frame(&b, 100 + i, PROTO_CLOSE, 0, 0, "\0\0\0\0", 4);
	}
	assert_true(cut_off(MUX_SERVER, true, false, &b, "does not read"));
	buf_done(&b);
}

/* A request may be longer than any other frame, to a server that takes such. */
static void test_long_requests(void **state)
{
	static uint8_t bytes[PROTO_MAX_OPEN];
	struct buf req = {0}, b = {0};
	struct seen c, s;
	const char *why;
	uint32_t ch;

	assert_int_equal(pair_new(&c, &s, WINDOW), 0);
	buf_put(&req, bytes, sizeof(bytes) - 2); /* the service is the rest */
	assert_int_equal(mux_open(c.m, 7, &req, NULL, &ch), 0);
	settle_pair(c.m, s.m, 40000);
	assert_int_equal(mux_close(c.m, ch, 0, NULL), 0); /* it is there, and the link lives */
	buf_put(&req, bytes, 1);
	assert_int_equal(mux_open(c.m, 7, &req, NULL, &ch), -EMSGSIZE);
	seen_done(&c);
	seen_done(&s);

	/* Older ones do not. */
	assert_int_equal(mux_new(MUX_CLIENT, &seen_callbacks, &c, WINDOW, &c.m), 0);
	hello_frame(&b, 1, 1, WINDOW);
	assert_int_equal(mux_hello(c.m, NULL), 0);
	assert_int_equal(mux_feed(c.m, b.data, b.len, &why), 0);
	req.len = PROTO_MAX_PAYLOAD - 1;
	assert_int_equal(mux_open(c.m, 7, &req, NULL, &ch), -EMSGSIZE);
	req.len = PROTO_MAX_PAYLOAD - 2;
	assert_int_equal(mux_open(c.m, 7, &req, NULL, &ch), 0);
	mux_free(c.m);
	buf_done(&b);
	buf_done(&req);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello_and_channel),
		cmocka_unit_test(test_credit),
		cmocka_unit_test(test_long_requests),
		cmocka_unit_test(test_output_high),
		cmocka_unit_test(test_refuse_and_cancel),
		cmocka_unit_test(test_late_frames),
		cmocka_unit_test(test_abort),
		cmocka_unit_test(test_violations),
		cmocka_unit_test(test_more_violations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
