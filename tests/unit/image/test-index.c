/* SPDX-License-Identifier: Apache-2.0 */
/* The layer index: what is written is read, and nothing else is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fileio.h"
#include "base/util.h"
#include "image/index.h"
#include "image/path.h"

static struct tar_bytes bytes(const char *s)
{
	return (struct tar_bytes){(const uint8_t *)s, strlen(s)};
}

static int make(int fd)
{
	struct tar_xattr xattr = {bytes("user.x"), bytes("value")};
	struct index_run runs[] = {{1, 2}, {9, 1}};
	struct index_record records[] = {
		{.type = RECORD_DIR, .mode = 0755, .path = bytes("")},
		{.type = RECORD_FILE,
		 .mode = 04755,
		 .uid = 1,
		 .gid = UINT32_MAX,
		 .mtime = -5,
		 .mtime_nsec = 999999999,
		 .size = 5000,
		 .path = bytes("a/b"),
		 .xattrs = &xattr,
		 .num_xattrs = 1},
		{.type = RECORD_FILE,
		 .size = 40961,
		 .chunk_bits = 12,
		 .place = 8192,
		 .runs = runs,
		 .num_runs = 2,
		 .path = bytes("a/sparse")},
		{.type = RECORD_SYMLINK, .path = bytes("l"), .link = bytes("../x")},
		{.type = RECORD_HARDLINK, .path = bytes("h"), .link = bytes("a/b")},
		{.type = RECORD_WHITEOUT, .path = bytes("gone")},
	};
	struct index_writer *w;
	int r = index_create(fd, &w);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(records); i++)
		r = index_add(w, &records[i], NULL);
	if (r == 0)
		r = index_finish(w, 5 * BLOCK_SIZE, 7, NULL);
	index_writer_free(w);
	return r;
}

/* Records read, or the error. */
static int read_all(int fd)
{
	const struct index_record *rec;
	struct index_reader *reader;
	int n = 0, r = index_open(fd, &reader, NULL);

	if (r < 0)
		return r;
	while ((r = index_next(reader, &rec, NULL)) == 1)
		n++;
	index_close(reader);
	return r < 0 ? r : n;
}

static void test_round_trip(void **state)
{
	int fd = memfd_create("index", MFD_CLOEXEC);
	const struct index_record *rec;
	struct index_reader *reader;

	assert_int_equal(make(fd), 0);
	assert_int_equal(read_all(fd), 6);
	assert_int_equal(index_open(fd, &reader, NULL), 0);
	assert_int_equal(index_totals(reader)->blob_size, 5 * BLOCK_SIZE);
	assert_int_equal(index_totals(reader)->stripped, 7);
	assert_int_equal(index_next(reader, &rec, NULL), 1);
	assert_int_equal(index_next(reader, &rec, NULL), 1);
	assert_int_equal(rec->mtime, -5);
	assert_int_equal(rec->mtime_nsec, 999999999);
	assert_int_equal(rec->gid, UINT32_MAX);
	assert_memory_equal(rec->xattrs[0].value.p, "value", 5);
	assert_int_equal(index_next(reader, &rec, NULL), 1);
	assert_int_equal(rec->num_runs, 2);
	assert_int_equal(rec->runs[1].first, 9);
	index_close(reader);
	close(fd);
}

static void test_every_byte_counts(void **state)
{
	int fd = memfd_create("index", MFD_CLOEXEC);
	struct stat st;

	assert_int_equal(make(fd), 0);
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 0; at < st.st_size; at++) {
		uint8_t b;

		assert_int_equal(pread_full(fd, &b, 1, at), 1);
		b ^= 0x41;
		assert_int_equal(pwrite_full(fd, &b, 1, at), 0);
		if (read_all(fd) != -EUCLEAN)
			fail_msg("byte %lld", (long long)at);
		b ^= 0x41;
		assert_int_equal(pwrite_full(fd, &b, 1, at), 0);
	}
	for (off_t len = st.st_size - 1; len >= 0; len--) {
		assert_int_equal(ftruncate(fd, len), 0);
		assert_int_equal(read_all(fd), -EUCLEAN);
	}
	close(fd);
}

static void test_paths(void **state)
{
	static const char *const good[][2] = {
		{"/a//b/./c/", "a/b/c"}, {"./", ""}, {"", ""}, {"...", "..."}, {"a/..b", "a/..b"}};
	static const char *const bad[] = {"..", "a/..", "../a", "a/../b"};
	struct buf out = {0};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(path_normalise(bytes(good[i][0]), 100, 10, &out, NULL), 0);
		assert_int_equal(out.len, strlen(good[i][1]));
		assert_true(out.len == 0 || memcmp(out.data, good[i][1], out.len) == 0);
		assert_true(path_is_normal((const uint8_t *)good[i][1], strlen(good[i][1]), 10));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_true(path_normalise(bytes(bad[i]), 100, 10, &out, NULL) < 0);
		assert_false(path_is_normal((const uint8_t *)bad[i], strlen(bad[i]), 10));
	}
	assert_false(path_is_normal((const uint8_t *)"a//b", 4, 10));
	assert_false(path_is_normal((const uint8_t *)"/a", 2, 10));
	assert_false(path_is_normal((const uint8_t *)"a/", 2, 10));
	assert_false(path_is_normal((const uint8_t *)"a/b/c", 5, 2));
	assert_int_equal(path_normalise((struct tar_bytes){(const uint8_t *)"a\0b", 3}, 100, 10, &out, NULL), -EBADMSG);
	buf_done(&out);
}

static void test_text(void **state)
{
	char out[PATH_TEXT_MAX], name[5000];

	assert_string_equal(path_text(bytes("a b\n\"\\"), out), "\"a b\\x0a\\x22\\x5c\"");
	for (size_t n = 0; n < sizeof(name); n += 7) {
		memset(name, n % 2 ? '\n' : 'x', n);
		assert_true(strlen(path_text((struct tar_bytes){(uint8_t *)name, n}, out)) < PATH_TEXT_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_byte_counts),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
