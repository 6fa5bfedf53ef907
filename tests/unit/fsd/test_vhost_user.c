/* SPDX-License-Identifier: Apache-2.0 */
/* The vhost-user door with a front end written here: negotiation, one FUSE_INIT through a real ring, and messages that
 * break the protocol. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fileio.h"
#include "fsd/vhost_user.h"
#include "fuse/memory.h"

#define RAM_SIZE (1u << 20)
#define USER 0x7f0000000000ull /* where the front end has the memory */
#define LIMIT_MS 5000

struct fixture {
	struct sm_fs_backend *be;
	struct fuse_session *session;
	pthread_t thread;
	int sock[2], result, memfd, kick, call;
	uint8_t *ram;
	struct sm_error err;
};

static void *serve(void *arg)
{
	struct fixture *f = arg;

	f->result = vhost_user_serve(f->sock[1], f->session, &f->err);
	close(f->sock[1]);
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	f->memfd = memfd_create("ram", MFD_CLOEXEC);
	if (ftruncate(f->memfd, RAM_SIZE) < 0)
		return -1;
	f->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
	f->kick = eventfd(0, 0);
	f->call = eventfd(0, 0);
	return fuse_memory_new(NULL, &f->be) || fuse_session_new(f->be, NULL, &f->session) ||
	       socketpair(AF_UNIX, SOCK_STREAM, 0, f->sock) || pthread_create(&f->thread, NULL, serve, f);
}

static int finish(struct fixture *f)
{
	if (f->sock[0] >= 0) {
		close(f->sock[0]);
		f->sock[0] = -1;
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
	munmap(f->ram, RAM_SIZE);
	close(f->memfd);
	close(f->kick);
	close(f->call);
	free(f);
	return 0;
}

static void tell(struct fixture *f, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int fd)
{
	uint8_t bytes[600];
	uint32_t head[3] = {request, 1 | flags, size};

	memcpy(bytes, head, sizeof(head));
	if (size)
		memcpy(bytes + sizeof(head), payload, size);
	fd_send(f->sock[0], bytes, sizeof(head) + size, &fd, fd >= 0);
}

static uint64_t ask(struct fixture *f, uint32_t request, const void *payload, uint32_t size)
{
	uint8_t bytes[20];
	uint64_t value;

	tell(f, request, 0, payload, size, -1);
	assert_int_equal(read_full(f->sock[0], bytes, sizeof(bytes)), sizeof(bytes));
	assert_memory_equal(bytes, &request, 4);
	memcpy(&value, bytes + 12, 8);
	return value;
}

static void tell_pair(struct fixture *f, uint32_t request, uint32_t index, uint32_t number)
{
	uint32_t pair[2] = {index, number};

	tell(f, request, 0, pair, sizeof(pair), -1);
}

static void bring_up(struct fixture *f, uint32_t ring)
{
	uint64_t table[5] = {1, 0, RAM_SIZE, USER, 0}, features = 1ull << 32 | 1u << 30, protocol = 1u << 3,
		 index = ring;
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = {ring, 0, USER, USER + 0x2000, USER + 0x1000, 0};

	assert_true(ask(f, 1, NULL, 0) & 1ull << 32);
	tell(f, 2, 0, &features, 8, -1);
	assert_true(ask(f, 15, NULL, 0) & 1u << 3);
	tell(f, 16, 0, &protocol, 8, -1);
	tell(f, 3, 0, NULL, 0, -1);
	tell(f, 5, 0, table, sizeof(table), f->memfd);
	tell_pair(f, 8, ring, 8);
	tell_pair(f, 10, ring, 0);
	tell(f, 9, 0, &addr, sizeof(addr), -1);
	tell(f, 13, 0, &index, 8, f->call);
	tell(f, 12, 0, &index, 8, f->kick);
	tell_pair(f, 18, ring, 1);
}

/* Puts a FUSE_INIT in descriptors 0 (request) and 1 (reply) and rings the bell. */
static void send_init(struct fixture *f)
{
	struct desc {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} *desc = (void *)f->ram;
	struct request {
		struct fuse_in_header h;
		struct fuse_init_in in;
	} *rq = (void *)(f->ram + 0x3000);
	uint16_t *avail = (void *)(f->ram + 0x1000);

	*rq = (struct request){.h = {.len = sizeof(*rq), .opcode = FUSE_INIT, .unique = 9},
			       .in = {.major = 7, .minor = 38}};
	desc[0] = (struct desc){0x3000, sizeof(*rq), 1, 1};
	desc[1] = (struct desc){0x4000, 4096, 2, 0};
	avail[2] = 0;
	__atomic_store_n(&avail[1], 1, __ATOMIC_RELEASE);
	assert_int_equal(write(f->kick, &(uint64_t){1}, 8), 8);
}

static void test_a_request_goes_through_a_ring(void **state)
{
	struct fixture *f = *state;
	struct pollfd p = {.fd = f->call, .events = POLLIN};
	const uint16_t *used = (void *)(f->ram + 0x2000);
	const struct fuse_out_header *out = (void *)(f->ram + 0x4000);
	uint32_t index = 1;

	bring_up(f, 1);
	send_init(f);
	assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
	assert_int_equal(__atomic_load_n(&used[1], __ATOMIC_ACQUIRE), 1);
	assert_int_equal(out->error, 0);
	assert_true(out->unique == 9);
	assert_int_equal(out->len, sizeof(*out) + sizeof(struct fuse_init_out));
	/* Stopping it tells how far it came: one request. */
	assert_true(ask(f, 11, (uint32_t[2]){index, 0}, 8) == ((uint64_t)1 << 32 | index));
	assert_int_equal(finish(f), 0);
}

static void expect_cut_off(struct fixture *f, int code)
{
	struct pollfd p = {.fd = f->sock[0], .events = POLLIN};
	char byte;

	assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
	assert_true(read(f->sock[0], &byte, 1) <= 0); /* the end, or a reset when it had not read all */
	assert_int_equal(finish(f), code);
}

static void test_lengths_that_lie_end_the_connection(void **state)
{
	tell(*state, 8, 0, "1234", 4, -1); /* SET_VRING_NUM needs 8 bytes */
	expect_cut_off(*state, -EPROTO);
}

static void test_too_large_a_message_ends_the_connection(void **state)
{
	uint32_t head[3] = {2, 1, 1u << 30};
	struct fixture *f = *state;

	assert_int_equal(write(f->sock[0], head, sizeof(head)), sizeof(head));
	expect_cut_off(f, -EPROTO);
}

static void test_memory_beyond_its_file_is_refused(void **state)
{
	uint64_t table[5] = {1, 0, RAM_SIZE * 2, USER, 0};
	struct fixture *f = *state;

	tell(f, 5, 0, table, sizeof(table), f->memfd);
	expect_cut_off(f, -EPROTO);
}

static void test_a_ring_outside_memory_is_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t index = 0, table[5] = {1, 0, RAM_SIZE, USER, 0};
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = {0, 0, USER + RAM_SIZE, 1, UINT64_MAX, 0};

	tell(f, 5, 0, table, sizeof(table), f->memfd);
	tell_pair(f, 8, 0, 8);
	tell(f, 9, 0, &addr, sizeof(addr), -1);
	tell(f, 12, 0, &index, 8, f->kick);
	tell_pair(f, 18, 0, 1);
	expect_cut_off(f, -EINVAL);
}

static void test_indexes_and_features_out_of_range_are_refused(void **state)
{
	tell_pair(*state, 18, 4711, 1);
	expect_cut_off(*state, -EPROTO);
}

static void test_a_feature_not_offered_is_refused(void **state)
{
	tell(*state, 2, 0, &(uint64_t){~0ull}, 8, -1);
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
