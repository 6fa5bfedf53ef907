/* SPDX-License-Identifier: Apache-2.0 */
/* File systems by the public header and the shared library alone: backends, mounting, its end in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supermachine.h"

#define FUSE_MAGIC 0x65735546

static int make_dir(void **state)
{
	char *dir = strdup("/tmp/sm-test-fs.XXXXXX");

	*state = dir;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	int r = rmdir(*state);

	free(*state);
	return r;
}

static bool is_mounted(const char *dir)
{
	struct statfs st;

	return statfs(dir, &st) == 0 && st.f_type == FUSE_MAGIC;
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static struct sm_fs_server *mount_memory(const char *dir, struct sm_fs_backend **be,
					 const struct sm_fs_mount_options *o)
{
	struct sm_fs_server *server = NULL;
	struct sm_error err = {0};

	assert_int_equal(sm_fs_memory_new(NULL, be, &err), 0);
	if (sm_fs_mount(*be, dir, o, &server, &err) < 0)
		fail_msg("%s", err.message);
	return server;
}

static void test_a_mount_serves_and_ends(void **state)
{
	struct sm_fs_stats stats = SM_FS_STATS_INIT;
	struct sm_fs_server *server, *second;
	struct sm_fs_backend *be;
	struct sm_error err = {0};

	server = mount_memory(*state, &be, NULL);
	assert_true(is_mounted(*state));
	put(*state, "f", "hello");
	sm_fs_get_stats(server, &stats);
	assert_true(stats.requests > 3 && stats.bytes_written == 5 && stats.malformed == 0);
	assert_int_equal(sm_fs_mount(be, *state, NULL, &second, &err), -EBUSY);
	assert_non_null(strstr(err.message, "another server"));
	assert_null(sm_fs_stop(server));
	assert_false(is_mounted(*state));
	assert_null(sm_fs_stop(NULL));
	sm_fs_memory_free(be);
}

static void test_waiting_ends_by_a_descriptor_and_by_an_unmount(void **state)
{
	struct sm_fs_server *server;
	struct sm_fs_backend *be;
	struct sm_error err = {0};
	int cancel = eventfd(1, EFD_CLOEXEC);

	server = mount_memory(*state, &be, NULL);
	assert_int_equal(sm_fs_wait(server, cancel, &err), -ECANCELED);
	assert_int_equal(err.kind, SM_ERROR_CANCELLED);
	assert_true(is_mounted(*state));
	assert_int_equal(umount(*state), 0);
	assert_int_equal(sm_fs_wait(server, -1, &err), 0);
	assert_int_equal(sm_fs_wait(server, -1, &err), 0); /* it stays so */
	sm_fs_stop(server);
	sm_fs_memory_free(be);
	close(cancel);
}

static void test_a_busy_mount_goes_at_once(void **state)
{
	struct sm_fs_server *server;
	struct sm_fs_backend *be;
	char path[128], byte;
	int fd;

	server = mount_memory(*state, &be, NULL);
	put(*state, "f", "hello");
	snprintf(path, sizeof(path), "%s/f", (char *)*state);
	fd = open(path, O_RDWR | O_DIRECT);
	assert_true(fd >= 0);
	sm_fs_stop(server);
	assert_false(is_mounted(*state));
	assert_int_equal(read(fd, &byte, 1), -1);
	assert_int_equal(errno, ENOTCONN);
	close(fd);
	sm_fs_memory_free(be);
}

static void test_what_a_killed_server_left_is_replaced(void **state)
{
	struct sm_fs_server *server;
	struct sm_fs_backend *be;
	struct statfs st;
	struct stat seen;
	int status, ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		mount_memory(*state, &be, NULL);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(stat(*state, &seen), 0); /* so that the kernel has cached something */
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(statfs(*state, &st), -1);
	assert_int_equal(errno, ENOTCONN);
	server = mount_memory(*state, &be, NULL);
	put(*state, "f", "again");
	sm_fs_stop(server);
	sm_fs_memory_free(be);
	assert_int_equal(statfs(*state, &st), 0);
	close(ready[0]);
	close(ready[1]);
}

static void test_read_only_is_refused_by_the_kernel(void **state)
{
	struct sm_fs_mount_options o = SM_FS_MOUNT_OPTIONS_INIT;
	struct sm_fs_server *server;
	struct sm_fs_backend *be;
	char path[128];

	o.read_only = true;
	server = mount_memory(*state, &be, &o);
	snprintf(path, sizeof(path), "%s/f", (char *)*state);
	assert_int_equal(open(path, O_CREAT | O_WRONLY, 0600), -1);
	assert_int_equal(errno, EROFS);
	sm_fs_stop(server);
	sm_fs_memory_free(be);
}

static void test_a_directory_of_the_host(void **state)
{
	struct sm_fs_posix_options o = SM_FS_POSIX_OPTIONS_INIT;
	char source[] = "/tmp/sm-test-fs-src.XXXXXX", path[128];
	struct sm_fs_server *server = NULL;
	struct sm_fs_backend *be = NULL;
	struct sm_error err = {0};

	assert_non_null(mkdtemp(source));
	o.ids = SM_FS_IDS_SAME;
	o.cache = SM_FS_CACHE_NONE;
	assert_int_equal(sm_fs_posix_new(source, &o, &be, &err), 0);
	assert_int_equal(sm_fs_mount(be, *state, NULL, &server, &err), 0);
	put(*state, "f", "hello");
	snprintf(path, sizeof(path), "%s/f", source);
	assert_int_equal(access(path, R_OK), 0);
	assert_int_equal(unlink(path), 0);
	sm_fs_stop(server);
	sm_fs_posix_free(be);
	rmdir(source);
}

static void expect_line(const char *log, const char *op, const char *path, const char *rest)
{
	char want[256];

	snprintf(want, sizeof(want), "\"op\":\"%s\",\"path\":\"%s\"%s", op, path, rest);
	if (!strstr(log, want))
		fail_msg("no %s in: %s", want, log);
}

static void test_an_audit_names_the_files(void **state)
{
	struct sm_fs_mount_options o = SM_FS_MOUNT_OPTIONS_INIT;
	char source[] = "/tmp/sm-test-fs-src.XXXXXX", log[] = "/tmp/sm-test-fs-log.XXXXXX", path[128], text[4096];
	struct sm_fs_server *server = NULL;
	struct sm_fs_backend *be = NULL;
	struct sm_error err = {0};
	int fd = mkstemp(log);
	ssize_t n;

	assert_true(fd >= 0);
	assert_non_null(mkdtemp(source));
	assert_int_equal(sm_fs_posix_new(source, NULL, &be, &err), 0);
	o.audit = log;
	assert_int_equal(sm_fs_mount(be, *state, &o, &server, &err), 0);
	put(*state, "f", "hello");
	snprintf(path, sizeof(path), "%s/f", (char *)*state);
	assert_int_equal(unlink(path), 0);
	sm_fs_stop(server);
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	snprintf(path, sizeof(path), "%s/f", source);
	expect_line(text, "create", path, ",\"write\":true,\"result\":\"ok\"}");
	expect_line(text, "remove", path, ",\"write\":true,\"result\":\"ok\"}");
	snprintf(path, sizeof(path), "\"mount\":\"%s\"", (char *)*state);
	assert_non_null(strstr(text, path));
	/* out of reach of those whom it tells of */
	snprintf(path, sizeof(path), "%s/log", source);
	o.audit = path;
	assert_int_equal(sm_fs_mount(be, *state, &o, &server, &err), -EINVAL);
	assert_int_equal(err.kind, SM_ERROR_INVALID);
	assert_int_equal(unlink(path), 0);
	sm_fs_posix_free(be);
	/* of what is no directory there is nothing to tell */
	assert_int_equal(sm_fs_memory_new(NULL, &be, &err), 0);
	o.audit = log;
	assert_int_equal(sm_fs_mount(be, *state, &o, &server, &err), -EOPNOTSUPP);
	assert_int_equal(err.kind, SM_ERROR_UNSUPPORTED);
	assert_false(is_mounted(*state));
	sm_fs_memory_free(be);
	close(fd);
	assert_int_equal(unlink(log), 0);
	assert_int_equal(rmdir(source), 0);
}

static void test_bad_arguments_are_explained(void **state)
{
	struct sm_fs_posix_options o = SM_FS_POSIX_OPTIONS_INIT;
	struct sm_fs_ops empty = {.size = sizeof(empty)};
	struct sm_fs_backend useless = {.ops = &empty}, *be = NULL;
	struct sm_fs_server *server = NULL;
	struct sm_error err = {0};

	assert_int_equal(sm_fs_posix_new("/nowhere", NULL, &be, &err), -ENOENT);
	assert_non_null(strstr(err.message, "/nowhere"));
	assert_int_equal(sm_fs_posix_new("/etc/passwd", NULL, &be, &err), -ENOTDIR);
	o.symlinks = (enum sm_fs_symlinks)7;
	assert_int_equal(sm_fs_posix_new("/tmp", &o, &be, &err), -EINVAL);
	assert_int_equal(sm_fs_mount(&useless, *state, NULL, &server, &err), -EINVAL);
	assert_int_equal(sm_fs_memory_new(NULL, &be, &err), 0);
	assert_int_equal(sm_fs_mount(be, "/nowhere", NULL, &server, &err), -ENOENT);
	assert_int_equal(sm_fs_mount(be, "/etc/passwd", NULL, &server, &err), -ENOTDIR);
	assert_non_null(strstr(err.message, "/etc/passwd"));
	sm_fs_memory_free(be);
	assert_null(sm_fs_memory_free(NULL));
	assert_null(sm_fs_posix_free(NULL));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_mount_serves_and_ends),
		TEST(test_waiting_ends_by_a_descriptor_and_by_an_unmount),
		TEST(test_a_busy_mount_goes_at_once),
		TEST(test_what_a_killed_server_left_is_replaced),
		TEST(test_read_only_is_refused_by_the_kernel),
		TEST(test_a_directory_of_the_host),
		TEST(test_an_audit_names_the_files),
		TEST(test_bad_arguments_are_explained),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "skipped: mounting needs root and /dev/fuse\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
