/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of VMs on disk: their description, and what is believed of their files. No VM runs here. */
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

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "lib/vmsnap.h"

static struct vmsnap sample(char **layers)
{
	return (struct vmsnap){.vm = "0123456789ab",
			       .image = "box",
			       .image_id = "abc",
			       .memory = 256 * MIB,
			       .cpus = 2,
			       .window = GIB,
			       .booted = true,
			       .created_ns = 5,
			       .pause_ns = 6,
			       .memory_bytes = 7,
			       .state_file = "s",
			       .memory_file = "m",
			       .state_sum = "0123456789abcdef",
			       .memory_sum = "fedcba9876543210",
			       .layers = layers};
}

static void description_round_trip(void **state)
{
	char *layers[] = {"one", "two", NULL}, *tops[] = {"-", "three", NULL}, *text = NULL;
	struct vmsnap m = sample(layers), got;

	assert_int_equal(vmsnap_format(&m, &text, NULL), 0);
	assert_int_equal(vmsnap_parse(text, strlen(text), &got, NULL), 0);
	assert_string_equal(got.vm, m.vm);
	assert_string_equal(got.image, "box");
	assert_true(got.memory == m.memory && got.cpus == 2 && got.window == GIB && got.booted && got.created_ns == 5);
	assert_true(got.pause_ns == 6 && got.memory_bytes == 7);
	assert_string_equal(got.memory_file, "m");
	assert_string_equal(got.state_sum, m.state_sum);
	assert_string_equal(got.memory_sum, m.memory_sum);
	assert_string_equal(got.layers[1], "two");
	assert_null(got.layers[2]);
	assert_int_equal(got.depth, 0);
	assert_non_null(strstr(text, "\"version\": 1"));
	vmsnap_done(&got);
	free(text);
	m.volumes = layers;
	m.volume_tops = tops;
	assert_int_equal(vmsnap_format(&m, &text, NULL), 0);
	assert_non_null(strstr(text, "\"version\": 3"));
	assert_int_equal(vmsnap_parse(text, strlen(text), &got, NULL), 0);
	assert_string_equal(got.volumes[1], "two");
	assert_string_equal(got.volume_tops[0], "-");
	vmsnap_done(&got);
	free(text);
	m.volumes = m.volume_tops = NULL;
	m.depth = 1;
	strcpy(m.parent.name, "base-0");
	m.parent.created_ns = 8;
	strcpy(m.parent_sum, "p");
	strcpy(m.base_file, "f");
	strcpy(m.base_sum, "p");
	assert_int_equal(vmsnap_format(&m, &text, NULL), 0);
	assert_non_null(strstr(text, "\"version\": 2"));
	assert_int_equal(vmsnap_parse(text, strlen(text), &got, NULL), 0);
	assert_string_equal(got.parent.name, "base-0");
	assert_true(got.depth == 1 && got.parent.created_ns == 8);
	assert_string_equal(got.parent_sum, "p");
	assert_string_equal(got.base_file, "f");
	assert_string_equal(got.base_sum, "p");
	vmsnap_done(&got);
	/* Cut anywhere it is no description. */
	for (size_t len = 0; len + 2 < strlen(text); len++)
		assert_true(vmsnap_parse(text, len, &got, NULL) < 0);
	free(text);
}

static void bad_descriptions(void **state)
{
	static const char *const good = "{\"version\":1,\"kind\":\"vm\",\"vm\":\"0123456789ab\",\"image\":\"box\","
					"\"image_id\":\"abc\",\"memory\":256,\"cpus\":2}";
	static const char *const cases[][2] = {
		{"\"version\":1", "\"version\":4"},
		{"\"kind\":\"vm\"", "\"kind\":\"base\""},
		{"\"vm\":\"0123456789ab\"", "\"vm\":\"../x\""},
		{"\"cpus\":2", "\"cpus\":0"},
		{"\"memory\":256", "\"memory\":-1"},
		{"\"image_id\":\"abc\"", "\"image_id\":3"},
		{"\"cpus\":2", "\"cpus\":2,\"volumes\":[\"a\"]"},
		{"\"cpus\":2", "\"cpus\":2,\"volumes\":[\"a\"],\"volume_tops\":[\"-\",\"-\"]"},
		/* a diff's: one without the other, too deep, no name, a base without its memory, or below another */
		{"\"cpus\":2", "\"cpus\":2,\"depth\":1"},
		{"\"cpus\":2", "\"cpus\":2,\"parent\":\"warm\""},
		{"\"cpus\":2", "\"cpus\":2,\"parent\":\"warm\",\"depth\":9"},
		{"\"cpus\":2", "\"cpus\":2,\"parent\":\"../x\",\"depth\":1"},
		{"\"cpus\":2", "\"cpus\":2,\"parent\":\"base-0123456789abcdef\",\"depth\":1"},
		{"\"cpus\":2", "\"cpus\":2,\"parent\":\"warm\",\"depth\":1,\"base_file\":\"x\",\"base_crc64\":\"x\""},
		{"\"cpus\":2", "\"cpus\":2,\"parent\":\"base-0\",\"depth\":2,\"base_file\":\"x\",\"base_crc64\":\"x\""},
	};
	struct vmsnap got;
	char bad[1024];

	assert_int_equal(vmsnap_parse(good, strlen(good), &got, NULL), 0);
	vmsnap_done(&got);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct sm_error err = {0};
		const char *at = strstr(good, cases[i][0]);

		assert_non_null(at);
		snprintf(bad, sizeof(bad), "%.*s%s%s", (int)(at - good), good, cases[i][1], at + strlen(cases[i][0]));
		assert_int_equal(vmsnap_parse(bad, strlen(bad), &got, &err), -EBADMSG);
		assert_non_null(strstr(err.message, "metadata.json"));
	}
}

static void names(void **state)
{
	assert_true(vmsnap_name_valid("warm") && vmsnap_name_valid("basement") && vmsnap_name_valid("a.b-c_1"));
	assert_false(vmsnap_name_valid("base-0123") || vmsnap_name_valid("failed-x") || vmsnap_name_valid("lock"));
	assert_false(vmsnap_name_valid(".new-1") || vmsnap_name_valid("") || vmsnap_name_valid("a/b"));
}

static void put(int dir, const char *name, const char *text)
{
	assert_int_equal(write_file_atomic_at(dir, name, text, strlen(text), 0600), 0);
}

/* A layer may get more names; nothing else may happen to a file. */
static void files_are_checked(void **state)
{
	char home[] = "/tmp/test-vmsnap.XXXXXX", layer[128], *layers[] = {layer, NULL};
	struct vmsnap m = sample(layers);
	struct sm_error err = {0};
	uint64_t size = 0;
	int dir;

	m.state_sum[0] = m.memory_sum[0] = '\0'; /* as those of the first version are */
	assert_non_null(mkdtemp(home));
	dir = open(home, O_RDONLY | O_DIRECTORY);
	put(dir, "state", "state");
	put(dir, "memory", "memory");
	put(dir, "layer.0", "layer");
	assert_int_equal(snapshot_identity(dir, "state", false, m.state_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "memory", false, m.memory_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "layer.0", true, layer, &size), 0);
	assert_int_equal(linkat(dir, "layer.0", dir, "another", 0), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, &size, &err), 0);
	assert_true(size > 0);
	put(dir, "memory", "MEMORY");
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "snapshot x: its file memory is not the one"));
	assert_int_equal(snapshot_identity(dir, "memory", false, m.memory_file, &size), 0);
	assert_int_equal(unlinkat(dir, "layer.0", 0), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "layer.0 is missing"));
	close(dir);
	remove_tree_at(AT_FDCWD, home);
}

#define PAGES 1000

/* A byte here and there, holes between. */
static void put_memory(int dir, const char *name, bool holes)
{
	static char page[4096];
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < PAGES && !holes; i++)
		assert_int_equal(pwrite(fd, page, sizeof(page), (off_t)i * 4096), 4096);
	assert_int_equal(ftruncate(fd, PAGES * 4096), 0);
	for (unsigned i = 3; i < PAGES; i += 300)
		assert_int_equal(pwrite(fd, "memory", 6, (off_t)i * 4096 + i), 6);
	close(fd);
}

static void flip(int dir, const char *name, off_t at)
{
	int fd = openat(dir, name, O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 1;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static int truncateat_end(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDWR), r = ftruncate(fd, (PAGES - 1) * 4096);

	close(fd);
	return r;
}

static void sums(void **state)
{
	static const off_t places[] = {0, 3 * 4096 + 3, PAGES * 4096 - 1};
	char home[] = "/tmp/test-vmsnap.XXXXXX", a[MEMSUM_DIGITS + 1], b[MEMSUM_DIGITS + 1];
	int dir;

	assert_non_null(mkdtemp(home));
	dir = open(home, O_RDONLY | O_DIRECTORY);
	put_memory(dir, "a", false);
	put_memory(dir, "b", true);
	assert_int_equal(memsum_file(dir, "a", a), 0);
	assert_int_equal(memsum_file(dir, "b", b), 0);
	assert_string_equal(a, b);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		flip(dir, "b", places[i]);
		assert_int_equal(memsum_file(dir, "b", b), 0);
		assert_string_not_equal(a, b);
		flip(dir, "b", places[i]);
		assert_int_equal(memsum_file(dir, "b", b), 0);
		assert_string_equal(a, b);
	}
	assert_int_equal(truncateat_end(dir, "b"), 0);
	assert_int_equal(memsum_file(dir, "b", b), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(memsum_file(dir, "none", b), -ENOENT);
	close(dir);
	remove_tree_at(AT_FDCWD, home);
}

/* A file that is another one is read once, and believed if it says the same. */
static void other_files_are_verified(void **state)
{
	char home[] = "/tmp/test-vmsnap.XXXXXX";
	struct vmsnap m = sample(NULL);
	struct sm_error err = {0};
	uint64_t size = 0;
	int dir;

	assert_non_null(mkdtemp(home));
	dir = open(home, O_RDONLY | O_DIRECTORY);
	put(dir, "state", "state");
	put_memory(dir, "memory", true);
	assert_int_equal(snapshot_identity(dir, "state", false, m.state_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "memory", false, m.memory_file, &size), 0);
	assert_int_equal(memsum_file(dir, "state", m.state_sum), 0);
	assert_int_equal(memsum_file(dir, "memory", m.memory_sum), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), 0);
	assert_int_equal(faccessat(dir, "verified.memory", F_OK, 0), -1); /* it was not read */
	/* A copy. */
	assert_int_equal(unlinkat(dir, "memory", 0), 0);
	put_memory(dir, "memory", false);
	put(dir, "state", "state");
	assert_int_equal(vmsnap_check(dir, "x", &m, false, NULL, &err), -EBADMSG);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), 0);
	assert_int_equal(faccessat(dir, "verified.memory", F_OK, 0), 0);
	assert_int_equal(vmsnap_check(dir, "x", &m, false, &size, &err), 0); /* nor is it again */
	/* One bit of it. */
	flip(dir, "memory", 303 * 4096 + 305);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "snapshot x: its file memory is damaged: its checksum is "));
	flip(dir, "memory", 303 * 4096 + 305);
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), 0);
	put(dir, "state", "State");
	assert_int_equal(vmsnap_check(dir, "x", &m, true, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.message, "its file state is damaged"));
	close(dir);
	remove_tree_at(AT_FDCWD, home);
}

/* ------------------------------------------------------------------------------------------ diffs */

struct home {
	char path[64];
	int snapshots;
};

static void set_up(struct home *h)
{
	strcpy(h->path, "/tmp/test-vmsnap.XXXXXX");
	assert_non_null(mkdtemp(h->path));
	h->snapshots = open(h->path, O_RDONLY | O_DIRECTORY);
	assert_true(h->snapshots >= 0);
}

static void tear_down(struct home *h)
{
	close(h->snapshots);
	assert_int_equal(remove_tree_at(AT_FDCWD, h->path), 0);
}

/* A snapshot with a memory of its own; *m: what its diffs lie over, at first what it lies over itself. */
static void add(struct home *h, const char *name, struct vmsnap *m, int64_t created_ns)
{
	_free_ char *text = NULL;
	uint64_t size = 0;
	char memory[64];
	int dir;

	assert_int_equal(mkdirat(h->snapshots, name, 0700), 0);
	dir = openat(h->snapshots, name, O_RDONLY | O_DIRECTORY);
	snprintf(memory, sizeof(memory), "memory of %s at %lld", name, (long long)created_ns);
	put(dir, "state", "state");
	put(dir, "memory", memory);
	m->created_ns = created_ns;
	assert_int_equal(snapshot_identity(dir, "state", false, m->state_file, &size), 0);
	assert_int_equal(snapshot_identity(dir, "memory", false, m->memory_file, &size), 0);
	assert_int_equal(memsum_file(dir, "state", m->state_sum), 0);
	assert_int_equal(memsum_file(dir, "memory", m->memory_sum), 0);
	assert_int_equal(vmsnap_format(m, &text, NULL), 0);
	put(dir, "metadata.json", text);
	close(dir);
}

/* Snapshots d0 .. d(count-1), each a diff of the one before; *m is the last one's. */
static void add_chain(struct home *h, unsigned count, struct vmsnap *m)
{
	char name[8];

	*m = sample(NULL);
	for (unsigned i = 0; i < count; i++) {
		struct vm_origin origin = {.created_ns = i};

		if (i) {
			snprintf(origin.name, sizeof(origin.name), "d%u", i - 1);
			assert_int_equal(vmsnap_over(h->snapshots, &origin, h->snapshots, m, NULL), 0);
			assert_int_equal(m->depth, i);
		}
		snprintf(name, sizeof(name), "d%u", i);
		add(h, name, m, i + 1);
	}
}

static void refused(struct home *h, const char *name, const struct vmsnap *m, const char *message)
{
	struct sm_error err = {0};
	char *under = NULL;

	assert_true(vmsnap_chain(h->snapshots, name, m, true, &under, &err) < 0);
	assert_string_equal(err.message, message);
	assert_null(under);
}

static void chains_are_followed(void **state)
{
	struct sm_error err = {0};
	struct vm_origin origin = {.name = "d8", .created_ns = 9};
	char *under = NULL;
	struct vmsnap m, more = sample(NULL);
	struct home h;

	set_up(&h);
	add_chain(&h, VMSNAP_MAX_DEPTH + 1, &m);
	assert_int_equal(vmsnap_chain(h.snapshots, "d8", &m, true, &under, NULL), 0);
	assert_string_equal(under, "../d0/memory:../d1/memory:../d2/memory:../d3/memory:../d4/memory:../d5/memory:"
				   "../d6/memory:../d7/memory");
	free(under);
	/* Not one more; not over another of that name, one that is gone, or nothing. */
	assert_int_equal(vmsnap_over(h.snapshots, &origin, h.snapshots, &more, &err), -E2BIG);
	assert_non_null(strstr(err.message, "save it whole"));
	origin.created_ns = 8;
	assert_int_equal(vmsnap_over(h.snapshots, &origin, h.snapshots, &more, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "snapshot d8 that it started from is not there any more"));
	strcpy(origin.name, "base-0123456789abcdef");
	assert_int_equal(vmsnap_over(h.snapshots, &origin, h.snapshots, &more, &err), -EOPNOTSUPP);
	origin.name[0] = '\0';
	assert_int_equal(vmsnap_over(h.snapshots, &origin, h.snapshots, &more, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.message, "it booted"));
	tear_down(&h);
}

static void broken_chains_are_refused(void **state)
{
	struct sm_error err = {0};
	struct vmsnap m, other;
	struct home h;
	int d1;

	set_up(&h);
	add_chain(&h, 3, &m);
	assert_int_equal(vmsnap_unneeded(h.snapshots, "d2", NULL), 0);
	assert_int_equal(vmsnap_unneeded(h.snapshots, "d1", &err), -EBUSY);
	assert_string_equal(err.message, "snapshot d1 has diffs, which need it: d2");
	/* Its parent damaged, its parent's missing, another in its place, not of the same shape. */
	d1 = openat(h.snapshots, "d1", O_RDONLY | O_DIRECTORY);
	put(d1, "memory", "MEMORY");
	assert_true(vmsnap_chain(h.snapshots, "d2", &m, true, NULL, &err) < 0);
	assert_non_null(strstr(err.message, "snapshot d2 is a diff of d1: snapshot d1: its file memory is damaged"));
	put(d1, "memory", "memory of d1 at 2");
	close(d1);
	assert_int_equal(vmsnap_chain(h.snapshots, "d2", &m, true, NULL, NULL), 0);
	assert_int_equal(remove_tree_at(h.snapshots, "d0"), 0);
	refused(&h, "d2", &m, "snapshot d1 is a diff of d0: no such snapshot: d0");
	other = sample(NULL);
	add(&h, "d0", &other, 77);
	refused(&h, "d2", &m, "snapshot d1 is a diff of d0, and what has this name now is another one");
	other = m;
	other.memory *= 2;
	refused(&h, "d2", &other, "snapshot d2 is a diff of d1, and their descriptions do not fit together");
	/* Round and round: one that is its own parent is not one deeper than that. */
	assert_int_equal(remove_tree_at(h.snapshots, "d0"), 0);
	other = sample(NULL);
	other.depth = 5;
	strcpy(other.parent.name, "d0");
	other.parent.created_ns = 77;
	add(&h, "d0", &other, 77);
	memcpy(other.parent_sum, other.memory_sum, sizeof(other.parent_sum));
	assert_int_equal(remove_tree_at(h.snapshots, "d0"), 0);
	add(&h, "d0", &other, 77);
	refused(&h, "d0", &other, "snapshot d0 is a diff of d0, and their descriptions do not fit together");
	tear_down(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(description_round_trip),
		cmocka_unit_test(bad_descriptions),
		cmocka_unit_test(names),
		cmocka_unit_test(files_are_checked),
		cmocka_unit_test(sums),
		cmocka_unit_test(other_files_are_verified),
		cmocka_unit_test(chains_are_followed),
		cmocka_unit_test(broken_chains_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
