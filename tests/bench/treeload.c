/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load of bench-mount: an npm-like tree (packages of a few directories with small files) unpacked, walked with
 *lstat as `git status` does with what its index lists, and deleted, in two directories in turn, round by round. Prints
 * medians of both and the median of the rounds' own ratios.
 *
 *	treeload [-n FILES] [-r ROUNDS] DIR [DIR]
 *
 * With one DIR: the tree is unpacked there once, for counting what that takes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROUNDS 33
#define FILES_A_DIR 8
#define DIRS_A_PACKAGE 4

enum { UNPACK, STAT_COLD, STAT_WARM, READ, DELETE, NUM_STEPS };
static const char *const steps[NUM_STEPS] = {"unpack", "lstat of all, first", "lstat of all, warm", "read all",
					     "delete"};

static void die(const char *what)
{
	fprintf(stderr, "treeload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A few hundred bytes mostly, some kilobytes now and then: half of the files of an npm tree are under 1 KiB. */
static size_t size_of(unsigned i)
{
	static const size_t sizes[] = {180, 420, 950, 1400, 300, 2600, 700, 9000};

	return sizes[i * 2654435761u >> 29];
}

static void path_of(unsigned i, char *path, size_t size)
{
	unsigned dir = i / FILES_A_DIR, package = dir / DIRS_A_PACKAGE;

	snprintf(path, size, "tree/package-%u/lib%u/module-%u.js", package, dir % DIRS_A_PACKAGE, i % FILES_A_DIR);
}

static void make_dirs(unsigned i)
{
	unsigned dir = i / FILES_A_DIR, package = dir / DIRS_A_PACKAGE;
	char path[128];

	if (dir % DIRS_A_PACKAGE == 0) {
		snprintf(path, sizeof(path), "tree/package-%u", package);
		if (mkdir(path, 0755) < 0)
			die(path);
	}
	snprintf(path, sizeof(path), "tree/package-%u/lib%u", package, dir % DIRS_A_PACKAGE);
	if (mkdir(path, 0755) < 0)
		die(path);
}

/* As tar does: exclusive creation, the contents, then the time of the archive. */
static void unpack(unsigned files)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1700000000}};
	static char bytes[16384];

	memset(bytes, 'x', sizeof(bytes));
	if (mkdir("tree", 0755) < 0)
		die("tree");
	for (unsigned i = 0; i < files; i++) {
		char path[128];
		int fd;

		if (i % FILES_A_DIR == 0)
			make_dirs(i);
		path_of(i, path, sizeof(path));
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, bytes, size_of(i)) != (ssize_t)size_of(i) || futimens(fd, times) < 0 ||
		    close(fd) < 0)
			die(path);
	}
}

static void stat_all(unsigned files)
{
	for (unsigned i = 0; i < files; i++) {
		char path[128];
		struct stat st;

		path_of(i, path, sizeof(path));
		if (lstat(path, &st) < 0 || (size_t)st.st_size != size_of(i))
			die(path);
	}
}

static void read_all(unsigned files)
{
	for (unsigned i = 0; i < files; i++) {
		char path[128], bytes[16384];
		int fd;

		path_of(i, path, sizeof(path));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, bytes, sizeof(bytes)) != (ssize_t)size_of(i))
			die(path);
		close(fd);
	}
}

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	return type == FTW_DP ? rmdir(path) : unlink(path);
}

static void delete_all(void)
{
	if (nftw("tree", delete_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
		die("delete");
}

static void run_round(const char *dir, unsigned files, double times[NUM_STEPS])
{
	double at = now(), next;

	if (chdir(dir) < 0)
		die(dir);
	for (unsigned step = 0; step < NUM_STEPS; step++) {
		if (step == UNPACK)
			unpack(files);
		else if (step == STAT_COLD || step == STAT_WARM)
			stat_all(files);
		else if (step == READ)
			read_all(files);
		else
			delete_all();
		next = now();
		times[step] = next - at;
		at = next;
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 2];
}

static void report(double times[2][MAX_ROUNDS][NUM_STEPS], unsigned rounds)
{
	for (unsigned step = 0; step < NUM_STEPS; step++) {
		double side[2][MAX_ROUNDS], ratios[MAX_ROUNDS], best, worst;

		for (unsigned r = 0; r < rounds; r++) {
			side[0][r] = times[0][r][step];
			side[1][r] = times[1][r][step];
			ratios[r] = side[0][r] / side[1][r];
		}
		best = median(ratios, rounds);
		worst = ratios[rounds - 1];
		printf("%s\t%.3f\t%.3f\t%.2f\t%.2f-%.2f\n", steps[step], median(side[0], rounds),
		       median(side[1], rounds), best, ratios[0], worst);
	}
}

int main(int argc, char **argv)
{
	static double times[2][MAX_ROUNDS][NUM_STEPS];
	unsigned files = 2000, rounds = 5;
	int c;

	while ((c = getopt(argc, argv, "n:r:")) != -1) {
		if (c == 'n')
			files = (unsigned)atoi(optarg);
		else if (c == 'r')
			rounds = (unsigned)atoi(optarg);
		else
			return 2;
	}
	if (rounds < 1 || rounds > MAX_ROUNDS || optind >= argc)
		return 2;
	if (optind + 1 == argc) {
		if (chdir(argv[optind]) < 0)
			die(argv[optind]);
		unpack(files);
		return 0;
	}
	for (unsigned r = 0; r < rounds; r++)
		for (unsigned k = 0; k < 2; k++)
			run_round(argv[optind + (int)k], files, times[k][r]);
	report(times, rounds);
	return 0;
}
