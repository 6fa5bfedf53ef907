/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of whole-file helpers, atomic replacement, tree removal and unix sockets. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"

static int setup(void **state)
{
	char *dir = strdup("/tmp/sm-test-files.XXXXXX");

	*state = dir;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	int r = remove_tree_at(AT_FDCWD, *state);

	r |= access(*state, F_OK) == 0;
	free(*state);
	return r;
}

static char *inside(void **state, const char *name)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/%s", (char *)*state, name);
	return path;
}

static void test_atomic_write_replaces_and_leaves_no_temporary(void **state)
{
	char *data;
	size_t len;
	int dir = open(*state, O_RDONLY | O_DIRECTORY);

	assert_int_equal(write_file_atomic_at(dir, "f", "old", 3, 0600), 0);
	assert_int_equal(write_file_atomic_at(dir, "f", "newer", 5, 0600), 0);
	assert_int_equal(read_file_at(dir, "f", 100, &data, &len), 0);
	assert_int_equal(len, 5);
	assert_string_equal(data, "newer");
	free(data);
	assert_int_equal(read_file_at(dir, "f", 4, &data, &len), -EFBIG);
	assert_int_equal(read_file_at(dir, "absent", 4, &data, &len), -ENOENT);
	assert_int_equal(write_file_atomic_at(dir, "no/such/dir", "x", 1, 0600), -ENOENT);
	assert_int_equal(unlinkat(dir, "f", 0), 0);
	close(dir);
	assert_int_equal(rmdir(*state), 0); /* empty: no temporary left */
	assert_int_equal(mkdir(*state, 0700), 0);
}

static void test_write_text_only_into_what_is_there(void **state)
{
	char *text = NULL;
	size_t len;

	assert_int_equal(write_text_at(AT_FDCWD, inside(state, "f"), "1"), -ENOENT);
	assert_int_equal(access(inside(state, "f"), F_OK), -1);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, inside(state, "f"), "abc", 3, 0600), 0);
	assert_int_equal(write_text_at(AT_FDCWD, inside(state, "f"), "1"), 0);
	assert_int_equal(read_file_at(AT_FDCWD, inside(state, "f"), 100, &text, &len), 0);
	assert_string_equal(text, "1bc");
	free(text);
	assert_int_equal(write_text_at(AT_FDCWD, *state, "1"), -EISDIR);
}

static void test_remove_tree_does_not_follow_links(void **state)
{
	char target[4096];

	assert_int_equal(mkdir_p(inside(state, "keep"), 0755), 0);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, inside(state, "keep/file"), "x", 1, 0600), 0);
	assert_int_equal(mkdir_p(inside(state, "tree/a/b/c"), 0755), 0);
	snprintf(target, sizeof(target), "%s/keep", (char *)*state);
	assert_int_equal(symlink(target, inside(state, "tree/a/link")), 0);
	assert_int_equal(remove_tree_at(AT_FDCWD, inside(state, "tree")), 0);
	assert_int_equal(access(inside(state, "tree"), F_OK), -1);
	assert_int_equal(access(inside(state, "keep/file"), F_OK), 0);
	assert_int_equal(remove_tree_at(AT_FDCWD, inside(state, "tree")), 0); /* absent is success */
}

static void test_unix_sockets_with_long_paths_pass_descriptors(void **state)
{
	char name[200], byte;
	int listener, client, server, pipes[2], got[2];
	size_t count = 2;

	memset(name, 'd', 150);
	name[150] = 0;
	assert_int_equal(mkdir_p(inside(state, name), 0755), 0);
	strcat(name, "/s.sock");
	listener = unix_listen(inside(state, name), 1);
	assert_true(listener >= 0);
	client = unix_connect(inside(state, name));
	assert_true(client >= 0);
	server = accept(listener, NULL, NULL);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(fd_send(client, "x", 1, pipes, 2), 0);
	assert_int_equal(fd_recv(server, &byte, 1, got, &count), 1);
	assert_int_equal(count, 2);
	assert_int_equal(write(got[1], "through", 7), 7);
	assert_int_equal(read_full(pipes[0], name, 7), 7);
	assert_true(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
	/* More than there is room for: the surplus is closed, not leaked. */
	assert_int_equal(fd_send(client, "y", 1, pipes, 2), 0);
	close(got[0]);
	close(got[1]);
	count = 1;
	assert_int_equal(fd_recv(server, &byte, 1, got, &count), 1);
	assert_int_equal(count, 1);
	close(got[0]);
	close(pipes[0]);
	close(pipes[1]);
	close(client);
	count = 0;
	assert_int_equal(fd_recv(server, &byte, 1, NULL, &count), 0); /* end of stream */
	close(server);
	close(listener);
	assert_int_equal(unix_connect(inside(state, "nobody")), -ENOENT);
}

static void test_a_gathered_read_takes_what_is_there_and_never_waits(void **state)
{
	char in[5000], out[8192];
	int pipes[2];

	memset(in, 'x', sizeof(in));
	assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
	assert_int_equal(read_gathered(pipes[0], out, sizeof(out)), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(write(pipes[1], in, 10), 10);
	assert_int_equal(read_gathered(pipes[0], out, sizeof(out)), 10);
	assert_int_equal(write(pipes[1], in, sizeof(in)), sizeof(in));
	assert_int_equal(read_gathered(pipes[0], out, 4096), 4096);
	assert_int_equal(read_gathered(pipes[0], out, sizeof(out)), sizeof(in) - 4096);
	assert_int_equal(write(pipes[1], in, sizeof(in)), sizeof(in));
	close(pipes[1]);
	assert_int_equal(read_gathered(pipes[0], out, sizeof(out)), sizeof(in));
	assert_int_equal(read_gathered(pipes[0], out, sizeof(out)), 0);
	close(pipes[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_atomic_write_replaces_and_leaves_no_temporary, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_text_only_into_what_is_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remove_tree_does_not_follow_links, setup, teardown),
		cmocka_unit_test(test_a_gathered_read_takes_what_is_there_and_never_waits),
		cmocka_unit_test_setup_teardown(test_unix_sockets_with_long_paths_pass_descriptors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
