/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture [-s SEED] [-n OPERATIONS] [-w WORKERS] DIRECTORY: random operations on files, each compared with a model in
 * memory. Every worker is a process with names and files of its own; all of them share one more file, in which each
 * owns every WORKERSth record. The same seed gives the same operations. Ends with "N passed, M failed, 0 skipped"
 * (checks); a worker stops at its first failure, after printing the seed and its last operations.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define NAMES 8
#define HANDLES 5
#define ROOM (512 * 1024)
#define RECORD 64
#define RECORDS 512 /* of one worker in the shared file */
#define HISTORY 24

struct file { /* what a file must contain, whether it has a name or not */
	unsigned char *data;
	size_t size;
	unsigned refs; /* names and handles */
	int attribute; /* value of user.t, -1: none */
};

struct handle {
	int fd;
	struct file *file;
	bool append;
};

struct worker {
	uint64_t seed, rng;
	unsigned index, count;
	struct file *names[NAMES];
	struct handle handles[HANDLES];
	unsigned char *scratch;
	int shared_fd;
	unsigned char *shared_map;
	unsigned char records[RECORDS];
	char history[HISTORY][96];
	unsigned long op, *passed;
};

static uint64_t next(struct worker *w)
{
	uint64_t z = w->rng += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static size_t below(struct worker *w, size_t n)
{
	return n ? (size_t)(next(w) % n) : 0;
}

__attribute__((format(printf, 2, 3))) static void note(struct worker *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->history[w->op % HISTORY], sizeof(w->history[0]), fmt, ap);
	va_end(ap);
}

static void check(struct worker *w, bool good, const char *what)
{
	int saved = errno;

	if (good) {
		__atomic_add_fetch(w->passed, 1, __ATOMIC_RELAXED);
		return;
	}
	printf("not ok worker %u, operation %lu of seed %llu: %s (errno %s)\n", w->index, w->op,
	       (unsigned long long)w->seed, what, strerrorname_np(saved));
	for (unsigned long i = w->op >= HISTORY ? w->op - HISTORY + 1 : 0; i <= w->op; i++)
		printf("#   %lu: %s\n", i, w->history[i % HISTORY]);
	fflush(stdout);
	_exit(1);
}

/* Offsets and lengths that like the borders of pages. */
static size_t position(struct worker *w, size_t limit)
{
	size_t at = below(w, limit);

	switch (below(w, 4)) {
	case 0:
		return at & ~(size_t)4095;
	case 1:
		at = (at & ~(size_t)4095) + 4095 + below(w, 3);
		return at < limit ? at : limit - 1;
	default:
		return at;
	}
}

static size_t length(struct worker *w)
{
	static const size_t scales[] = {16, 512, 4096, 20000, 140000};

	return 1 + below(w, scales[below(w, 5)]);
}

static void fill(struct worker *w, unsigned char *p, size_t len)
{
	unsigned char start = (unsigned char)next(w);

	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(start + i * 7 + (i >> 8));
}

/* ---------------------------------------------------------------------------------------- the model */

static struct file *file_new(void)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f || !(f->data = calloc(1, ROOM)))
		_exit(3);
	f->attribute = -1;
	return f;
}

static void file_unref(struct file *f)
{
	if (f && --f->refs == 0) {
		free(f->data);
		free(f);
	}
}

static void set_name(struct worker *w, size_t i, struct file *f)
{
	if (f)
		f->refs++;
	file_unref(w->names[i]);
	w->names[i] = f;
}

static const char *path(size_t i, char buf[16])
{
	snprintf(buf, 16, "f%zu", i);
	return buf;
}

static void resize(struct file *f, size_t size)
{
	if (size < f->size)
		memset(f->data + size, 0, f->size - size);
	f->size = size;
}

static struct handle *some_handle(struct worker *w)
{
	struct handle *h = &w->handles[below(w, HANDLES)];

	return h->file ? h : NULL;
}

/* ----------------------------------------------------------------------------------------- operations */

static void op_open(struct worker *w)
{
	struct handle *h = &w->handles[below(w, HANDLES)];
	size_t i = below(w, NAMES);
	bool trunc = below(w, 8) == 0, append = below(w, 4) == 0;
	char name[16];

	if (h->file) {
		note(w, "close %d", h->fd);
		check(w, close(h->fd) == 0, "close");
		file_unref(h->file);
		*h = (struct handle){.fd = -1};
	}
	note(w, "open %s%s%s%s", path(i, name), w->names[i] ? "" : " new", trunc ? " truncating" : "",
	     append ? " appending" : "");
	h->fd = open(path(i, name), O_RDWR | O_CREAT | (trunc ? O_TRUNC : 0) | (append ? O_APPEND : 0), 0644);
	check(w, h->fd >= 0, "open");
	if (!w->names[i])
		set_name(w, i, file_new());
	if (trunc)
		resize(w->names[i], 0);
	h->file = w->names[i];
	h->file->refs++;
	h->append = append;
}

static void op_write(struct worker *w)
{
	struct handle *h = some_handle(w);
	size_t off, len;

	if (!h)
		return;
	off = h->append ? h->file->size : position(w, ROOM);
	len = length(w);
	len = len > ROOM - off ? ROOM - off : len;
	fill(w, w->scratch, len);
	note(w, "%s %zu at %zu of %zu", h->append ? "append" : "write", len, off, h->file->size);
	check(w, pwrite(h->fd, w->scratch, len, (off_t)off) == (ssize_t)len, "pwrite");
	memcpy(h->file->data + off, w->scratch, len);
	if (len && off + len > h->file->size)
		h->file->size = off + len;
}

static void op_read(struct worker *w)
{
	struct handle *h = some_handle(w);
	size_t off = position(w, ROOM), len = below(w, 3) ? length(w) : ROOM, want;

	if (!h)
		return;
	want = off >= h->file->size ? 0 : len < h->file->size - off ? len : h->file->size - off;
	note(w, "read %zu at %zu of %zu", len, off, h->file->size);
	memset(w->scratch, 0xee, want);
	check(w, pread(h->fd, w->scratch, len, (off_t)off) == (ssize_t)want, "length of pread");
	check(w, memcmp(w->scratch, h->file->data + off, want) == 0, "contents of pread");
}

static void op_truncate(struct worker *w)
{
	struct handle *h = some_handle(w);
	size_t size = below(w, 4) ? position(w, ROOM) : 0, i = below(w, NAMES);
	char name[16];

	if (below(w, 2) && w->names[i]) {
		note(w, "truncate %s from %zu to %zu", path(i, name), w->names[i]->size, size);
		check(w, truncate(path(i, name), (off_t)size) == 0, "truncate");
		resize(w->names[i], size);
	} else if (h) {
		note(w, "ftruncate %zu to %zu", h->file->size, size);
		check(w, ftruncate(h->fd, (off_t)size) == 0, "ftruncate");
		resize(h->file, size);
	}
}

static void op_allocate(struct worker *w)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	struct handle *h = some_handle(w);
	int mode = modes[below(w, 5)];
	size_t off = position(w, ROOM), len = length(w), end;

	if (!h)
		return;
	len = len > ROOM - off ? ROOM - off : len;
	if (!len)
		return;
	note(w, "fallocate mode %d, %zu at %zu of %zu", mode, len, off, h->file->size);
	check(w, fallocate(h->fd, mode, (off_t)off, (off_t)len) == 0, "fallocate");
	end = off + len < h->file->size ? off + len : h->file->size;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && off < end)
		memset(h->file->data + off, 0, end - off);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > h->file->size)
		h->file->size = off + len;
}

static void op_map(struct worker *w)
{
	struct handle *h = some_handle(w);
	size_t off, len, base;
	unsigned char *p;
	bool store = below(w, 2);

	if (!h || !h->file->size)
		return;
	off = position(w, h->file->size);
	len = length(w);
	len = len > h->file->size - off ? h->file->size - off : len;
	base = off & ~(size_t)4095;
	note(w, "map to %s %zu at %zu of %zu", store ? "store" : "load", len, off, h->file->size);
	p = mmap(NULL, len + off - base, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, (off_t)base);
	check(w, p != MAP_FAILED, "mmap");
	check(w, memcmp(p + off - base, h->file->data + off, len) == 0, "contents of a mapping");
	if (store) {
		fill(w, p + off - base, len);
		memcpy(h->file->data + off, p + off - base, len);
		if (below(w, 2))
			check(w, msync(p, len + off - base, MS_SYNC) == 0, "msync");
	}
	munmap(p, len + off - base);
}

static void op_rename(struct worker *w)
{
	size_t a = below(w, NAMES), b = below(w, NAMES);
	bool exchange = below(w, 3) == 0;
	char from[16], to[16];

	if (a == b || !w->names[a] || (exchange && !w->names[b]))
		return;
	note(w, "%s %s %s", exchange ? "exchange" : "rename", path(a, from), path(b, to));
	check(w, renameat2(AT_FDCWD, path(a, from), AT_FDCWD, path(b, to), exchange ? RENAME_EXCHANGE : 0) == 0,
	      "rename");
	if (exchange) {
		struct file *f = w->names[a];

		w->names[a] = w->names[b];
		w->names[b] = f;
	} else if (w->names[a] != w->names[b]) { /* two names of one file: nothing happens */
		set_name(w, b, w->names[a]);
		set_name(w, a, NULL);
	}
}

static void op_link(struct worker *w)
{
	size_t a = below(w, NAMES), b = below(w, NAMES);
	char from[16], to[16];

	if (!w->names[a])
		return;
	note(w, "link %s %s", path(a, from), path(b, to));
	if (w->names[b]) {
		check(w, link(path(a, from), path(b, to)) == -1 && errno == EEXIST, "link over a file");
	} else {
		check(w, link(path(a, from), path(b, to)) == 0, "link");
		set_name(w, b, w->names[a]);
	}
}

static void op_unlink(struct worker *w)
{
	size_t i = below(w, NAMES);
	char name[16];

	note(w, "unlink %s", path(i, name));
	if (w->names[i]) {
		check(w, unlink(path(i, name)) == 0, "unlink");
		set_name(w, i, NULL);
	} else {
		check(w, unlink(path(i, name)) == -1 && errno == ENOENT, "unlink of nothing");
	}
}

static void op_stat(struct worker *w)
{
	size_t i = below(w, NAMES);
	struct stat st;
	char name[16];

	note(w, "stat %s", path(i, name));
	if (!w->names[i]) {
		check(w, lstat(path(i, name), &st) == -1 && errno == ENOENT, "stat of nothing");
		return;
	}
	check(w, lstat(path(i, name), &st) == 0, "stat");
	check(w, st.st_size == (off_t)w->names[i]->size, "size by stat");
	unsigned links = 0;

	for (size_t k = 0; k < NAMES; k++)
		links += w->names[k] == w->names[i];
	check(w, st.st_nlink == links, "links by stat");
}

static void op_holes(struct worker *w)
{
	struct handle *h = some_handle(w);
	off_t data = 0, hole = 0;

	if (!h)
		return;
	note(w, "holes of %zu", h->file->size);
	while ((size_t)hole < h->file->size) { /* all that is said to be a hole must be zeros */
		data = lseek(h->fd, hole, SEEK_DATA);
		check(w, data >= hole || (data == -1 && errno == ENXIO), "SEEK_DATA");
		if (data < 0)
			data = (off_t)h->file->size;
		for (off_t i = hole; i < data; i++)
			if (h->file->data[i])
				check(w, false, "data in a hole");
		if ((size_t)data >= h->file->size)
			break;
		hole = lseek(h->fd, data, SEEK_HOLE);
		check(w, hole > data && (size_t)hole <= h->file->size, "SEEK_HOLE");
	}
}

static void op_copy(struct worker *w)
{
	struct handle *a = some_handle(w), *b = some_handle(w);
	size_t from, to, len;
	off_t in, out;
	ssize_t n;

	if (!a || !b || a->file == b->file || b->append || !a->file->size)
		return;
	from = position(w, a->file->size);
	to = position(w, ROOM);
	len = length(w);
	len = len > ROOM - to ? ROOM - to : len;
	if (!len)
		return;
	note(w, "copy %zu from %zu of %zu to %zu of %zu", len, from, a->file->size, to, b->file->size);
	in = (off_t)from, out = (off_t)to;
	n = copy_file_range(a->fd, &in, b->fd, &out, len, 0);
	check(w, n > 0 && (size_t)n <= len && from + (size_t)n <= a->file->size, "copy_file_range");
	memcpy(b->file->data + to, a->file->data + from, (size_t)n);
	if (to + (size_t)n > b->file->size)
		b->file->size = to + (size_t)n;
}

static void op_attribute(struct worker *w)
{
	size_t i = below(w, NAMES);
	char name[16], value[16];
	int v = (int)below(w, 1000);
	ssize_t n;

	if (!w->names[i])
		return;
	note(w, "attribute of %s", path(i, name));
	n = getxattr(path(i, name), "user.t", value, sizeof(value) - 1);
	if (w->names[i]->attribute < 0)
		check(w, n == -1 && errno == ENODATA, "attribute that is not there");
	else
		check(w, n > 0 && (value[n] = 0, atoi(value) == w->names[i]->attribute), "value of an attribute");
	n = snprintf(value, sizeof(value), "%d", v);
	check(w, setxattr(path(i, name), "user.t", value, (size_t)n, 0) == 0, "setxattr");
	w->names[i]->attribute = v;
}

static void op_list(struct worker *w)
{
	unsigned seen = 0, want = 0;
	struct dirent *de;
	DIR *d = opendir(".");

	note(w, "list");
	check(w, d != NULL, "opendir");
	while ((de = readdir(d)))
		if (de->d_name[0] == 'f')
			seen |= 1u << atoi(de->d_name + 1);
	closedir(d);
	for (size_t i = 0; i < NAMES; i++)
		want |= w->names[i] ? 1u << i : 0;
	check(w, seen == want, "names listed");
}

static void op_settle(struct worker *w)
{
	struct handle *h = some_handle(w);

	if (!h)
		return;
	note(w, "fsync and forget");
	check(w, fsync(h->fd) == 0, "fsync");
	posix_fadvise(h->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* The shared file: a record of ours, by write or by store, read back by the other way. */
static void op_shared(struct worker *w)
{
	size_t i = below(w, RECORDS), at = (i * w->count + w->index) * RECORD;
	bool store = below(w, 2);
	unsigned char want[RECORD], got[RECORD];

	note(w, "shared record %zu by %s", i, store ? "store" : "write");
	memset(want, w->records[i], RECORD);
	memcpy(got, w->shared_map + at, RECORD);
	check(w, memcmp(want, got, RECORD) == 0, "own record in the shared mapping");
	w->records[i] = (unsigned char)next(w);
	memset(want, w->records[i], RECORD);
	if (store)
		memcpy(w->shared_map + at, want, RECORD);
	else
		check(w, pwrite(w->shared_fd, want, RECORD, (off_t)at) == RECORD, "write of a record");
	check(w, pread(w->shared_fd, got, RECORD, (off_t)at) == RECORD, "read of a record");
	check(w, memcmp(want, got, RECORD) == 0, "own record read back");
}

static void run(struct worker *w, unsigned long operations)
{
	static void (*const ops[])(struct worker *) = {
		op_open, op_open,  op_open,	op_write,     op_write, op_write,  op_write,  op_read,	 op_read,
		op_read, op_read,  op_truncate, op_allocate,  op_map,	op_map,	   op_rename, op_link,	 op_unlink,
		op_stat, op_holes, op_copy,	op_attribute, op_list,	op_settle, op_shared, op_shared,
	};

	for (w->op = 0; w->op < operations; w->op++) {
		note(w, "-");
		ops[below(w, sizeof(ops) / sizeof(ops[0]))](w);
	}
	/* At the end all files are read whole, by name and anew. */
	for (size_t i = 0; i < NAMES; i++) {
		char name[16];
		int fd;

		if (!w->names[i])
			continue;
		note(w, "at the end, %s", path(i, name));
		fd = open(path(i, name), O_RDONLY);
		check(w, fd >= 0 && pread(fd, w->scratch, ROOM, 0) == (ssize_t)w->names[i]->size, "length at the end");
		check(w, memcmp(w->scratch, w->names[i]->data, w->names[i]->size) == 0, "contents at the end");
		close(fd);
	}
}

static void start(struct worker *w, unsigned long operations)
{
	size_t bytes = (size_t)RECORDS * w->count * RECORD;
	char dir[32];

	w->scratch = malloc(ROOM);
	w->rng = w->seed * 1000003 + w->index;
	w->shared_fd = open("shared", O_RDWR);
	w->shared_map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->shared_fd, 0);
	snprintf(dir, sizeof(dir), "worker%u", w->index);
	if (!w->scratch || w->shared_fd < 0 || w->shared_map == MAP_FAILED || mkdir(dir, 0755) < 0 || chdir(dir) < 0) {
		perror(dir);
		_exit(3);
	}
	run(w, operations);
	for (size_t i = 0; i < NAMES; i++) {
		char name[16];

		if (w->names[i])
			unlink(path(i, name));
	}
	_exit(chdir("..") < 0 || rmdir(dir) < 0);
}

int main(int argc, char **argv)
{
	unsigned long operations = 2000, *passed;
	uint64_t seed = (uint64_t)time(NULL);
	unsigned workers = 4, failed = 0;
	int c, fd, status;
	char dir[64] = "torture.XXXXXX";

	while ((c = getopt(argc, argv, "s:n:w:")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			operations = strtoul(optarg, NULL, 10);
		else if (c == 'w')
			workers = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (optind + 1 != argc || !workers) {
		fprintf(stderr, "usage: torture [-s SEED] [-n OPERATIONS] [-w WORKERS] DIRECTORY\n");
		return 2;
	}
	passed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (passed == MAP_FAILED || chdir(argv[optind]) < 0 || !mkdtemp(dir) || chdir(dir) < 0 ||
	    (fd = open("shared", O_RDWR | O_CREAT, 0644)) < 0 || ftruncate(fd, (off_t)RECORDS * workers * RECORD) < 0) {
		perror(argv[optind]);
		return 3;
	}
	printf("# seed %llu, %lu operations by each of %u workers\n", (unsigned long long)seed, operations, workers);
	fflush(stdout);
	for (unsigned i = 0; i < workers; i++) {
		if (fork() == 0) {
			struct worker *w = calloc(1, sizeof(*w));

			if (!w)
				_exit(3);
			*w = (struct worker){.seed = seed, .index = i, .count = workers, .passed = passed};
			start(w, operations);
		}
	}
	while (wait(&status) > 0)
		failed += status != 0;
	unlink("shared");
	if (!failed && (chdir("..") < 0 || rmdir(dir) < 0)) {
		perror(dir);
		failed++;
	}
	printf("%lu passed, %u failed, 0 skipped\n", *passed, failed);
	return failed ? 1 : 0;
}
