/* SPDX-License-Identifier: Apache-2.0 */
/* The DAX window of a session over a directory: what is mapped where, what a hostile peer may ask, and when mappings
 * go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/dax.h"
#include "fuse/posix.h"
#include "fuse/session.h"

#define PLACES 4U
#define SLOT FUSE_DAX_SLOT
#define OFFERED (FUSE_MAP_ALIGNMENT | FUSE_INIT_EXT)
#define OFFERED2 ((uint32_t)(FUSE_HAS_INODE_DAX >> 32))
#define BOTH (PROT_READ | PROT_WRITE)

struct world {
	char dir[32];
	struct sm_fs_backend *be;
	struct fuse_session *s;
	uint8_t *window;
	int protection, mapped[PLACES]; /* what the door allows; what lies in each place, 0: nothing */
	unsigned lost;
	uint64_t left;
	struct fuse_out_header header;
	uint8_t payload[4096];
};

static int protection(void *arg, uint64_t nodeid)
{
	return ((struct world *)arg)->protection;
}

static int map(void *arg, uint64_t at, uint64_t len, int fd, uint64_t offset, int prot)
{
	struct world *w = arg;

	if (mmap(w->window + at, len, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED)
		return -errno;
	w->mapped[at / SLOT] = prot;
	w->lost = 0;
	return 0;
}

static void unmap(void *arg, uint64_t at)
{
	struct world *w = arg;

	assert_true(w->mapped[at / SLOT]);
	assert_true(mmap(w->window + at, SLOT, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		    MAP_FAILED);
	w->mapped[at / SLOT] = 0;
}

static bool is_lost(void *arg, uint64_t at, uint64_t *ret_left)
{
	struct world *w = arg;

	*ret_left = w->left;
	return at == 0 && w->lost;
}

static int call(struct world *w, uint32_t opcode, uint64_t node, const void *arg, size_t size, const void *more,
		size_t more_size)
{
	struct fuse_in_header h = {
		.len = (uint32_t)(sizeof(h) + size + more_size), .opcode = opcode, .nodeid = node, .unique = 1};
	struct iovec in[3] = {{&h, sizeof(h)}, {(void *)(uintptr_t)arg, size}, {(void *)(uintptr_t)more, more_size}};
	struct iovec out[2] = {{&w->header, sizeof(w->header)}, {w->payload, sizeof(w->payload)}};

	return fuse_session_serve(w->s, in, 3, out, 2) > 0 ? w->header.error : 1;
}

static void init(struct world *w, uint32_t flags, uint32_t flags2)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = flags, .flags2 = flags2};

	assert_int_equal(call(w, FUSE_INIT, 0, &in, sizeof(in), NULL, 0), 0);
}

static void write_file(struct world *w, const char *name, uint64_t size, char first)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	/* Every place of it begins in its own way. */
	for (uint64_t at = 0; at < size; at += SLOT, first++)
		assert_int_equal(pwrite(fd, &first, 1, (off_t)at), 1);
	assert_int_equal(size ? posix_fallocate(fd, 0, (off_t)size) : 0, 0);
	close(fd);
}

static void world_new(struct world **ret, bool read_only)
{
	struct fuse_posix_options po = {.read_only = read_only, .valid_ns = 1, .max_fds = 16, .max_open = 16};
	struct world *w = calloc(1, sizeof(*w));
	struct fuse_dax_port port = {.size = PLACES * SLOT,
				     .protection = protection,
				     .map = map,
				     .unmap = unmap,
				     .lost = w ? &w->lost : NULL,
				     .is_lost = is_lost,
				     .arg = w};

	assert_non_null(w);
	strcpy(w->dir, "/tmp/sm-dax-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->protection = read_only ? PROT_READ : BOTH;
	w->window = mmap(NULL, PLACES * SLOT, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(w->window != MAP_FAILED);
	write_file(w, "big", 3 * SLOT, 'a');
	write_file(w, "small", SLOT - 1, 's');
	assert_int_equal(fuse_posix_new(w->dir, &po, &w->be, NULL), 0);
	assert_int_equal(fuse_session_new(w->be, &(struct fuse_session_options){.dax = &port}, &w->s), 0);
	*ret = w;
}

static int setup(void **state)
{
	world_new((struct world **)state, false);
	init(*state, OFFERED, OFFERED2);
	return 0;
}

static int setup_read_only(void **state)
{
	world_new((struct world **)state, true);
	init(*state, OFFERED, OFFERED2);
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	fuse_session_free(w->s);
	for (unsigned i = 0; i < PLACES; i++)
		assert_int_equal(w->mapped[i], 0);
	fuse_posix_free(w->be);
	remove_tree_at(AT_FDCWD, w->dir);
	munmap(w->window, PLACES * SLOT);
	free(w);
	return 0;
}

static uint64_t lookup(struct world *w, const char *name, uint32_t *ret_flags)
{
	struct fuse_entry_out *e = (void *)w->payload;

	assert_int_equal(call(w, FUSE_LOOKUP, 1, name, strlen(name) + 1, NULL, 0), 0);
	if (ret_flags)
		*ret_flags = e->attr.flags;
	return e->nodeid;
}

static int set_up(struct world *w, uint64_t node, uint64_t at, uint64_t offset, uint64_t flags)
{
	struct fuse_setupmapping_in in = {
		.fh = UINT64_MAX, .foffset = offset, .len = SLOT, .flags = flags, .moffset = at};

	return call(w, FUSE_SETUPMAPPING, node, &in, sizeof(in), NULL, 0);
}

static int remove_at(struct world *w, uint64_t node, uint32_t count, uint64_t at, uint64_t len)
{
	struct fuse_removemapping_in in = {.count = count};
	struct fuse_removemapping_one one = {.moffset = at, .len = len};

	return call(w, FUSE_REMOVEMAPPING, node, &in, sizeof(in), &one, sizeof(one));
}

#define READ FUSE_SETUPMAPPING_FLAG_READ
#define WRITE FUSE_SETUPMAPPING_FLAG_WRITE

static void test_parts_of_a_file_lie_where_they_were_asked_for(void **state)
{
	struct world *w = *state;
	uint64_t big = lookup(w, "big", NULL);
	char c;
	int fd;

	assert_int_equal(set_up(w, big, 0, 2 * SLOT, READ), 0);
	assert_int_equal(set_up(w, big, 2 * SLOT, 0, READ), 0);
	assert_int_equal(w->window[0], 'c');
	assert_int_equal(w->window[2 * SLOT], 'a');
	assert_int_equal(w->mapped[0], PROT_READ);
	assert_int_equal(set_up(w, big, 0, 2 * SLOT, READ | WRITE), 0); /* Linux's upgrade */
	assert_int_equal(w->mapped[0], BOTH);
	w->window[0] = 'C';
	fd = open(w->dir, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	c = 0;
	{
		int f = openat(fd, "big", O_RDONLY);

		assert_int_equal(pread(f, &c, 1, 2 * SLOT), 1);
		close(f);
	}
	close(fd);
	assert_int_equal(c, 'C');
	assert_int_equal(remove_at(w, big, 1, 0, SLOT), 0);
	assert_int_equal(remove_at(w, big, 1, 0, SLOT), 0); /* gone already */
	assert_int_equal(w->window[0], 0);
	assert_int_equal(w->window[2 * SLOT], 'a');
}

static void test_what_no_kernel_asks_is_refused(void **state)
{
	struct world *w = *state;
	uint64_t big = lookup(w, "big", NULL), small = lookup(w, "small", NULL);
	struct fuse_setupmapping_in good = {.fh = UINT64_MAX, .len = SLOT, .flags = READ}, in;
	const struct {
		uint64_t fh, foffset, len, flags, moffset;
		int error;
	} bad[] = {
		{UINT64_MAX, 0, 0, READ, 0, EINVAL},
		{UINT64_MAX, 0, SLOT, 0, 0, EINVAL},
		{UINT64_MAX, 0, SLOT, 4, 0, EINVAL},
		{UINT64_MAX, 0, 100, READ, 0, EINVAL},
		{UINT64_MAX, 0, 2 * SLOT, READ, 0, EINVAL},
		{UINT64_MAX, 0, UINT64_MAX, READ, 0, EINVAL},
		{UINT64_MAX, 4096, SLOT, READ, 0, EINVAL},
		{UINT64_MAX, 0, SLOT, READ, 4096, EINVAL},
		{UINT64_MAX, 0, SLOT, READ, PLACES * SLOT, EINVAL},
		{UINT64_MAX, 0, SLOT, READ, -SLOT, EINVAL},
		{UINT64_MAX, -SLOT, SLOT, READ, 0, EINVAL},
		{UINT64_MAX, INT64_MAX - SLOT + 1, SLOT, READ, 0, EINVAL},
		{7, 0, SLOT, READ, 0, EBADF},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		in = (struct fuse_setupmapping_in){.fh = bad[i].fh,
						   .foffset = bad[i].foffset,
						   .len = bad[i].len,
						   .flags = bad[i].flags,
						   .moffset = bad[i].moffset};
		assert_int_equal(call(w, FUSE_SETUPMAPPING, big, &in, sizeof(in), NULL, 0), -bad[i].error);
	}
	assert_int_equal(call(w, FUSE_SETUPMAPPING, big, &good, sizeof(good) - 1, NULL, 0), -EINVAL);
	assert_int_equal(call(w, FUSE_SETUPMAPPING, 1, &good, sizeof(good), NULL, 0), -ENODEV); /* a directory */
	assert_int_equal(call(w, FUSE_SETUPMAPPING, 4711, &good, sizeof(good), NULL, 0), -ESTALE);
	assert_int_equal(set_up(w, big, SLOT, 0, READ), 0);
	assert_int_equal(remove_at(w, big, 0, SLOT, SLOT), -EINVAL);
	assert_int_equal(remove_at(w, big, 2, SLOT, SLOT), -EINVAL); /* the second is not there; the first is done */
	assert_int_equal(set_up(w, big, SLOT, 0, READ), 0);
	assert_int_equal(remove_at(w, big, UINT32_MAX, SLOT, SLOT), -EINVAL);
	assert_int_equal(remove_at(w, big, 1, SLOT + 4096, SLOT), -EINVAL);
	assert_int_equal(remove_at(w, big, 1, SLOT, UINT64_MAX), -EINVAL);
	assert_int_equal(remove_at(w, big, 1, SLOT, 2 * SLOT), -EINVAL);
	assert_int_equal(remove_at(w, small, 1, SLOT, SLOT), -EINVAL); /* another file's */
	assert_int_equal(w->window[SLOT], 'a');
	w->protection = 0; /* a tree that is not offered */
	assert_int_equal(set_up(w, big, 0, 0, READ), -EOPNOTSUPP);
}

static void test_read_only_means_read_only(void **state)
{
	struct world *w = *state;
	uint64_t big = lookup(w, "big", NULL);

	assert_int_equal(set_up(w, big, 0, 0, READ | WRITE), -EROFS);
	w->protection = BOTH; /* the backend knows better */
	assert_int_equal(set_up(w, big, 0, 0, WRITE), -EROFS);
	assert_int_equal(w->mapped[0], 0);
	assert_int_equal(set_up(w, big, 0, 0, READ), 0);
	assert_int_equal(w->mapped[0], PROT_READ);
}

static void test_only_large_whole_files_are_marked(void **state)
{
	struct world *w = *state;
	char path[64];
	uint32_t flags;

	lookup(w, "big", &flags);
	assert_int_equal(flags, FUSE_ATTR_DAX);
	lookup(w, "small", &flags);
	assert_int_equal(flags, 0);
	snprintf(path, sizeof(path), "%s/small", w->dir);
	assert_int_equal(truncate(path, 4 * SLOT), 0); /* a hole that may not find room when it is written to */
	lookup(w, "small", &flags);
	assert_int_equal(flags, 0);
	w->protection = PROT_READ;
	lookup(w, "small", &flags);
	assert_int_equal(flags, FUSE_ATTR_DAX);
	snprintf(path, sizeof(path), "%s/big", w->dir);
	assert_int_equal(chmod(path, 04755), 0);
	w->protection = BOTH;
	lookup(w, "big", &flags);
	assert_true(!(flags & FUSE_ATTR_DAX));
}

static void test_a_peer_that_does_not_offer_it_gets_none(void **state)
{
	struct world *w = *state;
	struct fuse_init_out *out = (void *)w->payload;
	uint64_t big;
	uint32_t flags;

	assert_int_equal(out->map_alignment, FUSE_DAX_SHIFT);
	assert_true(out->flags & FUSE_MAP_ALIGNMENT && out->flags2 & OFFERED2);
	assert_int_equal(call(w, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
	init(w, FUSE_INIT_EXT, OFFERED2);
	assert_int_equal(out->map_alignment, 0);
	big = lookup(w, "big", &flags);
	assert_int_equal(flags, 0);
	assert_int_equal(set_up(w, big, 0, 0, READ), -ENOSYS);
	assert_int_equal(remove_at(w, big, 1, 0, SLOT), -ENOSYS);
}

static void test_mappings_go_with_the_last_reference_and_the_session(void **state)
{
	struct world *w = *state;
	uint64_t big = lookup(w, "big", NULL);
	struct fuse_forget_in one = {.nlookup = 1};

	assert_int_equal(lookup(w, "big", NULL), big);
	assert_int_equal(set_up(w, big, 0, 0, READ), 0);
	assert_int_equal(set_up(w, big, SLOT, SLOT, READ), 0);
	call(w, FUSE_FORGET, big, &one, sizeof(one), NULL, 0);
	assert_int_equal(w->window[0], 'a');
	call(w, FUSE_FORGET, big, &one, sizeof(one), NULL, 0);
	assert_int_equal(w->mapped[0] | w->mapped[1], 0);
	big = lookup(w, "big", NULL);
	assert_int_equal(set_up(w, big, 3 * SLOT, 0, READ), 0);
	assert_int_equal(call(w, FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(w->mapped[3], 0);
	init(w, OFFERED, OFFERED2);
	big = lookup(w, "big", NULL);
	assert_int_equal(set_up(w, big, 0, 0, READ), 0); /* the end of the session takes this one: teardown looks */
}

static void test_a_file_without_a_name_is_mapped_while_it_is_open(void **state)
{
	struct world *w = *state;
	struct fuse_open_in in = {.flags = O_RDWR};
	uint64_t big = lookup(w, "big", NULL);

	assert_int_equal(call(w, FUSE_OPEN, big, &in, sizeof(in), NULL, 0), 0);
	assert_int_equal(call(w, FUSE_UNLINK, 1, "big", 4, NULL, 0), 0);
	assert_int_equal(set_up(w, big, 0, SLOT, READ | WRITE), 0);
	assert_int_equal(w->window[0], 'b');
}

static void test_a_file_that_grew_back_is_mapped_again(void **state)
{
	struct world *w = *state;
	uint64_t big = lookup(w, "big", NULL);
	char path[64];

	assert_int_equal(set_up(w, big, 0, SLOT, READ), 0);
	snprintf(path, sizeof(path), "%s/big", w->dir);
	assert_int_equal(truncate(path, SLOT), 0);
	/* The door has put zeros there. */
	assert_true(mmap(w->window, SLOT, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	w->lost = 1;
	w->left = 0;
	assert_int_equal(lookup(w, "big", NULL), big);
	assert_int_equal(w->lost, 1);
	write_file(w, "big", 2 * SLOT, 'x');
	assert_int_equal(lookup(w, "big", NULL), big);
	assert_int_equal(w->lost, 0);
	assert_int_equal(w->window[0], 'y');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_parts_of_a_file_lie_where_they_were_asked_for, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_no_kernel_asks_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_means_read_only, setup_read_only, teardown),
		cmocka_unit_test_setup_teardown(test_only_large_whole_files_are_marked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_peer_that_does_not_offer_it_gets_none, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mappings_go_with_the_last_reference_and_the_session, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_a_file_without_a_name_is_mapped_while_it_is_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_file_that_grew_back_is_mapped_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
