/* SPDX-License-Identifier: Apache-2.0 */
/* Contents of files in memory: holes, what is allocated but was never written, and the budget of it all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fuse/memory.h"
#include "fuse/pages.h"

#define MIB (1ULL << 20)

static void test_reserved_pages_are_zeros_until_written(void **state)
{
	struct pages p = {0};
	uint8_t *page;

	assert_null(pages_look(&p, 0));
	assert_int_equal(pages_count_holes(&p, 100, 5 * PAGES_SIZE + 1), 6);
	assert_int_equal(pages_reserve(&p, 100, 5 * PAGES_SIZE + 1), 0);
	assert_int_equal(p.present, 6);
	assert_int_equal(pages_count_holes(&p, 0, 8 * PAGES_SIZE), 2);
	assert_int_equal(pages_look(&p, PAGES_SIZE)[17], 0);
	page = pages_make(&p, PAGES_SIZE);
	assert_non_null(page);
	memset(page, 'x', PAGES_SIZE);
	assert_int_equal(p.present, 6);
	assert_int_equal(pages_look(&p, 2 * PAGES_SIZE)[17], 0); /* its neighbour shares nothing with it */
	assert_int_equal(pages_reserve(&p, 0, 6 * PAGES_SIZE), 0);
	assert_int_equal(pages_look(&p, PAGES_SIZE)[17], 'x');
	assert_int_equal(pages_seek(&p, 0, 10 * PAGES_SIZE, false), 6 * PAGES_SIZE);
	pages_punch(&p, PAGES_SIZE / 2, 3 * PAGES_SIZE + 10); /* halves of a reserved page, a real one, and another */
	assert_int_equal(p.present, 4);
	assert_null(pages_look(&p, PAGES_SIZE));
	assert_non_null(pages_look(&p, 0));
	pages_done(&p);
}

static void test_allocation_takes_from_the_budget_and_no_memory(void **state)
{
	struct fuse_memory_options options = {.max_bytes = 1024 * MIB};
	struct sm_fs_caller root = {0};
	struct sm_fs_entry e;
	struct sm_fs_open o;
	struct sm_fs_backend *be;
	struct stat st;
	uint64_t valid;
	char byte = 'b';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};

	assert_int_equal(fuse_memory_new(&options, &be), 0);
	assert_int_equal(be->ops->create(be, &root, 1, "f", S_IFREG | 0600, O_RDWR, &e, &o), 0);
	assert_int_equal(be->ops->fallocate(be, e.nodeid, o.fh, 0, 0, 1023 * MIB), 0);
	assert_int_equal(be->ops->getattr(be, e.nodeid, true, o.fh, &st, &valid), 0);
	assert_int_equal(st.st_blocks, 1023 * MIB / 512);
	assert_int_equal(be->ops->fallocate(be, e.nodeid, o.fh, 0, 1023 * MIB, 2 * MIB), -ENOSPC);
	assert_int_equal(be->ops->getattr(be, e.nodeid, true, o.fh, &st, &valid), 0);
	assert_int_equal(st.st_size, 1023 * MIB); /* nothing of what had no room */
	assert_int_equal(st.st_blocks, 1023 * MIB / 512);
	assert_int_equal(be->ops->write(be, &root, e.nodeid, o.fh, &iov, 1, 500 * MIB, 0), 1);
	byte = 0;
	assert_int_equal(be->ops->read(be, e.nodeid, o.fh, &iov, 1, 500 * MIB), 1);
	assert_int_equal(byte, 'b');
	assert_int_equal(
		be->ops->fallocate(be, e.nodeid, o.fh, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1023 * MIB), 0);
	assert_int_equal(be->ops->fallocate(be, e.nodeid, o.fh, 0, 0, 1024 * MIB), 0);
	be->ops->release(be, e.nodeid, o.fh, false, 0);
	fuse_memory_free(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reserved_pages_are_zeros_until_written),
		cmocka_unit_test(test_allocation_takes_from_the_budget_and_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
