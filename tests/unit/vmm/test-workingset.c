/* SPDX-License-Identifier: Apache-2.0 */
/* A working set without a VM: what was written is noted and copied again, and files that are none are not believed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
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
#include "base/util.h"
#include "vmm/workingset.h"

#define PAGE 4096
#define SIZE (24 * RAM_CHUNK)
#define EMPTY 3 /* a chunk that the file does not have */

static int new_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* RAM from a file in which every chunk but EMPTY has data. */
static int memory_file(struct buf *record)
{
	struct sm_error err = {0};
	uint64_t bytes;
	struct ram ram;
	int fd = new_file();
	uint8_t *touched;

	assert_int_equal(ram_map(&ram, SIZE, &err), 0);
	for (uint64_t chunk = 0; chunk < SIZE / RAM_CHUNK; chunk++)
		if (chunk != EMPTY)
			memset(ram.host + chunk * RAM_CHUNK, (int)chunk + 1, RAM_CHUNK);
	touched = ram_touched(&ram);
	assert_non_null(touched);
	assert_int_equal(ram_save(&ram, touched, fd, record, &bytes, &err), 0);
	free(touched);
	ram_unmap(&ram);
	return fd;
}

static void load(struct ram *ram, int fd, const struct buf *record)
{
	struct cursor c = cursor_of(record->data, record->len);
	struct sm_error err = {0};

	assert_int_equal(ram_map(ram, SIZE, &err), 0);
	assert_int_equal(ram_load(ram, fd, &c, &err), 0);
}

/* How many pages of RAM are copies: what workingset_note counts. */
static int copies(const struct ram *ram)
{
	int fd = new_file(), n = workingset_note(ram, fd);

	close(fd);
	return n;
}

static void test_again(void **state)
{
	static const uint64_t written[] = {0, 2 * RAM_CHUNK - 1, 2 * RAM_CHUNK, 5 * RAM_CHUNK + 7 * PAGE, SIZE - 1};
	struct buf record = {0};
	struct ram a, b;
	int fd = memory_file(&record), set = new_file();

	load(&a, fd, &record);
	if (a.pagemap < 0) {
		print_message("no /proc/self/pagemap here\n");
		skip();
	}
	assert_int_equal(copies(&a), 0);
	for (size_t i = 0; i < ARRAY_SIZE(written); i++)
		a.host[written[i]]++;
	a.host[EMPTY * RAM_CHUNK] = 1;		    /* comes by itself, in one piece */
	assert_int_equal(a.host[7 * RAM_CHUNK], 8); /* read, not written */
	assert_int_equal(workingset_note(&a, set), ARRAY_SIZE(written));
	load(&b, fd, &record);
	assert_int_equal(workingset_apply(&b, set), ARRAY_SIZE(written));
	assert_int_equal(copies(&b), ARRAY_SIZE(written));
	assert_int_equal(b.host[0], 1); /* the snapshot's bytes, not those of whoever noted it */
	assert_int_equal(b.host[5 * RAM_CHUNK + 7 * PAGE], 6);
	assert_int_equal(b.host[SIZE - 1], SIZE / RAM_CHUNK);
	ram_unmap(&a);
	ram_unmap(&b);
	buf_done(&record);
	close(set);
	close(fd);
}

/* A guest that had written more than a restore should copy ahead: nothing is noted. */
static void test_too_much(void **state)
{
	struct buf record = {0};
	struct stat st;
	struct ram a;
	int fd = memory_file(&record), set = new_file();

	load(&a, fd, &record);
	for (uint64_t i = 0; i <= WORKINGSET_MAX_PAGES; i++)
		a.host[(4 * PAGE + RAM_CHUNK * 4) + i * PAGE]++;
	assert_int_equal(workingset_note(&a, set), 0);
	assert_int_equal(fstat(set, &st), 0);
	assert_int_equal(st.st_size, 0);
	ram_unmap(&a);
	buf_done(&record);
	close(set);
	close(fd);
}

/* A file with one run, which `magic`, size and sum make look right. */
static int one_run(uint64_t size, uint32_t count, uint32_t first, uint32_t num)
{
	struct buf b = {0};
	int fd = new_file();

	buf_put(&b, "SM-WSET", 8);
	buf_put_u32(&b, 1);
	buf_put_u64(&b, size);
	buf_put_u32(&b, count);
	buf_put_u32(&b, first);
	buf_put_u32(&b, num);
	buf_put_u32(&b, ~crc32c(UINT32_MAX, b.data, b.len));
	assert_int_equal(pwrite_full(fd, b.data, b.len, 0), 0);
	buf_done(&b);
	return fd;
}

static void test_refused(void **state)
{
	const uint32_t pages = SIZE / PAGE, chunk = RAM_CHUNK / PAGE;
	const int good = one_run(SIZE, 1, 0, 2);
	const int bad[] = {
		one_run(SIZE + RAM_CHUNK, 1, 0, 2),	  /* of other RAM */
		one_run(SIZE, 2, 0, 2),			  /* fewer runs than it says */
		one_run(SIZE, UINT32_MAX, 0, 2),	  /* more than there may be */
		one_run(SIZE, 1, 0, 0),			  /* nothing */
		one_run(SIZE, 1, pages - 1, 2),		  /* past the end */
		one_run(SIZE, 1, UINT32_MAX, UINT32_MAX), /* far past it */
		one_run(SIZE, 1, chunk * EMPTY - 1, 2),	  /* into a chunk that the file does not have */
		one_run(SIZE, 1, chunk * 4, WORKINGSET_MAX_PAGES + 1),
		new_file(), /* empty */
	};
	struct buf record = {0};
	struct ram a;
	uint8_t byte = 0x55;
	int fd = memory_file(&record);

	load(&a, fd, &record);
	assert_int_equal(workingset_apply(&a, good), 2);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(workingset_apply(&a, bad[i]), -EBADMSG);
		close(bad[i]);
	}
	assert_int_equal(pwrite(good, &byte, 1, 26), 1); /* the sum is wrong now */
	assert_int_equal(workingset_apply(&a, good), -EBADMSG);
	ram_unmap(&a);
	buf_done(&record);
	close(good);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
