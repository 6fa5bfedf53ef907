/* SPDX-License-Identifier: Apache-2.0 */
/* Tests that mount run in both ways that requests can come in: through the descriptor, and by io_uring where this
 * host's kernel has it on. */
#ifndef TEST_FUSE_WAYS_H
#define TEST_FUSE_WAYS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuse/dev_fuse.h"

static bool way_rings;

/* For struct fuse_dev_options. */
static inline unsigned way_threads(void)
{
	return way_rings ? 0 : 2;
}

/* Before the mount is given up: requests did come in the way that was asked for. */
static inline bool way_was_taken(const struct fuse_dev *dev)
{
	return way_rings == (fuse_dev_uring_requests(dev) > 0);
}

static inline bool way_rings_are_on(void)
{
	int fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
	char on = 'N';
	bool there = fd >= 0 && read(fd, &on, 1) == 1;

	if (fd >= 0)
		close(fd);
	return there && on == 'Y';
}

static void by_io_uring_too(void **state)
{
	(void)state;
	print_message("skipped: requests by io_uring: this kernel has fuse.enable_uring off\n");
	skip();
}

#define run_both_ways(tests) run_ways(tests, sizeof(tests) / sizeof((tests)[0]))

static inline int run_ways(const struct CMUnitTest *tests, size_t count)
{
	const struct CMUnitTest none[] = {cmocka_unit_test(by_io_uring_too)};
	int failed;

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "skipped: mounting needs root and /dev/fuse\n");
		return 77;
	}
	failed = _cmocka_run_group_tests("descriptor", tests, count, NULL, NULL);
	way_rings = way_rings_are_on();
	if (!way_rings)
		return failed | cmocka_run_group_tests(none, NULL, NULL);
	return failed | _cmocka_run_group_tests("io_uring", tests, count, NULL, NULL);
}

#endif
