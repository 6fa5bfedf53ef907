/* SPDX-License-Identifier: Apache-2.0 */
/* The vhost-user door through the public header: front ends come, break the rules, go, and find the backend as the one
 * before left it; and the example's own backend (argument: its program) served to a front end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "front.h"
#include "supermachine.h"

static const char *tarfs;

struct fixture {
	struct sm_fs_backend *be;
	char dir[64], path[80];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->dir, "/tmp/sm-test-vhost.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/socket", f->dir);
	return sm_fs_memory_new(NULL, &f->be, NULL);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sm_fs_memory_free(f->be);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return 0;
}

static void begin(struct front *front, int sock)
{
	assert_true(sock >= 0);
	front_init(front, sock);
	front_bring_up(front, 1);
	front_fuse_init(front);
}

/* Its node id, or the error. */
static int64_t lookup(struct front *front, uint64_t parent, const char *name)
{
	struct fuse_entry_out e;
	ssize_t n = front_call(front, FUSE_LOOKUP, parent, name, strlen(name) + 1, &e, sizeof(e));

	return n < 0 ? n : (int64_t)e.nodeid;
}

static void test_front_ends_one_after_another(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_stats stats = SM_FS_STATS_INIT;
	struct sm_fs_server *server, *other;
	struct {
		struct fuse_mkdir_in in;
		char name[4];
	} mkdir = {{.mode = 0755}, "dir"};
	struct fuse_entry_out e;
	struct sm_error err;
	struct front front;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(sm_fs_serve_vhost_user(f->be, f->path, -1, NULL, &server, &err), 0);
		/* its name is taken while it serves */
		assert_int_equal(sm_fs_serve_vhost_user(f->be, f->path, -1, NULL, &other, &err), -EADDRINUSE);
		begin(&front, unix_connect(f->path));
		if (i == 0)
			assert_int_equal(front_call(&front, FUSE_MKDIR, 1, &mkdir, sizeof(mkdir), &e, sizeof(e)),
					 sizeof(e));
		assert_true(lookup(&front, 1, "dir") > 1);
		assert_true(lookup(&front, 1, "none") <= 0);
		sm_fs_get_stats(server, &stats);
		assert_true(stats.requests >= 3);
		front_done(&front);
		assert_int_equal(sm_fs_wait(server, -1, &err), 0);
		assert_null(sm_fs_stop(server));
		assert_int_equal(access(f->path, F_OK), -1);
	}
}

static void test_read_only_is_held(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_vhost_user_options o = SM_FS_VHOST_USER_OPTIONS_INIT;
	struct {
		struct fuse_mkdir_in in;
		char name[4];
	} mkdir = {{.mode = 0755}, "dir"};
	struct sm_fs_server *server;
	struct fuse_entry_out e;
	struct front front;

	o.read_only = true;
	assert_int_equal(sm_fs_serve_vhost_user(f->be, f->path, -1, &o, &server, NULL), 0);
	begin(&front, unix_connect(f->path));
	assert_int_equal(front_call(&front, FUSE_MKDIR, 1, &mkdir, sizeof(mkdir), &e, sizeof(e)), -EROFS);
	front_done(&front);
	sm_fs_stop(server);
}

static void test_a_liar_is_cut_off_and_named(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_server *server;
	struct sm_error err = {0};
	int sock[2];
	uint32_t head[3] = {2, 1, 1u << 30};

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
	assert_int_equal(sm_fs_serve_vhost_user(f->be, NULL, sock[1], NULL, &server, &err), 0);
	assert_int_equal(write(sock[0], head, sizeof(head)), sizeof(head));
	assert_int_equal(sm_fs_wait(server, -1, &err), -EPROTO);
	assert_int_equal(err.code, EPROTO);
	assert_non_null(strstr(err.message, "request 2"));
	sm_fs_stop(server);
	close(sock[0]);
}

static void test_it_stops_whatever_the_front_end_does(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_server *server;
	int cancel = eventfd(1, EFD_CLOEXEC), sock[2];
	struct pollfd end = {.events = POLLIN};
	struct sm_error err;
	struct front front;

	/* nobody has come */
	assert_int_equal(sm_fs_serve_vhost_user(f->be, f->path, -1, NULL, &server, NULL), 0);
	assert_int_equal(sm_fs_wait(server, cancel, &err), -ECANCELED);
	sm_fs_stop(server);
	/* one that serves */
	assert_int_equal(sm_fs_serve_vhost_user(f->be, f->path, -1, NULL, &server, NULL), 0);
	begin(&front, unix_connect(f->path));
	sm_fs_stop(server);
	end.fd = front.sock;
	assert_int_equal(poll(&end, 1, FRONT_LIMIT_MS), 1);
	front_done(&front);
	/* one that stands still within a message */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
	assert_int_equal(sm_fs_serve_vhost_user(f->be, NULL, sock[1], NULL, &server, NULL), 0);
	assert_int_equal(write(sock[0], "abcd", 4), 4);
	sm_fs_stop(server);
	close(sock[0]);
	close(cancel);
}

static void test_no_socket_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_server *server;
	struct sm_error err;

	assert_int_equal(sm_fs_serve_vhost_user(f->be, NULL, -1, NULL, &server, &err), -EBADF);
	assert_int_equal(sm_fs_serve_vhost_user(f->be, "/nowhere/socket", -1, NULL, &server, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nowhere/socket"));
}

/* Starts it, and waits until it listens: the connection. */
static int start_tarfs(const char *socket, const char *archive, pid_t *ret)
{
	int sock = -1;

	*ret = fork();
	if (*ret == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(tarfs, tarfs, "--vhost-user", socket, archive, NULL);
		_exit(127);
	}
	for (int i = 0; i < 6000 && (sock = unix_connect(socket)) < 0; i++)
		usleep(10000);
	return sock;
}

static void test_the_example_serves_its_archive(void **state)
{
	struct fixture *f = *state;
	struct fuse_open_out open = {0};
	struct fuse_open_in how = {.flags = O_RDONLY};
	struct fuse_read_in read = {.size = 4096};
	char archive[80], command[400], text[64] = "";
	struct front front;
	int64_t dir, file;
	int status;
	pid_t pid;

	snprintf(archive, sizeof(archive), "%s/t.tar", f->dir);
	snprintf(command, sizeof(command),
		 "cd %s && mkdir d && printf 'from an archive' >d/file && tar -cf t.tar d && rm -r d", f->dir);
	assert_int_equal(system(command), 0);
	begin(&front, start_tarfs(f->path, archive, &pid));
	dir = lookup(&front, 1, "d");
	file = lookup(&front, (uint64_t)dir, "file");
	assert_true(dir > 1 && file > 1);
	assert_true(front_call(&front, FUSE_OPEN, (uint64_t)file, &how, sizeof(how), &open, sizeof(open)) > 0);
	read.fh = open.fh;
	assert_int_equal(front_call(&front, FUSE_READ, (uint64_t)file, &read, sizeof(read), text, sizeof(text)), 15);
	assert_string_equal(text, "from an archive");
	front_done(&front); /* which ends it */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_front_ends_one_after_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_is_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_liar_is_cut_off_and_named, setup, teardown),
		cmocka_unit_test_setup_teardown(test_it_stops_whatever_the_front_end_does, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_socket_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_example_serves_its_archive, setup, teardown),
	};

	if (argc != 2)
		return 2;
	tarfs = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
