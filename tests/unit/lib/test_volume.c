/* SPDX-License-Identifier: Apache-2.0 */
/* Volumes: made whole or not at all, one VM's at a time, and gone when they are removed. */
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
#include "lib/volume.h"

#define SIZE (16 * MIB)

struct place {
	char dir[64];
	struct sm_client *client;
	int volumes;
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;

	strcpy(p->dir, "/tmp/test-volume.XXXXXX");
	if (!mkdtemp(p->dir))
		return -1;
	o.home = p->dir;
	o.libexec_dir = "/tmp";
	o.machine = SM_MACHINE_NEVER;
	*state = p;
	if (sm_client_open(&o, &p->client, NULL) < 0)
		return -1;
	p->volumes = volumes_open(p->client, NULL);
	return p->volumes < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	close(p->volumes);
	sm_client_close(p->client);
	remove_tree_at(AT_FDCWD, p->dir);
	free(p);
	return 0;
}

static int create(struct place *p, const char *name, char **ret, struct sm_error *err)
{
	struct sm_volume_options o = SM_VOLUME_OPTIONS_INIT;

	o.name = name;
	o.disk_size = SIZE;
	o.labels = (const char *const[]){"a=b", NULL};
	return sm_volume_create(p->client, &o, ret, err);
}

enum mode { WRITES, READS, ANONYMOUS };

/* A VM with one volume, that has ended; or, with ret_lock, is being started as long as that is held. */
static void make_vm(struct place *p, const char *id, const char *volume, enum mode mode, int *ret_lock)
{
	static char *argv[] = {"true", NULL}, *env[] = {NULL};
	struct vm_mount m = {.source = "/x",
			     .target = "/y",
			     .volume = (char *)volume,
			     .read_only = mode == READS,
			     .anonymous = mode == ANONYMOUS};
	struct vm_record r = {.image = "i",
			      .image_id = "image-id",
			      .keep = mode != ANONYMOUS,
			      .memory = GIB,
			      .cpus = 1,
			      .kernel = "k",
			      .initramfs = "i",
			      .hostname = "h",
			      .argv = argv,
			      .env = env,
			      .mounts = &m,
			      .num_mounts = 1,
			      .stop_signal = 15};
	struct vm_exit x = {.outcome = SM_OUTCOME_INIT};
	int dir;

	strcpy(r.id, id);
	assert_int_equal(vmdir_create(p->client, &r, ret_lock, NULL, NULL), 0);
	if (ret_lock)
		return;
	dir = vmdir_open(p->client, id, NULL);
	x.outcome.reason = SM_REASON_EXITED;
	assert_int_equal(vm_write_exit(dir, &x, NULL), 0);
	close(dir);
}

static void end_vm(struct place *p, const char *id, int lock)
{
	close(lock);
	assert_int_equal(vmdir_remove(p->client, id, NULL), 0);
}

static void put(int dir, const char *name, const char *text)
{
	assert_int_equal(write_file_atomic_at(dir, name, text, strlen(text), 0600), 0);
}

static void expect_file(int dir, const char *name, const char *text)
{
	char *got = NULL;

	if (!text) {
		assert_int_equal(faccessat(dir, name, F_OK, 0), -1);
		return;
	}
	assert_int_equal(read_file_at(dir, name, 100, &got, NULL), 0);
	assert_string_equal(got, text);
	free(got);
}

static int make_dir(struct place *p, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	assert_int_equal(mkdir_p(path, 0700), 0);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* What goes on from a VM has its volumes' files as they were, and may write to its own alone; who has the files of one
 * that ended has the same. */
static void copies(void **state)
{
	struct place *p = *state;
	char disk[128];
	struct vm_mount mounts[] = {
		{.source = disk, .target = "/w", .volume = (char *)(uintptr_t) "w"},
		{.source = disk, .target = "/dir"},
		{.source = disk, .target = "/r", .volume = (char *)(uintptr_t) "r", .read_only = true},
		{.source = disk, .target = "/o", .volume = (char *)(uintptr_t) "o", .own = true}};
	struct vm_record r = {.id = "0123456789ab", .mounts = mounts, .num_mounts = ARRAY_SIZE(mounts)};
	int vm = make_dir(p, "vm"), snapshot = make_dir(p, "snapshot"), child = make_dir(p, "child");
	int lent = make_dir(p, "lent");
	struct stat a, b;

	snprintf(disk, sizeof(disk), "%s/vm/disk", p->dir);
	put(vm, "disk", "the volume");
	put(vm, "volume.1", "a journal");
	put(vm, "volume.2.base", "a copy");
	put(vm, "volume.2", "written");
	assert_int_equal(volumes_save(vm, &r, snapshot, NULL), 0);
	put(vm, "disk", "it goes on");
	put(vm, "volume.1", "it, too");
	for (int i = 0; i < 2; i++) {
		int dir = i ? child : snapshot;

		expect_file(dir, "volume.0.base", "the volume");
		expect_file(dir, "volume.0", NULL);
		expect_file(dir, "volume.1.base", "the volume");
		expect_file(dir, "volume.1", "a journal");
		expect_file(dir, "volume.2.base", "a copy");
		expect_file(dir, "volume.2", "written");
		if (!i)
			assert_int_equal(volumes_give(snapshot, child, 3, NULL), 0);
	}
	assert_int_equal(fstatat(snapshot, "volume.0.base", &a, 0), 0);
	assert_int_equal(fstatat(child, "volume.0.base", &b, 0), 0);
	assert_true(a.st_ino == b.st_ino && (a.st_mode & 0777) == 0400);
	assert_int_equal(fstatat(snapshot, "volume.1", &a, 0), 0);
	assert_int_equal(fstatat(child, "volume.1", &b, 0), 0);
	assert_true(a.st_ino != b.st_ino && (b.st_mode & 0777) == 0600);

	assert_int_equal(volumes_lend(vm, lent, &r, NULL), 0);
	assert_int_equal(fstatat(vm, "volume.2", &a, 0), 0);
	assert_int_equal(fstatat(lent, "volume.2", &b, 0), 0);
	assert_true(a.st_ino == b.st_ino);
	expect_file(lent, "volume.0", NULL);

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++)
		mounts[i].source = strdup("/x");
	assert_int_equal(volumes_become_own(p->client, &r, NULL), 0);
	assert_true(mounts[0].own && !mounts[1].own && mounts[2].own);
	assert_string_equal(mounts[1].source, "/x");
	assert_non_null(strstr(mounts[2].source, "/0123456789ab/volume.1.base"));
	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++)
		free(mounts[i].source);
	/* One that is there is never written over. */
	assert_int_equal(volumes_give(snapshot, child, 3, NULL), -EEXIST);
	close(vm);
	close(snapshot);
	close(child);
	close(lent);
}

static int claim(struct place *p, const char *id, struct sm_error *err)
{
	struct vm_record r;
	int dir = vmdir_open(p->client, id, NULL), e;

	assert_int_equal(vmdir_load(dir, id, &r, NULL), 0);
	close(dir);
	e = volumes_claim(p->client, &r, err);
	vm_record_done(&r);
	return e;
}

static void made_listed_removed(void **state)
{
	struct place *p = *state;
	struct sm_volume_info **list;
	struct sm_error err = {0};
	char *name = NULL, *json;
	struct stat st;
	size_t n;

	assert_int_equal(create(p, "two", NULL, NULL), 0);
	assert_int_equal(create(p, NULL, &name, NULL), 0);
	assert_int_equal(create(p, "two", NULL, &err), -EEXIST);
	assert_int_equal(err.kind, SM_ERROR_EXISTS);
	assert_int_equal(create(p, ".two", NULL, &err), -EINVAL);
	assert_int_equal(sm_volume_list(p->client, &list, &n, NULL), 0);
	assert_int_equal(n, 2);
	for (size_t i = 0; i < n; i++)
		assert_true(list[i]->anonymous == streq(list[i]->name, name));
	assert_string_equal(list[1]->labels[0], "a=b");
	assert_int_equal(stat(list[1]->path, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_true((uint64_t)st.st_blocks * 512 < SIZE / 2); /* sparse */
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(!list[1]->vms[0]);
	sm_volume_list_free(list, n);
	assert_int_equal(sm_volume_inspect(p->client, "two", &json, NULL), 0);
	assert_non_null(strstr(json, "\"a=b\""));
	sm_free(json);
	assert_int_equal(sm_volume_remove(p->client, "two", NULL), 0);
	assert_int_equal(sm_volume_remove(p->client, "two", &err), -ENOENT);
	assert_int_equal(sm_volume_remove(p->client, "..", &err), -ENOENT);
	assert_int_equal(sm_volume_remove(p->client, name, NULL), 0);
	sm_free(name);
}

/* What a killed maker or remover has left is no volume, and goes. */
static void leftovers_go(void **state)
{
	struct place *p = *state;
	struct sm_volume_info **list;
	size_t n;

	assert_int_equal(mkdirat(p->volumes, ".new-a", 0700), 0);
	assert_int_equal(mkdirat(p->volumes, ".old-b", 0700), 0);
	assert_int_equal(sm_volume_list(p->client, &list, &n, NULL), 0);
	assert_int_equal(n, 0);
	sm_volume_list_free(list, n);
	assert_int_equal(create(p, "a", NULL, NULL), 0);
	assert_int_equal(faccessat(p->volumes, ".new-a", F_OK, 0), -1);
	assert_int_equal(faccessat(p->volumes, ".old-b", F_OK, 0), -1);
}

static void one_vm_at_a_time(void **state)
{
	struct place *p = *state;
	struct sm_error err = {0};
	int a, b, c;

	assert_int_equal(create(p, "v", NULL, NULL), 0);
	make_vm(p, "aaaaaaaaaaaa", "v", WRITES, &a);
	make_vm(p, "bbbbbbbbbbbb", "v", WRITES, &b);
	assert_int_equal(claim(p, "bbbbbbbbbbbb", &err), -EBUSY);
	assert_int_equal(err.kind, SM_ERROR_BUSY);
	assert_non_null(strstr(err.message, "volume v is in use by VM aaaaaaaaaaaa"));
	end_vm(p, "bbbbbbbbbbbb", b);
	assert_int_equal(claim(p, "aaaaaaaaaaaa", NULL), 0);
	/* a reader is refused beside a writer, but not beside a reader */
	make_vm(p, "cccccccccccc", "v", READS, &c);
	assert_int_equal(claim(p, "cccccccccccc", &err), -EBUSY);
	end_vm(p, "aaaaaaaaaaaa", a);
	make_vm(p, "aaaaaaaaaaaa", "v", READS, &a);
	assert_int_equal(claim(p, "cccccccccccc", NULL), 0);
	assert_int_equal(claim(p, "aaaaaaaaaaaa", NULL), 0);
	end_vm(p, "aaaaaaaaaaaa", a);
	end_vm(p, "cccccccccccc", c);
}

/* One that has ended takes nothing, but keeps it from being removed. */
static void kept_for_vms_that_ended(void **state)
{
	struct place *p = *state;
	struct sm_error err = {0};
	int a;

	assert_int_equal(create(p, "v", NULL, NULL), 0);
	make_vm(p, "dddddddddddd", "v", WRITES, NULL);
	make_vm(p, "aaaaaaaaaaaa", "v", WRITES, &a);
	assert_int_equal(claim(p, "aaaaaaaaaaaa", NULL), 0);
	end_vm(p, "aaaaaaaaaaaa", a);
	assert_int_equal(sm_volume_remove(p->client, "v", &err), -EBUSY);
	assert_non_null(strstr(err.message, "dddddddddddd"));
}

static void made_at_first_use_and_pruned(void **state)
{
	struct place *p = *state;
	unsigned count;
	int lock;

	make_vm(p, "aaaaaaaaaaaa", "one", ANONYMOUS, &lock);
	assert_int_equal(create(p, NULL, NULL, NULL), 0);
	assert_int_equal(create(p, "named", NULL, NULL), 0);
	assert_int_equal(claim(p, "aaaaaaaaaaaa", NULL), 0);
	assert_int_equal(faccessat(p->volumes, "one/disk", F_OK, 0), 0);
	assert_int_equal(sm_volume_prune(p->client, false, &count, NULL, NULL), 0);
	assert_int_equal(count, 1); /* the one that nobody has */
	assert_int_equal(faccessat(p->volumes, "one/disk", F_OK, 0), 0);
	end_vm(p, "aaaaaaaaaaaa", lock);
	assert_int_equal(faccessat(p->volumes, "one", F_OK, 0), -1); /* went with its VM */
	assert_int_equal(sm_volume_prune(p->client, false, &count, NULL, NULL), 0);
	assert_int_equal(count, 0);
	assert_int_equal(sm_volume_prune(p->client, true, &count, NULL, NULL), 0);
	assert_int_equal(count, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(made_listed_removed),
					   TEST(leftovers_go),
					   TEST(one_vm_at_a_time),
					   TEST(kept_for_vms_that_ended),
					   TEST(made_at_first_use_and_pruned),
					   TEST(copies)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
