/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of bench-fsd and bench-devfuse: the same file operations in two directories in turn, round by round, and a
 * table of medians. A round is short, and the ratio is the median of the rounds' own: other work on the host comes and
 * goes, but hits both sides of a round alike.
 *
 *	fsload [-n FILES] [-m MIB] [-r ROUNDS] [-w NAME,...] DIR DIR
 *
 * As /init of a guest (its name is then "init") it first loads the modules that /m/order lists, mounts the virtio-fs
 * tags "a" and "b", takes its arguments from the kernel's command line behind "--", and powers off at the end.
 *
 * "Cold" operations begin with dentries, inodes (and, where contents are read, pages) dropped from this kernel's
 *caches.
 */
#define _GNU_SOURCE /* O_DIRECT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROUNDS 99
#define BLOCK 4096

struct load {
	unsigned files, mib, rounds;
	const char *only; /* names of rows, or NULL for all */
	char *buf;	  /* 1 MiB, aligned */
	unsigned round;
};

static void die(const char *what)
{
	fprintf(stderr, "fsload: %s: %s\n", what, strerror(errno));
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void drop(const char *what)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	if (fd < 0 || write(fd, what, 1) < 0)
		die("drop_caches");
	close(fd);
	usleep(50000); /* the forgets that this sends are not to be measured */
}

/* ------------------------------------------------------------------------------- operations on many small files */

static void name_of(char *name, const char *kind, unsigned i)
{
	sprintf(name, "d/%s-%u", kind, i);
}

static double op_create(struct load *l)
{
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		int fd;

		name_of(name, "file", i);
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write(fd, l->buf, BLOCK) != BLOCK || close(fd) < 0)
			die(name);
	}
	return l->files;
}

static double op_stat(struct load *l)
{
	struct stat st;
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		name_of(name, "file", i);
		if (stat(name, &st) < 0)
			die(name);
	}
	return l->files;
}

static double op_missing(struct load *l)
{
	struct stat st;
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		sprintf(name, "d/none-%u-%u", l->round, i);
		if (stat(name, &st) == 0 || errno != ENOENT)
			die(name);
	}
	return l->files;
}

/* As programs do that look for a module along a path: the same absent names again and again. */
static double op_missing_again(struct load *l)
{
	struct stat st;
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		sprintf(name, "d/absent-%u-%u", l->round, i % (l->files / 10 + 1));
		if (stat(name, &st) == 0 || errno != ENOENT)
			die(name);
	}
	return l->files;
}

static double op_read(struct load *l)
{
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		int fd;

		name_of(name, "file", i);
		fd = open(name, O_RDONLY);
		if (fd < 0 || read(fd, l->buf, BLOCK) != BLOCK || close(fd) < 0)
			die(name);
	}
	return l->files;
}

static double op_list(struct load *l)
{
	DIR *dir = opendir("d");
	double count = 0;

	while (dir && readdir(dir))
		count++;
	if (!dir || count != l->files + 2.0)
		die("listing");
	closedir(dir);
	return count;
}

static double op_list_again(struct load *l)
{
	double count = 0;

	for (int i = 0; i < 5; i++)
		count += op_list(l);
	return count;
}

/* ls -l */
static double op_list_stat(struct load *l)
{
	DIR *dir = opendir("d");
	struct dirent *de;
	struct stat st;
	double count = 0;

	while (dir && (de = readdir(dir))) {
		if (fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			die(de->d_name);
		count++;
	}
	closedir(dir);
	return count;
}

static double op_chmod(struct load *l)
{
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		name_of(name, "file", i);
		if (chmod(name, 0600) < 0)
			die(name);
	}
	return l->files;
}

static double op_rename(struct load *l)
{
	char name[64], to[64];

	for (unsigned i = 0; i < l->files; i++) {
		name_of(name, "file", i);
		name_of(to, "moved", i);
		if (rename(name, to) < 0)
			die(name);
	}
	return l->files;
}

static double op_unlink(struct load *l)
{
	char name[64];

	for (unsigned i = 0; i < l->files; i++) {
		name_of(name, "moved", i);
		if (unlink(name) < 0)
			die(name);
	}
	return l->files;
}

/* ----------------------------------------------------------------------------------------------- one big file */

static int big(int flags)
{
	int fd = open("big", flags, 0644);

	if (fd < 0)
		die("big");
	return fd;
}

static double op_write_seq(struct load *l)
{
	int fd = big(O_WRONLY | O_CREAT);

	for (unsigned i = 0; i < l->mib; i++)
		if (write(fd, l->buf, 1 << 20) != 1 << 20)
			die("write");
	close(fd);
	return l->mib;
}

static double op_read_seq(struct load *l)
{
	int fd = big(O_RDONLY);
	double mib = 0;

	while (read(fd, l->buf, 1 << 20) == 1 << 20)
		mib++;
	if (mib != l->mib)
		die("read");
	close(fd);
	return mib;
}

static uint32_t next_random(uint32_t *state)
{
	return *state = *state * 1664525u + 1013904223u;
}

static double random_io(struct load *l, int flags, unsigned count)
{
	uint32_t seed = 4711, blocks = l->mib * (1 << 20) / BLOCK;
	int fd = big(flags);

	for (unsigned i = 0; i < count; i++) {
		off_t at = (off_t)((next_random(&seed) >> 4) % blocks) * BLOCK;
		ssize_t n = flags & O_WRONLY ? pwrite(fd, l->buf, BLOCK, at) : pread(fd, l->buf, BLOCK, at);

		if (n != BLOCK)
			die("random I/O");
	}
	close(fd);
	return count;
}

static double op_read_random(struct load *l)
{
	return random_io(l, O_RDONLY, l->files);
}

static double op_write_random(struct load *l)
{
	return random_io(l, O_WRONLY, l->files);
}

static double op_read_direct(struct load *l)
{
	return random_io(l, O_RDONLY | O_DIRECT, l->files);
}

/* ------------------------------------------------------------------------------------------------------ rows */

static const struct row {
	const char *name, *what, *unit;
	const char *drop; /* written to drop_caches before, or NULL */
	char works_on;	  /* 'f': the files that create makes, 'b': the big one, 0: nothing */
	double (*run)(struct load *l);
} rows[] = {
	{"create", "create + write 4 KiB + close", "/s", NULL, 'f', op_create},
	{"stat", "stat, cold", "/s", "2", 'f', op_stat},
	{"missing", "stat of missing names, each once", "/s", "2", 0, op_missing},
	{"missing-again", "stat of missing names, each ten times", "/s", "2", 0, op_missing_again},
	{"read", "open + read 4 KiB + close, cold", "/s", "3", 'f', op_read},
	{"reread", "open + read 4 KiB + close, warm", "/s", NULL, 'f', op_read},
	{"list", "readdir, cold", "/s", "2", 'f', op_list},
	{"list-again", "readdir, five times, first cold", "/s", "2", 'f', op_list_again},
	{"list-stat", "readdir + stat of each, cold", "/s", "2", 'f', op_list_stat},
	{"chmod", "chmod", "/s", NULL, 'f', op_chmod},
	{"rename", "rename", "/s", NULL, 'f', op_rename},
	{"unlink", "unlink", "/s", NULL, 'f', op_unlink},
	{"write-seq", "write 1 MiB blocks", " MiB/s", NULL, 'b', op_write_seq},
	{"read-seq", "read 1 MiB blocks, cold", " MiB/s", "3", 'b', op_read_seq},
	{"read-random", "read 4 KiB at random, cold", "/s", "3", 'b', op_read_random},
	{"read-direct", "read 4 KiB at random, O_DIRECT", "/s", NULL, 'b', op_read_direct},
	{"write-random", "write 4 KiB at random", "/s", NULL, 'b', op_write_random},
};

#define NUM_ROWS (sizeof(rows) / sizeof(rows[0]))

static bool wanted(const struct load *l, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = l->only; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (strncmp(p, name, len) == 0 && (p[len] == ',' || !p[len]))
			return true;
	return !l->only;
}

static double measure(struct load *l, const struct row *row, const char *dir)
{
	double t0, work;

	if (chdir(dir) < 0)
		die(dir);
	if (row->drop)
		drop(row->drop);
	t0 = now();
	work = row->run(l);
	return work / (now() - t0);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_size);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Rows that others need to find their files, or to leave none behind, run even if they are not shown. */
static bool needed(const struct load *l, const struct row *row)
{
	static const char *const frame[] = {"create", "rename", "unlink", "write-seq"};

	for (size_t f = 0; f < 4; f++)
		for (size_t i = 0; !strcmp(frame[f], row->name) && i < NUM_ROWS; i++)
			if (rows[i].works_on == row->works_on && wanted(l, rows[i].name))
				return true;
	return wanted(l, row->name);
}

static void run(struct load *l, char *dirs[2])
{
	static double rates[NUM_ROWS][2][MAX_ROUNDS];

	for (int d = 0; d < 2; d++)
		if (chdir(dirs[d]) < 0 || (mkdir("d", 0755) < 0 && errno != EEXIST))
			die(dirs[d]);
	for (l->round = 0; l->round < l->rounds; l->round++)
		for (size_t i = 0; i < NUM_ROWS; i++)
			for (int k = 0; k < 2 && needed(l, &rows[i]); k++) {
				int d = (int)(l->round + (unsigned)k) % 2;

				rates[i][d][l->round] = measure(l, &rows[i], dirs[d]);
			}
	printf("row\tfirst\tsecond\tratio\tquartiles\toperation\n");
	for (size_t i = 0; i < NUM_ROWS; i++) {
		double ratio[MAX_ROUNDS], a, b, both;

		if (!wanted(l, rows[i].name))
			continue;
		for (unsigned r = 0; r < l->rounds; r++)
			ratio[r] = rates[i][0][r] / rates[i][1][r];
		both = median(ratio, l->rounds);
		a = median(rates[i][0], l->rounds);
		b = median(rates[i][1], l->rounds);
		printf("%s\t%.0f%s\t%.0f%s\t%.2f\t%.2f-%.2f\t%s\n", rows[i].name, a, rows[i].unit, b, rows[i].unit,
		       both, ratio[l->rounds / 4], ratio[l->rounds - 1 - l->rounds / 4], rows[i].what);
		fflush(stdout);
	}
}

/* --------------------------------------------------------------------------------------------------- as /init */

static void load_modules(void)
{
	FILE *order = fopen("/m/order", "re");
	char path[256], line[200];

	while (order && fgets(line, sizeof(line), order)) {
		int fd;

		line[strcspn(line, "\n")] = 0;
		snprintf(path, sizeof(path), "/m/%s", line);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			die(path);
		close(fd);
	}
}

static void begin_guest(void)
{
	int fd;

	mkdir("/dev", 0755), mkdir("/proc", 0755), mkdir("/a", 0755), mkdir("/b", 0755);
	if (mount("dev", "/dev", "devtmpfs", 0, NULL) < 0 || mount("proc", "/proc", "proc", 0, NULL) < 0)
		exit(1);
	fd = open("/dev/ttyS0", O_RDWR);
	dup2(fd, 0), dup2(fd, 1), dup2(fd, 2);
	load_modules();
	if (mount("a", "/a", "virtiofs", 0, NULL) < 0 || mount("b", "/b", "virtiofs", 0, NULL) < 0)
		die("mount");
}

int main(int argc, char **argv)
{
	struct load l = {.files = 100, .mib = 16, .rounds = 11};
	bool guest = getpid() == 1;
	int c;

	if (guest)
		begin_guest();
	while ((c = getopt(argc, argv, "n:m:r:w:")) != -1) {
		if (c == 'n')
			l.files = (unsigned)atoi(optarg);
		else if (c == 'm')
			l.mib = (unsigned)atoi(optarg);
		else if (c == 'r')
			l.rounds = (unsigned)atoi(optarg);
		else if (c == 'w')
			l.only = optarg;
		else
			return 2;
	}
	if (optind + 2 != argc || !l.files || !l.mib || !l.rounds || l.rounds > MAX_ROUNDS ||
	    !(l.buf = aligned_alloc(BLOCK, 1 << 20))) {
		fprintf(stderr, "usage: fsload [-n FILES] [-m MIB] [-r ROUNDS] [-w ROW,...] DIR DIR\n");
		if (guest)
			reboot(RB_POWER_OFF);
		return 2;
	}
	memset(l.buf, 0x5a, 1 << 20);
	run(&l, argv + optind);
	if (guest) {
		printf("DONE\n");
		fflush(stdout);
		umount("/a"), umount("/b");
		usleep(100000);
		reboot(RB_POWER_OFF);
	}
	return 0;
}
