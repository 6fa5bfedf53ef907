/* SPDX-License-Identifier: Apache-2.0 */
/* The wall clock told over a link: once where the answer comes soon, again and again, but not for ever, where it does
 * not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "pair.h"
#include "proto/clocksync.h"
#include "proto/messages.h"

static const uint8_t seed[32] = {1, 2, 3}, none[32];

static uint64_t wall(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What the other end was sent last. */
static struct proto_clock told(struct seen *c, struct seen *s)
{
	struct proto_clock ret = {0};
	struct cursor request;

	settle_pair(c->m, s->m, 64);
	assert_int_equal(s->service, PROTO_SYNC_CLOCK);
	request = cursor_of(s->request.data, s->request.len);
	assert_int_equal(proto_clock_decode(&request, &ret), 0);
	return ret;
}

static void answered_soon(void **state)
{
	struct clocksync sync = {0};
	struct proto_clock clock;
	uint64_t before = wall();
	struct seen c, s;
	uint32_t ch;

	assert_int_equal(pair_new(&c, &s, 1000), 0);
	assert_false(clocksync_closed(&sync, c.m, 0, 0));
	assert_int_equal(clocksync_begin(&sync, c.m, seed), 0);
	ch = sync.ch;
	assert_int_not_equal(ch, 0);
	clock = told(&c, &s);
	assert_in_range(clock.realtime_ns, before, wall());
	assert_memory_equal(clock.seed, seed, sizeof(seed));
	assert_false(clocksync_closed(&sync, c.m, ch + 1000, 0));
	sync.sent_ns = time_now_ns();
	assert_true(clocksync_closed(&sync, c.m, ch, 0));
	assert_int_equal(sync.ch, 0);
	assert_false(clocksync_closed(&sync, c.m, ch, 0));
	seen_done(&c);
	seen_done(&s);
}

static void answered_late(void **state)
{
	struct clocksync sync = {0};
	struct proto_clock clock;
	unsigned times = 1;
	struct seen c, s;
	uint64_t last = 0;
	uint32_t ch;

	assert_int_equal(pair_new(&c, &s, 1000), 0);
	assert_int_equal(clocksync_begin(&sync, c.m, NULL), 0);
	for (; times < 1000; times++) {
		clock = told(&c, &s);
		assert_true(clock.realtime_ns > last);
		assert_memory_equal(clock.seed, none, sizeof(none));
		last = clock.realtime_ns;
		sync.sent_ns -= 1000000000u;
		ch = sync.ch;
		assert_true(clocksync_closed(&sync, c.m, ch, 0));
		if (!sync.ch)
			break;
		assert_int_not_equal(sync.ch, ch);
	}
	assert_in_range(times, 5, 100);
	/* What was refused is not tried again, however late. */
	assert_int_equal(clocksync_begin(&sync, c.m, NULL), 0);
	sync.sent_ns -= 1000000000u;
	assert_true(clocksync_closed(&sync, c.m, sync.ch, -EPERM));
	assert_int_equal(sync.ch, 0);
	seen_done(&c);
	seen_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answered_soon),
		cmocka_unit_test(answered_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
