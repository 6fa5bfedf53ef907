/* SPDX-License-Identifier: Apache-2.0 */
/* Requests by io_uring: lengths that do not agree, and ends of mounts in both ways that requests come in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "fuse/dev_uring.h"
#include "fuse/memory.h"
#include "ways.h"

#define PATIENCE_NS (10ULL * 1000000000ULL)

static int parts(uint32_t len, uint32_t payload, size_t room, struct iovec ret[3])
{
	static struct newer_uring_header h;
	static uint8_t memory[4096];
	struct fuse_in_header in = {.len = len, .opcode = FUSE_LOOKUP, .unique = 2};

	memcpy(h.in_out, &in, sizeof(in));
	h.entry.payload_size = payload;
	return dev_uring_parts(&h, memory, room, ret);
}

static void test_lengths_have_to_agree(void **state)
{
	const uint32_t head = sizeof(struct fuse_in_header);
	struct iovec v[3];

	assert_int_equal(parts(head, 0, 4096, v), 0);
	assert_int_equal(v[0].iov_len + v[1].iov_len + v[2].iov_len, head);
	assert_int_equal(parts(head + 128 + 4096, 4096, 4096, v), 0);
	assert_int_equal(v[1].iov_len, 128);
	assert_int_equal(v[2].iov_len, 4096);
	assert_int_equal(parts(head + 5, 5, 4096, v), 0);
	assert_int_equal(v[1].iov_len, 0);
	assert_int_equal(parts(head - 1, 0, 4096, v), -EPROTO);
	assert_int_equal(parts(0, 0, 4096, v), -EPROTO);
	assert_int_equal(parts(head + 129, 0, 4096, v), -EPROTO);     /* more than an operation's arguments */
	assert_int_equal(parts(head + 5, 6, 4096, v), -EPROTO);	      /* a payload longer than the request */
	assert_int_equal(parts(head + 4097, 4097, 4096, v), -EPROTO); /* and than its memory */
	assert_int_equal(parts(UINT32_MAX, UINT32_MAX, 4096, v), -EPROTO);
}

struct fixture {
	char dir[64];
	struct sm_fs_backend *be;
	struct fuse_dev *dev;
};

static void begin(struct fixture *f)
{
	struct fuse_dev_options o = {.threads = way_threads()};
	struct sm_error err = {0};

	assert_int_equal(fuse_memory_new(&(struct fuse_memory_options){.max_bytes = 64 << 20}, &f->be), 0);
	if (fuse_dev_mount(f->be, f->dir, &o, &f->dev, &err) < 0)
		fail_msg("mount: %s", err.message);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/sm-test-uring.XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r = rmdir(f->dir);

	free(f);
	return r;
}

/* The kernel gives what is left to a server's end a moment later. */
static void wait_for_no_server(int fd)
{
	uint64_t end = time_now_ns() + PATIENCE_NS;
	struct statx stx;

	errno = ECANCELED;
	/* What is under way to a ring just then is cancelled or aborted. */
	while (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) == 0 || errno != ENOTCONN) {
		assert_true(errno == ECANCELED || errno == ECONNABORTED);
		if (time_now_ns() > end)
			fail_msg("the server is gone, but is still answered for");
	}
}

static int open_in(const struct fixture *f, const char *name, int flags)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	fd = open(path, flags, 0600);
	assert_true(fd >= 0);
	return fd;
}

static void test_an_unmount_ends_what_is_open(void **state)
{
	struct fixture *f = *state;
	int fd;

	begin(f);
	fd = open_in(f, "file", O_RDWR | O_CREAT);
	assert_int_equal(pwrite(fd, "text", 4, 0), 4);
	assert_true(way_was_taken(f->dev));
	fuse_dev_unmount(f->dev);
	wait_for_no_server(fd);
	close(fd);
	fuse_memory_free(f->be);
}

static void test_a_killed_server_leaves_nobody_waiting(void **state)
{
	struct fixture *f = *state;
	int fds[2], fd;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		begin(f);
		if (write(fds[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(fds[0], &byte, 1), 1);
	fd = open_in(f, "file", O_RDWR | O_CREAT);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	wait_for_no_server(fd);
	close(fd);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(umount2(f->dir, MNT_DETACH), 0);
}

#define CALLERS 8
#define ROUNDS 200

struct caller {
	const struct fixture *f;
	unsigned number, errors;
};

static void *call(void *arg)
{
	struct caller *c = arg;
	char path[96], name[16], text[16];

	for (unsigned i = 0; i < ROUNDS; i++) {
		int fd;

		snprintf(name, sizeof(name), "%u-%u", c->number, i);
		snprintf(path, sizeof(path), "%s/%s", c->f->dir, name);
		fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
		if (fd < 0 || pwrite(fd, name, strlen(name), 0) != (ssize_t)strlen(name) ||
		    pread(fd, text, sizeof(text), 0) != (ssize_t)strlen(name) || memcmp(name, text, strlen(name)) != 0)
			c->errors++;
		if (fd >= 0)
			close(fd);
		if (i % 2 && unlink(path) < 0)
			c->errors++;
	}
	return NULL;
}

static void test_many_callers_get_their_own_answers(void **state)
{
	struct fixture *f = *state;
	struct caller callers[CALLERS];
	pthread_t threads[CALLERS];

	begin(f);
	for (unsigned i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller){.f = f, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
	}
	for (unsigned i = 0; i < CALLERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(callers[i].errors, 0);
	}
	assert_true(way_was_taken(f->dev));
	fuse_dev_unmount(f->dev);
	fuse_memory_free(f->be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths_have_to_agree),
		cmocka_unit_test_setup_teardown(test_an_unmount_ends_what_is_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_killed_server_leaves_nobody_waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_callers_get_their_own_answers, setup, teardown),
	};

	return run_both_ways(tests);
}
