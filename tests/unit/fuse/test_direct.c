/* SPDX-License-Identifier: Apache-2.0 */
/* O_DIRECT through the posix backend: what it leaves out of the host's page cache, and that nothing else is different.
 * Needs a /tmp whose file system has O_DIRECT, else it is a skip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "fuse/posix.h"

#define SIZE (256u << 10)

static const struct sm_fs_caller root;

struct fixture {
	char dir[64], host[80];
	struct sm_fs_backend *be;
	uint64_t file, fh;
	uint8_t *buf; /* aligned, twice SIZE */
};

static void serve(struct fixture *f, bool direct, unsigned max_open, uint32_t flags)
{
	struct fuse_posix_options o = {.direct = direct, .max_open = max_open};
	struct sm_fs_entry e = {0};
	struct sm_fs_open open = {0};

	strcpy(f->dir, "/tmp/sm-test-direct.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->host, sizeof(f->host), "%s/f", f->dir);
	assert_int_equal(fuse_posix_new(f->dir, &o, &f->be, NULL), 0);
	assert_int_equal(f->be->ops->create(f->be, &root, SM_FS_ROOT, "f", 0644, O_RDWR | O_DIRECT | flags, &e, &open),
			 0);
	f->file = e.nodeid;
	f->fh = open.fh;
	f->buf = mmap(NULL, 2 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(f->buf != MAP_FAILED);
	memset(f->buf, 'd', 2 * SIZE);
}

static void stop(struct fixture *f)
{
	struct fuse_posix_stats st;

	f->be->ops->release(f->be, f->file, f->fh, false, 0);
	f->be->ops->forget(f->be, f->file, 1);
	fuse_posix_get_stats(f->be, &st);
	assert_int_equal(st.open_files, 0);
	fuse_posix_free(f->be);
	munmap(f->buf, 2 * SIZE);
	assert_int_equal(remove_tree_at(AT_FDCWD, f->dir), 0);
}

static void put(struct fixture *f, const uint8_t *from, size_t len, uint64_t off, uint32_t flags)
{
	struct iovec iov = {(void *)(uintptr_t)from, len};

	assert_int_equal(f->be->ops->write(f->be, &root, f->file, f->fh, &iov, 1, off, flags), len);
}

static void get(struct fixture *f, uint8_t *to, size_t room, uint64_t off, size_t want)
{
	struct iovec iov = {to, room};

	assert_int_equal(f->be->ops->read(f->be, f->file, f->fh, &iov, 1, off), want);
}

/* Pages of the file that the host has cached. */
static unsigned cached(const struct fixture *f)
{
	uint8_t pages[2 * SIZE / 4096];
	unsigned n = 0;
	struct stat st;
	int fd = open(f->host, O_RDONLY);
	void *map;

	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size <= 2 * SIZE);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	assert_int_equal(mincore(map, (size_t)st.st_size, pages), 0);
	for (off_t i = 0; i < st.st_size / 4096; i++)
		n += pages[i] & 1;
	munmap(map, (size_t)st.st_size);
	close(fd);
	return n;
}

static void test_aligned_data_leaves_the_cache_out(void **state)
{
	struct fixture f;

	serve(&f, true, 0, 0);
	put(&f, f.buf, SIZE, 0, 0);
	assert_int_equal(cached(&f), 0);
	memset(f.buf, 0, SIZE);
	get(&f, f.buf, SIZE, 0, SIZE);
	assert_int_equal(cached(&f), 0);
	assert_memory_equal(f.buf, f.buf + SIZE, SIZE);
	stop(&f);
	serve(&f, false, 0, 0); /* unless it was asked for */
	put(&f, f.buf, SIZE, 0, 0);
	assert_int_equal(cached(&f), SIZE / 4096);
	stop(&f);
}

static void test_what_is_not_aligned_is_as_right(void **state)
{
	struct fixture f;

	serve(&f, true, 0, 0);
	put(&f, f.buf, SIZE, 0, 0);
	memcpy(f.buf, "abc", 3);
	put(&f, f.buf, 3, 4095, 0);	   /* offset and length */
	put(&f, f.buf + 1, 4096, 8192, 0); /* memory */
	get(&f, f.buf + 4096, 8192, 4096, 8192);
	assert_memory_equal(f.buf + 4096, "bcd", 3);
	assert_memory_equal(f.buf + 8192, "bcd", 3);
	put(&f, f.buf, 100, SIZE, 0); /* the end of the file is where it is */
	get(&f, f.buf + SIZE, SIZE, SIZE, 100);
	assert_memory_equal(f.buf + SIZE, "abc", 3);
	stop(&f);
}

static void test_appending_goes_behind_the_end(void **state)
{
	struct fixture f;

	serve(&f, true, 0, O_APPEND);
	for (int i = 0; i < 4; i++) {
		memset(f.buf, '0' + i, 4096);
		put(&f, f.buf, 4096, 0, SM_FS_WRITE_APPEND);
	}
	get(&f, f.buf, SIZE, 0, 4 * 4096);
	for (int i = 0; i < 4; i++)
		assert_int_equal(f.buf[4096 * i + 4095], '0' + i);
	stop(&f);
}

static void test_without_room_for_a_second_descriptor_it_goes_on(void **state)
{
	struct fixture f;

	serve(&f, true, 1, 0);
	put(&f, f.buf, SIZE, 0, 0);
	assert_int_equal(cached(&f), SIZE / 4096);
	stop(&f);
}

static bool has_direct(void)
{
	char path[] = "/tmp/sm-test-direct.XXXXXX";
	int fd = mkstemp(path), direct = open(path, O_RDWR | O_DIRECT);
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct stat st;
	bool ok = direct >= 0 && pwrite(direct, page, 4096, 0) == 4096 && fstat(fd, &st) == 0 && st.st_dev >> 8;

	munmap(page, 4096);
	close(direct);
	close(fd);
	unlink(path);
	return ok; /* a file system in memory takes the flag, and has nothing but its cache */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_aligned_data_leaves_the_cache_out),
		cmocka_unit_test(test_what_is_not_aligned_is_as_right),
		cmocka_unit_test(test_appending_goes_behind_the_end),
		cmocka_unit_test(test_without_room_for_a_second_descriptor_it_goes_on),
	};

	if (!has_direct()) {
		fprintf(stderr, "skipped: /tmp has no O_DIRECT\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
