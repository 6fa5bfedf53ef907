/* SPDX-License-Identifier: Apache-2.0 */
/* The process that watches the host's directories for a VM in the machine, asked by a monitor of every manner. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "base/watchset.h"
#include "keeper/hostwatch.h"
#include "keeper/place.h"
#include "keeper/watchgroup.h"
#include "proto/hostwatch.h"
#include "proto/messages.h"
#include "proto/mux.h"
#include "sealed.h"

#define PATIENCE_MS 20000
#define FIRST 0x40000000u

struct fixture {
	char dir[64];
	int root; /* a directory with s (the share), beside and link -> s */
	pid_t pid;
	int fd;
	struct mux *mux;
	uint32_t ch;
	struct buf in;
	bool opened, ended;
	bool hold; /* nothing is read: no credit */
	struct hostwatch_record last;
};

/* ------------------------------------------------------------------------------------------- the keeper's side */

static void on_open(void *arg, uint32_t ch, uint16_t service, struct cursor *request)
{
	struct fixture *f = arg;

	assert_int_equal(service, PROTO_KEEPER_WATCH);
	f->ch = ch;
	f->opened = true;
	mux_opened(f->mux, ch, NULL);
}

static void on_data(void *arg, uint32_t ch, void *user, unsigned stream, const uint8_t *p, size_t len)
{
	struct fixture *f = arg;

	buf_put(&f->in, p, len);
	if (!f->hold)
		mux_consumed(f->mux, ch, stream, len);
}

static const struct mux_callbacks callbacks = {.open = on_open, .data = on_data};

/* One exchange; false: nothing came in that time. */
static bool pump(struct fixture *f, int timeout_ms)
{
	struct pollfd p = {.fd = f->fd, .events = POLLIN};
	char chunk[65536];
	const char *why;
	size_t len;
	const uint8_t *out = mux_output(f->mux, &len);
	ssize_t n;

	if (len && write_full(f->fd, out, len) == 0)
		mux_output_done(f->mux, len);
	if (f->ended || poll(&p, 1, timeout_ms) <= 0)
		return false;
	n = read(f->fd, chunk, sizeof(chunk));
	f->ended = n <= 0;
	if (n > 0)
		assert_int_equal(mux_feed(f->mux, chunk, (size_t)n, &why), 0);
	return true;
}

/* The next record, in f->last. */
static enum hostwatch_op next(struct fixture *f)
{
	for (;;) {
		struct cursor c = cursor_of(f->in.data, f->in.len);
		int r = hostwatch_decode(&c, true, &f->last);

		assert_true(r >= 0);
		buf_consume(&f->in, f->in.len - c.left);
		if (r > 0)
			return f->last.op;
		assert_true(pump(f, PATIENCE_MS));
		assert_false(f->ended);
	}
}

static void say(struct fixture *f, const struct hostwatch_record *r)
{
	struct buf b = {0};

	assert_int_equal(hostwatch_encode(&b, r), 0);
	assert_int_equal(mux_send(f->mux, f->ch, 1, b.data, b.len), 0);
	buf_done(&b);
	pump(f, 0);
}

static enum hostwatch_op ask(struct fixture *f, uint32_t id, unsigned share, const char *path, uint64_t ino)
{
	struct hostwatch_record r = {.op = HOSTWATCH_ADD, .id = id, .share = (uint8_t)share, .ino = ino};
	enum hostwatch_op op;

	strcpy(r.text, path);
	say(f, &r);
	op = next(f);
	assert_int_equal(f->last.id, id);
	return op;
}

static void expect_event(struct fixture *f, uint32_t id, const char *name, uint32_t mask)
{
	assert_int_equal(next(f), HOSTWATCH_EVENT);
	assert_int_equal(f->last.id, id);
	assert_string_equal(f->last.text, name);
	assert_int_equal(f->last.mask & mask, mask);
}

/* ---------------------------------------------------------------------------------------------------- fixture */

static uint64_t ino(struct fixture *f, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(f->root, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_ino;
}

static void touch(struct fixture *f, const char *path)
{
	int fd = openat(f->root, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	close(fd);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int pair[2];

	*state = f;
	strcpy(f->dir, "/tmp/sm-test-hostwatch.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->root = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(f->root, "s", 0755) | mkdirat(f->root, "s/d", 0755) | mkdirat(f->root, "beside", 0755),
			 0);
	assert_int_equal(symlinkat("../beside", f->root, "s/link"), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	f->pid = fork();
	if (f->pid == 0) {
		char s[80], none[80];
		const char *sources[2] = {s, none};

		close(pair[0]);
		signal(SIGPIPE, SIG_IGN);
		snprintf(s, sizeof(s), "%s/s", f->dir);
		snprintf(none, sizeof(none), "%s/none", f->dir);
		_exit(hostwatch_run(pair[1], sources, 2) == -EPROTO ? 3 : 0);
	}
	close(pair[1]);
	f->fd = pair[0];
	assert_int_equal(mux_new(MUX_SERVER, &callbacks, f, PROTO_DEFAULT_WINDOW, &f->mux), 0);
	mux_hello(f->mux, NULL);
	assert_int_equal(next(f), HOSTWATCH_HELLO);
	return 0;
}

/* The process ends with the connection; its status. */
static int finish(struct fixture *f)
{
	int status = -1;

	shutdown(f->fd, SHUT_RDWR);
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	f->pid = 0;
	return status;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->pid)
		finish(f);
	mux_free(f->mux);
	close(f->fd);
	close(f->root);
	buf_done(&f->in);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return 0;
}

/* ------------------------------------------------------------------------------------------------------ tests */

static void events_are_told(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, FIRST, 0, "", ino(f, "s")), HOSTWATCH_ADDED);
	assert_int_equal(ask(f, FIRST + 1, 0, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	assert_sealed(f->pid);
	touch(f, "s/a");
	expect_event(f, FIRST, "a", IN_CREATE | IN_CLOSE_WRITE); /* those in a row are one */
	touch(f, "s/d/b");
	expect_event(f, FIRST + 1, "b", IN_CREATE);
	assert_int_equal(renameat(f->root, "s/a", f->root, "s/c"), 0);
	expect_event(f, FIRST, "a", IN_MOVED_FROM);
	expect_event(f, FIRST, "c", IN_MOVED_TO);
	assert_int_equal(fchmodat(f->root, "s/c", 0600, 0), 0);
	expect_event(f, FIRST, "c", IN_ATTRIB);
}

static void removed_watches_are_silent(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, FIRST, 0, "", ino(f, "s")), HOSTWATCH_ADDED);
	assert_int_equal(ask(f, FIRST + 1, 0, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	say(f, &(struct hostwatch_record){.op = HOSTWATCH_REMOVE, .id = FIRST});
	say(f, &(struct hostwatch_record){.op = HOSTWATCH_REMOVE, .id = FIRST + 7}); /* nothing */
	assert_int_equal(ask(f, FIRST + 2, 0, "", ino(f, "s")), HOSTWATCH_ADDED);
	touch(f, "s/a");
	expect_event(f, FIRST + 2, "a", IN_CREATE);
	say(f, &(struct hostwatch_record){.op = HOSTWATCH_RESET});
	assert_int_equal(ask(f, FIRST + 3, 0, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	touch(f, "s/b");
	touch(f, "s/d/b");
	expect_event(f, FIRST + 3, "b", IN_CREATE);
	assert_int_equal(unlinkat(f->root, "s/d/b", 0) | unlinkat(f->root, "s/d", AT_REMOVEDIR), 0);
	expect_event(f, FIRST + 3, "b", IN_DELETE);
	expect_event(f, FIRST + 3, "", IN_IGNORED);
}

static void only_the_very_directory_beneath(void **state)
{
	struct fixture *f = *state;
	char outside[80];

	assert_int_equal(ask(f, FIRST, 0, "d", ino(f, "s")), HOSTWATCH_REFUSED);	 /* another one */
	assert_int_equal(ask(f, FIRST, 0, "link", ino(f, "beside")), HOSTWATCH_REFUSED); /* through a link */
	assert_int_equal(ask(f, FIRST, 0, "link", ino(f, "s/link")), HOSTWATCH_REFUSED); /* the link */
	assert_int_equal(ask(f, FIRST, 0, "none", 1), HOSTWATCH_REFUSED);
	assert_int_equal(ask(f, FIRST, 1, "", ino(f, "s")), HOSTWATCH_REFUSED); /* a source that is not there */
	assert_int_equal(ask(f, FIRST, 2, "", ino(f, "s")), HOSTWATCH_REFUSED); /* one that nobody named */
	touch(f, "s/file");
	assert_int_equal(ask(f, FIRST, 0, "file", ino(f, "s/file")), HOSTWATCH_REFUSED);
	assert_int_equal(ask(f, FIRST, 0, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	assert_int_equal(ask(f, FIRST, 0, "", ino(f, "s")), HOSTWATCH_REFUSED); /* an id twice */
	for (unsigned i = 1; i < WATCHSET_SAME; i++) /* a directory twice, but not without end */
		assert_int_equal(ask(f, FIRST + i, 0, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	assert_int_equal(ask(f, FIRST + WATCHSET_SAME, 0, "d", ino(f, "s/d")), HOSTWATCH_REFUSED);
	snprintf(outside, sizeof(outside), "%s/beside", f->dir);
	assert_int_equal(rmdir(outside), 0);
}

static const char up[] = "\x19\0\0\0\x01\0\0\0\x40\x01\0\0\0\0\0\0\0\0../beside/x";

/* Whatever does not parse ends it. */
static void malformed_requests_end_it(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(mux_send(f->mux, f->ch, 1, up, sizeof(up) - 1), 0);
	while (!f->ended)
		assert_true(pump(f, PATIENCE_MS));
	assert_int_equal(WEXITSTATUS(finish(f)), 3);
}

static void more_than_is_read_is_lost(void **state)
{
	struct fixture *f = *state;
	bool lost = false;
	char name[32];

	assert_int_equal(ask(f, FIRST, 0, "", ino(f, "s")), HOSTWATCH_ADDED);
	f->hold = true;
	for (int i = 0; i < 60000; i++) {
		snprintf(name, sizeof(name), "s/%d", i % 100);
		if (i / 100 % 2)
			assert_int_equal(unlinkat(f->root, name, 0), 0);
		else
			touch(f, name);
		if (i % 1000 == 0)
			pump(f, 0);
	}
	/* What was held back has been read now. */
	while (pump(f, 500))
		;
	f->hold = false;
	mux_consumed(f->mux, f->ch, 0, f->in.len);
	while (!lost)
		lost = next(f) == HOSTWATCH_LOST;
	while (pump(f, 200))
		;
	f->in.len = 0;
	touch(f, "s/after");
	while (next(f) != HOSTWATCH_EVENT || strcmp(f->last.text, "after") != 0)
		;
}

/* ---------------------------------------------------------------------------------------------------- a group */

/* Where those of a group look for the process that watches for them: one of ours. */
static pid_t serve_group(const struct watchgroup *g)
{
	struct buf key = {0};
	struct place at;
	int lock, listener;
	pid_t pid;

	buf_printf(&key, "group %s\n", g->group);
	assert_int_equal(place_put_program(&key, g->program), 0);
	lock = place_find(g->runtime_dir, "watch", &key, &at, NULL);
	assert_true(lock >= 0);
	buf_done(&key);
	listener = unix_listen(at.socket, 8);
	assert_true(listener >= 0);
	pid = fork();
	if (pid == 0) {
		close(lock);
		signal(SIGPIPE, SIG_IGN);
		_exit(hostwatch_serve_group(listener, at.socket, at.lock) < 0);
	}
	close(listener);
	close(lock);
	return pid;
}

/* A VM of the group, with s and something that is not there. */
static struct fixture *join(const struct fixture *f, const struct watchgroup *g)
{
	struct fixture *vm = calloc(1, sizeof(*vm));
	char s[80], none[80];
	const char *sources[] = {none, s};
	int pair[2];

	vm->root = f->root;
	snprintf(s, sizeof(s), "%s/s", f->dir);
	snprintf(none, sizeof(none), "%s/none", f->dir);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(watchgroup_join(g, pair[1], sources, 2, NULL), 0);
	close(pair[1]);
	vm->fd = pair[0];
	assert_int_equal(mux_new(MUX_SERVER, &callbacks, vm, PROTO_DEFAULT_WINDOW, &vm->mux), 0);
	mux_hello(vm->mux, NULL);
	assert_int_equal(next(vm), HOSTWATCH_HELLO);
	return vm;
}

static void leave(struct fixture *vm)
{
	mux_free(vm->mux);
	close(vm->fd);
	buf_done(&vm->in);
	free(vm);
}

/* Directories that a process watches. */
static unsigned watches_of(pid_t pid)
{
	char command[100], line[32] = "";
	FILE *p;

	snprintf(command, sizeof(command), "cat /proc/%d/fdinfo/* | grep -c '^inotify wd'", (int)pid);
	p = popen(command, "re");
	assert_non_null(p);
	assert_non_null(fgets(line, sizeof(line), p));
	pclose(p);
	return (unsigned)atoi(line);
}

static void one_process_watches_for_a_group(void **state)
{
	struct fixture *f = *state, *a, *b;
	struct watchgroup g = {.program = "/proc/self/exe", .runtime_dir = f->dir, .group = "g"};
	pid_t pid = serve_group(&g);

	a = join(f, &g);
	b = join(f, &g);
	assert_int_equal(ask(a, FIRST, 0, "", 1), HOSTWATCH_REFUSED);
	assert_int_equal(ask(a, FIRST, 1, "", ino(f, "s")), HOSTWATCH_ADDED);
	assert_int_equal(ask(b, FIRST, 1, "", ino(f, "s")), HOSTWATCH_ADDED);
	assert_int_equal(ask(b, FIRST + 1, 1, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	assert_sealed(pid);
	assert_int_equal(watches_of(pid), 2);
	touch(f, "s/a");
	expect_event(a, FIRST, "a", IN_CREATE);
	expect_event(b, FIRST, "a", IN_CREATE);
	touch(f, "s/d/x");
	expect_event(b, FIRST + 1, "x", IN_CREATE);
	/* One that says nonsense, or goes, takes nobody along. */
	assert_int_equal(mux_send(a->mux, a->ch, 1, up, sizeof(up) - 1), 0);
	while (!a->ended)
		assert_true(pump(a, PATIENCE_MS));
	leave(a);
	touch(f, "s/b");
	expect_event(b, FIRST, "b", IN_CREATE);
	leave(b);
	a = join(f, &g);
	assert_int_equal(ask(a, FIRST, 1, "d", ino(f, "s/d")), HOSTWATCH_ADDED);
	touch(f, "s/d/y");
	expect_event(a, FIRST, "y", IN_CREATE);
	assert_int_equal(watches_of(pid), 1);
	leave(a);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(events_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(removed_watches_are_silent, setup, teardown),
		cmocka_unit_test_setup_teardown(only_the_very_directory_beneath, setup, teardown),
		cmocka_unit_test_setup_teardown(malformed_requests_end_it, setup, teardown),
		cmocka_unit_test_setup_teardown(more_than_is_read_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(one_process_watches_for_a_group, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
