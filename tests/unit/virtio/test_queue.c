/* SPDX-License-Identifier: Apache-2.0 */
/* Split queues against a guest that means harm: every chain is checked, and what is refused is refused without a trace.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "driver.h"
#include "virtio/queue.h"

#define SIZE 8
#define BUF (RAM_BASE + 0x10000)

struct fixture {
	struct driver d;
	struct virtqueue vq;
	struct virtq_chain chain;
};

static struct fixture *fixture_new(bool event_idx, bool indirect)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct driver_queue *q = &f->d.queues[0];

	driver_init(&f->d);
	q->size = SIZE;
	q->desc = driver_alloc(&f->d, 16 * SIZE, 16);
	q->avail = driver_alloc(&f->d, 6 + 2 * SIZE, 2);
	q->used = driver_alloc(&f->d, 6 + 8 * SIZE, 4);
	f->vq = (struct virtqueue){.size = SIZE, .ready = true, .desc = q->desc, .avail = q->avail, .used = q->used};
	assert_int_equal(virtq_activate(&f->vq, &f->d.mem, event_idx, indirect), 0);
	return f;
}

static void fixture_free(struct fixture *f)
{
	driver_done(&f->d);
	free(f);
}

static int pop(struct fixture *f)
{
	return virtq_pop(&f->vq, &f->chain);
}

static void test_good_chain(void **state)
{
	struct fixture *f = fixture_new(true, true);
	struct driver_buf bufs[] = {{BUF, 5, false}, {BUF + 100, 7, false}, {BUF + 200, 11, true}};
	char out[12] = {0};
	uint32_t len;
	uint16_t head;

	memcpy(driver_at(&f->d, BUF), "hello", 5);
	memcpy(driver_at(&f->d, BUF + 100), " world!", 7);
	assert_int_equal(pop(f), 0);
	driver_chain(&f->d, 0, bufs, 3);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.num_read, 2);
	assert_int_equal(f->chain.num_write, 1);
	assert_int_equal(f->chain.len_read, 12);
	assert_int_equal(f->chain.len_write, 11);
	assert_false(f->chain.windows);
	assert_int_equal(virtq_chain_read(&f->chain, 3, out, 9), 0);
	assert_string_equal(out, "lo world!");
	assert_int_equal(virtq_chain_read(&f->chain, 3, out, 10), -71);
	assert_int_equal(virtq_chain_write(&f->chain, 2, "abc", 3), 0);
	assert_int_equal(virtq_chain_write(&f->chain, 9, "abc", 3), -71);
	assert_memory_equal(driver_at(&f->d, BUF + 202), "abc", 3);
	virtq_push(&f->vq, f->chain.head, 5);
	assert_true(driver_used(&f->d, 0, &head, &len));
	assert_int_equal(head, 0);
	assert_int_equal(len, 5);
	assert_int_equal(pop(f), 0);
	fixture_free(f);
}

static void test_unpop_gives_the_same_again(void **state)
{
	struct fixture *f = fixture_new(false, false);
	struct driver_buf buf = {BUF, 5, false};

	driver_chain(&f->d, 0, &buf, 1);
	assert_int_equal(pop(f), 1);
	virtq_unpop(&f->vq);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.head, 0);
	assert_int_equal(pop(f), 0);
	fixture_free(f);
}

static void test_indirect(void **state)
{
	struct fixture *f = fixture_new(true, true);
	struct driver_buf bufs[SIZE];

	for (unsigned i = 0; i < SIZE; i++)
		bufs[i] = (struct driver_buf){BUF + 16 * i, 16, i >= 4};
	driver_chain_indirect(&f->d, 0, bufs, SIZE);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.num_read, 4);
	assert_int_equal(f->chain.num_write, 4);
	/* Some direct ones, then an indirect table. */
	driver_desc(&f->d, 0, 5, BUF, 4, D_NEXT, 6);
	driver_desc(&f->d, 0, 6, BUF + 0x1000, 32, D_INDIRECT, 0);
	memset(driver_at(&f->d, BUF + 0x1000), 0, 32);
	*(uint64_t *)driver_at(&f->d, BUF + 0x1000) = BUF;
	*(uint32_t *)driver_at(&f->d, BUF + 0x1008) = 9;
	driver_post(&f->d, 0, 5);
	assert_int_equal(pop(f), 1);
	assert_int_equal(f->chain.num_read, 2);
	assert_int_equal(f->chain.len_read, 13);
	fixture_free(f);
}

/* Each bad descriptor, with what is wrong about it. */
static void test_hostile_descriptors(void **state)
{
	static const struct {
		const char *what;
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} cases[] = {
		{"before RAM", RAM_BASE - 1, 1, 0, 0},
		{"across the start of RAM", RAM_BASE - 1, 2, 0, 0},
		{"across the end of RAM", RAM_END - 1, 2, 0, 0},
		{"past RAM", RAM_END, 1, D_WRITE, 0},
		{"address zero", 0, 16, 0, 0},
		{"wraps around", UINT64_MAX, 2, 0, 0},
		{"huge", RAM_BASE, UINT32_MAX, 0, 0},
		{"empty", BUF, 0, 0, 0},
		{"loop to itself", BUF, 1, D_NEXT, 0},
		{"next out of range", BUF, 1, D_NEXT, SIZE},
		{"next far out of range", BUF, 1, D_NEXT, UINT16_MAX},
		{"indirect and next", BUF, 16, D_INDIRECT | D_NEXT, 1},
		{"indirect of no entries", BUF, 0, D_INDIRECT, 0},
		{"indirect of half an entry", BUF, 24, D_INDIRECT, 0},
		{"indirect outside RAM", RAM_END - 8, 16, D_INDIRECT, 0},
		{"indirect at the top of memory", UINT64_MAX - 15, 16, D_INDIRECT, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fixture *f = fixture_new(true, true);

		print_message("%s\n", cases[i].what);
		driver_desc(&f->d, 0, 0, cases[i].addr, cases[i].len, cases[i].flags, cases[i].next);
		driver_post(&f->d, 0, 0);
		assert_int_equal(pop(f), -71);
		assert_int_equal(pop(f), -71);
		assert_false(driver_used(&f->d, 0, NULL, NULL));
		fixture_free(f);
	}
}

static void test_hostile_chains(void **state)
{
	struct fixture *f = fixture_new(false, true);
	uint64_t table = BUF + 0x1000;

	/* Readable after writable. */
	driver_desc(&f->d, 0, 0, BUF, 1, D_NEXT | D_WRITE, 1);
	driver_desc(&f->d, 0, 1, BUF, 1, 0, 0);
	driver_post(&f->d, 0, 0);
	assert_int_equal(pop(f), -71);
	/* A loop over the whole table: more descriptors than the queue has. */
	for (uint16_t i = 0; i < SIZE; i++)
		driver_desc(&f->d, 0, i, BUF, 1, D_NEXT, (uint16_t)((i + 1) % SIZE));
	assert_int_equal(pop(f), -71);
	/* Lengths that add up to more than 32 bits. */
	for (uint16_t i = 0; i < SIZE; i++)
		driver_desc(&f->d, 0, i, RAM_BASE, RAM_SIZE, i < SIZE - 1 ? D_NEXT : 0, (uint16_t)(i + 1));
	assert_int_equal(pop(f), 1); /* 8 times 4 MiB, overlapping: odd, but safe */
	assert_int_equal(f->chain.len_read, SIZE * RAM_SIZE);
	virtq_unpop(&f->vq);
	/* An indirect table within an indirect table. */
	driver_desc(&f->d, 0, 0, table, 16, D_INDIRECT, 0);
	memset(driver_at(&f->d, table), 0, 16);
	*(uint64_t *)driver_at(&f->d, table) = table;
	*(uint32_t *)driver_at(&f->d, table + 8) = 16;
	*(uint16_t *)driver_at(&f->d, table + 12) = D_INDIRECT;
	assert_int_equal(pop(f), -71);
	/* A loop in an indirect table. */
	*(uint16_t *)driver_at(&f->d, table + 12) = D_NEXT;
	assert_int_equal(pop(f), -71);
	/* Its next out of its range. */
	*(uint16_t *)driver_at(&f->d, table + 14) = 1;
	assert_int_equal(pop(f), -71);
	fixture_free(f);
	/* Indirect, not negotiated. */
	f = fixture_new(false, false);
	driver_desc(&f->d, 0, 0, table, 16, D_INDIRECT, 0);
	driver_post(&f->d, 0, 0);
	assert_int_equal(pop(f), -71);
	fixture_free(f);
}

static void test_hostile_avail_ring(void **state)
{
	struct fixture *f = fixture_new(false, false);
	uint16_t *avail = driver_at(&f->d, f->vq.avail);

	driver_post(&f->d, 0, SIZE); /* head out of range */
	assert_int_equal(pop(f), -71);
	avail[2] = UINT16_MAX;
	assert_int_equal(pop(f), -71);
	avail[1] = SIZE + 1; /* more than the ring holds */
	assert_int_equal(pop(f), -71);
	avail[1] = UINT16_MAX; /* backwards */
	assert_int_equal(pop(f), -71);
	fixture_free(f);
}

static void test_bad_rings(void **state)
{
	struct fixture *f = fixture_new(false, false);
	struct virtqueue good = f->vq, vq;
	uint16_t sizes[] = {0, 3, 12, 2048, UINT16_MAX};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		vq = good;
		vq.size = sizes[i];
		assert_int_equal(virtq_activate(&vq, &f->d.mem, true, true), -22);
	}
	for (unsigned i = 0; i < 3; i++) {
		uint64_t bad[] = {0, RAM_END, RAM_END - 16, RAM_BASE - 16, UINT64_MAX - 15, good.desc + 1};

		for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			vq = good;
			*(i == 0 ? &vq.desc : i == 1 ? &vq.avail : &vq.used) = bad[j];
			assert_int_equal(virtq_activate(&vq, &f->d.mem, true, true), -22);
			/* And an inactive queue gives nothing. */
			assert_int_equal(virtq_pop(&vq, &f->chain), 0);
			assert_false(virtq_enable_notify(&vq));
			virtq_push(&vq, 0, 0);
			assert_false(virtq_should_signal(&vq));
		}
	}
	fixture_free(f);
}

static void test_event_index(void **state)
{
	struct fixture *f = fixture_new(true, false);
	uint16_t *avail = driver_at(&f->d, f->vq.avail), *used = driver_at(&f->d, f->vq.used);
	struct driver_buf buf = {BUF, 1, true};

	assert_false(virtq_should_signal(&f->vq)); /* nothing to tell */
	virtq_push(&f->vq, 0, 0);
	assert_true(virtq_should_signal(&f->vq)); /* the first time, always */
	assert_false(virtq_should_signal(&f->vq));
	avail[2 + SIZE] = 3; /* not before the fourth */
	virtq_push(&f->vq, 0, 0);
	virtq_push(&f->vq, 0, 0);
	assert_false(virtq_should_signal(&f->vq));
	virtq_push(&f->vq, 0, 0);
	assert_true(virtq_should_signal(&f->vq));
	virtq_push(&f->vq, 0, 0);
	assert_false(virtq_should_signal(&f->vq)); /* the event is past */
	/* Kicks: asked for from here on, and what came meanwhile is seen. */
	assert_false(virtq_enable_notify(&f->vq));
	assert_int_equal(used[2 + 4 * SIZE], 0);
	driver_chain(&f->d, 0, &buf, 1);
	assert_true(virtq_enable_notify(&f->vq));
	assert_int_equal(pop(f), 1);
	assert_false(virtq_enable_notify(&f->vq));
	assert_int_equal(used[2 + 4 * SIZE], 1);
	fixture_free(f);
}

static void test_flags(void **state)
{
	struct fixture *f = fixture_new(false, false);
	uint16_t *avail = driver_at(&f->d, f->vq.avail), *used = driver_at(&f->d, f->vq.used);

	virtq_push(&f->vq, 0, 0);
	assert_true(virtq_should_signal(&f->vq));
	avail[0] = 1;
	virtq_push(&f->vq, 0, 0);
	assert_false(virtq_should_signal(&f->vq));
	virtq_disable_notify(&f->vq);
	assert_int_equal(used[0], 1);
	assert_false(virtq_enable_notify(&f->vq));
	assert_int_equal(used[0], 0);
	fixture_free(f);
}

/* Sixteen bits of index go round without losing or repeating anything. */
static void test_index_wraps(void **state)
{
	struct fixture *f = fixture_new(true, false);
	struct driver_buf buf = {BUF, 1, true};

	for (unsigned i = 0; i < 70000; i++) {
		uint16_t want = driver_chain(&f->d, 0, &buf, 1), head;
		uint32_t len;

		if (pop(f) != 1)
			fail();
		virtq_push(&f->vq, f->chain.head, i);
		if (!driver_used(&f->d, 0, &head, &len) || head != want || len != i)
			fail();
	}
	fixture_free(f);
}

/* A window whose file was cut short: an error from a call, never a signal. */
static void test_truncated_window(void **state)
{
	struct fixture *f = fixture_new(false, false);
	int fd = memfd_create("window", MFD_CLOEXEC);
	struct mem_region region = {.kind = MEM_DAX_WINDOW, .writable = true, .gpa = 1ULL << 32, .size = 8192};
	struct driver_buf bufs[] = {{(1ULL << 32) + 4090, 12, false}, {(1ULL << 32) + 4090, 12, true}};
	char bytes[12];

	assert_true(fd >= 0 && ftruncate(fd, 8192) == 0);
	region.host = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(region.host, MAP_FAILED);
	assert_int_equal(mem_add(&f->d.mem, &region), 0);
	driver_chain(&f->d, 0, bufs, 2);
	assert_int_equal(pop(f), 1);
	assert_true(f->chain.windows);
	assert_int_equal(virtq_chain_write(&f->chain, 0, "hello, world", 12), 0);
	assert_int_equal(virtq_chain_read(&f->chain, 0, bytes, 12), 0);
	assert_memory_equal(bytes, "hello, world", 12);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(virtq_chain_read(&f->chain, 0, bytes, 12), -14);
	assert_int_equal(virtq_chain_write(&f->chain, 0, bytes, 12), -14);
	assert_int_equal(virtq_chain_read(&f->chain, 0, bytes, 6), 0);
	/* Rings and tables may not lie in windows at all. */
	f->vq.desc = 1ULL << 32;
	assert_int_equal(virtq_activate(&f->vq, &f->d.mem, false, false), -22);
	munmap(region.host, 8192);
	close(fd);
	fixture_free(f);
}

/* A read-only window takes no data. */
static void test_read_only_window(void **state)
{
	struct fixture *f = fixture_new(false, false);
	struct mem_region region = {.kind = MEM_IMAGE_WINDOW, .gpa = 1ULL << 32, .size = 4096};
	struct driver_buf in = {1ULL << 32, 12, false}, out = {1ULL << 32, 12, true};

	region.host = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(mem_add(&f->d.mem, &region), 0);
	driver_chain(&f->d, 0, &in, 1);
	assert_int_equal(pop(f), 1);
	driver_chain(&f->d, 0, &out, 1);
	assert_int_equal(pop(f), -71);
	munmap(region.host, 4096);
	fixture_free(f);
}

static void test_slices(void **state)
{
	char a[10], b[10];
	struct iovec in[] = {{a, 10}, {b, 10}}, out[2];

	assert_int_equal(virtq_iov_slice(in, 2, 5, 10, out, 2), 2);
	assert_ptr_equal(out[0].iov_base, a + 5);
	assert_int_equal(out[0].iov_len, 5);
	assert_ptr_equal(out[1].iov_base, b);
	assert_int_equal(out[1].iov_len, 5);
	assert_int_equal(virtq_iov_slice(in, 2, 10, 10, out, 2), 1);
	assert_int_equal(virtq_iov_slice(in, 2, 11, 10, out, 2), -71);
	assert_int_equal(virtq_iov_slice(in, 2, 5, 10, out, 1), -71);
	assert_int_equal(virtq_iov_slice(in, 2, 20, 0, out, 1), 0);
	assert_int_equal(virtq_iov_slice(in, 2, UINT64_MAX, 1, out, 1), -71);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_chain),
		cmocka_unit_test(test_unpop_gives_the_same_again),
		cmocka_unit_test(test_indirect),
		cmocka_unit_test(test_hostile_descriptors),
		cmocka_unit_test(test_hostile_chains),
		cmocka_unit_test(test_hostile_avail_ring),
		cmocka_unit_test(test_bad_rings),
		cmocka_unit_test(test_event_index),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_index_wraps),
		cmocka_unit_test(test_truncated_window),
		cmocka_unit_test(test_read_only_window),
		cmocka_unit_test(test_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
