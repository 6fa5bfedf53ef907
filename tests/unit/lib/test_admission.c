/* SPDX-License-Identifier: Apache-2.0 */
/* Starts that wait for their turn: until there is one, until they are told to stop, or in vain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/slots.h"
#include "lib/lib.h"

#define MS 1000000ull
#define MOST 4096
#define STARTS 12

static char dir[64];
static struct sm_client client = {.runtime_dir = dir};
static int taken[MOST];
static unsigned num_taken;
static atomic_int told, stop, at_once, too_many;

static int new_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/admission-XXXXXX");
	told = stop = at_once = too_many = 0;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	while (num_taken)
		slots_release(taken[--num_taken]);
	return remove_tree_at(AT_FDCWD, dir);
}

static int on_progress(void *arg, const char *stage, uint64_t done, uint64_t total)
{
	assert_non_null(strstr(stage, "waiting"));
	told++;
	return stop;
}

static const struct sm_progress progress = {.update = on_progress};

static int slot_within(uint64_t patience_ns, struct sm_error *err)
{
	struct launch l = {.id = "000000000001", .patience_ns = patience_ns, .progress = &progress};

	return admission_slot(&client, &l, err);
}

/* All that there are, however many CPUs this host has. */
static void take_all(void)
{
	struct sm_error err = {0};
	int fd;

	while ((fd = slot_within(1, &err)) >= 0) {
		assert_true(num_taken < MOST);
		taken[num_taken++] = fd;
	}
	assert_int_equal(fd, -EBUSY);
	assert_int_equal(err.kind, SM_ERROR_BUSY);
	assert_non_null(strstr(err.message, "VM 000000000001: busy"));
	assert_true(num_taken >= 4);
}

static void in_vain(void **state)
{
	take_all();
	assert_int_equal(slot_within(30 * MS, NULL), -EBUSY);
	assert_int_equal(told, 0); /* that was too short to speak of */
}

static void stopped(void **state)
{
	struct sm_error err = {0};

	take_all();
	stop = 1;
	assert_int_equal(slot_within(0, &err), -ECANCELED);
	assert_int_equal(err.kind, SM_ERROR_CANCELLED);
	assert_int_equal(told, 1);
}

/* As a start does: what it had is for the next. */
static void *starts(void *arg)
{
	int *ret = arg;

	*ret = slot_within(0, NULL);
	if (*ret < 0)
		return NULL;
	if (++at_once > 1)
		too_many = 1;
	usleep(1000);
	at_once--;
	slots_release(*ret);
	return NULL;
}

static void one_after_the_other(void **state)
{
	pthread_t threads[STARTS];
	int slots[STARTS];

	take_all();
	for (int i = 0; i < STARTS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, starts, &slots[i]), 0);
	while (!told) /* for a second already */
		usleep(1000);
	slots_release(taken[--num_taken]);
	for (int i = 0; i < STARTS; i++) {
		pthread_join(threads[i], NULL);
		assert_true(slots[i] >= 0);
	}
	assert_int_equal(too_many, 0);
}

static void a_keeper_that_waits_is_seen(void **state)
{
	struct launch l = {.id = "000000000001", .progress = &progress};
	_fd_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct sm_error err = {0};
	bool does = true;

	assert_int_equal(admission_waits(fd, &l, &does, &err), 0);
	assert_false(does);
	assert_int_equal(write_file_atomic_at(fd, "waiting", "memory", 6, 0600), 0);
	assert_int_equal(admission_waits(fd, &l, &does, &err), 0);
	assert_true(does && told == 1);
	stop = 1;
	assert_int_equal(admission_waits(fd, &l, &does, &err), -ECANCELED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(in_vain, new_dir, remove_dir),
		cmocka_unit_test_setup_teardown(stopped, new_dir, remove_dir),
		cmocka_unit_test_setup_teardown(one_after_the_other, new_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_keeper_that_waits_is_seen, new_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
