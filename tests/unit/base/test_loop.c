/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the event loop: sources and timers that remove each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/loop.h"
#include "base/util.h"

struct fixture {
	struct loop *loop;
	struct loop_source *a, *b;
	int calls;
};

static void remove_both(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	struct fixture *f = arg;

	f->calls++;
	f->a = loop_remove(f->a);
	f->b = loop_remove(f->b);
	loop_stop(loop, 7);
}

static void test_a_callback_may_remove_sources_of_the_same_batch(void **state)
{
	struct fixture f = {0};
	int p[2], q[2];

	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(pipe(q), 0);
	assert_int_equal(write(p[1], "x", 1), 1);
	assert_int_equal(write(q[1], "x", 1), 1);
	assert_int_equal(loop_add(f.loop, p[0], EPOLLIN, remove_both, &f, &f.a), 0);
	assert_int_equal(loop_add(f.loop, q[0], EPOLLIN, remove_both, &f, &f.b), 0);
	assert_int_equal(loop_run(f.loop), 7);
	assert_int_equal(f.calls, 1); /* the other was ready too, but removed */
	loop_free(f.loop);
	close(p[0]), close(p[1]), close(q[0]), close(q[1]);
}

static void count_call(struct loop *loop, struct loop_source *src, uint32_t events, void *arg)
{
	((struct fixture *)arg)->calls++;
}

static void test_a_parked_source_is_silent_even_on_hangup(void **state)
{
	struct fixture f = {0};
	int p[2];

	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(loop_add(f.loop, p[0], EPOLLIN, count_call, &f, &f.a), 0);
	assert_int_equal(loop_modify(f.a, 0), 0);
	close(p[1]);
	assert_int_equal(loop_run_once(f.loop, 1), 0);
	assert_int_equal(f.calls, 0);
	assert_int_equal(loop_modify(f.a, EPOLLIN), 0);
	assert_int_equal(loop_run_once(f.loop, 1000), 0);
	assert_int_equal(f.calls, 1);
	loop_free(f.loop);
	close(p[0]);
	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(loop_add(f.loop, -1, EPOLLIN, count_call, &f, NULL), -EBADF);
	loop_free(f.loop);
}

static void timer_fired(struct loop *loop, struct loop_source *src, void *arg)
{
	struct fixture *f = arg;

	if (++f->calls == 3) {
		f->a = loop_remove(src);
		loop_stop(loop, 0);
		return;
	}
	loop_timer_at(src, time_now_ns() + 2000000);
}

static void test_timers_fire_in_time_and_can_be_armed_again(void **state)
{
	struct fixture f = {0};
	uint64_t start = time_now_ns();

	assert_int_equal(loop_new(&f.loop), 0);
	assert_int_equal(loop_add_timer(f.loop, timer_fired, &f, &f.a), 0);
	assert_int_equal(loop_add_timer(f.loop, timer_fired, &f, &f.b), 0);
	loop_timer_at(f.a, start + 5000000);
	assert_int_equal(loop_run(f.loop), 0);
	assert_int_equal(f.calls, 3); /* b was never armed */
	assert_true(time_now_ns() - start >= 9000000);
	loop_free(f.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_callback_may_remove_sources_of_the_same_batch),
		cmocka_unit_test(test_a_parked_source_is_silent_even_on_hangup),
		cmocka_unit_test(test_timers_fire_in_time_and_can_be_armed_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
