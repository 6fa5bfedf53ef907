/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch of directories that another kernel has the events of, as the monitor runs it: what it asks, what the peer
 * may believe until the answer is there, and what it is told. The other side is this test, the backend a single
 * directory with at most one file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/watch.h"
#include "proto/hostwatch.h"
#include "vmm/share_remote.h"

#define DIRECTORY (1ULL << 56 | SM_FS_ROOT)
#define FILE_A (1ULL << 56 | 2)
#define SECOND 1000000000ULL
#define DAY (86400 * SECOND)

struct fixture {
	struct sm_fs_backend be;
	bool there;
	off_t size;
	struct watch *watch;
	struct share_remote *remote;
	int host;
	struct buf in;
	uint32_t id;
	/* told: */
	unsigned told;
	enum watch_what what;
	mode_t made, gone;
	char path[64];
};

static int be_getattr(struct sm_fs_backend *be, uint64_t id, bool has_fh, uint64_t fh, struct stat *ret,
		      uint64_t *ret_valid)
{
	struct fixture *f = (struct fixture *)be;

	*ret_valid = SECOND;
	*ret = (struct stat){.st_ino = 77, .st_mode = S_IFDIR | 0755, .st_nlink = 2};
	if (id == FILE_A)
		*ret = (struct stat){.st_ino = 78, .st_mode = S_IFREG | 0644, .st_nlink = f->there, .st_size = f->size};
	return 0;
}

static int be_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *who, uint64_t dir, const char *name,
		     struct sm_fs_entry *ret)
{
	struct fixture *f = (struct fixture *)be;

	*ret = (struct sm_fs_entry){.entry_valid_ns = SECOND};
	if (!f->there || strcmp(name, "a") != 0)
		return 0;
	ret->nodeid = FILE_A;
	return be_getattr(be, FILE_A, false, 0, &ret->attr, &ret->attr_valid_ns);
}

static int be_watch(struct sm_fs_backend *be, uint64_t id, int fd, uint32_t mask)
{
	return -EREMOTE;
}

static const struct sm_fs_ops ops = {
	.size = sizeof(ops), .getattr = be_getattr, .lookup = be_lookup, .watch = be_watch};

static void on_stale(void *arg, const struct watch_stale *s)
{
	struct fixture *f = arg;

	f->told++;
	f->what = s->what;
	f->made = s->made;
	f->gone = s->gone;
	strcpy(f->path, s->path ? s->path : "");
}

/* Runs it for so long, or until something was told. */
static void run(struct fixture *f, int ms)
{
	uint64_t end = time_now_ns() + (uint64_t)ms * 1000000;

	f->told = 0;
	while (!f->told && time_now_ns() < end) {
		struct pollfd p = {.fd = share_remote_fd(f->remote), .events = share_remote_events(f->remote)};

		poll(&p, 1, share_remote_timeout(f->remote, 10));
		share_remote_step(f->remote, on_stale, f);
	}
}

static void say(struct fixture *f, struct hostwatch_record r, const char *text)
{
	struct buf b = {0};

	strcpy(r.text, text);
	assert_int_equal(hostwatch_encode(&b, &r), 0);
	assert_int_equal(write_full(f->host, b.data, b.len), 0);
	buf_done(&b);
}

/* What it has asked; 0: nothing. */
static enum hostwatch_op asked(struct fixture *f)
{
	static struct hostwatch_record r;
	uint8_t chunk[4096];
	ssize_t n = recv(f->host, chunk, sizeof(chunk), MSG_DONTWAIT);
	struct cursor c;

	if (n > 0)
		buf_put(&f->in, chunk, (size_t)n);
	c = cursor_of(f->in.data, f->in.len);
	if (hostwatch_decode(&c, false, &r) <= 0)
		return 0;
	buf_consume(&f->in, f->in.len - c.left);
	if (r.op == HOSTWATCH_ADD) {
		assert_string_equal(r.text, "");
		assert_int_equal(r.share, 0);
		assert_int_equal(r.ino, 77);
		f->id = r.id;
	}
	return r.op;
}

static struct sm_fs_entry look_up(struct fixture *f, bool making)
{
	static const struct sm_fs_caller who = {0};
	struct watch_mark mark = making ? watch_making(f->watch, DIRECTORY) : watch_begin(f->watch, DIRECTORY);
	struct sm_fs_entry e;

	assert_int_equal(be_lookup(&f->be, &who, DIRECTORY, "a", &e), 0);
	watch_entry(f->watch, &mark, "a", &e);
	return e;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int pair[2];

	*state = f;
	f->be.ops = &ops;
	f->there = true;
	assert_int_equal(watch_new(&f->be, &ops, &f->watch), 0);
	watch_paths(f->watch);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(share_remote_new(pair[0], f->watch, &f->remote), 0);
	f->host = pair[1];
	/* Before the other side is there. */
	assert_true(look_up(f, false).entry_valid_ns == SECOND);
	assert_int_equal(asked(f), 0);
	say(f, (struct hostwatch_record){.op = HOSTWATCH_HELLO}, "");
	run(f, 200);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	share_remote_free(f->remote);
	watch_free(f->watch);
	close(f->host);
	buf_done(&f->in);
	free(f);
	return 0;
}

static void add(struct fixture *f, uint64_t quiet_ns)
{
	look_up(f, false);
	assert_int_equal(asked(f), HOSTWATCH_ADD);
	say(f, (struct hostwatch_record){.op = HOSTWATCH_ADDED, .id = f->id, .quiet_ns = quiet_ns}, "");
	run(f, 200);
}

static void answers_hold_until_it_is_watched(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_entry e = look_up(f, true);

	assert_int_equal(asked(f), HOSTWATCH_ADD);
	assert_true(e.entry_valid_ns < SECOND && e.attr_valid_ns < SECOND);
	e = look_up(f, false);
	assert_int_equal(asked(f), 0); /* once is enough */
	assert_true(e.entry_valid_ns == DAY && e.attr_valid_ns < SECOND);
	say(f, (struct hostwatch_record){.op = HOSTWATCH_ADDED, .id = f->id, .quiet_ns = 60 * SECOND}, "");
	run(f, 40); /* held back */
	assert_true(look_up(f, false).attr_valid_ns < SECOND);
	run(f, 200);
	assert_int_equal(f->told, 0);
	e = look_up(f, false);
	assert_true(e.entry_valid_ns == DAY && e.attr_valid_ns == 30 * SECOND);
}

/* The directory changed when nobody watched: what was believed for long goes. */
static void names_are_taken_back(void **state)
{
	struct fixture *f = *state;

	add(f, SECOND / 10);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->what, WATCH_NAME);
	assert_string_equal(f->path, "0/a");
	assert_true(look_up(f, false).attr_valid_ns == 30 * SECOND);
}

static void refused_is_believed_for_a_second(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_entry e;

	look_up(f, false);
	assert_int_equal(asked(f), HOSTWATCH_ADD);
	say(f, (struct hostwatch_record){.op = HOSTWATCH_REFUSED, .id = f->id}, "");
	run(f, 200);
	assert_int_equal(f->told, 1);
	e = look_up(f, false);
	assert_true(e.entry_valid_ns == SECOND && e.attr_valid_ns == SECOND);
	assert_int_equal(asked(f), 0);
}

static void changes_are_told_when_they_can_be_seen(void **state)
{
	struct fixture *f = *state;
	uint64_t since;

	add(f, 60 * SECOND);
	look_up(f, false);
	/* The peer's own doing agrees with what is known. */
	say(f, (struct hostwatch_record){.op = HOSTWATCH_EVENT, .id = f->id, .mask = IN_CREATE}, "a");
	run(f, 200);
	assert_int_equal(f->told, 0);
	f->size = 5;
	since = time_now_ns();
	say(f, (struct hostwatch_record){.op = HOSTWATCH_EVENT, .id = f->id, .mask = IN_MODIFY}, "a");
	run(f, 5000);
	assert_true(f->told == 1 && f->what == WATCH_CONTENTS);
	assert_string_equal(f->path, "0/a");
	assert_true(time_now_ns() - since > SECOND / 10);
	f->there = false;
	say(f, (struct hostwatch_record){.op = HOSTWATCH_EVENT, .id = f->id, .mask = IN_DELETE}, "a");
	run(f, 5000);
	assert_true(f->told == 1 && f->what == WATCH_NAME && f->gone == S_IFREG);
	f->there = true;
	say(f, (struct hostwatch_record){.op = HOSTWATCH_EVENT, .id = f->id, .mask = IN_MOVED_TO}, "a");
	run(f, 5000);
	assert_true(f->told == 1 && f->made == S_IFREG);
	look_up(f, false);
	say(f, (struct hostwatch_record){.op = HOSTWATCH_LOST}, "");
	run(f, 5000);
	assert_true(f->told);
}

static void its_end_is_as_a_change(void **state)
{
	struct fixture *f = *state;

	add(f, 60 * SECOND);
	look_up(f, false);
	shutdown(f->host, SHUT_RDWR);
	run(f, 5000);
	assert_true(f->told);
	assert_int_equal(share_remote_fd(f->remote), -1);
	assert_true(look_up(f, false).entry_valid_ns == SECOND);
}

/* Numbers of its own inotify are none that the other side may speak of; nor does it say what does not parse. */
static void a_false_word_ends_it(void **state)
{
	struct fixture *f = *state;

	add(f, 60 * SECOND);
	say(f, (struct hostwatch_record){.op = HOSTWATCH_EVENT, .id = 1, .mask = IN_CREATE}, "a");
	run(f, 5000);
	assert_true(f->told);
	assert_int_equal(share_remote_fd(f->remote), -1);
}

static void a_new_session_forgets(void **state)
{
	struct fixture *f = *state;
	uint32_t first;

	add(f, 60 * SECOND);
	first = f->id;
	watch_reset(f->watch);
	assert_int_equal(asked(f), HOSTWATCH_RESET);
	look_up(f, false);
	assert_int_equal(asked(f), HOSTWATCH_ADD);
	assert_int_not_equal(f->id, first);
	watch_forget(f->watch, DIRECTORY, 1);
	assert_int_equal(asked(f), HOSTWATCH_REMOVE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_hold_until_it_is_watched, setup, teardown),
		cmocka_unit_test_setup_teardown(names_are_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_is_believed_for_a_second, setup, teardown),
		cmocka_unit_test_setup_teardown(changes_are_told_when_they_can_be_seen, setup, teardown),
		cmocka_unit_test_setup_teardown(its_end_is_as_a_change, setup, teardown),
		cmocka_unit_test_setup_teardown(a_false_word_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(a_new_session_forgets, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
