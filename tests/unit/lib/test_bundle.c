/* SPDX-License-Identifier: Apache-2.0 */
/* Bundles: where one may stand, what one that was killed leaves, what is missing. What is in one runs in the end-to-end
 * tests. */
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
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/bundle.h"

struct world {
	char top[64], home[96], into[96], part[96];
	struct sm_client *c;
};

static int setup(void **state)
{
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->top, "/tmp/test-bundle.XXXXXX");
	if (!mkdtemp(w->top))
		return -1;
	snprintf(w->home, sizeof(w->home), "%s/h", w->top);
	snprintf(w->into, sizeof(w->into), "%s/b", w->top);
	snprintf(w->part, sizeof(w->part), "%s/.b.part", w->top);
	o.home = w->home;
	o.libexec_dir = w->top;
	*state = w;
	return sm_client_open(&o, &w->c, NULL);
}

static int teardown(void **state)
{
	struct world *w = *state;

	sm_client_close(w->c);
	remove_tree_at(AT_FDCWD, w->top);
	free(w);
	return 0;
}

static void put(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, "x", 1, 0644), 0);
}

static void fails(struct world *w, const char *const *images, const char *into, int e, const char *says)
{
	struct sm_error err = {0};

	assert_int_equal(sm_bundle(w->c, images, into, NULL, &err), -e);
	if (!strstr(err.message, says))
		fail_msg("\"%s\" does not name %s", err.message, says);
	assert_int_equal(access(w->part, F_OK), -1);
}

static const char *const some[] = {"nothing", NULL}, *const none[] = {NULL};

static void places_that_are_refused(void **state)
{
	struct world *w = *state;
	char path[128];

	fails(w, none, w->into, EINVAL, "no images");
	fails(w, NULL, w->into, EINVAL, "no images");
	fails(w, some, "", EINVAL, "no name");
	fails(w, some, "..", EINVAL, "\"..\"");
	fails(w, some, "/", EINVAL, "\"/\"");
	snprintf(path, sizeof(path), "%s/no/b", w->top);
	fails(w, some, path, ENOENT, "/no/");
	/* What is there stays as it is. */
	put(w->top, "b");
	fails(w, some, w->into, ENOTDIR, w->into);
	assert_int_equal(unlink(w->into), 0);
	assert_int_equal(mkdir(w->into, 0755), 0);
	put(w->into, "mine");
	fails(w, some, w->into, EEXIST, "not empty");
	snprintf(path, sizeof(path), "%s/mine", w->into);
	assert_int_equal(access(path, F_OK), 0);
}

/* An empty directory may be there, and what was killed; a failure leaves the first, and nothing of the other. */
static void failures_leave_nothing(void **state)
{
	struct world *w = *state;

	assert_int_equal(mkdir(w->into, 0755), 0);
	assert_int_equal(mkdir(w->part, 0755), 0);
	put(w->part, "supermachine");
	fails(w, some, w->into, ENOENT, "no image nothing");
	assert_int_equal(rmdir(w->into), 0);
	fails(w, some, w->into, ENOENT, "no image nothing");
	assert_int_equal(access(w->into, F_OK), -1);
}

static void two_do_not_make_the_same(void **state)
{
	struct world *w = *state;
	struct sm_error err = {0};
	_fd_ int fd = -1;

	assert_int_equal(mkdir(w->part, 0755), 0);
	put(w->part, "supermachine");
	fd = open(w->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(sm_bundle(w->c, some, w->into, NULL, &err), -EBUSY);
	assert_int_equal(err.kind, SM_ERROR_BUSY);
	assert_int_equal(faccessat(fd, "supermachine", F_OK, 0), 0);
}

/* A program as the host has it: what it is linked to goes along, once, and the launcher stands for it. */
static void programs(void **state)
{
	static const char *const helpers[] = {"bundled", "keeper", "vmm", "agent", "machine", "fsd"};
	struct world *w = *state;
	struct bundle b = {.client = w->c, .path = w->into};
	struct sm_error err = {0};
	char path[160];

	put(w->top, "supermachine-bundled");
	for (size_t i = 0; i < ARRAY_SIZE(helpers) + 1; i++) {
		snprintf(path, sizeof(path), "%s/supermachine%s%s", w->top, i ? "-" : "", i ? helpers[i - 1] : "");
		unlink(path);
		assert_int_equal(symlink("/bin/true", path), 0);
	}
	assert_int_equal(mkdir(w->into, 0755), 0);
	b.dir = open(w->into, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(b.dir, "lib", 0755), 0);
	assert_int_equal(mkdirat(b.dir, "libexec", 0755), 0);
	/* One is missing; then it is no program. */
	assert_int_equal(bundle_programs(&b, &err), -ENOENT);
	assert_non_null(strstr(err.message, "supermachine-wake"));
	assert_int_equal(faccessat(b.dir, "supermachine", X_OK, 0), 0);
	assert_int_equal(faccessat(b.dir, "lib/supermachine-keeper", X_OK, 0), 0);
	assert_int_equal(faccessat(b.dir, "lib/loader", X_OK, 0), 0);
	assert_int_equal(faccessat(b.dir, "lib/libc.so.6", R_OK, 0), 0);
	snprintf(path, sizeof(path), "%s/supermachine-wake", w->top);
	put(w->top, "supermachine-wake");
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(bundle_programs(&b, &err), -ENOEXEC);
	assert_non_null(strstr(err.message, "supermachine-wake"));
	fd_close(b.dir);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(places_that_are_refused),
		TEST(failures_leave_nothing),
		TEST(two_do_not_make_the_same),
		TEST(programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
