/* SPDX-License-Identifier: Apache-2.0 */
/* The vhost-user door with a front end written here: negotiation, one FUSE_INIT through a real ring, and messages that
 * break the protocol. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front.h"
#include "fuse/memory.h"
#include "vhost/vhost_user.h"

struct fixture {
	struct sm_fs_backend *be;
	struct fuse_session *session;
	pthread_t thread;
	struct front front;
	int sock, result;
	struct sm_error err;
};

static void *serve(void *arg)
{
	struct fixture *f = arg;

	f->result = vhost_user_serve(f->sock, -1, f->session, &f->err);
	close(f->sock);
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int sock[2];

	*state = f;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
		return -1;
	front_init(&f->front, sock[0]);
	f->sock = sock[1];
	return fuse_memory_new(NULL, &f->be) || fuse_session_new(f->be, NULL, &f->session) ||
	       pthread_create(&f->thread, NULL, serve, f);
}

static int finish(struct fixture *f)
{
	if (f->front.sock >= 0) {
		close(f->front.sock);
		f->front.sock = -1;
		pthread_join(f->thread, NULL);
	}
	return f->result;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	finish(f);
	fuse_session_free(f->session);
	fuse_memory_free(f->be);
	front_done(&f->front);
	free(f);
	return 0;
}

static void test_a_request_goes_through_a_ring(void **state)
{
	struct fixture *f = *state;
	uint32_t index = 1;

	front_bring_up(&f->front, 1);
	front_fuse_init(&f->front);
	/* Stopping it tells how far it came: one request. */
	assert_true(front_ask(&f->front, 11, (uint32_t[2]){index, 0}, 8) == ((uint64_t)1 << 32 | index));
	assert_int_equal(finish(f), 0);
}

static void expect_cut_off(struct fixture *f, int code)
{
	struct pollfd p = {.fd = f->front.sock, .events = POLLIN};
	char byte;

	assert_int_equal(poll(&p, 1, FRONT_LIMIT_MS), 1);
	assert_true(read(f->front.sock, &byte, 1) <= 0); /* the end, or a reset when it had not read all */
	assert_int_equal(finish(f), code);
}

static void test_lengths_that_lie_end_the_connection(void **state)
{
	front_tell(&((struct fixture *)*state)->front, 8, 0, "1234", 4, -1); /* SET_VRING_NUM needs 8 bytes */
	expect_cut_off(*state, -EPROTO);
}

static void test_too_large_a_message_ends_the_connection(void **state)
{
	uint32_t head[3] = {2, 1, 1u << 30};
	struct fixture *f = *state;

	assert_int_equal(write(f->front.sock, head, sizeof(head)), sizeof(head));
	expect_cut_off(f, -EPROTO);
}

static void test_memory_beyond_its_file_is_refused(void **state)
{
	uint64_t table[5] = {1, 0, FRONT_RAM_SIZE * 2, FRONT_USER, 0};
	struct fixture *f = *state;

	front_tell(&f->front, 5, 0, table, sizeof(table), f->front.memfd);
	expect_cut_off(f, -EPROTO);
}

static void test_a_ring_outside_memory_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t index = 0, table[5] = {1, 0, FRONT_RAM_SIZE, FRONT_USER, 0};
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = {0, 0, FRONT_USER + FRONT_RAM_SIZE, 1, UINT64_MAX, 0};

	front_tell(&f->front, 5, 0, table, sizeof(table), f->front.memfd);
	front_tell_pair(&f->front, 8, 0, 8);
	front_tell(&f->front, 9, 0, &addr, sizeof(addr), -1);
	front_tell(&f->front, 12, 0, &index, 8, f->front.kick);
	front_tell_pair(&f->front, 18, 0, 1);
	expect_cut_off(f, -EINVAL);
}

static void test_indexes_and_features_out_of_range_are_refused(void **state)
{
	front_tell_pair(&((struct fixture *)*state)->front, 18, 4711, 1);
	expect_cut_off(*state, -EPROTO);
}

static void test_a_feature_not_offered_is_refused(void **state)
{
	front_tell(&((struct fixture *)*state)->front, 2, 0, &(uint64_t){~0ull}, 8, -1);
	expect_cut_off(*state, -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_request_goes_through_a_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lengths_that_lie_end_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_large_a_message_ends_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_beyond_its_file_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_ring_outside_memory_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indexes_and_features_out_of_range_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_feature_not_offered_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
