/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what moves a peer's files from one posix backend and session to others: found again, or refused. */
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
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "fuse/posix_save.h"
#include "fuse/session_save.h"
#include "fuse/watch.h"

/* A peer: its backend and its session. */
struct side {
	struct sm_fs_backend *be;
	struct fuse_session *s;
	uint64_t unique;
	uint8_t payload[8192];
};

struct fixture {
	char dir[32];
	int fd;
	struct side old, new;
	struct buf saved;
};

static int begin(struct side *s, const char *dir)
{
	struct fuse_posix_options o = {.ids = FUSE_POSIX_NONE, .valid_ns = 1000000000};
	struct fuse_session_options so = {.watch = true};
	struct sm_error err = {0};

	return fuse_posix_new(dir, &o, &s->be, &err) < 0 || fuse_session_new(s->be, &so, &s->s) < 0;
}

static void end(struct side *s)
{
	fuse_session_free(s->s);
	fuse_posix_free(s->be);
	*s = (struct side){0};
}

static int call(struct side *s, uint32_t opcode, uint64_t node, const void *arg, size_t size, const char *name)
{
	size_t len = name ? strlen(name) + 1 : 0;
	struct fuse_in_header h = {.len = (uint32_t)(sizeof(h) + size + len),
				   .opcode = opcode,
				   .nodeid = node,
				   .unique = ++s->unique,
				   .uid = getuid(),
				   .gid = getgid()};
	struct fuse_out_header reply;
	struct iovec in[3] = {{&h, sizeof(h)}, {(void *)(uintptr_t)arg, size}, {(void *)(uintptr_t)name, len}};
	struct iovec out[2] = {{&reply, sizeof(reply)}, {s->payload, sizeof(s->payload)}};

	assert_true(fuse_session_serve(s->s, in, 3, out, 2) > 0);
	return reply.error;
}

static uint64_t look(struct side *s, uint64_t dir, const char *name)
{
	const struct fuse_entry_out *e = (const void *)s->payload;

	return call(s, FUSE_LOOKUP, dir, NULL, 0, name) == 0 ? e->nodeid : 0;
}

static uint64_t open_file(struct side *s, uint64_t node, uint32_t flags)
{
	struct fuse_open_in in = {.flags = flags};

	assert_int_equal(call(s, FUSE_OPEN, node, &in, sizeof(in), NULL), 0);
	return ((const struct fuse_open_out *)(const void *)s->payload)->fh;
}

static int read_file(struct side *s, uint64_t node, uint64_t fh)
{
	struct fuse_read_in in = {.fh = fh, .size = 100};

	memset(s->payload, 0, 100);
	return call(s, FUSE_READ, node, &in, sizeof(in), NULL);
}

static int attributes(struct side *s, uint64_t node)
{
	struct fuse_getattr_in in = {0};

	return call(s, FUSE_GETATTR, node, &in, sizeof(in), NULL);
}

static void put(struct fixture *f, const char *name, const char *text)
{
	assert_int_equal(write_file_atomic_at(f->fd, name, text, strlen(text), 0644), 0);
}

static int pread_text(int dir, const char *name, char *ret, size_t size)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, ret, size - 1);

	close(fd);
	ret[n > 0 ? n : 0] = '\0';
	return n < 0 ? -1 : 0;
}

static uint32_t flags_of(void *arg, uint64_t node, uint64_t fh)
{
	return fuse_posix_open_flags(fh);
}

static int open_again(void *arg, uint64_t node, bool is_dir, uint32_t flags, uint64_t *ret_fh)
{
	return fuse_posix_reopen(((struct side *)arg)->be, node, is_dir, flags, ret_fh);
}

static void save(struct fixture *f)
{
	struct fuse_session_files files = {.flags = flags_of};

	fuse_posix_save(f->old.be, &f->saved);
	assert_int_equal(fuse_session_save(f->old.s, &files, &f->saved), 0);
}

static int load(struct side *s, const void *bytes, size_t len)
{
	struct fuse_session_files files = {.open = open_again, .arg = s};
	struct cursor in = cursor_of(bytes, len);
	int r = fuse_posix_load(s->be, &in);

	if (r == 0)
		r = fuse_session_load(s->s, &in);
	if (r == 0 && in.left)
		r = -EPROTO;
	if (r == 0)
		fuse_session_reopen(s->s, &files);
	return r;
}

static void move_on(struct fixture *f)
{
	save(f);
	end(&f->old);
	assert_int_equal(begin(&f->new, f->dir), 0);
	assert_int_equal(load(&f->new, f->saved.data, f->saved.len), 0);
}

static int setup(void **state)
{
	struct fuse_init_in in = {.major = 7, .minor = 38, .flags = FUSE_DO_READDIRPLUS};
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->dir, "/var/tmp/sm-save-XXXXXX");
	if (!mkdtemp(f->dir) || begin(&f->old, f->dir))
		return 1;
	f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mkdirat(f->fd, "d", 0755);
	put(f, "a", "first");
	put(f, "d/b", "second");
	return f->fd < 0 || call(&f->old, FUSE_INIT, 0, &in, sizeof(in), NULL);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	end(&f->old);
	end(&f->new);
	buf_done(&f->saved);
	remove_tree_at(AT_FDCWD, f->dir);
	close(f->fd);
	free(f);
	return 0;
}

static void test_nodes_and_open_files_go_on(void **state)
{
	struct fuse_write_in w = {.size = 4};
	struct fixture *f = *state;
	uint64_t a = look(&f->old, 1, "a"), d = look(&f->old, 1, "d"), b = look(&f->old, d, "b"), fh, dir;
	struct fuse_open_in in = {0};
	char text[16] = "";

	fh = open_file(&f->old, b, O_RDWR | O_TRUNC);
	w.fh = fh;
	assert_int_equal(call(&f->old, FUSE_WRITE, b, &w, sizeof(w), "one"), 0);
	assert_int_equal(call(&f->old, FUSE_OPENDIR, d, &in, sizeof(in), NULL), 0);
	dir = ((const struct fuse_open_out *)(const void *)f->old.payload)->fh;
	move_on(f);
	assert_int_equal(attributes(&f->new, a), 0);
	assert_int_equal(read_file(&f->new, b, fh), 0); /* it was not cut short again */
	assert_string_equal((char *)f->new.payload, "one");
	assert_int_equal(call(&f->new, FUSE_WRITE, b, &w, sizeof(w), "two"), 0);
	assert_int_equal(pread_text(f->fd, "d/b", text, sizeof(text)), 0);
	assert_string_equal(text, "two");
	assert_int_equal(look(&f->new, 1, "a"), a);
	assert_int_equal(look(&f->new, d, "b"), b);
	assert_int_equal(call(&f->new, FUSE_RELEASE, b, &(struct fuse_release_in){.fh = fh},
			      sizeof(struct fuse_release_in), NULL),
			 0);
	assert_int_equal(read_file(&f->new, b, fh), -EBADF);
	assert_int_equal(call(&f->new, FUSE_RELEASEDIR, d, &(struct fuse_release_in){.fh = dir},
			      sizeof(struct fuse_release_in), NULL),
			 0);
	/* New numbers are none that the peer has. */
	put(f, "c", "third");
	assert_true(look(&f->new, 1, "c") > b);
}

static void test_another_file_under_the_name_is_never_used(void **state)
{
	struct fixture *f = *state;
	uint64_t a = look(&f->old, 1, "a"), d = look(&f->old, 1, "d"), b = look(&f->old, d, "b");
	uint64_t fa = open_file(&f->old, a, O_RDWR), fb = open_file(&f->old, b, O_RDONLY), again;

	unlinkat(f->fd, "a", 0);
	put(f, "a", "another");
	unlinkat(f->fd, "d/b", 0);
	move_on(f);
	assert_int_equal(read_file(&f->new, a, fa), -EBADF);
	assert_int_equal(read_file(&f->new, b, fb), -EBADF);
	assert_int_equal(attributes(&f->new, a), -ESTALE);
	assert_int_equal(attributes(&f->new, b), -ESTALE);
	assert_int_equal(attributes(&f->new, d), 0);
	again = look(&f->new, 1, "a");
	assert_true(again && again != a);
	assert_int_equal(read_file(&f->new, again, open_file(&f->new, again, O_RDONLY)), 0);
	assert_string_equal((char *)f->new.payload, "another");
}

static void test_another_directory_has_none_of_it(void **state)
{
	struct fixture *f = *state;
	uint64_t a = look(&f->old, 1, "a"), fa = open_file(&f->old, a, O_RDONLY);

	save(f);
	mkdirat(f->fd, "other", 0755);
	put(f, "other/a", "other");
	strcat(f->dir, "/other");
	assert_int_equal(begin(&f->new, f->dir), 0);
	*strrchr(f->dir, '/') = '\0';
	assert_int_equal(load(&f->new, f->saved.data, f->saved.len), 0);
	assert_int_equal(read_file(&f->new, a, fa), -EBADF);
	assert_int_equal(attributes(&f->new, a), -ESTALE);
	assert_int_equal(attributes(&f->new, 1), 0);
	assert_true(look(&f->new, 1, "a") != a);
}

/* Where the peer believes a name for long, it is told. */
static void count(void *arg, const struct watch_stale *stale)
{
	++*(unsigned *)arg;
}

static void test_what_changed_meanwhile_is_told(void **state)
{
	struct fixture *f = *state;
	uint64_t d = look(&f->old, 1, "d");
	unsigned told = 0;

	look(&f->old, 1, "a");
	look(&f->old, d, "b");
	assert_true(look(&f->old, d, "absent") == 0);
	if (!fuse_session_watch(f->old.s))
		skip();
	save(f);
	end(&f->old);
	assert_int_equal(begin(&f->new, f->dir), 0);
	assert_int_equal(load(&f->new, f->saved.data, f->saved.len), 0);
	watch_compare(fuse_session_watch(f->new.s), count, &told);
	assert_int_equal(told, 0);
	end(&f->new);
	unlinkat(f->fd, "d/b", 0);
	put(f, "d/absent", "here");
	assert_int_equal(begin(&f->new, f->dir), 0);
	assert_int_equal(load(&f->new, f->saved.data, f->saved.len), 0);
	watch_compare(fuse_session_watch(f->new.s), count, &told);
	assert_true(told >= 2); /* both names; the directory's times */
}

/* What it has listed it keeps without asking: of the directory's times nothing is known here, so it is told. */
static void test_a_listing_is_told_of(void **state)
{
	struct fuse_init_in init = {.major = 7, .minor = 38, .flags = FUSE_NO_OPENDIR_SUPPORT};
	struct fuse_read_in in = {.size = 4096};
	struct fixture *f = *state;
	unsigned told = 0;
	uint64_t d;

	if (!fuse_session_watch(f->old.s))
		skip();
	assert_int_equal(call(&f->old, FUSE_DESTROY, 0, NULL, 0, NULL), 0);
	assert_int_equal(call(&f->old, FUSE_INIT, 0, &init, sizeof(init), NULL), 0);
	d = look(&f->old, 1, "d");
	assert_int_equal(call(&f->old, FUSE_READDIR, d, &in, sizeof(in), NULL), 0);
	move_on(f);
	watch_compare(fuse_session_watch(f->new.s), count, &told);
	assert_int_equal(told, 1);
	/* It still opens none, though it was never asked by this session. */
	assert_int_equal(call(&f->new, FUSE_READDIR, d, &in, sizeof(in), NULL), 0);
}

/* Cut short anywhere, or with any byte another: refused or harmless, never out of bounds. */
static void test_damaged_state(void **state)
{
	struct fixture *f = *state;
	uint64_t d = look(&f->old, 1, "d"), b = look(&f->old, d, "b");

	open_file(&f->old, b, O_RDONLY);
	save(f);
	for (size_t len = 0; len < f->saved.len; len++) {
		assert_int_equal(begin(&f->new, f->dir), 0);
		assert_true(load(&f->new, f->saved.data, len) < 0);
		end(&f->new);
	}
	for (size_t at = 0; at < f->saved.len; at++) {
		f->saved.data[at] ^= 0x81;
		assert_int_equal(begin(&f->new, f->dir), 0);
		if (load(&f->new, f->saved.data, f->saved.len) == 0)
			attributes(&f->new, b);
		end(&f->new);
		f->saved.data[at] ^= 0x81;
	}
}

/* A name that would lead out of the root is none. */
static void test_names_stay_beneath_the_root(void **state)
{
	struct fixture *f = *state;
	uint8_t *at;

	assert_true(look(&f->old, 1, "d") != 0);
	put(f, "xy", "");
	assert_true(look(&f->old, 1, "xy") != 0);
	save(f);
	at = memmem(f->saved.data, f->saved.len, "xy", 2);
	assert_non_null(at);
	memcpy(at, "..", 2);
	assert_int_equal(begin(&f->new, f->dir), 0);
	assert_int_equal(load(&f->new, f->saved.data, f->saved.len), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nodes_and_open_files_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_file_under_the_name_is_never_used, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_directory_has_none_of_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_changed_meanwhile_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_listing_is_told_of, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_state, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_stay_beneath_the_root, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
