/* SPDX-License-Identifier: Apache-2.0 */
/* Layer chains: what reads find where, what crashes leave, what hostile headers get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/util.h"
#include "virtio/blk_chain.h"
#include "virtio/blk_layer.h"

#define SIZE (256 * KIB)

static int file_of(size_t size, int fill)
{
	int fd = memfd_create("layer", MFD_CLOEXEC);
	uint8_t *p = malloc(size + 1);

	assert_true(fd >= 0);
	memset(p, fill, size);
	if (size && fill)
		assert_int_equal(pwrite(fd, p, size, 0), size);
	else
		assert_int_equal(ftruncate(fd, (off_t)size), 0);
	free(p);
	return fd;
}

static struct blk_chain *open_chain(const struct blk_file *layers, unsigned n, const struct blk_file *top)
{
	struct blk_chain *chain = NULL;
	struct sm_error err = {0};

	if (blk_chain_open(layers, n, top, &chain, &err) < 0)
		fail_msg("%s", err.message);
	return chain;
}

static int write_bytes(struct blk_chain *chain, uint64_t off, size_t len, int fill)
{
	uint8_t *p = malloc(len);
	struct iovec iov[2] = {{p, len / 2}, {p + len / 2, len - len / 2}};
	int r;

	memset(p, fill, len);
	r = blk_chain_write(chain, iov, 2, off, len);
	free(p);
	return r;
}

/* Checks the whole disk against a model, in pieces of an odd number of sectors. */
static void expect(struct blk_chain *chain, const uint8_t *model, uint64_t size)
{
	uint8_t *p = malloc(size);

	for (uint64_t off = 0; off < size;) {
		uint64_t n = MIN(size - off, 7 * 512);
		struct iovec iov = {p + off, n};

		assert_int_equal(blk_chain_read(chain, &iov, 1, off, n), 0);
		off += n;
	}
	for (uint64_t i = 0; i < size; i++)
		if (p[i] != model[i])
			fail_msg("byte %llu is %u, not %u", (unsigned long long)i, p[i], model[i]);
	free(p);
}

static void test_raw_top(void **state)
{
	struct blk_file top = {.fd = file_of(4096, 1), .size = SIZE};
	struct blk_chain *chain = open_chain(NULL, 0, &top);
	uint8_t *model = calloc(1, SIZE);
	struct stat st;

	memset(model, 1, 4096);
	assert_int_equal(blk_chain_size(chain), SIZE);
	assert_false(blk_chain_read_only(chain));
	expect(chain, model, SIZE);
	assert_int_equal(write_bytes(chain, 512, 1024, 2), 0);
	memset(model + 512, 2, 1024);
	assert_int_equal(write_bytes(chain, SIZE - 512, 512, 3), 0);
	memset(model + SIZE - 512, 3, 512);
	assert_int_equal(blk_chain_write_zeroes(chain, 1024, 4096, true), 0);
	memset(model + 1024, 0, 4096);
	assert_int_equal(blk_chain_write_zeroes(chain, 0, 512, false), 0);
	memset(model, 0, 512);
	assert_int_equal(blk_chain_discard(chain, SIZE - 4096, 4096), 0);
	memset(model + SIZE - 4096, 0, 4096);
	assert_int_equal(blk_chain_flush(chain), 0);
	expect(chain, model, SIZE);
	blk_chain_free(chain);
	assert_int_equal(fstat(top.fd, &st), 0);
	assert_int_equal(st.st_size, SIZE); /* a raw file stays what it is */
	close(top.fd);
	free(model);
}

static void test_bad_ranges(void **state)
{
	struct blk_file top = {.fd = file_of(0, 0), .size = SIZE};
	struct blk_chain *chain = open_chain(NULL, 0, &top);
	uint8_t bytes[1024];
	struct iovec iov = {bytes, sizeof(bytes)};
	static const struct {
		uint64_t off, len;
	} bad[] = {{0, 0},
		   {1, 512},
		   {0, 511},
		   {SIZE, 512},
		   {SIZE - 512, 1024},
		   {UINT64_MAX - 511, 1024},
		   {512, UINT64_MAX - 511}};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct blk_extent e[4];
		bool new;

		assert_int_equal(blk_chain_read(chain, &iov, 1, bad[i].off, bad[i].len), -EINVAL);
		assert_int_equal(blk_chain_write(chain, &iov, 1, bad[i].off, bad[i].len), -EINVAL);
		assert_int_equal(blk_chain_discard(chain, bad[i].off, bad[i].len), -EINVAL);
		assert_int_equal(blk_chain_write_zeroes(chain, bad[i].off, bad[i].len, true), -EINVAL);
		assert_int_equal(blk_chain_map_read(chain, bad[i].off, bad[i].len, e, 4), -EINVAL);
		assert_int_equal(blk_chain_map_write(chain, bad[i].off, bad[i].len, e, &new), -EINVAL);
	}
	assert_int_equal(blk_chain_read(chain, &iov, 1, 0, 2048), -EINVAL); /* iov too short */
	blk_chain_free(chain);
	close(top.fd);
}

/* A raw base, a sparse layer over it, a sparse top: each block from the highest that has it, partial writes merged. */
static void test_three_layers(void **state)
{
	struct blk_file base = {.fd = file_of(100 * 1000, 1), .size = 100 * 1000}; /* ends amid a sector */
	struct blk_file middle = {.fd = file_of(0, 0), .size = SIZE}, top = {.fd = file_of(0, 0), .size = SIZE};
	struct blk_file layers[] = {base, middle};
	struct blk_chain *chain = open_chain(&base, 1, &middle);
	uint8_t *model = calloc(1, SIZE);

	memset(model, 1, 100 * 1000);
	expect(chain, model, SIZE);
	assert_int_equal(write_bytes(chain, 8192, 8192, 2), 0);
	memset(model + 8192, 2, 8192);
	assert_int_equal(write_bytes(chain, 98304, 1024, 3), 0); /* the end of the base lies in this block */
	memset(model + 98304, 3, 1024);
	expect(chain, model, SIZE);
	blk_chain_free(chain);

	layers[1].size = 0;
	chain = open_chain(layers, 2, &top);
	expect(chain, model, SIZE);
	assert_int_equal(write_bytes(chain, 8192 + 512, 512, 4), 0); /* over the middle */
	memset(model + 8192 + 512, 4, 512);
	assert_int_equal(write_bytes(chain, 512, 4096, 5), 0); /* over the base, two partial blocks */
	memset(model + 512, 5, 4096);
	assert_int_equal(write_bytes(chain, SIZE - 1536, 1536, 6), 0); /* over nothing */
	memset(model + SIZE - 1536, 6, 1536);
	assert_int_equal(write_bytes(chain, 20480 - 512, 3 * 4096, 7), 0);
	memset(model + 20480 - 512, 7, 3 * 4096);
	expect(chain, model, SIZE);
	blk_chain_free(chain);
	/* All of it again, from the files. */
	chain = open_chain(layers, 2, &top);
	expect(chain, model, SIZE);
	/* A discarded block of the top is zeros, another is as before; zeroes are zeroes anywhere. */
	assert_int_equal(blk_chain_discard(chain, 0, 12288), 0);
	memset(model, 0, 12288);
	assert_int_equal(blk_chain_discard(chain, 40960, 4096), 0);
	assert_int_equal(blk_chain_write_zeroes(chain, 45056 + 512, 8192, false), 0);
	memset(model + 45056 + 512, 0, 8192);
	assert_int_equal(blk_chain_write_zeroes(chain, 61440, 1024, true), 0);
	memset(model + 61440, 0, 1024);
	expect(chain, model, SIZE);
	blk_chain_free(chain);
	/* The same layers without a top: read-only, and as large as the largest. */
	chain = open_chain(layers, 2, NULL);
	assert_true(blk_chain_read_only(chain));
	assert_int_equal(blk_chain_size(chain), SIZE);
	assert_int_equal(write_bytes(chain, 0, 512, 1), -EROFS);
	assert_int_equal(blk_chain_discard(chain, 0, 512), -EROFS);
	assert_int_equal(blk_chain_write_zeroes(chain, 0, 512, false), -EROFS);
	assert_int_equal(blk_chain_flush(chain), 0);
	blk_chain_free(chain);
	close(base.fd);
	close(middle.fd);
	close(top.fd);
	free(model);
}

/* A disk whose size is no multiple of a block, against a model, by random operations with reopening. */
static void test_random_operations(void **state)
{
	const uint64_t size = 37 * 4096 + 1536;
	struct blk_file base = {.fd = file_of(20 * 4096 + 100, 9), .size = 20 * 4096 + 100};
	struct blk_file top = {.fd = file_of(0, 0), .size = size};
	struct blk_chain *chain = open_chain(&base, 1, &top);
	uint8_t *model = calloc(1, size);
	unsigned seed = 12345;

	memset(model, 9, base.size);
	for (unsigned i = 0; i < 3000; i++) {
		uint64_t sector = (uint64_t)rand_r(&seed) % (size / 512);
		uint64_t want = (1 + (uint64_t)rand_r(&seed) % 40) * 512, len = MIN(want, size - sector * 512);

		switch (rand_r(&seed) % 8) {
		case 0:
			assert_int_equal(blk_chain_write_zeroes(chain, sector * 512, len, i % 2), 0);
			memset(model + sector * 512, 0, len);
			break;
		case 1:
			blk_chain_free(chain);
			chain = open_chain(&base, 1, &top);
			break;
		default:
			assert_int_equal(write_bytes(chain, sector * 512, len, (int)(i % 255 + 1)), 0);
			memset(model + sector * 512, (int)(i % 255 + 1), len);
		}
		if (i % 50 == 0)
			expect(chain, model, size);
	}
	expect(chain, model, size);
	blk_chain_free(chain);
	close(base.fd);
	close(top.fd);
	free(model);
}

/* What is written before a push stays in its file, what comes after goes into the new one, and reads see both. */
static void test_push(void **state)
{
	struct blk_file base = {.fd = memfd_create("base", 0), .size = 64 * KIB};
	struct blk_file top = {.fd = memfd_create("top", 0), .size = 64 * KIB};
	struct blk_file layers[2] = {base, {.fd = top.fd}};
	int second = memfd_create("second", 0), third = memfd_create("third", 0);
	struct blk_chain *chain = NULL, *frozen = NULL;
	uint8_t a[4096], b[512], got[4096];
	struct iovec iov_a = {a, sizeof(a)}, iov_b = {b, sizeof(b)}, in = {got, sizeof(got)};

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	assert_int_equal(ftruncate(base.fd, 64 * KIB), 0);
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, NULL), 0);
	assert_int_equal(blk_chain_write(chain, &iov_a, 1, 8192, sizeof(a)), 0);
	assert_int_equal(blk_chain_push(chain, second, NULL), 0);
	assert_int_equal(blk_chain_write(chain, &iov_b, 1, 8192 + 512, sizeof(b)), 0);
	assert_int_equal(blk_chain_push(chain, third, NULL), 0);
	assert_int_equal(blk_chain_write(chain, &iov_b, 1, 8192 + 1024, sizeof(b)), 0);
	assert_int_equal(blk_chain_read(chain, &in, 1, 8192, sizeof(got)), 0);
	assert_true(got[0] == 'a' && got[511] == 'a' && got[512] == 'b' && got[1535] == 'b' && got[1536] == 'a');
	assert_int_equal(blk_chain_open(layers, 2, NULL, &frozen, NULL), 0);
	assert_int_equal(blk_chain_read(frozen, &in, 1, 8192, sizeof(got)), 0);
	assert_memory_equal(got, a, sizeof(a));
	blk_chain_free(frozen);
	blk_chain_free(chain);
	/* A raw disk has no place for it, nor one with all the layers that there may be. */
	assert_int_equal(blk_chain_open(NULL, 0, &base, &chain, NULL), 0);
	assert_int_equal(blk_chain_push(chain, third, NULL), -EINVAL);
	blk_chain_free(chain);
	assert_int_equal(ftruncate(top.fd, 0), 0);
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, NULL), 0);
	for (unsigned i = 1; i < BLK_MAX_LAYERS; i++)
		assert_int_equal(blk_chain_push(chain, memfd_create("more", 0), NULL), 0);
	assert_int_equal(blk_chain_push(chain, second, NULL), -E2BIG);
	blk_chain_free(chain);
	for (int fd = third + 1; fd < third + 80; fd++)
		close(fd);
	close(base.fd);
	close(top.fd);
	close(second);
	close(third);
}

/* What was written since the last push is gone, again and again; what was before stays. */
static void test_renew(void **state)
{
	struct blk_file base = {.fd = memfd_create("base", 0), .size = 64 * KIB};
	struct blk_file top = {.fd = memfd_create("top", 0), .size = 64 * KIB};
	struct blk_chain *chain = NULL;
	uint8_t a[4096], b[4096], got[4096];
	struct iovec iov_a = {a, sizeof(a)}, iov_b = {b, sizeof(b)}, in = {got, sizeof(got)};
	int pushed = memfd_create("pushed", 0), fresh = memfd_create("fresh", 0);
	struct blk_file layers[3] = {base, {.fd = top.fd}, {.fd = pushed}};

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	assert_int_equal(ftruncate(base.fd, 64 * KIB), 0);
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, NULL), 0);
	assert_int_equal(blk_chain_write(chain, &iov_a, 1, 8192, sizeof(a)), 0);
	assert_int_equal(blk_chain_push(chain, pushed, NULL), 0);
	assert_int_equal(blk_chain_renew(chain), 0); /* of nothing */
	for (int i = 0; i < 3; i++) {
		assert_int_equal(blk_chain_write(chain, &iov_b, 1, 8192, sizeof(b)), 0);
		assert_int_equal(blk_chain_write(chain, &iov_b, 1, 16384, sizeof(b)), 0);
		assert_int_equal(blk_chain_read(chain, &in, 1, 8192, sizeof(got)), 0);
		assert_memory_equal(got, b, sizeof(b));
		assert_int_equal(blk_chain_renew(chain), 0);
		assert_int_equal(blk_chain_read(chain, &in, 1, 8192, sizeof(got)), 0);
		assert_memory_equal(got, a, sizeof(a));
		assert_int_equal(blk_chain_read(chain, &in, 1, 16384, sizeof(got)), 0);
		assert_int_equal(got[0], 0);
	}
	/* And so it is in the files. */
	assert_int_equal(blk_chain_write(chain, &iov_b, 1, 32768, sizeof(b)), 0);
	assert_int_equal(blk_chain_push(chain, fresh, NULL), 0);
	blk_chain_free(chain);
	assert_int_equal(blk_chain_open(layers, 3, NULL, &chain, NULL), 0);
	assert_int_equal(blk_chain_read(chain, &in, 1, 16384, sizeof(got)), 0);
	assert_int_equal(got[0], 0);
	assert_int_equal(blk_chain_read(chain, &in, 1, 32768, sizeof(got)), 0);
	assert_memory_equal(got, b, sizeof(b));
	blk_chain_free(chain);
	/* A raw disk has nothing to go back to. */
	assert_int_equal(blk_chain_open(NULL, 0, &base, &chain, NULL), 0);
	assert_int_equal(blk_chain_renew(chain), -EINVAL);
	blk_chain_free(chain);
	close(pushed);
	close(fresh);
	close(base.fd);
	close(top.fd);
}

static void test_concat(void **state)
{
	struct blk_file parts[] = {
		{file_of(4096, 1), 4096, 0}, {file_of(9000, 2), 9000, 8192}, {file_of(512, 3), 100, 65536}};
	struct blk_chain *chain = NULL;
	uint8_t *model = calloc(1, 65536 + 512);
	struct blk_extent e[8];

	memset(model, 1, 4096);
	memset(model + 8192, 2, 9000);
	memset(model + 65536, 3, 100);
	assert_int_equal(blk_chain_open_concat(parts, 3, &chain, NULL), 0);
	assert_int_equal(blk_chain_size(chain), 65536 + 512);
	assert_true(blk_chain_read_only(chain));
	expect(chain, model, 65536 + 512);
	/* data, gap, data, gap, data, padding */
	assert_int_equal(blk_chain_map_read(chain, 0, 65536 + 512, e, 8), 6);
	assert_int_equal(blk_chain_map_read(chain, 0, 65536 + 512, e, 5), -E2BIG);
	blk_chain_free(chain);
	/* A part that lost its end is an error where it is missing, and only there. */
	assert_int_equal(blk_chain_open_concat(parts, 3, &chain, NULL), 0);
	assert_int_equal(ftruncate(parts[1].fd, 4096), 0);
	{
		uint8_t bytes[4096];
		struct iovec iov = {bytes, sizeof(bytes)};

		assert_int_equal(blk_chain_read(chain, &iov, 1, 8192, 4096), 0);
		assert_int_equal(blk_chain_read(chain, &iov, 1, 12288, 4096), -EIO);
	}
	blk_chain_free(chain);
	assert_int_equal(blk_chain_open_concat(parts, 3, &chain, NULL), -EINVAL);
	parts[1].size = 4096;
	parts[1].offset = 4000; /* overlap */
	assert_int_equal(blk_chain_open_concat(parts, 3, &chain, NULL), -EINVAL);
	parts[1].offset = UINT64_MAX - 100;
	assert_int_equal(blk_chain_open_concat(parts, 3, &chain, NULL), -EINVAL);
	assert_int_equal(blk_chain_open_concat(parts, 0, &chain, NULL), -EINVAL);
	for (unsigned i = 0; i < 3; i++)
		close(parts[i].fd);
	free(model);
}

/* Each field of the header, wrong. */
static void test_hostile_headers(void **state)
{
	static const struct {
		const char *what;
		size_t at;
		uint8_t value;
	} cases[] = {
		{"magic", 0, 'X'},
		{"magic's version", 7, 2},
		{"version", 8, 2},
		{"block size", 13, 0x20},
		{"size not of sectors", 16, 1},
		{"size", 18, 0},
		{"size beyond all", 23, 1},
		{"bitmap offset", 25, 0x20},
		{"data offset", 34, 0x20},
		{"data offset beyond all", 39, 0x80},
		{"reserved", 40, 1},
		{"last byte", 4095, 1},
	};
	uint8_t header[4096], bad[4096];
	struct blk_file base = {.fd = file_of(4096, 1), .size = 4096};
	struct blk_header h;

	blk_header_format(SIZE, header);
	assert_int_equal(blk_header_parse(header, &h), 0);
	assert_int_equal(h.size, SIZE);
	assert_int_equal(h.data_off, MIB);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct blk_file files[] = {base, {.fd = file_of(4 * MIB, 0)}};
		struct blk_file top = {.fd = files[1].fd, .size = SIZE};
		struct blk_chain *chain;
		struct sm_error err = {0};

		print_message("%s\n", cases[i].what);
		memcpy(bad, header, sizeof(bad));
		bad[cases[i].at] = cases[i].value;
		assert_int_equal(blk_header_parse(bad, &h), -EINVAL);
		assert_int_equal(pwrite(files[1].fd, bad, 4096, 0), 4096);
		assert_int_equal(blk_chain_open(files, 2, NULL, &chain, &err), -EINVAL);
		assert_non_null(strstr(err.message, "layer 1"));
		assert_int_equal(blk_chain_open(&base, 1, &top, &chain, &err), -EINVAL);
		close(files[1].fd);
	}
	close(base.fd);
}

static void test_files_that_do_not_fit(void **state)
{
	struct blk_file base = {.fd = file_of(4096, 1), .size = 8192}, layers[2] = {{.fd = base.fd, .size = 4096}};
	struct blk_file top = {.fd = file_of(4096, 0), .size = SIZE};
	struct blk_chain *chain;
	struct sm_error err = {0};
	uint8_t header[4096];
	int pipes[2];

	assert_int_equal(blk_chain_open(NULL, 0, NULL, &chain, &err), -EINVAL);
	assert_int_equal(blk_chain_open(&base, 1, NULL, &chain, &err), -EINVAL); /* shorter than said */
	base.size = 4096;
	/* A layer without a header is no layer, and one cut short within its bitmap neither. */
	layers[1] = (struct blk_file){.fd = top.fd};
	assert_int_equal(blk_chain_open(layers, 2, NULL, &chain, &err), -EINVAL);
	blk_header_format(SIZE, header);
	assert_int_equal(pwrite(top.fd, header, 4096, 0), 4096);
	assert_int_equal(blk_chain_open(layers, 2, NULL, &chain, &err), -EINVAL);
	/* A top of another size. */
	top.size = SIZE / 2;
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, &err), -EINVAL);
	/* Zero header but bits set: not new, not ours. */
	top.size = SIZE;
	memset(header, 0, sizeof(header));
	assert_int_equal(pwrite(top.fd, header, 4096, 0), 4096);
	assert_int_equal(pwrite(top.fd, "\1", 1, 4099), 1);
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, &err), -EINVAL);
	assert_int_equal(pipe(pipes), 0);
	top.fd = pipes[1];
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, &err), -EINVAL);
	top.fd = -1;
	assert_int_equal(blk_chain_open(&base, 1, &top, &chain, &err), -EBADF);
	close(pipes[0]);
	close(pipes[1]);
	close(base.fd);
	close(layers[1].fd);
}

/* Garbage in blocks whose bit is not set (a crash between data and bit) is never seen. */
static void test_garbage_without_a_bit(void **state)
{
	struct blk_file base = {.fd = file_of(SIZE, 1), .size = SIZE}, top = {.fd = file_of(0, 0), .size = SIZE};
	struct blk_chain *chain = open_chain(&base, 1, &top);
	uint8_t *model = malloc(SIZE), *garbage = malloc(SIZE);

	memset(model, 1, SIZE);
	memset(garbage, 0xee, SIZE);
	assert_int_equal(pwrite(top.fd, garbage, SIZE, MIB), SIZE);
	expect(chain, model, SIZE);
	assert_int_equal(write_bytes(chain, 512, 512, 2), 0);
	memset(model + 512, 2, 512);
	assert_int_equal(blk_chain_write_zeroes(chain, 8192 + 512, 8192, false), 0);
	memset(model + 8192 + 512, 0, 8192);
	assert_int_equal(blk_chain_discard(chain, 65536, 8192), 0);
	expect(chain, model, SIZE);
	blk_chain_free(chain);
	close(base.fd);
	close(top.fd);
	free(model);
	free(garbage);
}

/* A writer killed at any moment: every block that it acknowledged is there, every other is whole, old or new. */
static void test_kill_while_writing(void **state)
{
	for (unsigned round = 0; round < 15; round++) {
		struct blk_file base = {.fd = file_of(SIZE, 1), .size = SIZE},
				top = {.fd = file_of(0, 0), .size = SIZE};
		volatile uint32_t *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		uint8_t *bytes = malloc(SIZE);
		struct iovec iov = {bytes, SIZE};
		struct blk_chain *chain;
		pid_t pid = fork();

		if (pid == 0) {
			chain = open_chain(&base, 1, &top);
			for (uint32_t i = 0;; i++) {
				if (write_bytes(chain, i % 64 * 4096, 4096, (int)(2 + i / 64 % 200)))
					_exit(1);
				*done = i + 1;
			}
		}
		usleep(500 + round * 700);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		chain = open_chain(&base, 1, &top);
		assert_int_equal(blk_chain_read(chain, &iov, 1, 0, SIZE), 0);
		for (uint32_t b = 0; b < 64; b++) {
			/* The last value acknowledged for this block, or the one after. */
			uint32_t n = *done, rounds = n / 64 + (n % 64 > b);
			uint8_t old = (uint8_t)(rounds ? 2 + (rounds - 1) % 200 : 1),
				next = (uint8_t)(2 + rounds % 200);

			assert_true(bytes[b * 4096] == old || (b == n % 64 && bytes[b * 4096] == next));
			for (unsigned i = 1; i < 4096 && b != n % 64; i++)
				assert_int_equal(bytes[b * 4096 + i], bytes[b * 4096]);
		}
		blk_chain_free(chain);
		munmap((void *)(uintptr_t)done, 4096);
		close(base.fd);
		close(top.fd);
		free(bytes);
	}
}

/* A file that cannot grow, as on a full disk: errors, no acknowledgement, and all is well once there is room. */
static void test_bitmap_that_cannot_be_written(void **state)
{
	struct blk_file base = {.fd = file_of(SIZE, 1), .size = SIZE}, top = {.fd = file_of(0, 0), .size = SIZE};
	struct blk_chain *chain = open_chain(&base, 1, &top);
	struct blk_extent where;
	uint8_t *model = malloc(SIZE);

	memset(model, 1, SIZE);
	/* As an engine does whose write of the bits failed. */
	assert_int_equal(write_bytes(chain, 0, 4096, 2), 0);
	memset(model, 2, 4096);
	blk_chain_mark(chain, 8192, 4096, &where);
	blk_chain_unsaved(chain);
	assert_int_equal(blk_chain_sync_fd(chain), -1);
	assert_int_equal(write_bytes(chain, 8192, 4096, 3), 0);
	memset(model + 8192, 3, 4096);
	assert_true(blk_chain_sync_fd(chain) >= 0);
	blk_chain_free(chain);
	chain = open_chain(&base, 1, &top);
	expect(chain, model, SIZE);
	blk_chain_free(chain);
	close(base.fd);
	close(top.fd);
	free(model);
}

/* Writes, zeros and holes of a top over these layers, at random; the model has what comes of it. */
static void scribble(const struct blk_file *layers, unsigned n, const struct blk_file *top, uint8_t *model, int fill)
{
	struct blk_chain *chain = open_chain(layers, n, top);

	for (int i = 0; i < 30; i++) {
		uint64_t off = (uint64_t)(rand() % 500) * 512, len = (uint64_t)(1 + rand() % 40) * 512;

		len = MIN(len, SIZE - off);
		if (rand() % 3) {
			assert_int_equal(write_bytes(chain, off, len, fill), 0);
			memset(model + off, fill, len);
		} else {
			assert_int_equal(blk_chain_write_zeroes(chain, off, len, rand() % 2), 0);
			memset(model + off, 0, len);
		}
	}
	assert_true(blk_chain_sync_fd(chain) >= 0);
	blk_chain_free(chain);
}

static void expect_layers(const struct blk_file *layers, unsigned n, const uint8_t *model)
{
	struct blk_chain *chain = open_chain(layers, n, NULL);

	expect(chain, model, SIZE);
	blk_chain_free(chain);
}

/* The disk is the same with the upper layer and without it, once that went into the one below; twice is as once. */
static void test_merge(void **state)
{
	struct sm_error err = {0};

	for (unsigned seed = 1; seed <= 20; seed++) {
		struct blk_file layers[3] = {{.fd = file_of(SIZE, 1), .size = SIZE},
					     {.fd = file_of(0, 0), .size = SIZE},
					     {.fd = file_of(0, 0), .size = SIZE}};
		uint8_t *model = malloc(SIZE);

		srand(seed);
		memset(model, 1, SIZE);
		scribble(layers, 1, &layers[1], model, 2);
		scribble(layers, 2, &layers[2], model, 3);
		expect_layers(layers, 3, model);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(blk_layer_merge(layers[1].fd, layers[2].fd, &err), 0);
			expect_layers(layers, 3, model);
			expect_layers(layers, 2, model);
		}
		for (int i = 0; i < 3; i++)
			close(layers[i].fd);
		free(model);
	}
}

static void test_merge_of_what_does_not_fit(void **state)
{
	struct blk_file base = {.fd = file_of(SIZE, 1), .size = SIZE}, a = {.fd = file_of(0, 0), .size = SIZE},
			b = {.fd = file_of(0, 0), .size = 2 * SIZE};
	uint8_t *model = calloc(1, 2 * SIZE);
	struct sm_error err = {0};

	memset(model, 1, SIZE);
	scribble(&base, 1, &a, model, 2);
	blk_chain_free(open_chain(&base, 1, &b));
	assert_int_equal(blk_layer_merge(a.fd, b.fd, &err), -EINVAL);
	assert_non_null(strstr(err.message, "layers of 262144 and of 524288 bytes"));
	assert_int_equal(blk_layer_merge(a.fd, base.fd, &err), -EINVAL);
	assert_int_equal(blk_layer_merge(base.fd, a.fd, &err), -EINVAL);
	expect_layers((struct blk_file[]){base, a}, 2, model);
	close(base.fd);
	close(a.fd);
	close(b.fd);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_raw_top),
		cmocka_unit_test(test_bad_ranges),
		cmocka_unit_test(test_three_layers),
		cmocka_unit_test(test_random_operations),
		cmocka_unit_test(test_push),
		cmocka_unit_test(test_renew),
		cmocka_unit_test(test_concat),
		cmocka_unit_test(test_hostile_headers),
		cmocka_unit_test(test_files_that_do_not_fit),
		cmocka_unit_test(test_garbage_without_a_bit),
		cmocka_unit_test(test_kill_while_writing),
		cmocka_unit_test(test_bitmap_that_cannot_be_written),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_merge_of_what_does_not_fit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
