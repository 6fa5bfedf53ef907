/* SPDX-License-Identifier: Apache-2.0 */
/* Holes: made by seeking, fallocate in its modes, found again by SEEK_DATA and SEEK_HOLE; copy_file_range. */
#include "conf.h"

#include <linux/falloc.h>

#define K 1024
#define BIG (256 * K)

static unsigned char buffer[1 << 20], model[1 << 20];

static int filled(const char *name, size_t len)
{
	put_bytes(name, len);
	for (size_t i = 0; i < len; i++)
		model[i] = pattern(i);
	memset(model + len, 0, sizeof(model) - len);
	return open(name, O_RDWR);
}

static void compare(int fd, size_t size, const char *what)
{
	struct stat st;

	fstat(fd, &st);
	is_eq(st.st_size, (long long)size, "size %s", what);
	memset(buffer, 0xee, sizeof(buffer));
	is_eq(pread(fd, buffer, sizeof(buffer), 0), (long long)size, "read %s", what);
	same_bytes(buffer, model, size, "content %s", what);
}

static void sparse(void)
{
	static const off_t at[] = {0, 4095, 4096, 70000, 1 << 20, 1 << 30, 1LL << 32, 1LL << 40};
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	struct stat st;

	for (size_t i = 0; i < COUNT(at); i++) {
		char got[4] = "";

		is_eq(pwrite(fd, "data", 4, at[i]), 4, "write at %lld", (long long)at[i]);
		is_eq(stat_of("f").st_size, at[i] + 4, "size with data at %lld", (long long)at[i]);
		is_true(pread(fd, got, 4, at[i]) == 4 && memcmp(got, "data", 4) == 0, "read at %lld", (long long)at[i]);
	}
	fstat(fd, &st);
	is_true(st.st_blocks * 512 < 1 << 20, "takes little space");
	is_true(st.st_blocks > 0, "takes some space");
	is_eq(pread(fd, buffer, 4096, (1LL << 31)), 4096, "read a hole");
	for (size_t i = 0; i < 4096; i++)
		buffer[0] |= buffer[i];
	is_eq(buffer[0], 0, "a hole is zeros");
	works(ftruncate(fd, 100), "truncate");
	fstat(fd, &st);
	is_true(st.st_blocks * 512 <= 64 * K, "gives the space back");
	close(fd);
}

static void seeking(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	off_t d, h;

	fails(lseek(fd, 0, SEEK_DATA), ENXIO, "data of an empty file");
	fails(lseek(fd, 0, SEEK_HOLE), ENXIO, "hole of an empty file");
	works(ftruncate(fd, BIG), "make a hole");
	fails(lseek(fd, 0, SEEK_DATA), ENXIO, "data of a hole");
	is_eq(lseek(fd, 0, SEEK_HOLE), 0, "hole of a hole");
	is_eq(lseek(fd, 1000, SEEK_HOLE), 1000, "hole in a hole");
	is_eq(pwrite(fd, buffer, 4096, 128 * K), 4096, "write into it");
	is_eq(lseek(fd, 0, SEEK_DATA), 128 * K, "data is found");
	is_eq(lseek(fd, 128 * K + 5, SEEK_DATA), 128 * K + 5, "data in data");
	is_eq(lseek(fd, 128 * K, SEEK_HOLE), 132 * K, "hole behind the data");
	fails(lseek(fd, 132 * K, SEEK_DATA), ENXIO, "no data behind it");
	is_eq(lseek(fd, BIG - 1, SEEK_HOLE), BIG - 1, "hole at the last byte");
	fails(lseek(fd, BIG, SEEK_HOLE), ENXIO, "hole at the end");
	fails(lseek(fd, BIG, SEEK_DATA), ENXIO, "data at the end");
	fails(lseek(fd, -1, SEEK_DATA), ENXIO, "data at -1");
	works(ftruncate(fd, 0), "empty it");
	is_eq(pwrite(fd, buffer, 10, 0), 10, "write ten bytes");
	is_eq(lseek(fd, 0, SEEK_HOLE), 10, "the end is a hole");
	is_eq(lseek(fd, 9, SEEK_DATA), 9, "the last byte is data");
	works(ftruncate(fd, 0), "empty it again");
	for (int i = 0; i < 8; i++)
		is_eq(pwrite(fd, buffer, 4096, i * 64 * K), 4096, "write island %d", i);
	d = h = 0;
	for (int i = 0; i < 8; i++) {
		d = lseek(fd, h, SEEK_DATA);
		is_eq(d, i * 64 * K, "island %d begins", i);
		h = lseek(fd, d, SEEK_HOLE);
		is_eq(h, i * 64 * K + 4096, "island %d ends", i);
	}
	close(fd);
}

static void allocate(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644), ro;
	struct stat st;

	works(fallocate(fd, 0, 0, 100000), "allocate");
	is_eq(stat_of("f").st_size, 100000, "grows");
	fstat(fd, &st);
	is_true(st.st_blocks * 512 >= 100000, "takes space");
	is_eq(pread(fd, buffer, 100000, 0), 100000, "read");
	is_true(buffer[0] == 0 && memcmp(buffer, buffer + 1, 99999) == 0, "is zeros");
	works(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 300000), "allocate past the end");
	is_eq(stat_of("f").st_size, 100000, "keeps the size");
	fstat(fd, &st);
	is_true(st.st_blocks * 512 >= 300000, "takes space past the end");
	works(fallocate(fd, 0, 0, 50), "allocate what is there");
	is_eq(stat_of("f").st_size, 100000, "does not shrink");
	is_eq(pwrite(fd, "x", 1, 99999), 1, "write");
	works(fallocate(fd, 0, 99990, 20), "allocate over the end");
	is_eq(stat_of("f").st_size, 100010, "grows over the end");
	is_true(pread(fd, buffer, 1, 99999) == 1 && buffer[0] == 'x', "leaves data alone");
	is_eq(posix_fallocate(fd, 200000, 10), 0, "posix_fallocate");
	is_eq(stat_of("f").st_size, 200010, "grows by posix_fallocate");
	fails(fallocate(fd, 0, 0, 0), EINVAL, "of nothing");
	fails(fallocate(fd, 0, -1, 10), EINVAL, "at -1");
	fails(fallocate(fd, 0, 0, -1), EINVAL, "of -1");
	fails(fallocate(fd, 0, INT64_MAX, 10), EFBIG, "too far");
	fails(fallocate(fd, 0x4000, 0, 10), EOPNOTSUPP, "in an unknown mode");
	fails(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP, "punch without keep-size");
	ro = open("f", O_RDONLY);
	fails(fallocate(ro, 0, 0, 10), EBADF, "rdonly");
	close(ro);
	ro = open(".", O_RDONLY);
	fails(fallocate(ro, 0, 0, 10), EBADF, "a directory");
	close(ro);
	fails(fallocate(999, 0, 0, 10), EBADF, "no descriptor");
	close(fd);
}

static void punch(void)
{
	static const struct {
		off_t off, len;
	} holes[] = {{0, 4096},	   {4096, 4096}, {5000, 10},	     {8191, 2},	       {10000, 50000}, {4095, 1},
		     {0, 1},	   {BIG - 1, 1}, {BIG - 5000, 5000}, {BIG - 10, 1000}, {BIG, 4096},    {65536, 65536},
		     {1, BIG - 2}, {0, BIG}};
	struct stat st;

	for (size_t i = 0; i < COUNT(holes); i++) {
		char what[64];
		int fd = filled("f", BIG);
		size_t end = (size_t)(holes[i].off + holes[i].len < BIG ? holes[i].off + holes[i].len : BIG);

		snprintf(what, sizeof(what), "punched %lld at %lld", (long long)holes[i].len, (long long)holes[i].off);
		works(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, holes[i].off, holes[i].len), "%s",
		      what);
		if ((size_t)holes[i].off < end)
			memset(model + holes[i].off, 0, end - (size_t)holes[i].off);
		compare(fd, BIG, what);
		close(fd);
		fd = filled("g", BIG);
		snprintf(what, sizeof(what), "zeroed %lld at %lld", (long long)holes[i].len, (long long)holes[i].off);
		if ((size_t)holes[i].off < end)
			memset(model + holes[i].off, 0, end - (size_t)holes[i].off);
		works(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, holes[i].off, holes[i].len), "%s",
		      what);
		compare(fd, BIG, what);
		works(fallocate(fd, FALLOC_FL_ZERO_RANGE, holes[i].off, holes[i].len), "%s and grown", what);
		fstat(fd, &st);
		is_eq(st.st_size, holes[i].off + holes[i].len > BIG ? holes[i].off + holes[i].len : BIG,
		      "size of %s and grown", what);
		close(fd);
	}
	stat("f", &st);
	is_eq(st.st_blocks, 0, "a file that is all hole takes no space");
}

static void collapse_and_insert(void)
{
	int fd = filled("f", BIG);

	works(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 64 * K, 64 * K), "collapse");
	memmove(model + 64 * K, model + 128 * K, BIG - 128 * K);
	memset(model + BIG - 64 * K, 0, 64 * K);
	compare(fd, BIG - 64 * K, "collapsed");
	works(fallocate(fd, FALLOC_FL_INSERT_RANGE, 64 * K, 64 * K), "insert");
	memmove(model + 128 * K, model + 64 * K, BIG - 128 * K);
	memset(model + 64 * K, 0, 64 * K);
	compare(fd, BIG, "inserted");
	close(fd);
}

static void copying(void)
{
	static const struct {
		size_t from, to, len;
	} steps[] = {{0, 0, BIG},	 {0, 4096, 4096}, {100, 5, 1000},      {4095, 4097, 8192},
		     {BIG - 10, 0, 100}, {0, BIG, 5000},  {50000, 2 * BIG, 1}, {BIG, 0, 10}};

	for (size_t i = 0; i < COUNT(steps); i++) {
		int in = filled("in", BIG), out = open("out", O_RDWR | O_CREAT | O_TRUNC, 0644);
		off_t a = (off_t)steps[i].from, b = (off_t)steps[i].to;
		size_t want = steps[i].from + steps[i].len > BIG ? BIG - steps[i].from : steps[i].len, done = 0;
		ssize_t n = 1;

		while (done < want && n > 0) {
			n = copy_file_range(in, &a, out, &b, steps[i].len - done, 0);
			done += n > 0 ? (size_t)n : 0;
		}
		is_eq((long long)done, (long long)want, "copy %zu from %zu to %zu", steps[i].len, steps[i].from,
		      steps[i].to);
		is_eq(a, (off_t)(steps[i].from + want), "copy step %zu moves the offset in", i);
		is_eq(b, (off_t)(steps[i].to + want), "copy step %zu moves the offset out", i);
		is_eq(stat_of("out").st_size, want ? (long long)(steps[i].to + want) : 0, "copy step %zu size", i);
		is_eq(pread(out, buffer, want, (off_t)steps[i].to), (long long)want, "copy step %zu read", i);
		is_true(has_pattern(buffer, steps[i].from, want), "copy step %zu content", i);
		close(in), close(out);
	}
	int fd = filled("f", BIG), ro = open("f", O_RDONLY);
	off_t a = 0, b = 128 * K;

	is_eq(copy_file_range(fd, &a, fd, &b, 64 * K, 0), 64 * K, "within a file");
	memcpy(model + 128 * K, model, 64 * K);
	compare(fd, BIG, "copied within");
	a = 0, b = 10;
	fails(copy_file_range(fd, &a, fd, &b, 100, 0), EINVAL, "copy onto itself");
	a = b = 0;
	fails(copy_file_range(fd, &a, ro, &b, 100, 0), EBADF, "copy to rdonly");
	fails(copy_file_range(fd, &a, fd, &b, 100, 1), EINVAL, "copy with flags");
	close(ro), close(fd);
}

GROUPS(alloc) = {
	{"sparse", sparse, 0},
	{"seek-hole", seeking, 0},
	{"fallocate", allocate, 0},
	{"punch", punch, 0},
	{"collapse", collapse_and_insert, 0},
	{"copy", copying, 0},
	END_OF_GROUPS,
};
