/* SPDX-License-Identifier: Apache-2.0 */
/* Base snapshots on disk: what is believed of them, what is listed, what goes and when. No VM runs here. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "lib/base_make.h"
#include "lib/vmsnap.h"

struct fixture {
	char home[64];
	struct sm_client *client;
	int snapshots;
};

static void set_up(struct fixture *f)
{
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;

	strcpy(f->home, "/tmp/test-base.XXXXXX");
	assert_non_null(mkdtemp(f->home));
	o.home = f->home;
	o.libexec_dir = f->home;
	assert_int_equal(sm_client_open(&o, &f->client, NULL), 0);
	f->snapshots = base_open_dir(f->client, NULL);
	assert_true(f->snapshots >= 0);
}

static void tear_down(struct fixture *f)
{
	close(f->snapshots);
	sm_client_close(f->client);
	assert_int_equal(remove_tree_at(AT_FDCWD, f->home), 0);
}

static void add(struct fixture *f, const char *key, unsigned cpus)
{
	struct vm_record rec = {
		.memory = 777 * MIB, .cpus = cpus, .kernel = "/no/kernel", .initramfs = "/no/initramfs"};
	struct base b = {.window = GIB, .memory = 256 * MIB, .pluggable = cpus == 2, .disk = "template"};
	char name[64];
	int dir;

	snprintf(b.key, sizeof(b.key), "%s", key);
	snprintf(name, sizeof(name), "base-%s", key);
	assert_int_equal(mkdirat(f->snapshots, name, 0700), 0);
	dir = openat(f->snapshots, name, O_RDONLY | O_DIRECTORY);
	assert_true(dir >= 0);
	assert_int_equal(write_file_atomic_at(dir, "state", "state", 5, 0600), 0);
	assert_int_equal(write_file_atomic_at(dir, "memory", "memory", 6, 0600), 0);
	assert_int_equal(write_file_atomic_at(dir, VM_BASE_DISK, "disk", 4, 0600), 0);
	assert_int_equal(base_metadata_write(dir, &b, &rec, 1000, NULL), 0);
	close(dir);
}

static void files_are_known_again(void **state)
{
	struct base_info i;
	struct fixture f;

	set_up(&f);
	add(&f, "0123456789abcdef", 2);
	assert_int_equal(base_info_load(f.snapshots, "base-0123456789abcdef", &i, NULL), 0);
	assert_true(i.whole);
	assert_int_equal(i.cpus, 2);
	assert_int_equal(i.memory, 256 * MIB);
	assert_int_equal(i.window, GIB);
	assert_true(i.pluggable);
	assert_string_equal(i.disk, "template");
	assert_string_equal(i.kernel, "/no/kernel");
	assert_true(i.allocated > 0);
	assert_false(base_fits(f.client, &i)); /* its kernel is gone */
	base_info_done(&i);
	tear_down(&f);
}

/* Each: what is done to one of the files of a base, after which it is not whole or not read at all. */
static void changed_files_are_noticed(void **state)
{
	static const char *const changes[] = {
		"printf x >>memory",
		"printf x | dd of=memory conv=notrunc 2>/dev/null",
		": >state",
		"rm memory",
		"rm disk",
		"printf x >>disk",
		"cp state s && mv s state",
		"ln -sf memory state",
		"rm metadata.json",
		"printf '{}' >m && mv m metadata.json",
		"sed s/0123/3210/ metadata.json >m && mv m metadata.json",
		"sed 's/\"version\": 1/\"version\": 2/' metadata.json >m && mv m metadata.json"};

	for (size_t n = 0; n < ARRAY_SIZE(changes); n++) {
		struct base_info i = {0};
		char command[512];
		struct fixture f;

		set_up(&f);
		add(&f, "0123456789abcdef", 1);
		snprintf(command, sizeof(command), "cd %s/data/snapshots/base-0123456789abcdef && { %s; }", f.home,
			 changes[n]);
		assert_int_equal(system(command), 0);
		if (base_info_load(f.snapshots, "base-0123456789abcdef", &i, NULL) == 0 && i.whole)
			fail_msg("not noticed: %s", changes[n]);
		base_info_done(&i);
		tear_down(&f);
	}
}

/* Only a disk that has nothing on it, over the same template, can be the one that the base's guest has mounted. */
static void a_new_vm_gets_the_disk(void **state)
{
	static const struct {
		const char *before;
		bool given, linked, in_memory, bare;
		unsigned layers;
	} cases[] = {
		{.before = ":", .given = true, .linked = true},
		{.before = ": >vm/top", .given = true, .linked = true},
		{.before = "ln base/disk vm/layer.0", .given = true},
		{.before = "echo x >vm/top"},
		{.before = "echo x >vm/layer.0"},
		{.before = "ln base/disk vm/layer.0; echo x >vm/layer.1"},
		{.before = "rm base/disk"},
		{.before = "echo x >>template"},
		{.before = "cp -p template t; mv t template"},
		{.before = ":", .in_memory = true},
		{.before = ":", .bare = true}, /* the base has none */
		{.before = ":", .layers = 1},  /* of a snapshot, and missing */
	};
	char command[256], dir[96], vm[96], template[96];
	struct base b = {.dir = dir};
	uint64_t allocated = 0;
	struct fixture f;
	bool linked;

	set_up(&f);
	snprintf(dir, sizeof(dir), "%s/base", f.home);
	snprintf(vm, sizeof(vm), "%s/vm", f.home);
	snprintf(template, sizeof(template), "%s/template", f.home);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_record rec = {.layers = cases[i].layers,
					.disk_template = cases[i].in_memory ? NULL : template};
		int fd;

		snprintf(command, sizeof(command),
			 "cd %s && rm -rf base vm && mkdir base vm && echo x >template && echo x >base/disk", f.home);
		assert_int_equal(system(command), 0);
		assert_int_equal(snapshot_identity(AT_FDCWD, template, true, b.disk, &allocated), 0);
		if (cases[i].bare)
			b.disk[0] = '\0';
		snprintf(command, sizeof(command), "cd %s && { %s; }", f.home, cases[i].before);
		assert_int_equal(system(command), 0);
		fd = open(vm, O_RDONLY | O_DIRECTORY);
		assert_true(fd >= 0);
		if (base_give_disk(&b, &rec, fd, &linked) != cases[i].given || linked != cases[i].linked)
			fail_msg("after: %s", cases[i].before);
		close(fd);
	}
	tear_down(&f);
}

/* It is whole with another name for its memory, which is still there when the base is not. */
static void diffs_hold_the_memory(void **state)
{
	struct vm_origin origin = {.name = "base-0123456789abcdef", .created_ns = 1000};
	struct sm_error err = {0};
	struct vmsnap m = {0};
	unsigned removed = 0;
	struct base_info i;
	uint64_t freed = 0;
	struct fixture f;
	char sum[MEMSUM_DIGITS + 1];
	int dir;

	set_up(&f);
	add(&f, "0123456789abcdef", 1);
	assert_int_equal(mkdirat(f.snapshots, "diff", 0700), 0);
	dir = openat(f.snapshots, "diff", O_RDONLY | O_DIRECTORY);
	assert_int_equal(vmsnap_over(f.snapshots, &origin, dir, &m, &err), 0);
	assert_true(m.depth == 1 && m.base_file[0] && streq(m.parent.name, origin.name));
	assert_int_equal(base_info_load(f.snapshots, origin.name, &i, NULL), 0);
	assert_true(i.whole);
	assert_true(i.shared > 0 && i.shared < i.allocated);
	freed = i.allocated - i.shared;
	base_info_done(&i);
	assert_int_equal(sm_snapshot_prune(f.client, true, &removed, &i.allocated, &err), 0);
	assert_int_equal(removed, 1);
	assert_int_equal(i.allocated, freed);
	assert_int_equal(memsum_file(dir, "base", sum), 0);
	assert_string_equal(sum, m.base_sum);
	/* One that was made anew under the same name is another. */
	assert_int_equal(unlinkat(dir, "base", 0), 0);
	add(&f, "0123456789abcdef", 1);
	origin.created_ns++;
	assert_int_equal(vmsnap_over(f.snapshots, &origin, dir, &m, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "not there any more"));
	close(dir);
	tear_down(&f);
}

static void listed_and_removed(void **state)
{
	struct sm_snapshot_info **list;
	struct sm_error err = {0};
	struct fixture f;
	size_t count;

	set_up(&f);
	assert_int_equal(sm_snapshot_list(f.client, &list, &count, NULL), 0);
	assert_int_equal(count, 0);
	sm_snapshot_list_free(list, count);
	add(&f, "aaaa000000000000", 1);
	add(&f, "aaaa000000000001", 2);
	add(&f, "bbbb000000000000", 3);
	assert_int_equal(utimensat(f.snapshots, "base-bbbb000000000000", (struct timespec[2]){{9, 0}, {9, 0}}, 0), 0);
	assert_int_equal(sm_snapshot_list(f.client, &list, &count, NULL), 0);
	assert_int_equal(count, 3);
	assert_string_equal(list[2]->name, "base-bbbb000000000000"); /* longest unused */
	assert_int_equal(list[2]->cpus, 3);
	assert_int_equal(list[2]->created_ns, 1000);
	sm_snapshot_list_free(list, count);

	assert_int_equal(sm_snapshot_remove(f.client, "aaaa", &err), -EINVAL);
	assert_int_equal(sm_snapshot_remove(f.client, "cccc", &err), -ENOENT);
	assert_int_equal(err.kind, SM_ERROR_NOT_FOUND);
	assert_int_equal(sm_snapshot_remove(f.client, "../base-aaaa", &err), -ENOENT);
	assert_int_equal(sm_snapshot_remove(f.client, "bbb", &err), -ENOENT);
	assert_int_equal(sm_snapshot_remove(f.client, "bbbb", &err), 0);
	assert_int_equal(sm_snapshot_remove(f.client, "base-aaaa000000000001", &err), 0);
	assert_int_equal(sm_snapshot_list(f.client, &list, &count, NULL), 0);
	assert_int_equal(count, 1);
	sm_snapshot_list_free(list, count);
	tear_down(&f);
}

static void pruned(void **state)
{
	struct fixture f;
	unsigned count = 0;
	uint64_t bytes = 0;

	set_up(&f);
	add(&f, "aaaa000000000000", 1);
	add(&f, "aaaa000000000001", 2);
	assert_int_equal(mkdirat(f.snapshots, ".new-0123456789ab", 0700), 0);
	assert_int_equal(write_file_atomic_at(f.snapshots, "failed-0123", "", 0, 0600), 0);
	assert_int_equal(sm_snapshot_prune(f.client, false, &count, &bytes, NULL), 0);
	assert_int_equal(count, 2); /* their kernel is gone: nothing can start from them */
	assert_true(bytes > 0);
	assert_int_equal(faccessat(f.snapshots, ".new-0123456789ab", F_OK, 0), -1);
	assert_int_equal(faccessat(f.snapshots, "failed-0123", F_OK, 0), -1);
	tear_down(&f);
}

/* A VM that could not be restored takes along the base that it was started from, and no other. */
static void blamed(void **state)
{
	struct vm_start start = {.base = "base-aaaa000000000000", .base_created_ns = 999};
	struct fixture f;

	set_up(&f);
	add(&f, "aaaa000000000000", 1);
	base_blame(f.client, &start);
	assert_int_equal(faccessat(f.snapshots, start.base, F_OK, 0), 0);
	start.base_created_ns = 1000;
	base_blame(f.client, &(struct vm_start){.base = "base-../snapshots/base-aaaa", .base_created_ns = 1000});
	assert_int_equal(faccessat(f.snapshots, start.base, F_OK, 0), 0);
	base_blame(f.client, &start);
	assert_int_equal(faccessat(f.snapshots, start.base, F_OK, 0), -1);
	base_blame(f.client, &(struct vm_start){0});
	tear_down(&f);
}

static int impatient(void *arg, const char *stage, uint64_t done, uint64_t total)
{
	return ++*(unsigned *)arg > 2;
}

static void one_maker_at_a_time(void **state)
{
	unsigned asked = 0;
	struct sm_progress progress = {impatient, &asked};
	struct fixture f;
	int first, second;

	set_up(&f);
	first = base_lock(f.snapshots, NULL, NULL);
	assert_true(first >= 0);
	assert_int_equal(base_lock(f.snapshots, &progress, NULL), -ECANCELED);
	assert_int_equal(asked, 3);
	close(first);
	second = base_lock(f.snapshots, &progress, NULL);
	assert_true(second >= 0);
	close(second);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_are_known_again),
		cmocka_unit_test(changed_files_are_noticed),
		cmocka_unit_test(a_new_vm_gets_the_disk),
		cmocka_unit_test(diffs_hold_the_memory),
		cmocka_unit_test(listed_and_removed),
		cmocka_unit_test(pruned),
		cmocka_unit_test(blamed),
		cmocka_unit_test(one_maker_at_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
