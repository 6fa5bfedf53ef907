/* SPDX-License-Identifier: Apache-2.0 */
/* Owners in the posix backend: as they are, and moved by ranges; as root's server and as an ordinary user's. */
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
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/posix.h"

#define USER 23456u

struct fixture {
	char dir[64];
	struct sm_fs_backend *be;
	int host;
};

/* Serves the directory from now on, as that user. */
static void serve(struct fixture *f, uid_t user, enum fuse_posix_ids ids, const char *ranges)
{
	struct fuse_posix_options o = {.ids = ids, .id_ranges = ranges};
	struct sm_error err = {0};

	if (geteuid() == 0 && user) {
		assert_int_equal(chown(f->dir, user, user), 0);
		assert_int_equal(setegid(user), 0);
		assert_int_equal(seteuid(user), 0);
	}
	if (fuse_posix_new(f->dir, &o, &f->be, &err) < 0)
		fail_msg("%s", err.message);
	f->host = open(f->dir, O_RDONLY | O_DIRECTORY);
	assert_true(f->host >= 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	umask(0);
	strcpy(f->dir, "/tmp/sm-test-ids.XXXXXX");
	f->host = -1;
	*state = f;
	return mkdtemp(f->dir) && chmod(f->dir, 0755) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r = 0;

	fuse_posix_free(f->be);
	close(f->host);
	if (getuid() == 0)
		r = seteuid(0) | setegid(0);
	r |= remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return r;
}

/* What an operation answers, and what it left: the host's owner and mode, then the peer's. */
static int make(struct fixture *f, uint32_t uid, uint32_t gid, const char *name, mode_t mode, struct stat *host,
		struct stat *peer)
{
	struct sm_fs_caller who = {.uid = uid, .gid = gid};
	struct sm_fs_entry e = {0};
	struct sm_fs_open open = {0};
	int r;

	if (S_ISREG(mode))
		r = f->be->ops->create(f->be, &who, SM_FS_ROOT, name, mode & 07777, O_RDWR, &e, &open);
	else if (S_ISDIR(mode))
		r = f->be->ops->mkdir(f->be, &who, SM_FS_ROOT, name, mode & 07777, &e);
	else if (S_ISLNK(mode))
		r = f->be->ops->symlink(f->be, &who, SM_FS_ROOT, name, "target", &e);
	else
		r = f->be->ops->mknod(f->be, &who, SM_FS_ROOT, name, mode, makedev(1, 3), &e);
	if (r < 0)
		return r;
	if (S_ISREG(mode))
		f->be->ops->release(f->be, e.nodeid, open.fh, false, 0);
	*peer = e.attr;
	f->be->ops->forget(f->be, e.nodeid, 1);
	return fstatat(f->host, name, host, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set(struct fixture *f, const char *name, uint32_t which, const struct stat *in, struct stat *ret)
{
	struct sm_fs_caller who = {0};
	struct sm_fs_entry e = {0};
	uint64_t valid;
	int r = f->be->ops->lookup(f->be, &who, SM_FS_ROOT, name, &e);

	assert_int_equal(r, 0);
	r = f->be->ops->setattr(f->be, &who, e.nodeid, false, 0, which, in, ret, &valid);
	f->be->ops->forget(f->be, e.nodeid, 1);
	return r;
}

static int own(struct fixture *f, const char *name, uid_t uid, gid_t gid, struct stat *ret)
{
	return set(f, name, SM_FS_SET_UID | SM_FS_SET_GID, &(struct stat){.st_uid = uid, .st_gid = gid}, ret);
}

static int mode(struct fixture *f, const char *name, mode_t m, struct stat *ret)
{
	return set(f, name, SM_FS_SET_MODE, &(struct stat){.st_mode = m}, ret);
}

static void test_texts(void **state)
{
	static const char *const good[] = {"u:0:1000:1", "b:0:100000:65536", "u:0:0:4294967295", "u:1:1:1,g:1:1:1",
					   "u:0:1000:1,u:1:100000:65536,g:0:1000:1"};
	static const struct {
		const char *text;
		int err;
	} bad[] = {{NULL, EINVAL},
		   {"", EINVAL},
		   {"u", EINVAL},
		   {"u:", EINVAL},
		   {"u:0:0", EINVAL},
		   {"u:0:0:0", EINVAL},
		   {"u:0:0:1:", EINVAL},
		   {"u:0:0:1,", EINVAL},
		   {",u:0:0:1", EINVAL},
		   {"x:0:0:1", EINVAL},
		   {"u:-1:0:1", EINVAL},
		   {"u:0:0x1:1", EINVAL},
		   {"u:0: 1:1", EINVAL},
		   {"u:0:4294967295:1", ERANGE},
		   {"u:4294967295:0:1", ERANGE},
		   {"u:2:0:4294967295", ERANGE},
		   {"u:0:99999999999:1", EINVAL},
		   {"u:0:1000:10,u:9:2000:1", EINVAL},
		   {"u:0:1000:10,u:20:1009:5", EINVAL},
		   {"b:0:0:5,g:4:100:1", EINVAL}};
	char many[400] = "";

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (fuse_posix_check_ranges(good[i]) != 0)
			fail_msg("%s", good[i]);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (fuse_posix_check_ranges(bad[i].text) != -bad[i].err)
			fail_msg("%s: %d", bad[i].text, fuse_posix_check_ranges(bad[i].text));
	for (int i = 0; i < 17; i++)
		sprintf(many + strlen(many), "%su:%d:%d:1", i ? "," : "", i, i);
	assert_int_equal(fuse_posix_check_ranges(many), -E2BIG);
	for (int i = 17; i < 30; i++)
		sprintf(many + strlen(many), ",u:%d:%d:1", i, i);
	assert_int_equal(fuse_posix_check_ranges(many), -E2BIG);
}

static void test_none_shows_owners_and_gives_nothing_away(void **state)
{
	struct fixture *f = *state;
	uid_t me = geteuid() ? geteuid() : USER;
	gid_t my_group = geteuid() ? getegid() : USER;
	struct stat host, peer;

	serve(f, USER, FUSE_POSIX_NONE, NULL);
	assert_int_equal(make(f, 0, 0, "f", S_IFREG | 04755, &host, &peer), 0);
	assert_true(host.st_uid == me && host.st_gid == my_group && host.st_mode == (S_IFREG | 0755));
	assert_true(peer.st_uid == me && peer.st_gid == my_group && peer.st_mode == host.st_mode);
	assert_int_equal(own(f, "f", 0, 0, &peer), -EPERM);
	assert_int_equal(own(f, "f", me, my_group, &peer), 0);
	assert_int_equal(mode(f, "f", 04755, &peer), -EPERM);
	assert_int_equal(mode(f, "f", 02755, &peer), -EPERM);
	assert_int_equal(mode(f, "f", 0640, &peer), 0);
	assert_int_equal(peer.st_mode, S_IFREG | 0640);
	assert_int_equal(make(f, 5, 5, "d", S_IFDIR | 0755, &host, &peer), 0);
	assert_int_equal(mode(f, "d", 03755, &peer), 0);
	assert_int_equal(peer.st_mode, S_IFDIR | 03755);
	assert_int_equal(make(f, 0, 0, "l", S_IFLNK | 0777, &host, &peer), 0);
	assert_int_equal(make(f, 0, 0, "p", S_IFIFO | 0600, &host, &peer), 0);
	assert_true(S_ISFIFO(host.st_mode) && S_ISFIFO(peer.st_mode));
	assert_int_equal(make(f, 0, 0, "null", S_IFCHR | 0600, &host, &peer), -EPERM);
	assert_int_equal(fstatat(f->host, "null", &host, AT_SYMLINK_NOFOLLOW), -1);
}

static void test_none_is_none_for_root(void **state)
{
	struct fixture *f = *state;
	struct stat host, peer;

	if (geteuid() != 0)
		skip();
	serve(f, 0, FUSE_POSIX_NONE, NULL);
	assert_int_equal(make(f, 5, 6, "f", S_IFREG | 0644, &host, &peer), 0);
	assert_true(host.st_uid == 0 && host.st_gid == 0);
	assert_int_equal(own(f, "f", 5, 0, &peer), -EPERM);
	assert_int_equal(own(f, "f", 0, 5, &peer), -EPERM);
	assert_int_equal(own(f, "f", 0, 0, &peer), 0);
	assert_int_equal(mode(f, "f", 04755, &peer), -EPERM);
	assert_int_equal(make(f, 0, 0, "null", S_IFCHR | 0600, &host, &peer), -EPERM);
}

static void test_an_ordinary_user_maps_himself(void **state)
{
	struct fixture *f = *state;
	uid_t me = geteuid() ? geteuid() : USER;
	gid_t my_group = geteuid() ? getegid() : USER;
	struct stat host, peer;
	char ranges[64];

	snprintf(ranges, sizeof(ranges), "u:0:%u:1,g:0:%u:1", me, my_group);
	serve(f, USER, FUSE_POSIX_RANGES, ranges);
	assert_int_equal(make(f, 0, 0, "f", S_IFREG | 06755, &host, &peer), 0);
	assert_true(host.st_uid == me && host.st_gid == my_group && host.st_mode == (S_IFREG | 0755));
	assert_true(peer.st_uid == 0 && peer.st_gid == 0);
	assert_int_equal(own(f, "f", 0, 0, &peer), 0);
	assert_true(peer.st_uid == 0 && peer.st_gid == 0);
	assert_int_equal(own(f, "f", 1, 0, &peer), -EINVAL);
	assert_int_equal(mode(f, "f", 04755, &peer), -EPERM);
	assert_int_equal(make(f, 1, 0, "g", S_IFREG | 0644, &host, &peer), -EOVERFLOW);
	assert_int_equal(make(f, 0, 1, "g", S_IFDIR | 0755, &host, &peer), -EOVERFLOW);
	assert_int_equal(fstatat(f->host, "g", &host, AT_SYMLINK_NOFOLLOW), -1); /* nothing is left of them */
}

static void test_root_moves_ranges(void **state)
{
	struct fixture *f = *state;
	struct stat host, peer;

	if (geteuid() != 0)
		skip();
	serve(f, 0, FUSE_POSIX_RANGES, "b:0:100000:1000,u:1000:5000:1,g:1000:6000:1");
	assert_int_equal(chown(f->dir, 100000, 100000), 0);
	assert_int_equal(make(f, 0, 0, "f", S_IFREG | 04755, &host, &peer), 0);
	assert_true(host.st_uid == 100000 && host.st_gid == 100000 && host.st_mode == (S_IFREG | 04755));
	assert_true(peer.st_uid == 0 && peer.st_gid == 0 && peer.st_mode == host.st_mode);
	assert_int_equal(make(f, 1000, 1000, "l", S_IFLNK | 0777, &host, &peer), 0);
	assert_true(host.st_uid == 5000 && host.st_gid == 6000 && peer.st_uid == 1000 && peer.st_gid == 1000);
	assert_int_equal(own(f, "f", 999, 1000, &peer), 0);
	assert_int_equal(fstatat(f->host, "f", &host, 0), 0);
	assert_true(host.st_uid == 100999 && host.st_gid == 6000 && peer.st_uid == 999 && peer.st_gid == 1000);
	assert_int_equal(own(f, "f", 1001, 1000, &peer), -EINVAL);
	assert_int_equal(own(f, "f", 0, 1001, &peer), -EINVAL);
	assert_int_equal(fchownat(f->host, "f", 0, 5000, 0), 0); /* the host's: in no range */
	assert_int_equal(mode(f, "f", 0600, &peer), 0);
	assert_true(peer.st_uid == 65534 && peer.st_gid == 65534);
	assert_int_equal(make(f, 0, 0, "null", S_IFCHR | 0600, &host, &peer), -EPERM);
}

static void test_a_setgid_directory_hands_its_group_down(void **state)
{
	struct fixture *f = *state;
	struct stat host, peer;

	if (geteuid() != 0)
		skip();
	assert_int_equal(chown(f->dir, 0, 77), 0); /* a group in no range */
	assert_int_equal(chmod(f->dir, 02755), 0);
	serve(f, 0, FUSE_POSIX_RANGES, "b:0:100000:1000");
	assert_int_equal(make(f, 3, 4, "f", S_IFREG | 0644, &host, &peer), 0);
	assert_true(host.st_uid == 100003 && host.st_gid == 77 && peer.st_uid == 3 && peer.st_gid == 65534);
	assert_int_equal(make(f, 3, 4, "d", S_IFDIR | 0755, &host, &peer), 0);
	assert_true(host.st_gid == 77 && host.st_mode == (S_IFDIR | 02755) && peer.st_mode == host.st_mode);
}

static void test_bad_ranges_are_explained(void **state)
{
	struct fixture *f = *state;
	struct fuse_posix_options o = {.ids = FUSE_POSIX_RANGES, .id_ranges = "u:0"};
	struct sm_error err = {0};

	assert_int_equal(fuse_posix_new(f->dir, &o, &f->be, &err), -EINVAL);
	assert_non_null(strstr(err.message, "u:PEER:HOST:COUNT"));
	o.id_ranges = NULL;
	assert_int_equal(fuse_posix_new(f->dir, &o, &f->be, &err), -EINVAL);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_texts),	     TEST(test_none_shows_owners_and_gives_nothing_away),
		TEST(test_none_is_none_for_root),    TEST(test_an_ordinary_user_maps_himself),
		TEST(test_root_moves_ranges),	     TEST(test_a_setgid_directory_hands_its_group_down),
		TEST(test_bad_ranges_are_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
