/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of which lines are said: SUPERMACHINE_LOG. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/log.h"
#include "base/util.h"

static void levels_by_room(void **state)
{
	static const struct {
		const char *spec, *room;
		int level;
	} cases[] = {
		{"", "vmm", LOG_WARN},
		{"debug", "vmm", LOG_DEBUG},
		{"error", NULL, LOG_WARN}, /* the most: never less than what a room without a level has */
		{"error", "vmm", LOG_ERROR},
		{"vmm=debug", "vmm", LOG_DEBUG},
		{"vmm=debug", "keeper", LOG_WARN},
		{"vmm=debug", NULL, LOG_DEBUG},
		{"vmm=debug", "vm", LOG_WARN},
		{"vmm=error,info", "vmm", LOG_ERROR},
		{"vmm=error,info", "agent", LOG_INFO},
		{"nonsense,=,a=,vmm=loud,,info,", "vmm", LOG_INFO},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(log_level_of(cases[i].spec, cases[i].room), cases[i].level);
}

static void lines_of_one_room(void **state)
{
	char said[256] = "";
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	setenv("SUPERMACHINE_LOG", "error,keeper=debug", 1);
	dup2(fds[1], STDERR_FILENO);
	log_debug("keeper", "seen %d", 1);
	log_debug("vmm", "not seen");
	log_error("vmm", "seen %d", 2);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	n = read_full(fds[0], said, sizeof(said) - 1);
	close(fds[0]);
	assert_true(n > 0);
	assert_string_equal(said, "debug keeper: seen 1\nerror vmm: seen 2\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels_by_room),
		cmocka_unit_test(lines_of_one_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
