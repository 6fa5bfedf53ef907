/* SPDX-License-Identifier: Apache-2.0 */
/* Directories of the host for a VM: what the record gets of what was asked for, and what is refused. */
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
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "lib/lib.h"

static int setup(void **state)
{
	static char dir[64];

	strcpy(dir, "/tmp/sm-mounts-XXXXXX");
	*state = dir;
	if (!mkdtemp(dir) || chdir(dir) < 0 || mkdir("d", 0755) < 0)
		return -1;
	return write_file_atomic_at(AT_FDCWD, "f", "x", 1, 0644);
}

static int teardown(void **state)
{
	return chdir("/") | remove_tree_at(AT_FDCWD, *state);
}

static int add(struct vm_record *r, const struct sm_mount *v, size_t n, struct sm_error *err)
{
	static char data[] = "/data";
	struct sm_client c = {.data_dir = data};
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;

	*r = (struct vm_record){0};
	o.mounts = v;
	o.num_mounts = n;
	return mounts_from_options(&c, r, &o, err);
}

static struct sm_mount mount_of(const char *source, const char *target)
{
	struct sm_mount m = SM_MOUNT_INIT;

	m.source = source;
	m.target = target;
	return m;
}

static void test_targets_are_cleaned(void **state)
{
	static const char *const cases[][2] = {{"/a", "/a"},	      {"//a//b/", "/a/b"}, {"/a/./b/.", "/a/b"},
					       {"/a/../b", "/b"},     {"/../../a", "/a"},  {"/a/..b", "/a/..b"},
					       {"/a/b/../../c", "/c"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sm_mount m = mount_of("d", cases[i][0]);
		struct vm_record r;

		assert_int_equal(add(&r, &m, 1, NULL), 0);
		assert_string_equal(r.mounts[0].target, cases[i][1]);
		vm_record_done(&r);
	}
}

static void refused(struct sm_mount m, int code, const char *says)
{
	struct sm_error err = {0};
	struct vm_record r;
	int e = add(&r, &m, 1, &err);

	if (e != -code || !strstr(err.message, says))
		fail_msg("%s on %s: %d \"%s\", not \"%s\"", m.source, m.target, e, err.message, says);
	vm_record_done(&r);
}

static void test_refusals(void **state)
{
	struct sm_mount m;

	refused(mount_of("d", "/"), EINVAL, "on /");
	refused(mount_of("d", "/a/.."), EINVAL, "on /");
	refused(mount_of("d", "/proc"), EINVAL, "/proc");
	refused(mount_of("d", "/a/../proc/self"), EINVAL, "/proc");
	refused(mount_of("d", "relative"), EINVAL, "not absolute");
	refused(mount_of("", "/a"), EINVAL, "no source");
	refused(mount_of("/dev/null", "/a"), EINVAL, "neither");
	refused(mount_of("f/x", "/a"), ENOTDIR, "cannot share");
	refused(mount_of("./missing", "/a"), ENOENT, "cannot share");
	m = mount_of("./no/such", "/a");
	m.create = true;
	refused(m, ENOENT, "cannot share");
	m = mount_of("f", "/a");
	m.cow = true;
	refused(m, ENOTDIR, "no directory");
	m = mount_of("d", "/a");
	m.ids = SM_FS_IDS_RANGES;
	refused(m, EINVAL, "ids are given as");
	m.id_ranges = "u:0:0";
	refused(m, EINVAL, "ids are given as");
	m.id_ranges = "u:0:1000:1";
	m.xattrs = (enum sm_fs_xattrs)2;
	refused(m, EINVAL, "no such value");
	m.xattrs = SM_FS_XATTRS_MAPPED;
	m.symlinks = (enum sm_fs_symlinks)3;
	refused(m, EINVAL, "no such value");
}

static void test_sources(void **state)
{
	struct sm_mount v[2] = {mount_of("d", "/a"), mount_of("./new", "/b")};
	struct vm_record r;
	char want[96];

	v[1].create = true;
	assert_int_equal(add(&r, v, 2, NULL), 0);
	snprintf(want, sizeof(want), "%s/d", (char *)*state);
	assert_string_equal(r.mounts[0].source, want);
	assert_int_equal(access("new", F_OK), 0);
	vm_record_done(&r);
}

static void test_order_and_doubles(void **state)
{
	struct sm_mount v[4] = {mount_of("d", "/x/y/z"), mount_of("d", "/x"), mount_of("f", "/a/b"),
				mount_of("d", "/x/y")};
	struct sm_mount twice[2] = {mount_of("d", "/a"), mount_of("f", "/b/../a/")};
	struct sm_mount many[VM_MAX_MOUNTS + 1] = {0};
	struct sm_error err = {0};
	struct vm_record r;

	assert_int_equal(add(&r, v, 4, NULL), 0);
	assert_string_equal(r.mounts[0].target, "/x");
	assert_string_equal(r.mounts[1].target, "/a/b");
	assert_string_equal(r.mounts[2].target, "/x/y");
	assert_string_equal(r.mounts[3].target, "/x/y/z");
	vm_record_done(&r);
	assert_int_equal(add(&r, twice, 2, &err), -EINVAL);
	assert_non_null(strstr(err.message, "two mounts on /a"));
	vm_record_done(&r);
	assert_int_equal(add(&r, many, VM_MAX_MOUNTS + 1, &err), -EINVAL);
	vm_record_done(&r);
}

/* A program that was built with a larger struct: the stride is the first one's size. */
static void test_stride(void **state)
{
	struct {
		struct sm_mount m;
		uint64_t more[3];
	} v[2] = {{.m = mount_of("d", "/a")}, {.m = mount_of("f", "/b")}};
	struct vm_record r;

	v[0].m.size = v[1].m.size = sizeof(v[0]);
	assert_int_equal(add(&r, &v[0].m, 2, NULL), 0);
	assert_int_equal(r.num_mounts, 2);
	assert_string_equal(r.mounts[1].target, "/b");
	vm_record_done(&r);
}

static struct sm_mount volume_of(const char *name, const char *target)
{
	struct sm_mount m = mount_of(NULL, target);

	m.volume = name;
	return m;
}

/* What goes on from a snapshot: those that it had stay where they are, others come after them. */
static void test_replaced_volumes(void)
{
	static char data[] = "/data", text[] = "/state";
	struct sm_client client = {.data_dir = data, .state_dir = text};
	struct sm_mount had[3] = {
		volume_of("v", "/a"), volume_of("w", "/b"), {.size = sizeof(had[2]), .source = "/tmp", .target = "/d"}};
	struct sm_mount now[6] = {volume_of("x", "/b"), volume_of("v", "/new")};
	struct sm_vm_options o = SM_VM_OPTIONS_INIT;
	struct sm_error err = {0};
	struct vm_record r;

	assert_int_equal(add(&r, had, 3, NULL), 0);
	strcpy(r.id, "0123456789ab");
	o.mounts = now;
	o.num_mounts = 2;
	assert_int_equal(mounts_replace(&client, &r, &o, false, NULL), 0);
	assert_int_equal(r.num_mounts, 5);
	assert_true(r.mounts[0].own && !r.mounts[0].replaced && r.mounts[1].own && r.mounts[1].replaced);
	assert_false(r.mounts[2].own);
	assert_string_equal(r.mounts[3].volume, "x");
	assert_string_equal(r.mounts[4].source, "/data/volumes/v/disk");
	assert_true(!r.mounts[3].own && !r.mounts[4].own);

	/* not more than there is room for, none that had booted, nothing in the place of what is no volume */
	now[0] = volume_of("y", "/y");
	now[1] = volume_of("z", "/z");
	now[2] = volume_of("q", "/q");
	o.num_mounts = 3;
	assert_int_equal(mounts_replace(&client, &r, &o, false, &err), -EINVAL);
	assert_non_null(strstr(err.message, "volume q: a VM has 6 volumes at most"));
	vm_record_done(&r);
	assert_int_equal(add(&r, had, 3, NULL), 0);
	o.num_mounts = 1;
	assert_int_equal(mounts_replace(&client, &r, &o, true, &err), -EOPNOTSUPP);
	now[0] = volume_of("y", "/d");
	assert_int_equal(mounts_replace(&client, &r, &o, false, &err), -EINVAL);
	assert_non_null(strstr(err.message, "and no volume"));
	now[0] = had[2];
	now[0].target = "/a";
	assert_int_equal(mounts_replace(&client, &r, &o, false, &err), -EINVAL);
	assert_non_null(strstr(err.message, "on /a is a volume"));
	now[0].target = "/c";
	assert_int_equal(mounts_replace(&client, &r, &o, false, &err), -EINVAL);
	assert_non_null(strstr(err.message, "none on /c"));
	vm_record_done(&r);
}

static void test_volumes(void **state)
{
	static char x[] = "x", *one[] = {x, NULL};
	struct sm_mount v[7] = {volume_of("v", "/a"), volume_of("", "/a/b"), volume_of("w", "/c")};
	struct sm_error err;
	struct vm_record r, back;
	char *json;

	v[0].read_only = true;
	v[2].no_copy = true;
	assert_int_equal(add(&r, v, 3, NULL), 0);
	assert_string_equal(r.mounts[0].source, "/data/volumes/v/disk");
	assert_true(r.mounts[0].read_only && !r.mounts[0].anonymous);
	assert_string_equal(r.mounts[1].volume, "w");
	assert_true(r.mounts[1].no_copy);
	assert_true(r.mounts[2].anonymous && strlen(r.mounts[2].volume) == 32);
	assert_int_equal(vm_volumes(&r, false), 3);
	assert_int_equal(vm_volumes(&r, true), 2);

	/* through the record and back */
	strcpy(r.id, "0123456789ab");
	r.image = r.image_id = r.kernel = r.initramfs = r.hostname = x;
	r.argv = r.env = one;
	r.memory = r.cpus = 1;
	r.stop_signal = 15;
	assert_int_equal(vm_record_format(&r, &json, NULL), 0);
	assert_int_equal(vm_record_parse(json, strlen(json), &back, NULL), 0);
	assert_string_equal(back.mounts[2].volume, r.mounts[2].volume);
	assert_true(back.mounts[2].anonymous && back.mounts[1].no_copy && back.mounts[0].read_only);
	vm_record_done(&back);
	free(json);
	r.image = r.image_id = r.kernel = r.initramfs = r.hostname = NULL;
	r.argv = r.env = NULL;
	vm_record_done(&r);

	test_replaced_volumes();
	refused(volume_of("a b", "/a"), EINVAL, "no name for a volume");
	refused(volume_of("../x", "/a"), EINVAL, "no name for a volume");
	v[1] = volume_of("v", "/twice");
	assert_int_equal(add(&r, v, 2, &err), -EINVAL);
	assert_non_null(strstr(err.message, "once"));
	vm_record_done(&r);
	for (size_t i = 0; i < 7; i++)
		v[i] = volume_of("", &"/a/b/c/d/e/f/g"[2 * i]);
	assert_int_equal(add(&r, v, 6, NULL), 0);
	vm_record_done(&r);
	assert_int_equal(add(&r, v, 7, &err), -EINVAL);
	vm_record_done(&r);
	v[0].cow = true;
	refused(v[0], EINVAL, "neither a source nor");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_targets_are_cleaned, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sources, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order_and_doubles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stride, setup, teardown),
		cmocka_unit_test_setup_teardown(test_volumes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
