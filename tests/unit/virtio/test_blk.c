/* SPDX-License-Identifier: Apache-2.0 */
/* The block device through its queue, with either engine: requests good and hostile, resets amid them, snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "base/util.h"
#include "driver.h"
#include "virtio/blk.h"

#define ALL UINT64_MAX
#define SIZE (1 * MIB)
#define HDR (RAM_BASE + 0x100000)
#define STATUS (RAM_BASE + 0x108000)
#define DATA (RAM_BASE + 0x110000)

struct disk {
	struct driver d;
	struct virtio_device *dev;
	int base, top;
	int error; /* as the callback last said */
};

static void on_failed(void *arg, int error)
{
	struct disk *disk = arg;

	disk->error = error;
}

static int file_of(size_t size, int fill)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	uint8_t *p = malloc(size);

	memset(p, fill, size);
	assert_int_equal(pwrite(fd, p, size, 0), size);
	free(p);
	return fd;
}

/* A disk of `SIZE` ones with a sparse top over them, in the engine that the test runs for. */
static struct disk *disk_that(void **state, bool writable, bool replaceable)
{
	struct disk *k = calloc(1, sizeof(*k));
	struct blk_file base = {.size = SIZE}, top = {.size = SIZE};
	struct virtio_blk_options o = {
		.name = "blk", .serial = "upper", .failed = on_failed, .replaceable = replaceable, .arg = k};
	struct sm_error err = {0};

	o.engine = *(enum virtio_blk_engine *)*state;
	driver_init(&k->d);
	base.fd = k->base = file_of(SIZE, 1);
	top.fd = k->top = memfd_create("top", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(blk_chain_open(&base, 1, writable ? &top : NULL, &o.chain, &err), 0);
	if (virtio_blk_new(&k->d.mem, k->d.loop, &o, &k->dev, &err) < 0) {
		print_message("%s\n", err.message);
		skip();
	}
	driver_attach(&k->d, k->dev);
	assert_true(driver_start(&k->d, ALL));
	return k;
}

static struct disk *disk_new(void **state, bool writable)
{
	return disk_that(state, writable, false);
}

static void disk_free(struct disk *k)
{
	driver_done(&k->d);
	close(k->base);
	close(k->top);
	free(k);
}

static void put_header(struct disk *k, uint64_t at, uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};

	memcpy(driver_at(&k->d, at), &hdr, sizeof(hdr));
}

static uint8_t status(struct disk *k)
{
	return *(uint8_t *)driver_at(&k->d, STATUS);
}

/* One request with one buffer of data: its status; *ret_len what the device says it wrote. */
static uint8_t request(struct disk *k, uint32_t type, uint64_t sector, uint64_t data, uint32_t len, uint32_t *ret_len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct driver_buf with[] = {{HDR, 16, false}, {data, len, in}, {STATUS, 1, true}};
	struct driver_buf without[] = {{HDR, 16, false}, {STATUS, 1, true}};

	put_header(k, HDR, type, sector);
	memset(driver_at(&k->d, STATUS), 0xff, 1);
	if (len)
		driver_chain(&k->d, 0, with, 3);
	else
		driver_chain(&k->d, 0, without, 2);
	driver_kick(&k->d, 0);
	assert_true(driver_wait(&k->d, 0, NULL, ret_len));
	return status(k);
}

static void expect_fill(struct disk *k, uint64_t at, size_t len, int fill)
{
	const uint8_t *p = driver_at(&k->d, at);

	for (size_t i = 0; i < len; i++)
		assert_int_equal(p[i], fill);
}

static void test_config(void **state)
{
	struct disk *k = disk_new(state, true);
	struct virtio_blk_config c;

	driver_config(&k->d, 0, &c, offsetof(struct virtio_blk_config, max_secure_erase_sectors));
	assert_int_equal(c.capacity, SIZE / 512);
	assert_int_equal(c.seg_max, 254);
	assert_int_equal(c.blk_size, 512);
	assert_true(driver_offered(&k->d) & 1ULL << VIRTIO_BLK_F_DISCARD);
	assert_false(driver_offered(&k->d) & 1ULL << VIRTIO_BLK_F_RO);
	disk_free(k);
}

static void test_read_and_write(void **state)
{
	struct disk *k = disk_new(state, true);
	struct virtio_blk_stats stats;
	uint32_t len;

	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 8, DATA, 8192, &len), VIRTIO_BLK_S_OK);
	assert_int_equal(len, 8193);
	expect_fill(k, DATA, 8192, 1);
	memset(driver_at(&k->d, DATA), 7, 8192);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 8, DATA, 4096, &len), VIRTIO_BLK_S_OK); /* a whole block */
	assert_int_equal(len, 1);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 33, DATA, 512, &len), VIRTIO_BLK_S_OK); /* a part of one */
	assert_int_equal(request(k, VIRTIO_BLK_T_FLUSH, 0, 0, 0, &len), VIRTIO_BLK_S_OK);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 20480, &len), VIRTIO_BLK_S_OK); /* several extents */
	expect_fill(k, DATA, 4096, 1);
	expect_fill(k, DATA + 4096, 4096, 7);
	expect_fill(k, DATA + 8192, 33 * 512 - 8192, 1);
	expect_fill(k, DATA + 33 * 512, 512, 7);
	expect_fill(k, DATA + 34 * 512, 20480 - 34 * 512, 1);
	assert_true(k->d.signals[1] >= 5);
	virtio_blk_stats(k->dev, &stats);
	assert_int_equal(stats.reads, 2);
	assert_int_equal(stats.writes, 2);
	assert_int_equal(stats.flushes, 1);
	assert_int_equal(stats.bytes_written, 4608);
	assert_int_equal(stats.errors, 0);
	assert_int_equal(stats.uring, *(enum virtio_blk_engine *)*state == VIRTIO_BLK_URING);
	disk_free(k);
}

static void test_get_id(void **state)
{
	struct disk *k = disk_new(state, true);
	uint32_t len;

	memset(driver_at(&k->d, DATA), 0xff, 64);
	assert_int_equal(request(k, VIRTIO_BLK_T_GET_ID, 0, DATA, 20, &len), VIRTIO_BLK_S_OK);
	assert_int_equal(len, 21);
	assert_string_equal((char *)driver_at(&k->d, DATA), "upper");
	assert_int_equal(*(uint8_t *)driver_at(&k->d, DATA + 20), 0xff);
	disk_free(k);
}

static void put_segment(struct disk *k, unsigned i, uint64_t sector, uint32_t num, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes s = {.sector = sector, .num_sectors = num, .flags = flags};

	memcpy(driver_at(&k->d, DATA + i * sizeof(s)), &s, sizeof(s));
}

static void test_discard_and_zeroes(void **state)
{
	struct disk *k = disk_new(state, true);

	put_segment(k, 0, 0, 3, 0);
	put_segment(k, 1, 16, 8, 1);
	assert_int_equal(request(k, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 32, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 16384, NULL), VIRTIO_BLK_S_OK);
	expect_fill(k, DATA, 1536, 0);
	expect_fill(k, DATA + 1536, 8192 - 1536, 1);
	expect_fill(k, DATA + 8192, 4096, 0);
	put_segment(k, 0, 16, 8, 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, NULL), VIRTIO_BLK_S_OK);
	put_segment(k, 0, 16, 8, 1); /* unmap means nothing here */
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, NULL), VIRTIO_BLK_S_UNSUPP);
	put_segment(k, 0, 16, 8, 2);
	assert_int_equal(request(k, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, NULL), VIRTIO_BLK_S_UNSUPP);
	put_segment(k, 0, 16, 0, 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, NULL), VIRTIO_BLK_S_IOERR);
	put_segment(k, 0, SIZE / 512 - 1, 2, 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, NULL), VIRTIO_BLK_S_IOERR);
	put_segment(k, 0, UINT64_MAX, 2, 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, NULL), VIRTIO_BLK_S_IOERR);
	put_segment(k, 0, 0, UINT32_MAX, 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_WRITE_ZEROES, 0, DATA, 16, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 15, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 17 * 16, NULL), VIRTIO_BLK_S_IOERR);
	assert_false(driver_broken(&k->d));
	disk_free(k);
}

static void test_bad_requests(void **state)
{
	struct disk *k = disk_new(state, true);
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t len;
		uint8_t want;
	} cases[] = {
		{VIRTIO_BLK_T_IN, SIZE / 512, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, SIZE / 512 - 1, 1024, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, UINT64_MAX, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, UINT64_MAX / 512, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, SIZE / 512, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, UINT64_MAX - 1, 1024, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 511, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, 0, 513, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 0, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, 0, 0, VIRTIO_BLK_S_IOERR},
		{3, 0, 512, VIRTIO_BLK_S_UNSUPP},
		{14, 0, 16, VIRTIO_BLK_S_UNSUPP},
		{UINT32_MAX, 0, 512, VIRTIO_BLK_S_UNSUPP},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(request(k, cases[i].type, cases[i].sector, DATA, cases[i].len, NULL), cases[i].want);
	assert_false(driver_broken(&k->d));
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512, NULL), VIRTIO_BLK_S_OK);
	disk_free(k);
}

/* Chains that leave no way to answer. */
static void test_unanswerable(void **state)
{
	struct disk *k = disk_new(state, true);
	struct driver_buf short_header[] = {{HDR, 15, false}, {STATUS, 1, true}}, no_status = {HDR, 16, false};
	struct driver_buf only_status = {STATUS, 1, true};

	driver_chain(&k->d, 0, short_header, 2);
	driver_kick(&k->d, 0);
	assert_true(driver_broken(&k->d));
	assert_true(driver_start(&k->d, ALL));
	driver_chain(&k->d, 0, &no_status, 1);
	driver_kick(&k->d, 0);
	assert_true(driver_broken(&k->d));
	assert_true(driver_start(&k->d, ALL));
	driver_chain(&k->d, 0, &only_status, 1);
	driver_kick(&k->d, 0);
	assert_true(driver_broken(&k->d));
	disk_free(k);
}

/* Header, data and status cut in pieces that no driver would make. */
static void test_odd_pieces(void **state)
{
	struct disk *k = disk_new(state, true);
	struct driver_buf out[] = {{HDR, 3, false},  {HDR + 3, 12, false},   {HDR + 15, 1, false},
				   {DATA, 1, false}, {DATA + 1, 600, false}, {DATA + 601, 423, false},
				   {STATUS, 1, true}};
	struct driver_buf in[] = {{HDR, 16, false}, {DATA + 8192, 1000, true}, {DATA + 9192, 25, true}};

	put_header(k, HDR, VIRTIO_BLK_T_OUT, 5);
	for (unsigned i = 0; i < 1024; i++)
		((uint8_t *)driver_at(&k->d, DATA))[i] = (uint8_t)(i * 7);
	driver_chain_indirect(&k->d, 0, out, 7);
	driver_kick(&k->d, 0);
	assert_true(driver_wait(&k->d, 0, NULL, NULL));
	assert_int_equal(status(k), VIRTIO_BLK_S_OK);
	put_header(k, HDR, VIRTIO_BLK_T_IN, 5);
	driver_chain(&k->d, 0, in, 3); /* the status shares the last buffer */
	driver_kick(&k->d, 0);
	assert_true(driver_wait(&k->d, 0, NULL, NULL));
	assert_memory_equal(driver_at(&k->d, DATA), driver_at(&k->d, DATA + 8192), 1024);
	assert_int_equal(*(uint8_t *)driver_at(&k->d, DATA + 9216), VIRTIO_BLK_S_OK);
	disk_free(k);
}

/* The queue full of requests at once; all come back, each with its own data. */
static void test_many_at_once(void **state)
{
	struct disk *k = disk_new(state, true);

	for (unsigned phase = 0; phase < 2; phase++) {
		for (unsigned i = 0; i < 60; i++) {
			uint64_t at = DATA + i * 4096ULL, hdr = HDR + i * 16, st = STATUS + i;
			struct driver_buf bufs[] = {{hdr, 16, false}, {at, 4096, phase == 1}, {st, 1, true}};

			put_header(k, hdr, phase ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i * 8);
			memset(driver_at(&k->d, at), phase ? 0 : (int)i + 10, 4096);
			driver_chain(&k->d, 0, bufs, 3);
		}
		driver_kick(&k->d, 0);
		for (unsigned i = 0; i < 60; i++)
			assert_true(driver_wait(&k->d, 0, NULL, NULL));
	}
	for (unsigned i = 0; i < 60; i++) {
		expect_fill(k, DATA + i * 4096ULL, 4096, (int)i + 10);
		assert_int_equal(*(uint8_t *)driver_at(&k->d, STATUS + i), VIRTIO_BLK_S_OK);
	}
	disk_free(k);
}

/* A reset amid requests: nothing is told afterwards, and the device works again. */
static void test_reset_in_flight(void **state)
{
	struct disk *k = disk_new(state, true);

	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 30; i++) {
			struct driver_buf bufs[] = {
				{HDR, 16, false}, {DATA + i * 4096ULL, 4096, false}, {STATUS, 1, true}};

			put_header(k, HDR, VIRTIO_BLK_T_OUT, (round * 8) % 2000);
			driver_chain(&k->d, 0, bufs, 3);
		}
		driver_kick(&k->d, 0);
		driver_set_status(&k->d, 0);
		memset(driver_at(&k->d, STATUS), 0xaa, 1);
		driver_spin(&k->d, 1);
		assert_int_equal(status(k), 0xaa);
		k->d.brk = RAM_BASE;
		assert_true(driver_start(&k->d, ALL));
		assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512, NULL), VIRTIO_BLK_S_OK);
	}
	disk_free(k);
}

static void test_read_only(void **state)
{
	struct disk *k = disk_new(state, false);

	assert_true(driver_offered(&k->d) & 1ULL << VIRTIO_BLK_F_RO);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 512, NULL), VIRTIO_BLK_S_IOERR);
	put_segment(k, 0, 0, 8, 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_DISCARD, 0, DATA, 16, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512, NULL), VIRTIO_BLK_S_OK);
	expect_fill(k, DATA, 512, 1);
	disk_free(k);
}

/* The layer below loses its end: an I/O error for what was there, said to the monitor, and nothing else. */
static void test_lost_layer(void **state)
{
	struct disk *k = disk_new(state, true);

	assert_int_equal(ftruncate(k->base, 8192), 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 8192, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 8, DATA, 8192, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(k->error, EIO);
	disk_free(k);
}

/* Data in a window whose file is gone: an error from the call, whichever way the data goes. */
static void test_window(void **state)
{
	struct disk *k = disk_new(state, true);
	int fd = memfd_create("window", MFD_CLOEXEC);
	struct mem_region region = {.kind = MEM_DAX_WINDOW, .writable = true, .gpa = GIB, .size = 65536};

	assert_int_equal(ftruncate(fd, 65536), 0);
	region.host = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(mem_add(&k->d.mem, &region), 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, GIB + 8192, 4096, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(region.host[8192], 1);
	region.host[8192] = 9;
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 8, GIB + 8192, 4096, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, GIB + 8192, 4096, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(k->error, 0); /* nothing is wrong with the disk */
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 8, GIB + 8192, 4096, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 8, DATA, 512, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(*(uint8_t *)driver_at(&k->d, DATA), 9);
	munmap(region.host, 65536);
	close(fd);
	disk_free(k);
}

/* How slow the disk is: the worker's reads take this long. (io_uring's are the kernel's own.) */
static unsigned slow_ms;

ssize_t __real_preadv64(int fd, const struct iovec *iov, int n, off_t off);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t off);

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t off)
{
	usleep(__atomic_load_n(&slow_ms, __ATOMIC_RELAXED) * 1000);
	return __real_preadv64(fd, iov, n, off);
}

/* While a disk takes its time, the event loop serves everybody else. */
static void test_slow_disk_stalls_nobody(void **state)
{
	struct disk *k = disk_new(state, true);
	struct driver_buf bufs[] = {{HDR, 16, false}, {DATA, 512, true}, {STATUS, 1, true}};
	uint64_t start = time_now_ns();

	if (*(enum virtio_blk_engine *)*state == VIRTIO_BLK_URING) {
		disk_free(k);
		skip();
	}
	__atomic_store_n(&slow_ms, 500, __ATOMIC_RELAXED);
	put_header(k, HDR, VIRTIO_BLK_T_IN, 0);
	driver_chain(&k->d, 0, bufs, 3);
	driver_kick(&k->d, 0);
	driver_spin(&k->d, 5);
	assert_true(time_now_ns() - start < 400000000);
	assert_false(driver_used(&k->d, 0, NULL, NULL));
	assert_true(driver_wait(&k->d, 0, NULL, NULL));
	assert_int_equal(status(k), VIRTIO_BLK_S_OK);
	__atomic_store_n(&slow_ms, 0, __ATOMIC_RELAXED);
	disk_free(k);
}

/* A host that takes no more data: the guest gets an error, the monitor the reason, and what was there stays. */
static void test_refused_writes(void **state)
{
	struct disk *k = disk_new(state, true);

	memset(driver_at(&k->d, DATA), 5, 4096);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 4096, NULL), VIRTIO_BLK_S_OK);
	assert_int_equal(fcntl(k->top, F_ADD_SEALS, F_SEAL_WRITE), 0);
	memset(driver_at(&k->d, DATA), 6, 4096);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 0, DATA, 4096, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(k->error, EPERM);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 8, DATA, 4096, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_OUT, 17, DATA, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 12288, NULL), VIRTIO_BLK_S_OK);
	expect_fill(k, DATA, 4096, 5);
	expect_fill(k, DATA + 4096, 8192, 1);
	disk_free(k);
}

/* A snapshot with requests in flight: they are done in it. */
static void test_save_ends_requests(void **state)
{
	struct disk *k = disk_new(state, true);
	struct buf out = {0};

	for (unsigned i = 0; i < 30; i++) {
		struct driver_buf bufs[] = {{HDR, 16, false}, {DATA + i * 4096ULL, 4096, true}, {STATUS, 1, true}};

		put_header(k, HDR, VIRTIO_BLK_T_IN, 0);
		driver_chain(&k->d, 0, bufs, 3);
	}
	driver_kick(&k->d, 0);
	assert_int_equal(virtio_pci_save(k->d.pci, &out), 0);
	for (unsigned i = 0; i < 30; i++)
		assert_true(driver_used(&k->d, 0, NULL, NULL));
	buf_done(&out);
	disk_free(k);
}

static void test_idle_disk(void **state)
{
	struct disk *k = calloc(1, sizeof(*k));
	struct virtio_blk_options o = {.name = "blk"};

	driver_init(&k->d);
	k->base = k->top = -1;
	assert_int_equal(virtio_blk_new(&k->d.mem, k->d.loop, &o, &k->dev, NULL), 0);
	driver_attach(&k->d, k->dev);
	assert_true(driver_start(&k->d, ALL));
	assert_int_equal(request(k, VIRTIO_BLK_T_IN, 0, DATA, 512, NULL), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(k, VIRTIO_BLK_T_FLUSH, 0, 0, 0, NULL), VIRTIO_BLK_S_IOERR);
	disk_free(k);
}

/* A place without a disk in the snapshot, and one in the machine that is restored: the driver is told. */
static void test_restored_disk(void **state)
{
	struct disk *idle = calloc(1, sizeof(*idle)), *k = disk_new(state, true), *other;
	struct virtio_blk_options o = {.name = "blk"};
	struct buf empty = {0}, full = {0};
	struct cursor in;

	driver_init(&idle->d);
	idle->base = idle->top = -1;
	assert_int_equal(virtio_blk_new(&idle->d.mem, idle->d.loop, &o, &idle->dev, NULL), 0);
	driver_attach(&idle->d, idle->dev);
	assert_true(driver_start(&idle->d, ALL));
	assert_int_equal(virtio_pci_save(idle->d.pci, &empty), 0);
	assert_int_equal(virtio_pci_save(k->d.pci, &full), 0);

	memcpy(k->d.ram, idle->d.ram, RAM_SIZE);
	in = cursor_of(empty.data, empty.len);
	assert_int_equal(virtio_pci_load(k->d.pci, &in), 0);
	assert_true(k->dev->config_changed);
	virtio_pci_restart(k->d.pci);
	assert_false(k->dev->config_changed);
	/* A disk cannot become another one. */
	other = idle;
	in = cursor_of(full.data, full.len);
	assert_int_equal(virtio_pci_load(other->d.pci, &in), -ENOTSUP);
	buf_done(&empty);
	buf_done(&full);
	disk_free(k);
	disk_free(other);
}

/* One that may be replaced: the same again is no news to the driver, none at all is. */
static void test_replaced_disk(void **state)
{
	struct disk *idle = calloc(1, sizeof(*idle)), *k = disk_that(state, true, true), *same = disk_new(state, true);
	struct virtio_blk_options o = {.name = "blk"};
	struct buf saved = {0}, again = {0};
	struct cursor in;

	driver_init(&idle->d);
	idle->base = idle->top = -1;
	assert_int_equal(virtio_blk_new(&idle->d.mem, idle->d.loop, &o, &idle->dev, NULL), 0);
	driver_attach(&idle->d, idle->dev);
	assert_int_equal(virtio_pci_save(k->d.pci, &saved), 0);

	in = cursor_of(saved.data, saved.len);
	assert_int_equal(virtio_pci_load(same->d.pci, &in), 0);
	assert_false(same->dev->config_changed);
	/* That one is a VM's, for good. */
	assert_int_equal(virtio_pci_save(same->d.pci, &again), 0);
	in = cursor_of(again.data, again.len);
	assert_int_equal(virtio_pci_load(idle->d.pci, &in), -ENOTSUP);

	in = cursor_of(saved.data, saved.len);
	assert_int_equal(virtio_pci_load(idle->d.pci, &in), 0);
	assert_true(idle->dev->config_changed);
	buf_done(&saved);
	buf_done(&again);
	disk_free(k);
	disk_free(same);
	disk_free(idle);
}

int main(void)
{
	static enum virtio_blk_engine engines[] = {VIRTIO_BLK_PLAIN, VIRTIO_BLK_URING};
	int failed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
#define T(f) cmocka_unit_test_prestate(f, &engines[i])
		const struct CMUnitTest tests[] = {
			T(test_config),
			T(test_read_and_write),
			T(test_get_id),
			T(test_discard_and_zeroes),
			T(test_bad_requests),
			T(test_unanswerable),
			T(test_odd_pieces),
			T(test_many_at_once),
			T(test_reset_in_flight),
			T(test_read_only),
			T(test_lost_layer),
			T(test_window),
			T(test_slow_disk_stalls_nobody),
			T(test_refused_writes),
			T(test_save_ends_requests),
			T(test_restored_disk),
			T(test_replaced_disk),
			T(test_idle_disk),
		};

		failed += cmocka_run_group_tests_name(i ? "io_uring" : "plain", tests, NULL, NULL);
	}
	return failed;
}
