/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing: every size around the borders of pages, appending, vectors, truncation, limits. */
#include "conf.h"

#include <limits.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

static unsigned char buffer[1 << 21], model[1 << 21];

static const size_t sizes[] = {0,    1,	    2,	   511,	  512,	 513,	 4094,	 4095,	 4096,	  4097,	   8191,   8192,
			       8193, 12345, 65535, 65536, 65537, 131071, 131072, 131073, 1048575, 1048576, 1048577};

/* A file of each size, written and read in one piece, then in odd pieces. */
static void whole(void)
{
	for (size_t i = 0; i < COUNT(sizes); i++) {
		size_t len = sizes[i], at = 0;
		int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0644);

		for (size_t k = 0; k < len; k++)
			buffer[k] = pattern(k);
		is_eq(write(fd, buffer, len), (long long)len, "write %zu", len);
		is_eq(stat_of("f").st_size, (long long)len, "size %zu", len);
		memset(buffer, 0, sizeof(buffer));
		is_eq(pread(fd, buffer, sizeof(buffer), 0), (long long)len, "read %zu", len);
		is_true(has_pattern(buffer, 0, len), "content %zu", len);
		is_eq(read(fd, buffer, 10), 0, "end of file %zu", len);
		is_eq(pread(fd, buffer, 10, (off_t)len + 5), 0, "past the end %zu", len);
		lseek(fd, 0, SEEK_SET);
		while (at < len) {
			ssize_t n = read(fd, buffer, 7001);

			if (n <= 0 || !has_pattern(buffer, at, (size_t)n))
				break;
			at += (size_t)n;
		}
		is_eq((long long)at, (long long)len, "pieces %zu", len);
		close(fd);
	}
}

/* Writes at every border over existing contents, checked against a copy in memory. */
static void overwrite(void)
{
	static const size_t lens[] = {1, 100, 4095, 4096, 4097, 10000};
	size_t end = 0;
	int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0644);

	memset(model, 0, sizeof(model));
	for (size_t i = 0; i < COUNT(sizes) - 3; i++) {
		for (size_t k = 0; k < COUNT(lens); k++) {
			size_t off = sizes[i], len = lens[k];

			memset(buffer, (int)(i * 7 + k + 1), len);
			memset(model + off, (int)(i * 7 + k + 1), len);
			end = end > off + len ? end : off + len;
			is_eq(pwrite(fd, buffer, len, (off_t)off), (long long)len, "pwrite %zu at %zu", len, off);
			memset(buffer, 0xee, end);
			is_eq(pread(fd, buffer, end + 100, 0), (long long)end, "size after %zu at %zu", len, off);
			same_bytes(buffer, model, end, "content after %zu at %zu", len, off);
		}
	}
	close(fd);
	fd = open("f", O_RDONLY);
	is_eq(read(fd, buffer, sizeof(buffer)), (long long)end, "size when opened anew");
	same_bytes(buffer, model, end, "content when opened anew");
	close(fd);
}

static void append(void)
{
	int a = open("f", O_WRONLY | O_CREAT | O_APPEND, 0644), b = open("f", O_RDWR | O_APPEND), c;

	is_eq(write(a, "one", 3), 3, "first");
	is_eq(write(b, "two", 3), 3, "second, by another descriptor");
	is_eq(lseek(a, 0, SEEK_SET), 0, "seek to the beginning");
	is_eq(write(a, "three", 5), 5, "third");
	is_true(text_is("f", "onetwothree"), "all are at the end");
	is_eq(lseek(a, 0, SEEK_CUR), 11, "the offset is the end");
	is_eq(pwrite(b, "X", 1, 0), 1, "pwrite");
	is_true(text_is("f", "onetwothreeX"), "pwrite appends too, as Linux has it");
	works(truncate("f", 3), "truncate");
	is_eq(write(b, "!", 1), 1, "after truncate");
	is_true(text_is("f", "one!"), "is at the new end");
	c = open("f", O_WRONLY);
	works(fcntl(c, F_SETFL, O_APPEND), "set append later");
	is_eq(write(c, "?", 1), 1, "write then");
	is_true(text_is("f", "one!?"), "appends");
	works(fcntl(c, F_SETFL, 0), "clear it");
	lseek(c, 0, SEEK_SET);
	is_eq(write(c, "O", 1), 1, "write then again");
	is_true(text_is("f", "One!?"), "does not append");
	close(a), close(b), close(c);
}

static void append_child(void *arg)
{
	char record[64];
	int fd = open("f", O_WRONLY | O_APPEND);

	for (int i = 0; i < 100; i++) {
		memset(record, 'a' + *(int *)arg, sizeof(record));
		record[63] = '\n';
		if (write(fd, record, sizeof(record)) != sizeof(record))
			_exit(1);
	}
}

/* Records appended by several processes at once are all there, and whole. */
static void append_together(void)
{
	pid_t pids[4];
	size_t len, broken = 0, ok = 0;

	put_file("f", "", 0644);
	for (int i = 0; i < 4; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			append_child(&i);
			_exit(0);
		}
	}
	for (int i = 0; i < 4; i++) {
		int status = 1;

		while (waitpid(pids[i], &status, 0) < 0 && errno == EINTR)
			;
		is_eq(status, 0, "writer %d", i);
	}
	len = (size_t)stat_of("f").st_size;
	is_eq((long long)len, 4 * 100 * 64, "all bytes are there");
	need(read_text("f", (char *)buffer, sizeof(buffer)) == len, "read");
	for (size_t at = 0; at + 64 <= len; at += 64) {
		ok++;
		for (size_t i = 1; i < 63; i++)
			if (buffer[at + i] != buffer[at]) {
				broken++;
				break;
			}
	}
	is_eq((long long)ok, 400, "records");
	is_eq((long long)broken, 0, "broken records");
}

static void vectors(void)
{
	struct iovec iov[40];
	char pieces[40][16], in[40][16];
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	ssize_t total = 0;

	for (int i = 0; i < 40; i++) {
		int n = snprintf(pieces[i], sizeof(pieces[i]), "piece%d", i);

		iov[i] = (struct iovec){pieces[i], (size_t)n};
		total += n;
	}
	is_eq(writev(fd, iov, 40), total, "writev");
	is_eq(pwritev(fd, iov, 40, 100000), total, "pwritev");
	for (int i = 0; i < 40; i++) {
		memset(in[i], 0, sizeof(in[i]));
		iov[i].iov_base = in[i];
	}
	is_eq(preadv(fd, iov, 40, 0), total, "preadv");
	for (int i = 0; i < 40; i++)
		is_true(memcmp(in[i], pieces[i], iov[i].iov_len) == 0, "vector %d", i);
	is_eq(lseek(fd, 100000, SEEK_SET), 100000, "seek");
	is_eq(readv(fd, iov, 40), total, "readv");
	fails(readv(fd, iov, minus_one()), EINVAL, "readv of -1");
	fails(readv(fd, iov, IOV_MAX - minus_one()), EINVAL, "readv of too many");
	iov[0].iov_base = bad_address();
	iov[0].iov_len = 10;
	fails(pwritev(fd, iov, 1, 0), EFAULT, "pwritev of a bad address");
	close(fd);
}

static void bad_arguments(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644), d;
	char byte;

	need(mkdir("d", 0755) == 0, "mkdir");
	d = open("d", O_RDONLY);
	fails(read(d, &byte, 1), EISDIR, "read a directory");
	fails(pread(d, &byte, 1, 0), EISDIR, "pread a directory");
	fails(write(d, "x", 1), EBADF, "write to a directory");
	fails(ftruncate(d, 0), EINVAL, "ftruncate a directory");
	fails(truncate("d", 0), EISDIR, "truncate a directory");
	fails(pread(fd, &byte, 1, -1), EINVAL, "pread at -1");
	fails(pwrite(fd, &byte, 1, -1), EINVAL, "pwrite at -1");
	fails(lseek(fd, -1, SEEK_SET), EINVAL, "seek to -1");
	fails(lseek(fd, 0, 99), EINVAL, "seek by 99");
	is_eq(write(fd, "abc", 3), 3, "write");
	fails(lseek(fd, -4, SEEK_CUR), EINVAL, "seek before the beginning");
	fails(lseek(fd, -4, SEEK_END), EINVAL, "seek before the beginning from the end");
	is_eq(lseek(fd, 10, SEEK_END), 13, "seek past the end");
	is_eq(stat_of("f").st_size, 3, "seek does not grow");
	fails(ftruncate(fd, -1), EINVAL, "ftruncate to -1");
	fails(truncate("f", -1), EINVAL, "truncate to -1");
	fails(pread(fd, bad_address(), 3, 0), EFAULT, "read to a bad address");
	fails(pwrite(fd, bad_address(), 3, 0), EFAULT, "write from a bad address");
	is_eq(stat_of("f").st_size, 3, "size after that");
	is_eq(pwrite(fd, "", 0, 1000), 0, "write nothing far away");
	is_eq(stat_of("f").st_size, 3, "does not grow");
	fails(ftruncate(fd, INT64_MAX), EFBIG, "ftruncate to the largest number");
	fails(pwrite(fd, "x", 1, INT64_MAX), EINVAL, "pwrite over the largest number");
	fails(pwrite(fd, "x", 1, INT64_MAX - 65536), EFBIG, "pwrite near the largest number");
	is_eq(stat_of("f").st_size, 3, "size after all");
	fails(ftruncate(999, 0), EBADF, "ftruncate of no descriptor");
	close(d), close(fd);
}

static void truncation(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	size_t size = 0;

	memset(model, 0, sizeof(model));
	for (size_t i = 0; i < COUNT(sizes); i++) {
		/* up and down in turns; what was cut off must not come back */
		size_t want = i % 2 ? sizes[i] : sizes[COUNT(sizes) - 1 - i];

		works(i % 3 ? ftruncate(fd, (off_t)want) : truncate("f", (off_t)want), "truncate to %zu", want);
		if (want < size)
			memset(model + want, 0, size - want);
		size = want;
		is_eq(stat_of("f").st_size, (long long)size, "size %zu", want);
		memset(buffer, 0xee, sizeof(buffer));
		is_eq(pread(fd, buffer, sizeof(buffer), 0), (long long)size, "read %zu", want);
		same_bytes(buffer, model, size, "content %zu", want);
		memset(model, (int)i + 1, size);
		is_eq(pwrite(fd, model, size, 0), (long long)size, "fill %zu", want);
	}
	close(fd);
}

/* Nothing is printed while the limit holds: standard output may be a file, too. */
static void size_limit(void)
{
	struct rlimit low = {8192, RLIM_INFINITY}, high; /* SIGXFSZ is ignored by the program */
	int fd = open("f", O_RDWR | O_CREAT, 0644), errors[3] = {0};
	ssize_t first;
	int below;

	need(getrlimit(RLIMIT_FSIZE, &high) == 0 && setrlimit(RLIMIT_FSIZE, &low) == 0, "setrlimit");
	first = write(fd, buffer, 10000);
	errors[0] = write(fd, buffer, 1) < 0 ? errno : 0;
	errors[1] = pwrite(fd, buffer, 1, 9000) < 0 ? errno : 0;
	errors[2] = ftruncate(fd, 9000) < 0 ? errno : 0;
	below = ftruncate(fd, 100);
	need(setrlimit(RLIMIT_FSIZE, &high) == 0, "setrlimit back");
	is_eq(first, 8192, "write stops at the limit");
	is_eq(errors[0], EFBIG, "then fails");
	is_eq(errors[1], EFBIG, "pwrite past it");
	is_eq(errors[2], EFBIG, "ftruncate past it");
	works(below, "ftruncate below");
	is_eq(stat_of("f").st_size, 100, "size");
	close(fd);
}

static void syncing(void)
{
	int fd = open("f", O_RDWR | O_CREAT | O_SYNC, 0644), d = open(".", O_RDONLY), g;

	is_eq(write(fd, "sync", 4), 4, "write with O_SYNC");
	works(fsync(fd), "fsync");
	works(fdatasync(fd), "fdatasync");
	works(fsync(d), "fsync of a directory");
	works(fdatasync(d), "fdatasync of a directory");
	works(syncfs(fd), "syncfs");
	works(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE), "sync_file_range");
	g = open("g", O_RDWR | O_CREAT | O_DSYNC, 0644);
	is_eq(write(g, "dsync", 5), 5, "write with O_DSYNC");
	works(posix_fadvise(g, 0, 0, POSIX_FADV_DONTNEED) == 0 ? 0 : -1, "fadvise");
	is_true(text_is("g", "dsync"), "read after fadvise");
	fails(fsync(999), EBADF, "fsync of no descriptor");
	close(fd), close(d), close(g);
}

static void between_files(void)
{
	int in, out, p[2];
	off_t off = 5;

	put_bytes("in", 100000);
	in = open("in", O_RDONLY);
	out = open("out", O_RDWR | O_CREAT, 0644);
	is_eq(sendfile(out, in, &off, 50000), 50000, "sendfile");
	is_eq(off, 50005, "its offset");
	is_eq(pread(out, buffer, 60000, 0), 50000, "read");
	is_true(has_pattern(buffer, 5, 50000), "content");
	need(pipe(p) == 0, "pipe");
	off = 100;
	is_eq(splice(in, &off, p[1], NULL, 4096, 0), 4096, "splice out of a file");
	off = 200000;
	is_eq(splice(p[0], NULL, out, &off, 4096, 0), 4096, "splice into a file");
	is_eq(pread(out, buffer, 4096, 200000), 4096, "read that");
	is_true(has_pattern(buffer, 100, 4096), "content of that");
	close(in), close(out);
}

static void seen_at_once(void)
{
	int a = open("f", O_RDWR | O_CREAT, 0644), b = open("f", O_RDWR);
	char buf[16] = "";

	for (int i = 0; i < 50; i++) {
		char text[16];

		snprintf(text, sizeof(text), "round%02d", i);
		pwrite(i % 2 ? a : b, text, 7, i * 3);
		is_true(pread(i % 2 ? b : a, buf, 7, i * 3) == 7 && memcmp(buf, text, 7) == 0,
			"round %d is seen by the other descriptor", i);
		is_eq(stat_of("f").st_size, i * 3 + 7, "size in round %d", i);
	}
	close(a), close(b);
}

GROUPS(io) = {
	{"whole", whole, 0},	      {"overwrite", overwrite, 0},
	{"append", append, 0},	      {"append-many", append_together, 0},
	{"vector", vectors, 0},	      {"io-error", bad_arguments, 0},
	{"truncate", truncation, 0},  {"size-limit", size_limit, 0},
	{"sync", syncing, 0},	      {"splice", between_files, 0},
	{"visible", seen_at_once, 0}, END_OF_GROUPS,
};
