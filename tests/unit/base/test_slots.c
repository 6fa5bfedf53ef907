/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of slots: how many have one, who comes next, what they need together, what the killed give back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/memory.h"
#include "base/slots.h"
#include "base/util.h"

#define MAX_SLOTS 3
#define NO_MATTER UINT64_MAX

static char dir[64];

static int new_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/slots-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	return remove_tree_at(AT_FDCWD, dir);
}

static int take(uint64_t need, uint64_t room, unsigned *held)
{
	struct slots s;
	int r;

	assert_int_equal(slots_open(&s, dir), 0);
	r = slots_turn(&s);
	if (r == 0)
		r = slots_take(&s, MAX_SLOTS, need, room, held);
	slots_close(&s);
	return r;
}

static void so_many_and_no_more(void **state)
{
	int fds[MAX_SLOTS];
	unsigned held;

	for (int i = 0; i < MAX_SLOTS; i++) {
		fds[i] = take(0, NO_MATTER, NULL);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(take(0, NO_MATTER, &held), -EAGAIN);
	assert_int_equal(held, MAX_SLOTS);
	assert_int_equal(slots_release(fds[1]), -1);
	fds[1] = take(0, NO_MATTER, NULL);
	assert_true(fds[1] >= 0);
	for (int i = 0; i < MAX_SLOTS; i++)
		slots_release(fds[i]);
	assert_int_equal(slots_release(-1), -1);
}

static void one_is_first(void **state)
{
	struct slots a, b;
	int fd;

	assert_int_equal(slots_open(&a, dir), 0);
	assert_int_equal(slots_open(&b, dir), 0);
	assert_int_equal(slots_turn(&a), 0);
	assert_int_equal(slots_turn(&a), 0); /* it still is */
	assert_int_equal(slots_turn(&b), -EAGAIN);
	fd = slots_take(&a, MAX_SLOTS, 0, NO_MATTER, NULL);
	assert_true(fd >= 0);
	assert_int_equal(slots_turn(&b), 0);
	slots_close(&b); /* it has had enough of waiting */
	slots_close(&a);
	slots_release(fd);
	fd = take(0, NO_MATTER, NULL);
	assert_true(fd >= 0);
	slots_release(fd);
}

static void needs_are_added_up(void **state)
{
	unsigned held;
	int a = take(60, 100, &held), b;

	assert_true(a >= 0);
	assert_int_equal(held, 0);
	assert_int_equal(take(50, 100, &held), -ENOSPC);
	assert_int_equal(held, 1);
	b = take(40, 100, NULL);
	assert_true(b >= 0);
	a = slots_release(a);
	a = take(60, 100, NULL); /* the same slot again, with another note */
	assert_true(a >= 0);
	assert_int_equal(take(UINT64_MAX, 100, NULL), -ENOSPC);
	slots_release(a);
	slots_release(b);
}

static void the_killed_have_none(void **state)
{
	int ready[2], fds[MAX_SLOTS];
	char c;

	assert_int_equal(pipe(ready), 0);
	for (int round = 0; round < 3; round++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			struct slots s;

			for (int i = 0; i < MAX_SLOTS; i++)
				if (take(1, 100, NULL) < 0)
					_exit(1);
			/* And the turn. */
			if (slots_open(&s, dir) < 0 || slots_turn(&s) < 0 || write(ready[1], "x", 1) != 1)
				_exit(1);
			pause();
			_exit(0);
		}
		assert_int_equal(read(ready[0], &c, 1), 1);
		assert_int_equal(take(1, 100, NULL), -EAGAIN);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		for (int i = 0; i < MAX_SLOTS; i++) {
			fds[i] = take(1, 100, NULL);
			assert_true(fds[i] >= 0);
		}
		for (int i = 0; i < MAX_SLOTS; i++)
			slots_release(fds[i]);
	}
	fd_close(ready[0]);
	fd_close(ready[1]);
}

static void some_memory_is_available(void **state)
{
	uint64_t all = memory_available(UINT64_MAX);

	assert_true(all > MIB && memory_available(1) > MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(so_many_and_no_more, new_dir, remove_dir),
		cmocka_unit_test_setup_teardown(one_is_first, new_dir, remove_dir),
		cmocka_unit_test_setup_teardown(needs_are_added_up, new_dir, remove_dir),
		cmocka_unit_test_setup_teardown(the_killed_have_none, new_dir, remove_dir),
		cmocka_unit_test(some_memory_is_available),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
