/* SPDX-License-Identifier: Apache-2.0 */
/*
 * race [-f] [-n WALKS] [-t SECONDS] [-s SEED] SOURCE OUTSIDE MOUNT: MOUNT serves SOURCE. One process changes SOURCE on
 * the host without pause: directories and files become symbolic links to OUTSIDE and back, by atomic exchange; a
 * directory leaves for OUTSIDE and returns; a file becomes a fifo. Meanwhile clients walk, read, write, make, rename
 * and remove through MOUNT, never following a link themselves (openat2); with -f, where MOUNT follows links for its
 * clients, they follow what it shows them, and there are links within SOURCE, too, up and down and out of it. Whatever
 * they get, it must never be what lies OUTSIDE, and OUTSIDE must be as it was at the end. They walk WALKS times, and
 * for SECONDS at least. Ends with "N passed, M failed, 0 skipped": the walks.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 3

static bool follow;

struct counts { /* shared by all processes, atomic */
	unsigned long swaps, walks, reached, failed;
};

static uint64_t next(uint64_t *rng)
{
	uint64_t z = *rng += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static _Noreturn void give_up(const char *what)
{
	perror(what);
	exit(3);
}

static void put(int dir, const char *path, const char *text)
{
	int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) < 0)
		give_up(path);
}

static void make_trees(int source, int outside, const char *outside_path)
{
	char target[4200];

	if (mkdirat(outside, "s", 0755) < 0 || mkdirat(outside, "d", 0755) < 0 || mkdirat(source, "d", 0755) < 0 ||
	    mkdirat(source, "d/s", 0755) < 0 || mkfifoat(source, "d/p", 0644) < 0 ||
	    symlinkat(outside_path, source, "l") < 0)
		give_up("trees");
	put(outside, "f", "OUTSIDE"), put(outside, "s/f", "OUTSIDE"), put(outside, "d/f", "OUTSIDE");
	put(source, "d/f", "INSIDE"), put(source, "d/s/f", "INSIDE");
	snprintf(target, sizeof(target), "%s/s", outside_path);
	if (symlinkat(target, source, "d/ls") < 0)
		give_up("link");
	snprintf(target, sizeof(target), "%s/f", outside_path);
	if (symlinkat(target, source, "d/lf") < 0)
		give_up("link");
	if (symlinkat("d/s/up/s/f", source, "through") < 0 || symlinkat("../../d", source, "d/s/up") < 0 ||
	    symlinkat("/d/s", source, "d/root") < 0 || symlinkat("../../outside/f", source, "d/out") < 0 ||
	    symlinkat("../../../outside/s", source, "d/s/out") < 0)
		give_up("link");
}

/* ------------------------------------------------------------------------------------------ the host's side */

static bool swap(int dir, const char *a, const char *b)
{
	return renameat2(dir, a, dir, b, RENAME_EXCHANGE) == 0;
}

/* Each change is undone after a moment, so that walks also come through. */
static void disturb(int source, int outside, uint64_t rng, struct counts *c)
{
	static const char *const pairs[][2] = {{"d", "l"}, {"d/s", "d/ls"}, {"d/f", "d/lf"}, {"d/f", "d/p"}};

	for (;;) {
		uint64_t r = next(&rng);
		unsigned i = (unsigned)(r >> 8) % 5;
		bool done = i < 4 ? swap(source, pairs[i][0], pairs[i][1])
				  : renameat(source, "d", outside, "visit") == 0; /* away */

		if (r & 1)
			usleep((useconds_t)(r >> 16) % 100);
		if (done &&
		    !(i < 4 ? swap(source, pairs[i][0], pairs[i][1]) : renameat(outside, "visit", source, "d") == 0))
			give_up("the way back");
		__atomic_add_fetch(&c->swaps, done, __ATOMIC_RELAXED);
		if (r & 2)
			usleep((useconds_t)(r >> 32) % 200);
	}
}

/* ----------------------------------------------------------------------------------------- the clients' side */

static int open_in(int mount, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_NONBLOCK | O_CLOEXEC),
			       .mode = flags & O_CREAT ? 0644 : 0,
			       .resolve = follow ? 0 : RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};

	return (int)syscall(SYS_openat2, mount, path, &how, sizeof(how));
}

static void look(int fd, struct counts *c, const char *path)
{
	char buf[16] = "";
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	if (pread(fd, buf, sizeof(buf) - 1, 0) > 0 && strstr(buf, "OUTSIDE")) {
		printf("not ok %s: what lies outside was read\n", path);
		fflush(stdout);
		__atomic_add_fetch(&c->failed, 1, __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&c->reached, 1, __ATOMIC_RELAXED);
}

/* By steps: the directory first, so that it may change under a descriptor that is held. */
static void by_steps(int mount, uint64_t r, struct counts *c)
{
	static const char *const dirs[] = {"d", "d/s", "d/root", "d/s/up", "l", "d/ls", "d/s/out", "d/s/up/s/up"};
	int d = open_in(mount, dirs[follow ? (r >> 3) % 8 : r % 2], O_RDONLY | O_DIRECTORY), fd;

	if (d < 0)
		return;
	fd = open_in(d, r & 2 ? "f" : "new", r & 4 ? O_RDWR | O_CREAT : O_RDONLY);
	if (fd >= 0) {
		look(fd, c, "by steps");
		if (r & 4 && write(fd, "WRITTEN", 7) < 0 && errno == EIO)
			perror("write");
		close(fd);
	}
	(void)!unlinkat(d, "new", 0);
	(void)!mkdirat(d, "m", 0755);
	(void)!unlinkat(d, "m", AT_REMOVEDIR);
	close(d);
}

static void change(int mount, uint64_t r)
{
	static const char *const files[] = {"d/f",     "d/s/f", "d/new", "d/s/new",
					    "through", "d/lf",	"d/out", "d/s/up/root/f"};
	int fd = open_in(mount, files[r % (follow ? 8 : 4)], r & 16 ? O_RDWR | O_CREAT | O_TRUNC : O_RDWR);

	if (fd < 0)
		return;
	if (write(fd, "WRITTEN", 7) == 7) {
		(void)!fchmod(fd, 0600);
		(void)!fsetxattr(fd, "user.race", "1", 1, 0);
		(void)!ftruncate(fd, 3);
		(void)!futimens(fd, NULL);
	}
	close(fd);
}

static void walk(int mount, unsigned long walks, time_t until, uint64_t rng, struct counts *c)
{
	static const char *const paths[] = {"d/f",    "d/s/f", "d/new",	  "d/s/new", "l/f",	  "l/s/f",
					    "d/ls/f", "d/lf",  "through", "d/out",   "d/s/out/f", "d/root/up/root/f"};
	unsigned count = follow ? 12 : 8;

	for (unsigned long i = 0; i < walks || time(NULL) < until; i++) {
		uint64_t r = next(&rng);
		int fd;

		switch (r % 4) {
		case 0:
		case 1:
			fd = open_in(mount, paths[(r >> 8) % count], O_RDONLY);
			if (fd >= 0) {
				look(fd, c, paths[(r >> 8) % count]);
				close(fd);
			}
			break;
		case 2:
			by_steps(mount, r >> 8, c);
			break;
		case 3:
			change(mount, r >> 8);
			break;
		}
		__atomic_add_fetch(&c->walks, 1, __ATOMIC_RELAXED);
	}
}

/* --------------------------------------------------------------------------------------------------- judgement */

static unsigned changed(int outside, const char *path, const struct stat *before)
{
	char buf[16] = "", full[64];
	struct stat st;
	int fd = openat(outside, path, O_RDONLY);
	bool same = fd >= 0 && fstat(fd, &st) == 0 && read(fd, buf, 15) == 7 && strcmp(buf, "OUTSIDE") == 0 &&
		    st.st_ino == before->st_ino && st.st_mode == before->st_mode &&
		    st.st_ctim.tv_sec == before->st_ctim.tv_sec && st.st_ctim.tv_nsec == before->st_ctim.tv_nsec;

	snprintf(full, sizeof(full), "/proc/self/fd/%d", fd);
	same = same && getxattr(full, "user.race", NULL, 0) < 0;
	if (!same)
		printf("not ok outside/%s was changed\n", path);
	if (fd >= 0)
		close(fd);
	return !same;
}

static unsigned judge(int outside, const struct stat before[3])
{
	static const char *const files[] = {"f", "s/f", "d/f"}, *const made[] = {"new", "m",	 "s/new",
										 "s/m", "d/new", "d/m"};
	unsigned failed = 0;
	struct stat st;

	for (int i = 0; i < 3; i++)
		failed += changed(outside, files[i], &before[i]);
	for (int i = 0; i < 6; i++) {
		if (fstatat(outside, made[i], &st, AT_SYMLINK_NOFOLLOW) == 0) {
			printf("not ok outside/%s was made\n", made[i]);
			failed++;
		}
	}
	return failed;
}

static pid_t start(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		give_up("fork");
	return pid;
}

int main(int argc, char **argv)
{
	static const char *const files[] = {"f", "s/f", "d/f"};
	unsigned long walks = 10000;
	uint64_t seed = (uint64_t)time(NULL);
	time_t seconds = 0;
	int o, source, outside, mount, status;
	struct stat before[3];
	struct counts *c;
	pid_t adversary, clients[CLIENTS];

	while ((o = getopt(argc, argv, "fn:s:t:")) != -1) {
		if (o == 'n')
			walks = strtoul(optarg, NULL, 10);
		else if (o == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (o == 'f')
			follow = true;
		else if (o == 't')
			seconds = atol(optarg);
		else
			return 2;
	}
	if (optind + 3 != argc) {
		fprintf(stderr, "usage: race [-f] [-n WALKS] [-t SECONDS] [-s SEED] SOURCE OUTSIDE MOUNT\n");
		return 2;
	}
	source = open(argv[optind], O_RDONLY | O_DIRECTORY);
	outside = open(argv[optind + 1], O_RDONLY | O_DIRECTORY);
	mount = open(argv[optind + 2], O_RDONLY | O_DIRECTORY);
	c = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (source < 0 || outside < 0 || mount < 0 || c == MAP_FAILED)
		give_up("directories");
	make_trees(source, outside, realpath(argv[optind + 1], NULL));
	for (int i = 0; i < 3; i++)
		if (fstatat(outside, files[i], &before[i], 0) < 0)
			give_up(files[i]);
	printf("# seed %llu, %lu walks by %d clients\n", (unsigned long long)seed, walks, CLIENTS);
	adversary = start();
	if (adversary == 0)
		disturb(source, outside, seed, c);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = start();
		if (clients[i] == 0) {
			walk(mount, walks / CLIENTS + 1, time(NULL) + seconds, seed + (uint64_t)i + 1, c);
			_exit(0);
		}
	}
	for (int i = 0; i < CLIENTS; i++)
		if (waitpid(clients[i], &status, 0) != clients[i] || status)
			c->failed++;
	kill(adversary, SIGKILL);
	waitpid(adversary, &status, 0);
	if (!WIFSIGNALED(status))
		c->failed++;
	c->failed += judge(outside, before);
	printf("# %lu changes by the host, %lu walks came to a file\n", c->swaps, c->reached);
	if (c->swaps < 100 || c->reached < 100) {
		printf("not ok too little happened to mean anything\n");
		c->failed++;
	}
	printf("%lu passed, %lu failed, 0 skipped\n", c->walks, c->failed);
	return c->failed ? 1 : 0;
}
