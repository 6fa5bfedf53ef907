/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing a directory of the posix backend while what was listed is deleted: every name comes, once. On /tmp, and on
 * /dev/shm, whose own positions in a directory are counts of entries before Linux 6.6.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/posix.h"

#define FILES 2000

struct listed {
	unsigned room, num; /* entries of one answer: as many as fit; those that came */
	char names[64][32];
	uint64_t offsets[64];
};

static struct sm_fs_caller caller;

static bool take(void *arg, const char *name, uint64_t ino, uint32_t type, uint64_t off, const struct sm_fs_entry *e)
{
	struct listed *l = arg;

	if (l->num == l->room)
		return false;
	snprintf(l->names[l->num], sizeof(l->names[0]), "%s", name);
	l->offsets[l->num++] = off;
	return true;
}

/*
 * Lists all, `room` entries an answer, of which the first `taken` are used (what else came is asked for again, as a
 * kernel does whose caller's buffer was too small), and deletes each used name at once.
 */
static void list_and_delete(const char *below, unsigned room, unsigned taken)
{
	static unsigned char seen[FILES];
	struct fuse_posix_options o = {.ids = FUSE_POSIX_SAME};
	struct sm_fs_backend *be;
	struct sm_fs_open open = {0};
	char dir[64], path[128];
	uint64_t off = 0;

	memset(seen, 0, sizeof(seen));
	caller.uid = geteuid();
	caller.gid = getegid();
	snprintf(dir, sizeof(dir), "%s/sm-test-listing.XXXXXX", below);
	assert_non_null(mkdtemp(dir));
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "%s/file-%u", dir, i);
		assert_int_equal(close(creat(path, 0600)), 0);
	}
	assert_int_equal(fuse_posix_new(dir, &o, &be, NULL), 0);
	assert_int_equal(be->ops->opendir(be, &caller, SM_FS_ROOT, &open), 0);
	for (;;) {
		struct listed l = {.room = room};

		assert_int_equal(be->ops->readdir(be, &caller, SM_FS_ROOT, open.fh, off, false, take, &l), 0);
		if (!l.num)
			break;
		for (unsigned i = 0; i < MIN(l.num, taken); i++) {
			unsigned n;

			off = l.offsets[i];
			if (sscanf(l.names[i], "file-%u", &n) != 1)
				continue; /* "." and ".." */
			assert_in_range(n, 0, FILES - 1);
			assert_int_equal(seen[n]++, 0);
			assert_int_equal(be->ops->unlink(be, &caller, SM_FS_ROOT, l.names[i]), 0);
		}
	}
	be->ops->releasedir(be, SM_FS_ROOT, open.fh);
	fuse_posix_free(be);
	assert_int_equal(rmdir(dir), 0); /* all came */
}

static void test_what_did_not_fit_comes_next(void **state)
{
	list_and_delete("/tmp", 10, 10);
	list_and_delete("/dev/shm", 10, 10);
}

static void test_what_was_not_used_comes_again(void **state)
{
	list_and_delete("/tmp", 10, 7);
	list_and_delete("/dev/shm", 10, 7);
	list_and_delete("/dev/shm", 60, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_did_not_fit_comes_next),
		cmocka_unit_test(test_what_was_not_used_comes_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
