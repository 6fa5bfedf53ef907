/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the session with requests as bytes: negotiation, replies, and what a hostile peer may send. */
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
#include <sys/inotify.h>

#include "fuse/memory.h"
#include "fuse/newer.h"
#include "fuse/readings.h"
#include "fuse/session.h"

struct peer {
	struct sm_fs_backend *be;
	struct fuse_session *s;
	uint64_t unique;
	struct fuse_out_header header;
	uint8_t payload[1 << 16];
};

/* Sends one request made of up to three parts; returns the reply's error, with the payload in p->payload. */
static int call_parts(struct peer *p, uint32_t opcode, uint64_t node, const void *a, size_t na, const void *b,
		      size_t nb, const void *c, size_t nc)
{
	struct fuse_in_header h = {
		.len = (uint32_t)(sizeof(h) + na + nb + nc), .opcode = opcode, .nodeid = node, .unique = ++p->unique};
	struct iovec in[4] = {
		{&h, sizeof(h)}, {(void *)(uintptr_t)a, na}, {(void *)(uintptr_t)b, nb}, {(void *)(uintptr_t)c, nc}};
	struct iovec out[2] = {{&p->header, sizeof(p->header)}, {p->payload, sizeof(p->payload)}};
	ssize_t n = fuse_session_serve(p->s, in, 4, out, 2);

	if (n <= 0)
		return n < 0 ? (int)n : 1; /* 1: no reply */
	assert_int_equal(p->header.len, n);
	assert_true(p->header.unique == p->unique);
	return p->header.error;
}

static int call(struct peer *p, uint32_t opcode, uint64_t node, const void *arg, size_t size, const char *name)
{
	return call_parts(p, opcode, node, arg, size, name, name ? strlen(name) + 1 : 0, NULL, 0);
}

static int init(struct peer *p, uint32_t major, uint32_t minor, uint32_t flags, uint32_t flags2)
{
	struct fuse_init_in in = {
		.major = major, .minor = minor, .flags = flags, .flags2 = flags2, .max_readahead = 4096};

	return call(p, FUSE_INIT, 0, &in, sizeof(in), NULL);
}

static int setup_bare(void **state)
{
	struct peer *p = calloc(1, sizeof(*p));

	*state = p;
	return !p || fuse_memory_new(NULL, &p->be) || fuse_session_new(p->be, NULL, &p->s);
}

static int setup(void **state)
{
	return setup_bare(state) || init(*state, 7, 38, FUSE_DO_READDIRPLUS | FUSE_INIT_EXT | FUSE_SETXATTR_EXT, 0);
}

static int teardown(void **state)
{
	struct peer *p = *state;

	fuse_session_free(p->s);
	fuse_memory_free(p->be);
	free(p);
	return 0;
}

static uint64_t create(struct peer *p, const char *name, uint64_t *ret_fh)
{
	struct fuse_create_in in = {.flags = O_RDWR, .mode = 0644};
	struct fuse_entry_out *e = (void *)p->payload;

	assert_int_equal(call(p, FUSE_CREATE, 1, &in, sizeof(in), name), 0);
	*ret_fh = ((struct fuse_open_out *)(e + 1))->fh;
	return e->nodeid;
}

static void test_init_never_agrees_to_what_was_not_offered(void **state)
{
	struct peer *p = *state;
	struct fuse_init_out *out = (void *)p->payload;

	assert_int_equal(call(p, FUSE_GETATTR, 1, p->payload, 16, NULL), -EIO); /* before INIT */
	assert_int_equal(init(p, 7, 30, 0, 0), -EINVAL);			/* too old */
	assert_int_equal(init(p, 8, 1, ~0u, ~0u), 0);				/* asks again */
	assert_int_equal(out->major, 7);
	assert_int_equal(call(p, FUSE_GETATTR, 1, p->payload, 16, NULL), -EIO);
	assert_int_equal(init(p, 7, 31, FUSE_ASYNC_READ, ~0u), 0);
	assert_int_equal(out->flags, FUSE_ASYNC_READ); /* flags2 does not count without INIT_EXT */
	assert_int_equal(out->flags2, 0);
	assert_int_equal(init(p, 7, 38, ~0u, ~0u), -EIO); /* a second one */
	assert_int_equal(call(p, FUSE_DESTROY, 0, NULL, 0, NULL), 0);
	assert_true(fuse_session_ended(p->s));
	assert_int_equal(init(p, 7, 38, ~0u, ~0u), 0); /* a new mount over the same door */
	assert_true(out->flags & FUSE_DO_READDIRPLUS);
	assert_false(out->flags & FUSE_WRITEBACK_CACHE);
	/* What is not acted upon is not agreed to: labels at creation, the caller's other groups, ACLs. */
	assert_false((uint64_t)out->flags2 << 32 & (FUSE_SECURITY_CTX | NEWER_CREATE_SUPP_GROUP));
	assert_false(out->flags & FUSE_POSIX_ACL);
}

/* Behind the arguments a peer may send extensions (total_extlen), though nothing that would need them was agreed to. */
static void test_extensions_are_passed_over(void **state)
{
	struct fuse_create_in in = {.flags = O_RDWR, .mode = 0644};
	struct fuse_entry_out *e = (void *)((struct peer *)*state)->payload;
	static const char name_and_more[] = "file\0\0\0\0\x18\0\0\0\x20\0\0\0\1\0\0\0\5\0\0\0\0\0\0\0";
	struct peer *p = *state;

	assert_int_equal(call_parts(p, FUSE_CREATE, 1, &in, sizeof(in), name_and_more, sizeof(name_and_more), NULL, 0),
			 0);
	assert_true(e->nodeid > 1);
	assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, "file"), 0);
	assert_true(e->nodeid > 1);
}

static void test_names_that_leave_the_directory_are_refused(void **state)
{
	static const char *const names[] = {"", ".", "..", "a/b", "/", "../x"};
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_rename_in rn = {.newdir = 1};
	struct peer *p = *state;
	char longest[258];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, names[i]), -EINVAL);
		assert_int_equal(call(p, FUSE_MKDIR, 1, &mk, sizeof(mk), names[i]), -EINVAL);
		assert_int_equal(call(p, FUSE_UNLINK, 1, NULL, 0, names[i]), -EINVAL);
		assert_int_equal(call_parts(p, FUSE_RENAME, 1, &rn, sizeof(rn), "x", 2, names[i], strlen(names[i]) + 1),
				 -EINVAL);
	}
	memset(longest, 'a', 257);
	longest[257] = 0;
	assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, longest + 1), -ENAMETOOLONG); /* 256 bytes */
	assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, longest + 2), 0);		/* 255: absent, and cached so */
	assert_int_equal(call(p, FUSE_LOOKUP, 1, "abc", 3, NULL), -EINVAL);		/* no NUL */
	assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, NULL), -EINVAL);		/* nothing at all */
}

static void test_wrong_handles_are_ebadf_and_the_right_one_still_works(void **state)
{
	struct peer *p = *state;
	uint64_t fh, fh2, node = create(p, "a", &fh), other = create(p, "b", &fh2);
	struct fuse_write_in w = {.fh = fh, .size = 5};
	struct fuse_read_in r = {.fh = fh, .size = 4096};
	struct fuse_release_in rel = {.fh = fh};

	assert_int_equal(call_parts(p, FUSE_WRITE, node, &w, sizeof(w), "hello", 5, NULL, 0), 0);
	r.fh = fh ^ (1ULL << 32); /* another generation */
	assert_int_equal(call(p, FUSE_READ, node, &r, sizeof(r), NULL), -EBADF);
	r.fh = UINT64_MAX;
	assert_int_equal(call(p, FUSE_READ, node, &r, sizeof(r), NULL), -EBADF);
	r.fh = fh; /* a right handle for another node */
	assert_int_equal(call(p, FUSE_READ, other, &r, sizeof(r), NULL), -EBADF);
	assert_int_equal(call(p, FUSE_READDIR, node, &r, sizeof(r), NULL), -EBADF);
	assert_int_equal(call(p, FUSE_READ, node, &r, sizeof(r), NULL), 0);
	assert_memory_equal(p->payload, "hello", 5);
	assert_int_equal(p->header.len, sizeof(p->header) + 5);
	r.offset = 100; /* past the end */
	assert_int_equal(call(p, FUSE_READ, node, &r, sizeof(r), NULL), 0);
	assert_int_equal(p->header.len, sizeof(p->header));
	assert_int_equal(call(p, FUSE_RELEASE, node, &rel, sizeof(rel), NULL), 0);
	assert_int_equal(call(p, FUSE_RELEASE, node, &rel, sizeof(rel), NULL), -EBADF);
}

static void test_sizes_that_lie_are_refused(void **state)
{
	struct peer *p = *state;
	uint64_t fh, node = create(p, "f", &fh);
	struct fuse_write_in w = {.fh = fh, .size = 6};
	struct fuse_read_in r = {.fh = fh, .size = 1u << 31};
	struct fuse_in_header h = {.len = 30, .opcode = FUSE_STATFS};
	struct fuse_setxattr_in x = {.size = 10};
	struct iovec in = {&h, sizeof(h)}, out = {p->payload, 8};

	assert_int_equal(call_parts(p, FUSE_WRITE, node, &w, sizeof(w), "hello", 5, NULL, 0), -EINVAL);
	w = (struct fuse_write_in){.fh = fh, .size = 5, .offset = UINT64_MAX - 2};
	assert_int_equal(call_parts(p, FUSE_WRITE, node, &w, sizeof(w), "hello", 5, NULL, 0), -EINVAL);
	assert_int_equal(call(p, FUSE_READ, node, &r, sizeof(r), NULL), -EINVAL);
	r = (struct fuse_read_in){.fh = fh, .size = 10, .offset = INT64_MAX};
	assert_int_equal(call(p, FUSE_READ, node, &r, sizeof(r), NULL), -EINVAL);
	assert_int_equal(call_parts(p, FUSE_SETXATTR, node, &x, sizeof(x), "user.a", 7, "short", 5), -EINVAL);
	assert_int_equal(fuse_session_serve(p->s, &in, 1, &out, 1), -EPROTO); /* its length is less than a header */
	h.len = 4000;
	assert_int_equal(fuse_session_serve(p->s, &in, 1, &out, 1), -EPROTO); /* more than was sent */
	h.len = sizeof(h);
	assert_int_equal(fuse_session_serve(p->s, &in, 1, &out, 1), -EPROTO); /* no room for a reply */
	in.iov_len = 12;
	assert_int_equal(fuse_session_serve(p->s, &in, 1, &out, 1), -EPROTO);
	assert_int_equal(call(p, 4711, 1, NULL, 0, NULL), -ENOSYS);
	assert_int_equal(call(p, FUSE_GETATTR, 999, p->payload + 1000, sizeof(struct fuse_getattr_in), NULL), -ESTALE);
}

static void test_a_reply_without_room_takes_no_reference(void **state)
{
	struct peer *p = *state;
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_in_header h = {.len = sizeof(h) + sizeof(mk) + 2, .opcode = FUSE_MKDIR, .nodeid = 1, .unique = 5};
	struct iovec in[3] = {{&h, sizeof(h)}, {&mk, sizeof(mk)}, {(void *)(uintptr_t) "d", 2}}, out = {p->payload, 16};
	struct fuse_entry_out *e = (void *)p->payload;
	uint64_t node;

	assert_int_equal(fuse_session_serve(p->s, in, 3, &out, 1), 16);
	assert_int_equal(((struct fuse_out_header *)p->payload)->error, -EIO);
	/* It was made all the same; after one lookup, rmdir and one forget its node is gone. */
	assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, "d"), 0);
	node = e->nodeid;
	assert_int_equal(call(p, FUSE_RMDIR, 1, NULL, 0, "d"), 0);
	assert_int_equal(call(p, FUSE_FORGET, node, &(struct fuse_forget_in){.nlookup = 1}, 8, NULL), 1);
	assert_int_equal(call(p, FUSE_GETATTR, node, p->payload + 1000, sizeof(struct fuse_getattr_in), NULL), -ESTALE);
}

static void test_forgetting_more_than_was_looked_up_is_harmless(void **state)
{
	struct peer *p = *state;
	uint64_t fh, node = create(p, "f", &fh);
	struct fuse_forget_in all = {.nlookup = UINT64_MAX};
	struct fuse_release_in rel = {.fh = fh};

	assert_int_equal(call(p, FUSE_FORGET, node, &all, sizeof(all), NULL), 1);
	assert_int_equal(call(p, FUSE_FORGET, 1, &all, sizeof(all), NULL), 1);
	assert_int_equal(call(p, FUSE_FORGET, 12345, &all, sizeof(all), NULL), 1);
	assert_int_equal(call(p, FUSE_LOOKUP, 1, NULL, 0, "f"), 0);
	assert_int_equal(call(p, FUSE_RELEASE, node, &rel, sizeof(rel), NULL), 0);
}

/* A kernel whose cache is dropped sends as many in one request as the reader has room for. */
static void test_sixty_thousand_forgets_at_once_are_heard(void **state)
{
	const uint32_t count = 60000;
	struct peer *p = *state;
	uint64_t fh, node = create(p, "f", &fh);
	struct fuse_forget_one *all = calloc(count, sizeof(*all));
	struct fuse_batch_forget_in in = {.count = count};
	struct fuse_release_in rel = {.fh = fh};

	assert_non_null(all);
	all[count - 1] = (struct fuse_forget_one){.nodeid = node, .nlookup = 1};
	assert_int_equal(call(p, FUSE_RELEASE, node, &rel, sizeof(rel), NULL), 0);
	assert_int_equal(call(p, FUSE_UNLINK, 1, NULL, 0, "f"), 0);
	assert_int_equal(call_parts(p, FUSE_BATCH_FORGET, 0, &in, sizeof(in), all, count * sizeof(*all), NULL, 0), 1);
	assert_int_equal(call(p, FUSE_GETATTR, node, p->payload + 1000, sizeof(struct fuse_getattr_in), NULL), -ESTALE);
	free(all);
}

static void test_readdirplus_lists_in_steps_and_counts_references(void **state)
{
	struct peer *p = *state;
	struct fuse_open_out o;
	struct fuse_read_in r = {.size = 700};
	struct fuse_open_in in = {0};
	unsigned seen = 0;
	char name[32];

	for (int i = 0; i < 50; i++) {
		struct fuse_mkdir_in mk = {.mode = 0700};

		snprintf(name, sizeof(name), "dir-%d", i);
		assert_int_equal(call(p, FUSE_MKDIR, 1, &mk, sizeof(mk), name), 0);
	}
	assert_int_equal(call(p, FUSE_OPENDIR, 1, &in, sizeof(in), NULL), 0);
	memcpy(&o, p->payload, sizeof(o));
	r.fh = o.fh;
	for (int steps = 0; steps < 200; steps++) {
		size_t len, at = 0;

		assert_int_equal(call(p, FUSE_READDIRPLUS, 1, &r, sizeof(r), NULL), 0);
		len = p->header.len - sizeof(p->header);
		assert_true(len <= 700);
		if (!len)
			break;
		while (at < len) {
			struct fuse_direntplus *d = (void *)(p->payload + at);

			seen += d->dirent.name[0] != '.';
			assert_true((d->entry_out.nodeid != 0) == (d->dirent.name[0] != '.'));
			r.offset = d->dirent.off;
			at += FUSE_DIRENTPLUS_SIZE(d);
		}
		assert_int_equal(at, len);
	}
	assert_int_equal(seen, 50);
}

/* ------------------------------------------------------------- directories that are not opened */

static unsigned num_open; /* directories of the backend */
static struct sm_fs_ops real;

static int counted_opendir(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t node,
			   struct sm_fs_open *ret)
{
	int r = real.opendir(be, who, node, ret);

	num_open += r == 0;
	return r;
}

static void counted_releasedir(struct sm_fs_backend *be, uint64_t node, uint64_t fh)
{
	num_open--;
	real.releasedir(be, node, fh);
}

/* A peer whose kernel may leave out OPENDIR, of a tree that nobody else changes (or of which `options` say otherwise).
 */
static void begin_unopened(struct peer *p, const struct fuse_session_options *options)
{
	static struct sm_fs_ops ops;

	ops = *p->be->ops;
	if (ops.opendir != counted_opendir)
		real = ops;
	ops.opendir = counted_opendir;
	ops.releasedir = counted_releasedir;
	p->be->ops = &ops;
	fuse_session_free(p->s);
	assert_int_equal(fuse_session_new(p->be, options, &p->s), 0);
	assert_int_equal(init(p, 7, 38, FUSE_DO_READDIRPLUS | FUSE_NO_OPENDIR_SUPPORT, 0), 0);
}

static const struct fuse_session_options sole = {.sole = true};

/* One answer of a listing: its last offset (the same again: it was the end), and how many names it had. */
static uint64_t list_some(struct peer *p, uint64_t node, uint64_t offset, uint32_t size, unsigned *ret_names)
{
	struct fuse_read_in r = {.size = size, .offset = offset, .fh = 12345};
	size_t len, at = 0;

	*ret_names = 0;
	assert_int_equal(call(p, FUSE_READDIR, node, &r, sizeof(r), NULL), 0);
	len = p->header.len - sizeof(p->header);
	while (len - at >= FUSE_NAME_OFFSET) {
		struct fuse_dirent *d = (void *)(p->payload + at);

		*ret_names += d->name[0] != '.';
		offset = d->off;
		at += FUSE_DIRENT_SIZE(d);
	}
	return offset;
}

static uint64_t make_directory(struct peer *p, uint64_t in, const char *name, unsigned files)
{
	struct fuse_mkdir_in mk = {.mode = 0755};
	uint64_t fh, node;
	char file[32];

	assert_int_equal(call(p, FUSE_MKDIR, in, &mk, sizeof(mk), name), 0);
	node = ((struct fuse_entry_out *)(void *)p->payload)->nodeid;
	for (unsigned i = 0; i < files; i++) {
		struct fuse_create_in c = {.flags = O_RDWR, .mode = 0644};
		struct fuse_release_in rel;

		snprintf(file, sizeof(file), "file-%u", i);
		assert_int_equal(call(p, FUSE_CREATE, node, &c, sizeof(c), file), 0);
		fh = ((struct fuse_open_out *)(void *)(p->payload + sizeof(struct fuse_entry_out)))->fh;
		rel = (struct fuse_release_in){.fh = fh};
		assert_int_equal(call(p, FUSE_RELEASE, ((struct fuse_entry_out *)(void *)p->payload)->nodeid, &rel,
				      sizeof(rel), NULL),
				 0);
	}
	return node;
}

static void test_directories_are_listed_without_being_opened(void **state)
{
	struct fuse_open_in in = {0};
	struct fuse_fsync_in sync = {0};
	struct peer *p = *state;
	uint64_t node, at[2] = {0, 0};
	unsigned names, total[2] = {0, 0};

	begin_unopened(p, &sole);
	assert_int_equal(call(p, FUSE_OPENDIR, 1, &in, sizeof(in), NULL), -ENOSYS);
	node = make_directory(p, 1, "d", 50);
	/* Two that read it at once, in steps of their own. */
	for (int step = 0; step < 200; step++) {
		int who = step % 3 == 0;
		uint64_t next = list_some(p, node, at[who], who ? 300 : 200, &names);

		total[who] += names;
		if (next != at[who])
			assert_in_range(num_open, 1, 2);
		at[who] = next;
	}
	assert_int_equal(total[0], 50);
	assert_int_equal(total[1], 50);
	assert_int_equal(num_open, 0);
	/* Its end is an empty answer: it may be kept. */
	assert_int_equal(p->header.len, sizeof(p->header));
	assert_int_equal(call(p, FUSE_FSYNCDIR, node, &sync, sizeof(sync), NULL), 0);
	assert_int_equal(call(p, FUSE_READDIR, node + 1000, &(struct fuse_read_in){.size = 4096},
			      sizeof(struct fuse_read_in), NULL),
			 -ESTALE);
	assert_int_equal(num_open, 0);
}

/* Begun and never read to the end: as many as are kept, and the first of them still goes on where it was. */
static void test_unfinished_listings_are_bounded(void **state)
{
	struct peer *p = *state;
	uint64_t node, first, at;
	unsigned names, total;

	begin_unopened(p, &sole);
	first = make_directory(p, 1, "first", 20);
	at = list_some(p, first, 0, 300, &names);
	total = names;
	for (unsigned i = 0; i < 3 * FUSE_READINGS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d-%u", i);
		node = make_directory(p, 1, name, 4);
		list_some(p, node, 0, 100, &names);
		assert_int_equal(names, 1);
		assert_in_range(num_open, 1, FUSE_READINGS);
	}
	assert_int_equal(num_open, FUSE_READINGS);
	for (uint64_t next; (next = list_some(p, first, at, 300, &names)) != at; at = next)
		total += names;
	assert_int_equal(total, 20);
	assert_int_equal(num_open, FUSE_READINGS - 1);
	/* What the peer forgets is closed, and the rest when it goes away. */
	assert_int_equal(
		call(p, FUSE_FORGET, node, &(struct fuse_forget_in){.nlookup = 1}, sizeof(struct fuse_forget_in), NULL),
		1);
	assert_int_equal(num_open, FUSE_READINGS - 2);
	assert_int_equal(call(p, FUSE_DESTROY, 0, NULL, 0, NULL), 0);
	assert_int_equal(num_open, 0);
}

static int watch_nothing(struct sm_fs_backend *be, uint64_t node, int inotify_fd, uint32_t mask)
{
	return -EOPNOTSUPP;
}

static int watch_all(struct sm_fs_backend *be, uint64_t node, int inotify_fd, uint32_t mask)
{
	return inotify_add_watch(inotify_fd, "/", mask);
}

/* Of what cannot be watched no listing may be kept: it ends in an answer that is no entry, and not empty. */
static void test_a_listing_that_may_not_be_kept_has_another_end(void **state)
{
	const struct fuse_session_options watched = {.watch = true};
	static struct sm_fs_ops ops;
	struct peer *p = *state;
	unsigned names;
	uint64_t at;

	for (int round = 0; round < 2; round++) {
		ops = *p->be->ops;
		ops.watch = round ? watch_all : watch_nothing;
		p->be->ops = &ops;
		begin_unopened(p, &watched);
		make_directory(p, 1, round ? "again" : "d", 3);
		at = list_some(p, 1, 0, 4096, &names);
		assert_int_equal(names, round + 1);
		assert_int_equal(list_some(p, 1, at, 4096, &names), at);
		assert_int_equal(p->header.len - sizeof(p->header), round ? 0 : 8);
		assert_int_equal(num_open, 0);
	}
}

/* A session that cannot tell its peer of changes has it open directories, and so have peers that know no better. */
static void test_a_session_without_a_watch_has_directories_opened(void **state)
{
	struct fuse_open_in in = {0};
	struct peer *p = *state;

	begin_unopened(p, NULL);
	assert_int_equal(call(p, FUSE_OPENDIR, 1, &in, sizeof(in), NULL), 0);
	fuse_session_free(p->s);
	assert_int_equal(fuse_session_new(p->be, &sole, &p->s), 0);
	assert_int_equal(init(p, 7, 38, FUSE_DO_READDIRPLUS, 0), 0);
	assert_int_equal(call(p, FUSE_OPENDIR, 1, &in, sizeof(in), NULL), 0);
}

static void test_a_read_only_session_changes_nothing(void **state)
{
	struct peer *p = *state, ro = {.be = p->be};
	struct fuse_open_in open_rw = {.flags = O_RDWR}, open_ro = {.flags = O_RDONLY};
	struct fuse_mkdir_in mk = {.mode = 0755};
	struct fuse_setattr_in sa = {.valid = FATTR_MODE, .mode = 0777};
	uint64_t fh, node = create(p, "f", &fh);

	assert_int_equal(fuse_session_new(p->be, &(struct fuse_session_options){.read_only = true}, &ro.s), 0);
	assert_int_equal(init(&ro, 7, 38, ~0u, ~0u), 0);
	assert_int_equal(call(&ro, FUSE_MKDIR, 1, &mk, sizeof(mk), "d"), -EROFS);
	assert_int_equal(call(&ro, FUSE_SETATTR, node, &sa, sizeof(sa), NULL), -EROFS);
	assert_int_equal(call(&ro, FUSE_UNLINK, 1, NULL, 0, "f"), -EROFS);
	assert_int_equal(call(&ro, FUSE_OPEN, node, &open_rw, sizeof(open_rw), NULL), -EROFS);
	open_ro.flags |= O_TRUNC;
	assert_int_equal(call(&ro, FUSE_OPEN, node, &open_ro, sizeof(open_ro), NULL), -EROFS);
	open_ro.flags = O_RDONLY;
	assert_int_equal(call(&ro, FUSE_OPEN, node, &open_ro, sizeof(open_ro), NULL), 0);
	fuse_session_free(ro.s); /* releases what was left open */
}

struct told {
	char lines[16][128];
	unsigned n;
};

static void tell(void *arg, const struct fuse_audit *a)
{
	struct told *t = arg;

	assert_in_range(t->n, 0, 15);
	snprintf(t->lines[t->n++], sizeof(t->lines[0]), "%s %s%s%s%s %d", a->op, a->name ? a->name : "-",
		 a->as ? ">" : "", a->as ? a->as : "", a->writes ? " w" : "", a->error);
}

/* What was done and what was refused is told; not what was looked at. */
static void test_an_audit_is_told_what_is_done(void **state)
{
	static const char *const want[] = {
		"create a w 0", "open - 0",	      "open - w 0",   "rename a>b w 0",
		"link ->c w 0", "remove nothing w 2", "remove c w 0", "set attributes - w 22",
	};
	struct told told = {0};
	const struct fuse_audit_port port = {tell, &told};
	struct fuse_open_in open_in = {.flags = O_RDONLY};
	struct fuse_rename_in rename_in = {.newdir = 1};
	struct fuse_link_in link_in = {0};
	struct peer *p = *state, audited = {.be = p->be};
	uint64_t fh;

	assert_int_equal(fuse_session_new(p->be, &(struct fuse_session_options){.audit = &port}, &audited.s), 0);
	assert_int_equal(init(&audited, 7, 38, 0, 0), 0);
	link_in.oldnodeid = create(&audited, "a", &fh);
	assert_int_equal(call(&audited, FUSE_LOOKUP, 1, NULL, 0, "a"), 0);
	assert_int_equal(call(&audited, FUSE_OPEN, link_in.oldnodeid, &open_in, sizeof(open_in), NULL), 0);
	open_in.flags = O_WRONLY;
	assert_int_equal(call(&audited, FUSE_OPEN, link_in.oldnodeid, &open_in, sizeof(open_in), NULL), 0);
	assert_int_equal(call_parts(&audited, FUSE_RENAME, 1, &rename_in, sizeof(rename_in), "a", 2, "b", 2), 0);
	assert_int_equal(call(&audited, FUSE_LINK, 1, &link_in, sizeof(link_in), "c"), 0);
	assert_int_equal(call(&audited, FUSE_UNLINK, 1, NULL, 0, "nothing"), -ENOENT);
	assert_int_equal(call(&audited, FUSE_UNLINK, 1, NULL, 0, "c"), 0);
	assert_int_equal(call(&audited, FUSE_SETATTR, 1, NULL, 0, NULL), -EINVAL);
	assert_int_equal(call(&audited, FUSE_UNLINK, 1, "no end", 3, NULL), -EINVAL); /* told without a name */
	assert_int_equal(told.n, sizeof(want) / sizeof(*want) + 1);
	for (unsigned i = 0; i < sizeof(want) / sizeof(*want); i++)
		assert_string_equal(told.lines[i], want[i]);
	assert_string_equal(told.lines[told.n - 1], "remove - w 22");
	fuse_session_free(audited.s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_init_never_agrees_to_what_was_not_offered, setup_bare, teardown),
		cmocka_unit_test_setup_teardown(test_extensions_are_passed_over, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_that_leave_the_directory_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_handles_are_ebadf_and_the_right_one_still_works, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_sizes_that_lie_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_reply_without_room_takes_no_reference, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgetting_more_than_was_looked_up_is_harmless, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sixty_thousand_forgets_at_once_are_heard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_readdirplus_lists_in_steps_and_counts_references, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directories_are_listed_without_being_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unfinished_listings_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_listing_that_may_not_be_kept_has_another_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_session_without_a_watch_has_directories_opened, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_read_only_session_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_audit_is_told_what_is_done, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
