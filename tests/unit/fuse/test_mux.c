/* SPDX-License-Identifier: Apache-2.0 */
/* Several file systems behind one session: their ids stay apart, nothing reaches from one into another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "fuse/memory.h"
#include "fuse/mux.h"

struct three {
	struct sm_fs_backend *a, *b, *mux;
	struct sm_fs_entry root_a, root_b;
};

static const struct sm_fs_caller root = {0};

static int setup(void **state)
{
	static struct three t;
	struct fuse_mux_child children[2] = {{NULL, "0"}, {NULL, "1"}};

	t = (struct three){0};
	*state = &t;
	if (fuse_memory_new(NULL, &t.a) < 0 || fuse_memory_new(NULL, &t.b) < 0)
		return -1;
	children[0].backend = t.a;
	children[1].backend = t.b;
	if (fuse_mux_new(children, 2, &t.mux) < 0)
		return -1;
	return t.mux->ops->lookup(t.mux, &root, SM_FS_ROOT, "0", &t.root_a) |
	       t.mux->ops->lookup(t.mux, &root, SM_FS_ROOT, "1", &t.root_b);
}

static int teardown(void **state)
{
	struct three *t = *state;

	fuse_mux_free(t->mux);
	fuse_memory_free(t->a);
	fuse_memory_free(t->b);
	return 0;
}

static uint64_t make_dir(struct three *t, uint64_t parent, const char *name)
{
	struct sm_fs_entry e = {0};

	assert_int_equal(t->mux->ops->mkdir(t->mux, &root, parent, name, 0755, &e), 0);
	return e.nodeid;
}

static void test_root_is_made_up_and_cannot_be_changed(void **state)
{
	struct three *t = *state;
	const struct sm_fs_ops *o = t->mux->ops;
	struct sm_fs_entry e;
	struct stat st;
	uint64_t valid;

	assert_int_equal(o->getattr(t->mux, SM_FS_ROOT, false, 0, &st, &valid), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0555);
	assert_true(t->root_a.submount && t->root_b.submount);
	assert_true(t->root_a.nodeid != t->root_b.nodeid && t->root_a.nodeid != SM_FS_ROOT);
	assert_int_equal(o->lookup(t->mux, &root, SM_FS_ROOT, "2", &e), -ENOENT);
	assert_int_equal(o->mkdir(t->mux, &root, SM_FS_ROOT, "x", 0755, &e), -EROFS);
	assert_int_equal(o->unlink(t->mux, &root, SM_FS_ROOT, "0"), -EROFS);
	assert_int_equal(o->rmdir(t->mux, &root, SM_FS_ROOT, "0"), -EROFS);
	assert_int_equal(o->setattr(t->mux, &root, SM_FS_ROOT, false, 0, SM_FS_SET_MODE, &st, &st, &valid), -EROFS);
}

static void test_ids_stay_apart(void **state)
{
	struct three *t = *state;
	const struct sm_fs_ops *o = t->mux->ops;
	uint64_t in_a = make_dir(t, t->root_a.nodeid, "same"), in_b = make_dir(t, t->root_b.nodeid, "same");
	struct sm_fs_entry e;

	assert_true(in_a != in_b);
	assert_int_equal(o->lookup(t->mux, &root, t->root_a.nodeid, "same", &e), 0);
	assert_true(e.nodeid == in_a);
	make_dir(t, in_b, "below");
	assert_int_equal(o->lookup(t->mux, &root, in_a, "below", &e) < 0 ? 0 : (int)e.nodeid, 0);
	assert_int_equal(o->lookup(t->mux, &root, in_b, "below", &e), 0);
	o->forget(t->mux, in_a, 2);
	o->forget(t->mux, t->root_a.nodeid, 1000); /* a root stays */
	assert_int_equal(o->lookup(t->mux, &root, t->root_a.nodeid, "same", &e), 0);
}

static void test_nothing_reaches_across(void **state)
{
	struct three *t = *state;
	const struct sm_fs_ops *o = t->mux->ops;
	struct sm_fs_entry e, file;
	struct sm_fs_open open_a, open_b;
	uint64_t node;

	assert_int_equal(o->create(t->mux, &root, t->root_a.nodeid, "f", 0644, O_RDWR, &file, &open_a), 0);
	assert_int_equal(o->link(t->mux, &root, file.nodeid, t->root_b.nodeid, "l", &e), -EXDEV);
	assert_int_equal(o->rename(t->mux, &root, t->root_a.nodeid, "f", t->root_b.nodeid, "f", 0), -EXDEV);
	assert_int_equal(o->rename(t->mux, &root, t->root_a.nodeid, "f", SM_FS_ROOT, "f", 0), -EXDEV);
	assert_int_equal(o->create(t->mux, &root, t->root_b.nodeid, "g", 0644, O_RDWR, &e, &open_b), 0);
	assert_int_equal(o->copy_file_range(t->mux, file.nodeid, open_a.fh, 0, e.nodeid, open_b.fh, 0, 1), -EXDEV);
	o->release(t->mux, e.nodeid, open_b.fh, false, 0);
	o->release(t->mux, file.nodeid, open_a.fh, false, 0);
	assert_int_equal(o->rename(t->mux, &root, t->root_a.nodeid, "f", t->root_a.nodeid, "h", 0), 0);
	/* Numbers of no child. */
	for (node = 3; node < 256; node = node * 2 + 1) {
		assert_int_equal(o->lookup(t->mux, &root, node << 56 | 1, "f", &e), -ESTALE);
		assert_int_equal(o->unlink(t->mux, &root, node << 56 | 1, "h"), -EROFS);
	}
}

struct seen {
	unsigned count;
	uint64_t nodes[8];
	uint64_t last;
};

static bool see(void *arg, const char *name, uint64_t ino, uint32_t type, uint64_t next, const struct sm_fs_entry *e)
{
	struct seen *s = arg;

	s->nodes[s->count++ % ARRAY_SIZE(s->nodes)] = e ? e->nodeid : 0;
	s->last = next;
	return true;
}

static void test_listings_name_nodes_of_their_child(void **state)
{
	struct three *t = *state;
	const struct sm_fs_ops *o = t->mux->ops;
	uint64_t node = make_dir(t, t->root_b.nodeid, "d");
	struct sm_fs_open od = {0};
	struct seen s = {0}, rest = {0};
	bool found = false;

	assert_int_equal(o->readdir(t->mux, &root, SM_FS_ROOT, 0, 0, true, see, &s), 0);
	assert_int_equal(s.count, 2);
	assert_true(s.nodes[0] == t->root_a.nodeid && s.nodes[1] == t->root_b.nodeid);
	assert_int_equal(o->readdir(t->mux, &root, SM_FS_ROOT, 0, s.last, true, see, &rest), 0);
	assert_int_equal(rest.count, 0);
	s = (struct seen){0};
	assert_int_equal(o->opendir(t->mux, &root, t->root_b.nodeid, &od), 0);
	assert_int_equal(o->readdir(t->mux, &root, t->root_b.nodeid, od.fh, 0, true, see, &s), 0);
	for (unsigned i = 0; i < s.count; i++)
		found |= s.nodes[i] == node;
	assert_true(found);
	o->releasedir(t->mux, t->root_b.nodeid, od.fh);
}

/* A backend whose ids use all 64 bits, and which can do nothing. */
struct huge {
	struct sm_fs_backend be;
	unsigned forgotten;
};

static int huge_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t parent, const char *name,
		       struct sm_fs_entry *ret)
{
	*ret = (struct sm_fs_entry){.nodeid = UINT64_MAX};
	return 0;
}

static void huge_forget(struct sm_fs_backend *be, uint64_t nodeid, uint64_t count)
{
	((struct huge *)be)->forgotten++;
}

static int huge_getattr(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
			uint64_t *valid)
{
	*ret = (struct stat){.st_mode = S_IFREG | 0644};
	return 0;
}

static int huge_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t nodeid, uint64_t fh,
			uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	return 0;
}

static ssize_t huge_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			 uint64_t offset)
{
	return 0;
}

static void test_a_child_that_cannot_be_numbered(void **state)
{
	static const struct sm_fs_ops ops = {.size = sizeof(ops),
					     .lookup = huge_lookup,
					     .forget = huge_forget,
					     .getattr = huge_getattr,
					     .readdir = huge_readdir,
					     .read = huge_read};
	struct huge h = {.be.ops = &ops};
	struct fuse_mux_child child = {&h.be, "only"};
	struct sm_fs_backend *mux;
	struct sm_fs_entry e;

	assert_int_equal(fuse_mux_new(&child, FUSE_MUX_MAX + 1, &mux), -EINVAL);
	assert_int_equal(fuse_mux_new(&child, 1, &mux), 0);
	assert_int_equal(mux->ops->lookup(mux, &root, SM_FS_ROOT, "only", &e), 0);
	assert_false(e.submount); /* a file */
	assert_int_equal(mux->ops->lookup(mux, &root, e.nodeid, "x", &e), -EOVERFLOW);
	assert_int_equal(h.forgotten, 1);
	assert_null(mux->ops->flush); /* the session is to say that it need not be asked */
	assert_null(mux->ops->setlk);
	assert_null(mux->ops->getxattr);
	assert_int_equal(mux->ops->write(mux, &root, 1ULL << 56 | 1, 0, NULL, 0, 0, false), -EROFS);
	fuse_mux_free(mux);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_root_is_made_up_and_cannot_be_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ids_stay_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_reaches_across, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listings_name_nodes_of_their_child, setup, teardown),
		cmocka_unit_test(test_a_child_that_cannot_be_numbered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
