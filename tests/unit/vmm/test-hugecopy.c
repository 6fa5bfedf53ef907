/* SPDX-License-Identifier: Apache-2.0 */
/* A copy of what is only read: it has the full chunks that the working set has not, RAM over it reads and is written as
 * over the memory file, and what is no copy of it is not mapped. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/fileio.h"
#include "vmm/hugecopy.h"

#define PAGE 4096
#define CHUNKS 8
#define SIZE (CHUNKS * RAM_CHUNK)
#define EMPTY 2	  /* a chunk that the file does not have */
#define PARTIAL 4 /* one that it has a part of */
#define WRITTEN 5 /* one with a page of the working set */

static int new_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int memory_file(struct buf *record)
{
	uint8_t bitmap = (uint8_t) ~(1U << EMPTY), *chunk = malloc(RAM_CHUNK);
	int fd = new_file();

	assert_non_null(chunk);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	for (int i = 0; i < CHUNKS; i++) {
		memset(chunk, i + 1, RAM_CHUNK);
		if (i != EMPTY)
			assert_int_equal(pwrite_full(fd, chunk, i == PARTIAL ? RAM_CHUNK / 2 : RAM_CHUNK,
						     (off_t)(i * RAM_CHUNK)),
					 0);
	}
	free(chunk);
	buf_put_u64(record, SIZE);
	buf_put(record, &bitmap, 1);
	return fd;
}

/* One page of WRITTEN. */
static int working_set(uint64_t size, uint32_t page)
{
	struct buf b = {0};
	int fd = new_file();

	buf_put(&b, "SM-WSET", 8);
	buf_put_u32(&b, 1);
	buf_put_u64(&b, size);
	buf_put_u32(&b, 1);
	buf_put_u32(&b, page);
	buf_put_u32(&b, 1);
	buf_put_u32(&b, ~crc32c(UINT32_MAX, b.data, b.len));
	assert_int_equal(pwrite_full(fd, b.data, b.len, 0), 0);
	buf_done(&b);
	return fd;
}

static void load(struct ram *ram, int fd, const struct buf *record)
{
	struct cursor c = cursor_of(record->data, record->len);
	struct sm_error err = {0};

	assert_int_equal(ram_map(ram, SIZE, &err), 0);
	assert_int_equal(ram_load(ram, fd, &c, &err), 0);
}

static bool has_chunk(int fd, int chunk)
{
	off_t at = (off_t)(chunk * RAM_CHUNK);

	return lseek(fd, at, SEEK_DATA) == at;
}

static void test_copy(void **state)
{
	struct buf record = {0};
	struct ram a, b;
	int fd = memory_file(&record), set = working_set(SIZE, WRITTEN * RAM_CHUNK_PAGES + 3), copy = new_file();

	assert_int_equal(hugecopy_make(fd, set, copy), CHUNKS - 3);
	for (int i = 0; i < CHUNKS; i++)
		assert_int_equal(has_chunk(copy, i), i != EMPTY && i != PARTIAL && i != WRITTEN);
	load(&a, fd, &record);
	load(&b, fd, &record);
	assert_int_equal(hugecopy_map(&a, copy), CHUNKS - 3);
	assert_int_equal(hugecopy_map(&b, copy), CHUNKS - 3);
	assert_memory_equal(a.host, b.host, SIZE);
	for (int i = 0; i < CHUNKS; i++)
		assert_int_equal(a.host[(uint64_t)i * RAM_CHUNK + 1], i == EMPTY ? 0 : i + 1);
	/* What one writes is its own, as ever. */
	a.host[RAM_CHUNK] = 0x77;
	assert_int_equal(b.host[RAM_CHUNK], 2);
	ram_unmap(&b);
	load(&b, fd, &record);
	assert_int_equal(hugecopy_map(&b, copy), CHUNKS - 3);
	assert_int_equal(b.host[RAM_CHUNK], 2);
	ram_unmap(&a);
	ram_unmap(&b);
	buf_done(&record);
	close(set);
	close(copy);
	close(fd);
}

static void test_refused(void **state)
{
	struct buf record = {0};
	struct ram a;
	uint8_t byte = 1;
	int fd = memory_file(&record), set = working_set(SIZE, 0), copy = new_file();
	int other = working_set(2 * SIZE, 0), outside = working_set(SIZE, CHUNKS * RAM_CHUNK_PAGES);

	assert_int_equal(hugecopy_make(fd, other, copy), -EBADMSG);
	assert_int_equal(hugecopy_make(fd, outside, copy), -EBADMSG);
	assert_int_equal(hugecopy_make(set, set, copy), -EINVAL); /* no memory file */
	load(&a, fd, &record);
	assert_int_equal(hugecopy_map(&a, copy), -EBADMSG); /* empty */
	assert_int_equal(ftruncate(copy, 2 * SIZE), 0);
	assert_int_equal(hugecopy_map(&a, copy), -EBADMSG); /* of other RAM */
	assert_int_equal(ftruncate(copy, SIZE), 0);
	assert_int_equal(hugecopy_map(&a, copy), 0);
	assert_int_equal(pwrite(copy, &byte, 1, EMPTY * RAM_CHUNK), 1); /* less than a chunk */
	assert_int_equal(hugecopy_map(&a, copy), -EBADMSG);
	for (uint64_t i = 0; i < RAM_CHUNK_PAGES; i++) /* more than the memory file has */
		assert_int_equal(pwrite(copy, &byte, 1, (off_t)(EMPTY * RAM_CHUNK + i * PAGE)), 1);
	assert_int_equal(hugecopy_map(&a, copy), -EBADMSG);
	assert_int_equal(a.host[EMPTY * RAM_CHUNK], 0);
	ram_unmap(&a);
	buf_done(&record);
	close(outside);
	close(other);
	close(set);
	close(copy);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
