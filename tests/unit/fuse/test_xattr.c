/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of the posix backend: which of the peer's are the host's, and under which names. Needs user
 * attributes on /tmp, else it is a skip. */
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
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/posix.h"

#define CAPS "security.capability"
#define APART "user.supermachine.xattr."

static struct sm_fs_caller caller; /* root; with ids=same whoever runs this, as nobody else may be */

struct fixture {
	char dir[64], host[80]; /* host: the file, as the host has it */
	struct sm_fs_backend *be;
	uint64_t file, fh;
};

static void serve(struct fixture *f, enum fuse_posix_ids ids, enum fuse_posix_xattrs xattrs)
{
	char ranges[64];
	struct fuse_posix_options o = {.ids = ids, .xattrs = xattrs, .id_ranges = ranges};
	struct sm_fs_entry e = {0};
	struct sm_fs_open open = {0};

	snprintf(ranges, sizeof(ranges), "u:0:%u:1,g:0:%u:1", geteuid(), getegid());
	caller.uid = ids == FUSE_POSIX_SAME ? geteuid() : 0;
	caller.gid = ids == FUSE_POSIX_SAME ? getegid() : 0;
	strcpy(f->dir, "/tmp/sm-test-xattr.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->host, sizeof(f->host), "%s/f", f->dir);
	assert_int_equal(fuse_posix_new(f->dir, &o, &f->be, NULL), 0);
	assert_int_equal(f->be->ops->create(f->be, &caller, SM_FS_ROOT, "f", 0644, O_RDWR, &e, &open), 0);
	f->file = e.nodeid;
	f->fh = open.fh;
}

static void stop(struct fixture *f)
{
	f->be->ops->release(f->be, f->file, f->fh, false, 0);
	f->be->ops->forget(f->be, f->file, 1);
	fuse_posix_free(f->be);
	assert_int_equal(remove_tree_at(AT_FDCWD, f->dir), 0);
}

static int put(struct fixture *f, const char *name, const char *value)
{
	return f->be->ops->setxattr(f->be, &caller, f->file, name, value, strlen(value), 0);
}

/* The value that the peer sees, or that the host has. */
static const char *peer(struct fixture *f, const char *name)
{
	static char value[64];
	ssize_t n = f->be->ops->getxattr(f->be, f->file, name, value, sizeof(value) - 1);

	value[MAX(n, 0)] = 0;
	return n < 0 ? NULL : value;
}

static const char *host(struct fixture *f, const char *name)
{
	static char value[64];
	ssize_t n = getxattr(f->host, name, value, sizeof(value) - 1);

	value[MAX(n, 0)] = 0;
	return n < 0 ? NULL : value;
}

static bool listed(struct fixture *f, const char *name)
{
	char list[1024];
	ssize_t n = f->be->ops->listxattr(f->be, f->file, list, sizeof(list));

	assert_true(n >= 0);
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1)
		if (streq(list + at, name))
			return true;
	return false;
}

static const struct {
	enum fuse_posix_ids ids;
	enum fuse_posix_xattrs xattrs;
} mapped[] = {{FUSE_POSIX_CALLER, FUSE_POSIX_XATTRS_AUTO},
	      {FUSE_POSIX_NONE, FUSE_POSIX_XATTRS_AUTO},
	      {FUSE_POSIX_RANGES, FUSE_POSIX_XATTRS_AUTO},
	      {FUSE_POSIX_SAME, FUSE_POSIX_XATTRS_MAPPED}};

static void test_what_would_act_on_the_host_is_kept_apart(void **state)
{
	static const char *const names[] = {"security.test", "trusted.overlay.opaque"};
	struct fixture f;
	char name[256];

	for (size_t i = 0; i < ARRAY_SIZE(mapped); i++) {
		serve(&f, mapped[i].ids, mapped[i].xattrs);
		for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
			assert_null(peer(&f, names[k]));
			assert_int_equal(put(&f, names[k], "v"), 0);
			assert_string_equal(peer(&f, names[k]), "v");
			assert_true(listed(&f, names[k]));
			assert_null(host(&f, names[k]));
			snprintf(name, sizeof(name), APART "%s", names[k]);
			assert_string_equal(host(&f, name), "v");
			assert_false(listed(&f, name));
			assert_null(peer(&f, name));
			assert_int_equal(f.be->ops->removexattr(f.be, &caller, f.file, names[k]), 0);
			assert_null(host(&f, name));
			assert_false(listed(&f, names[k]));
		}
		stop(&f);
	}
}

static void test_names_of_ours_are_out_of_reach(void **state)
{
	static const char *const names[] = {"user.supermachine.stat", APART CAPS, "user.supermachine.",
					    "user.supermachine..x"};
	struct fixture f;

	for (size_t i = 0; i < ARRAY_SIZE(mapped); i++) {
		serve(&f, mapped[i].ids, mapped[i].xattrs);
		for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
			assert_int_equal(put(&f, names[k], "mine"), 0);
			assert_string_equal(peer(&f, names[k]), "mine");
			assert_true(listed(&f, names[k]));
			assert_null(host(&f, names[k]));
			assert_null(peer(&f, CAPS));
			assert_int_equal(f.be->ops->removexattr(f.be, &caller, f.file, names[k]), 0);
		}
		/* The host's user may write such a thing, and does not make the peer see a namespace that it would not.
		 */
		assert_int_equal(setxattr(f.host, APART "system.x", "h", 1, 0), 0);
		assert_int_equal(setxattr(f.host, APART "user.x", "h", 1, 0), 0);
		assert_false(listed(&f, "system.x") || listed(&f, "user.x"));
		assert_null(peer(&f, "user.x"));
		stop(&f);
	}
}

static void test_limits_and_foreign_namespaces(void **state)
{
	struct fixture f;
	char name[256] = "security.";

	serve(&f, FUSE_POSIX_CALLER, FUSE_POSIX_XATTRS_AUTO);
	memset(name + 9, 'n', 255 - 9);
	assert_int_equal(put(&f, name, "v"), -ERANGE); /* there is no room for the prefix */
	name[255 - strlen(APART)] = 0;
	assert_int_equal(put(&f, name, "v"), 0);
	assert_true(listed(&f, name));
	assert_int_equal(put(&f, "system.x", "v"), -EOPNOTSUPP);
	assert_int_equal(put(&f, "other.x", "v"), -EOPNOTSUPP);
	stop(&f);
}

static void test_acls_are_refused(void **state)
{
	/* u::rwx,u:1000:rwx,g::---,m::rwx,o::--- */
	static const uint8_t acl[] = {2, 0,    0,    0,	   1,	 0,    7,    0, 0xff, 0xff, 0xff, 0xff, 2,    0,    7,
				      0, 0xe8, 3,    0,	   0,	 4,    0,    0, 0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,
				      7, 0,    0xff, 0xff, 0xff, 0xff, 0x20, 0, 0,    0,    0xff, 0xff, 0xff, 0xff};
	static const char *const names[] = {"system.posix_acl_access", "system.posix_acl_default"};
	struct fixture f;
	bool any;

	for (enum fuse_posix_ids ids = FUSE_POSIX_CALLER; ids <= FUSE_POSIX_RANGES; ids++) {
		serve(&f, ids, FUSE_POSIX_XATTRS_AUTO);
		any = setxattr(f.host, names[0], acl, sizeof(acl), 0) == 0;
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			assert_int_equal(f.be->ops->setxattr(f.be, &caller, f.file, names[i], acl, sizeof(acl), 0),
					 -EOPNOTSUPP);
			assert_int_equal(f.be->ops->getxattr(f.be, f.file, names[i], NULL, 0), -EOPNOTSUPP);
			assert_int_equal(f.be->ops->removexattr(f.be, &caller, f.file, names[i]), -EOPNOTSUPP);
			assert_false(listed(&f, names[i]));
		}
		assert_true(!any || getxattr(f.host, names[0], NULL, 0) > 0);
		stop(&f);
	}
}

static void test_the_same_ids_are_the_hosts_attributes(void **state)
{
	struct fixture f;
	int r;

	serve(&f, FUSE_POSIX_SAME, FUSE_POSIX_XATTRS_AUTO);
	r = setxattr(f.host, "trusted.probe", "p", 1, 0) < 0 ? -errno : 0;
	assert_int_equal(put(&f, "trusted.test", "v"), r); /* what the host says */
	if (r == 0) {
		assert_string_equal(host(&f, "trusted.test"), "v");
		assert_string_equal(peer(&f, "trusted.probe"), "p");
		assert_true(listed(&f, "trusted.test"));
	}
	assert_null(host(&f, APART "trusted.test"));
	stop(&f);
}

/* ------------------------------------------------------------------------------------------ file capabilities */

static int put_caps(struct fixture *f)
{
	int r = put(f, CAPS, "caps");

	assert_non_null(peer(f, CAPS));
	return r;
}

static void set(struct fixture *f, uint32_t which)
{
	struct stat in = {.st_size = 1, .st_uid = 5, .st_gid = 5, .st_mode = 0600}, out;
	uint64_t valid;
	int r = f->be->ops->setattr(f->be, &caller, f->file, false, 0, which, &in, &out, &valid);

	assert_int_equal(r, 0);
}

static void test_capabilities_go_when_the_file_changes(void **state)
{
	struct sm_fs_open other = {0};
	struct fixture f;
	struct iovec iov = {(void *)(uintptr_t) "data", 4};
	const struct sm_fs_ops *ops;

	serve(&f, FUSE_POSIX_CALLER, FUSE_POSIX_XATTRS_AUTO);
	ops = f.be->ops;
	for (int i = 0; i < 3; i++) { /* each time, also by a handle that was looked at before */
		assert_int_equal(put_caps(&f), 0);
		assert_int_equal(ops->write(f.be, &caller, f.file, f.fh, &iov, 1, 0, 0), 4);
		assert_null(peer(&f, CAPS));
		assert_int_equal(ops->write(f.be, &caller, f.file, f.fh, &iov, 1, 0, 0), 4);
	}
	assert_int_equal(put_caps(&f), 0);
	assert_int_equal(ops->open(f.be, &caller, f.file, O_WRONLY, &other), 0);
	assert_non_null(peer(&f, CAPS));
	assert_int_equal(ops->write(f.be, &caller, f.file, other.fh, &iov, 1, 0, 0), 4);
	assert_null(peer(&f, CAPS));
	ops->release(f.be, f.file, other.fh, false, 0);
	assert_int_equal(put_caps(&f), 0);
	assert_int_equal(ops->open(f.be, &caller, f.file, O_WRONLY | O_TRUNC, &other), 0);
	assert_null(peer(&f, CAPS));
	ops->release(f.be, f.file, other.fh, false, 0);
	assert_int_equal(put_caps(&f), 0);
	set(&f, SM_FS_SET_MODE | SM_FS_SET_MTIME_NOW);
	assert_non_null(peer(&f, CAPS)); /* that is no change of it */
	set(&f, SM_FS_SET_SIZE);
	assert_null(peer(&f, CAPS));
	assert_int_equal(put_caps(&f), 0);
	set(&f, SM_FS_SET_UID | SM_FS_SET_GID);
	assert_null(peer(&f, CAPS));
	assert_int_equal(put_caps(&f), 0);
	assert_int_equal(ops->fallocate(f.be, f.file, f.fh, 0, 0, 4096), 0);
	assert_null(peer(&f, CAPS));
	stop(&f);
}

static bool user_attributes(void)
{
	char path[] = "/tmp/sm-test-xattr.XXXXXX";
	int fd = mkstemp(path), r = fsetxattr(fd, "user.x", "1", 1, 0);

	close(fd);
	unlink(path);
	return r == 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_would_act_on_the_host_is_kept_apart),
		cmocka_unit_test(test_names_of_ours_are_out_of_reach),
		cmocka_unit_test(test_limits_and_foreign_namespaces),
		cmocka_unit_test(test_acls_are_refused),
		cmocka_unit_test(test_the_same_ids_are_the_hosts_attributes),
		cmocka_unit_test(test_capabilities_go_when_the_file_changes),
	};

	if (!user_attributes()) {
		fprintf(stderr, "skipped: /tmp has no user attributes\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
