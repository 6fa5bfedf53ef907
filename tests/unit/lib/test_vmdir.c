/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of VMs: names, prefixes, what killed programs leave behind, many creators at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/lib.h"

struct place {
	char dir[64];
	struct sm_client *client;
};

static int setup(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;

	strcpy(p->dir, "/tmp/test-vmdir.XXXXXX");
	if (!mkdtemp(p->dir))
		return -1;
	o.home = p->dir;
	o.libexec_dir = "/tmp";
	o.machine = SM_MACHINE_NEVER;
	*state = p;
	return sm_client_open(&o, &p->client, NULL);
}

static int teardown(void **state)
{
	struct place *p = *state;

	sm_client_close(p->client);
	remove_tree_at(AT_FDCWD, p->dir);
	free(p);
	return 0;
}

static struct vm_record record(const char *id, const char *name)
{
	static char *argv[] = {"true", NULL}, *env[] = {NULL};
	struct vm_record r = {.image = "i",
			      .image_id = "image-id",
			      .keep = true,
			      .created_ns = 1,
			      .memory = GIB,
			      .cpus = 1,
			      .kernel = "k",
			      .initramfs = "i",
			      .hostname = "h",
			      .argv = argv,
			      .env = env,
			      .stop_signal = 15};

	strcpy(r.id, id);
	strcpy(r.name, name);
	return r;
}

static int create(struct sm_client *c, const char *id, const char *name, struct sm_error *err)
{
	struct vm_record r = record(id, name);

	return vmdir_create(c, &r, NULL, NULL, err);
}

static void names_and_prefixes_find(void **state)
{
	struct sm_client *c = ((struct place *)*state)->client;
	struct sm_error err = {0};
	char id[VM_ID_DIGITS + 1];

	assert_int_equal(create(c, "aaaa00000001", "web", NULL), 0);
	assert_int_equal(create(c, "aaaa00000002", "", NULL), 0);
	assert_int_equal(create(c, "bbbb00000003", "aaaa", NULL), 0);
	assert_int_equal(vmdir_resolve(c, "web", id, NULL), 0);
	assert_string_equal(id, "aaaa00000001");
	assert_int_equal(vmdir_resolve(c, "aaaa00000002", id, NULL), 0);
	assert_int_equal(vmdir_resolve(c, "bbbb", id, NULL), 0);
	assert_string_equal(id, "bbbb00000003");
	assert_int_equal(vmdir_resolve(c, "aaaa", id, NULL), 0); /* a name goes before a prefix */
	assert_string_equal(id, "bbbb00000003");
	assert_int_equal(vmdir_resolve(c, "aaaa0", id, &err), -EINVAL); /* two begin so */
	assert_int_equal(vmdir_resolve(c, "bbb", id, &err), -ENOENT);	/* too short */
	assert_int_equal(vmdir_resolve(c, "../vms", id, &err), -ENOENT);
	assert_int_equal(vmdir_resolve(c, "", id, &err), -EINVAL);
}

/* Who still has the file open, as a machine's file server has, does not keep the space of a disk that is gone; but what
 * another has a link to stays. */
static void a_removed_disk_is_given_back(void **state)
{
	struct place *p = *state;
	struct sm_client *c = p->client;
	char path[160], link_path[160];
	struct stat st;

	for (int linked = 0; linked < 2; linked++) {
		_fd_ int fd = -1;

		assert_int_equal(create(c, "aaaa00000001", "", NULL), 0);
		snprintf(path, sizeof(path), "%s/state/vms/aaaa00000001/top", p->dir);
		snprintf(link_path, sizeof(link_path), "%s/kept", p->dir);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(pwrite(fd, "disk", 4, 0), 4);
		if (linked)
			assert_int_equal(link(path, link_path), 0);
		assert_int_equal(vmdir_remove(c, "aaaa00000001", NULL), 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, linked ? 4 : 0);
	}
}

static void a_taken_name_is_refused_and_freed(void **state)
{
	struct sm_client *c = ((struct place *)*state)->client;
	struct sm_error err = {0};
	char id[VM_ID_DIGITS + 1];

	assert_int_equal(create(c, "aaaa00000001", "web", NULL), 0);
	assert_int_equal(create(c, "aaaa00000002", "web", &err), -EEXIST);
	assert_int_equal(err.kind, SM_ERROR_EXISTS);
	assert_int_equal(vmdir_resolve(c, "aaaa00000002", id, NULL), -ENOENT);
	assert_int_equal(vmdir_remove(c, "aaaa00000001", NULL), 0);
	assert_int_equal(vmdir_resolve(c, "web", id, NULL), -ENOENT);
	assert_int_equal(create(c, "aaaa00000002", "web", NULL), 0);
	/* A link whose VM is gone, as a kill between two steps leaves it. */
	char path[128];

	snprintf(path, sizeof(path), "%s/state/names/old", ((struct place *)*state)->dir);
	assert_int_equal(symlink("cccc00000009", path), 0);
	assert_int_equal(create(c, "aaaa00000003", "old", NULL), 0);
	assert_int_equal(vmdir_resolve(c, "old", id, NULL), 0);
	assert_string_equal(id, "aaaa00000003");
}

static void sweep_takes_litter_only(void **state)
{
	struct place *p = *state;
	struct vm_record kept = record("aaaa00000001", ""), transient = record("aaaa00000002", "t"),
			 owned = record("aaaa00000003", "");
	char path[128], id[VM_ID_DIGITS + 1];
	int owner;

	transient.keep = owned.keep = false;
	assert_int_equal(vmdir_create(p->client, &kept, NULL, NULL, NULL), 0);
	assert_int_equal(vmdir_create(p->client, &transient, NULL, NULL, NULL), 0);
	assert_int_equal(vmdir_create(p->client, &owned, NULL, &owner, NULL), 0);
	assert_true(owner >= 0);
	snprintf(path, sizeof(path), "%s/state/vms/.new-aaaa00000004", p->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	vmdir_sweep(p->client);
	assert_true(access(path, F_OK) < 0);
	assert_int_equal(vmdir_resolve(p->client, kept.id, id, NULL), 0);
	assert_int_equal(vmdir_resolve(p->client, transient.id, id, NULL), -ENOENT);
	assert_int_equal(vmdir_resolve(p->client, "t", id, NULL), -ENOENT);
	assert_int_equal(vmdir_resolve(p->client, owned.id, id, NULL), 0);
	close(owner);
	vmdir_sweep(p->client);
	assert_int_equal(vmdir_resolve(p->client, owned.id, id, NULL), -ENOENT);
}

/* Neither keeper nor record: the next look derives why, and writes it down. */
static void truth_is_derived(void **state)
{
	struct place *p = *state;
	struct vm_start s = {
		.host_boot_id = "another boot", .boot_id = "another boot", .socket = "/nonexistent/socket"};
	struct vm_view v;
	char *json;
	int dir, lock;

	assert_int_equal(create(p->client, "aaaa00000001", "", NULL), 0);
	dir = vmdir_open(p->client, "aaaa00000001", NULL);
	lock = vmdir_flock(dir, "start.lock", true, false);
	assert_int_equal(vm_view(p->client, "aaaa00000001", &v, NULL), 0);
	assert_int_equal(v.state, SM_VM_STARTING); /* somebody starts it */
	close(lock);
	assert_int_equal(vm_view(p->client, "aaaa00000001", &v, NULL), 0);
	assert_int_equal(v.state, SM_VM_EXITED);
	assert_int_equal(v.exit.outcome.reason, SM_REASON_START_FAILED);
	assert_int_equal(unlinkat(dir, "exit.json", 0), 0);
	for (int restarted = 0; restarted < 2; restarted++) {
		if (!restarted) {
			char *boot;
			size_t len;

			assert_int_equal(read_file_at(-1, "/proc/sys/kernel/random/boot_id", 64, &boot, &len), 0);
			snprintf(s.host_boot_id, sizeof(s.host_boot_id), "%.36s", boot);
			free(boot);
		} else {
			strcpy(s.host_boot_id, "another boot");
		}
		assert_int_equal(vm_start_format(&s, &json, NULL), 0);
		assert_int_equal(write_file_atomic_at(dir, "start.json", json, strlen(json), 0600), 0);
		free(json);
		assert_int_equal(vm_view(p->client, "aaaa00000001", &v, NULL), 0);
		assert_int_equal(v.state, SM_VM_EXITED);
		assert_int_equal(v.exit.outcome.reason, restarted ? SM_REASON_HOST_RESTARTED : SM_REASON_KEEPER_DIED);
		assert_int_equal(unlinkat(dir, "exit.json", 0), 0);
	}
	close(dir);
}

/* One with the directory of a suspended VM and without a keeper is suspended, whatever else is known of it. */
static void suspended_until_stopped(void **state)
{
	struct vm_start s = {
		.host_boot_id = "another boot", .boot_id = "another boot", .socket = "/nonexistent/socket"};
	struct sm_outcome outcome = SM_OUTCOME_INIT;
	struct place *p = *state;
	struct sm_vm_info **list;
	struct sm_error err = {0};
	struct vm_view v;
	struct sm_vm *vm;
	size_t count;
	char *json;
	int dir;

	assert_int_equal(create(p->client, "aaaa00000001", "s", NULL), 0);
	dir = vmdir_open(p->client, "aaaa00000001", NULL);
	assert_int_equal(vm_start_format(&s, &json, NULL), 0);
	assert_int_equal(write_file_atomic_at(dir, "start.json", json, strlen(json), 0600), 0);
	free(json);
	assert_int_equal(mkdirat(dir, VM_SUSPENDED, 0700), 0);
	assert_int_equal(sm_vm_open(p->client, "s", &vm, NULL), 0);
	for (int look = 0; look < 2; look++) { /* the first one derives how its keeper ended */
		assert_int_equal(vm_view(p->client, "aaaa00000001", &v, NULL), 0);
		assert_int_equal(v.state, SM_VM_SUSPENDED);
	}
	assert_int_equal(sm_vm_list(p->client, false, &list, &count, NULL), 0);
	assert_int_equal(count, 0);
	sm_vm_list_free(list, count);
	assert_int_equal(sm_vm_wait(vm, 0, &outcome, &err), -EHOSTDOWN);
	assert_int_equal(sm_vm_suspend(vm, &err), -ESRCH);
	assert_non_null(strstr(err.message, "is suspended"));
	assert_int_equal(sm_vm_remove(vm, false, NULL), -EBUSY);
	assert_int_equal(sm_vm_stop(vm, 0, NULL), 0);
	assert_int_equal(sm_vm_wait(vm, 0, &outcome, NULL), 0);
	assert_int_equal(outcome.reason, SM_REASON_STOPPED);
	assert_int_equal(sm_vm_resume(vm, NULL), -EALREADY);
	assert_int_equal(mkdirat(dir, VM_SUSPENDED, 0700), 0);
	assert_int_equal(sm_vm_remove(vm, true, NULL), 0);
	assert_true(vmdir_open(p->client, "aaaa00000001", NULL) < 0);
	sm_vm_close(vm);
	close(dir);
}

struct racer {
	struct sm_client *client;
	int number, won;
};

static void *race(void *arg)
{
	struct racer *r = arg;

	for (int i = 0; i < 20; i++) {
		char id[VM_ID_DIGITS + 1], name[16];

		snprintf(id, sizeof(id), "%04x%08x", (unsigned)r->number, (unsigned)i);
		snprintf(name, sizeof(name), "name%d", i);
		r->won += create(r->client, id, name, NULL) == 0;
	}
	return NULL;
}

static void each_name_goes_to_one(void **state)
{
	struct place *p = *state;
	struct racer racers[4];
	pthread_t threads[4];
	int won = 0;

	for (int i = 0; i < 4; i++) {
		racers[i] = (struct racer){.client = p->client, .number = i + 1};
		assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		won += racers[i].won;
	}
	assert_int_equal(won, 20);
}

static size_t indexed(struct sm_client *c)
{
	char(*ids)[VM_ID_DIGITS + 1];
	size_t n;

	assert_int_equal(vmindex_list(c, &ids, &n, NULL), 0);
	free(ids);
	return n;
}

static size_t listed(struct sm_client *c, bool all)
{
	struct sm_vm_info **list;
	size_t n;

	assert_int_equal(sm_vm_list(c, all, &list, &n, NULL), 0);
	sm_vm_list_free(list, n);
	return n;
}

/* What has ended is looked at once more and then only by those who ask for all. */
static void ended_ones_leave_the_index(void **state)
{
	struct place *p = *state;
	struct sm_client *c = p->client;
	struct sm_client_options o = SM_CLIENT_OPTIONS_INIT;
	char path[128];

	assert_int_equal(create(c, "aaaabbbbcccc", "", NULL), 0);
	assert_int_equal(create(c, "aaaabbbbdddd", "", NULL), 0);
	assert_int_equal(indexed(c), 2);
	assert_int_equal(listed(c, false), 0); /* nobody runs them: an end is written */
	assert_int_equal(indexed(c), 0);
	assert_int_equal(listed(c, true), 2);

	/* A start marks it again; a mark of nothing goes by itself. */
	assert_int_equal(vmindex_add(c, "aaaabbbbcccc", NULL), 0);
	assert_int_equal(vmindex_add(c, "0000bbbbcccc", NULL), 0);
	vmdir_sweep(c);
	assert_int_equal(indexed(c), 1);
	assert_int_equal(vmdir_remove(c, "aaaabbbbcccc", NULL), 0);
	assert_int_equal(indexed(c), 0);

	/* A state directory of before there was an index: all are in it at first. */
	snprintf(path, sizeof(path), "%s/state/unended", p->dir);
	assert_int_equal(rmdir(path), 0);
	sm_client_close(c);
	o.home = p->dir;
	o.libexec_dir = "/tmp";
	o.machine = SM_MACHINE_NEVER;
	assert_int_equal(sm_client_open(&o, &p->client, NULL), 0);
	assert_int_equal(indexed(p->client), 1);
	assert_int_equal(listed(p->client, false), 0);
	assert_int_equal(indexed(p->client), 0);
}

static char *found(struct sm_client *c, const char *image, const char *label, const char *another)
{
	const char *const labels[] = {label, another, NULL};
	struct sm_vm_find_options o = SM_VM_FIND_OPTIONS_INIT;
	static char text[128];
	struct sm_vm_info **list;
	size_t n;

	o.all = true;
	o.image = image;
	o.labels = labels;
	assert_int_equal(sm_vm_find(c, &o, &list, &n, NULL), 0);
	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		strcat(text, list[i]->name);
	sm_vm_list_free(list, n);
	return text;
}

static void create_labelled(struct sm_client *c, const char *id, const char *name, char **labels)
{
	struct vm_record r = record(id, name);

	r.created_ns = id[11];
	r.image = (char *)"app:latest";
	r.image_id = (char *)"abcdef0123456789";
	r.labels = labels;
	assert_int_equal(vmdir_create(c, &r, NULL, NULL, NULL), 0);
}

/* By all that is given, of VMs that another program may have made. */
static void found_by_label(void **state)
{
	struct sm_client *c = ((struct place *)*state)->client;
	char *both[] = {"tier=web", "owner", NULL}, *one[] = {"tier=db", NULL};

	create_labelled(c, "bbbbccccddd1", "w", both);
	create_labelled(c, "bbbbccccddd2", "d", one);
	create_labelled(c, "bbbbccccddd3", "n", NULL);
	assert_string_equal(found(c, NULL, NULL, NULL), "ndw");
	assert_string_equal(found(c, NULL, "tier", NULL), "dw");
	assert_string_equal(found(c, NULL, "tier=web", NULL), "w");
	assert_string_equal(found(c, NULL, "tier=we", NULL), "");
	assert_string_equal(found(c, NULL, "tie", NULL), "");
	assert_string_equal(found(c, NULL, "owner", NULL), "w");
	assert_string_equal(found(c, NULL, "tier", "owner"), "w");
	assert_string_equal(found(c, NULL, "tier=db", "owner"), "");
	assert_string_equal(found(c, "app", "tier=db", NULL), "d");
	assert_string_equal(found(c, "abcdef", NULL, NULL), "ndw");
	assert_string_equal(found(c, "abc", NULL, NULL), "");
	assert_string_equal(found(c, "ap", NULL, NULL), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_and_prefixes_find, setup, teardown),
		cmocka_unit_test_setup_teardown(a_taken_name_is_refused_and_freed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_removed_disk_is_given_back, setup, teardown),
		cmocka_unit_test_setup_teardown(sweep_takes_litter_only, setup, teardown),
		cmocka_unit_test_setup_teardown(truth_is_derived, setup, teardown),
		cmocka_unit_test_setup_teardown(suspended_until_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(each_name_goes_to_one, setup, teardown),
		cmocka_unit_test_setup_teardown(ended_ones_leave_the_index, setup, teardown),
		cmocka_unit_test_setup_teardown(found_by_label, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
