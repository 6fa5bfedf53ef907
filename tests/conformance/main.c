/* SPDX-License-Identifier: Apache-2.0 */
/*
 * conformance [-v] [-t] [-x N] [-k TEXT] [--skip GROUP,...] [--list] [--readonly] DIRECTORY: checks the file system
 * that DIRECTORY is on against POSIX and the Linux manual pages. Works in a new directory under DIRECTORY, which it
 * removes.
 *
 * Prints each failed check (with -v every one: "ok NAME", "not ok NAME: why", "skip NAME: why"; with -t each group's
 * time), at the end "N passed, N failed, N skipped". Exit status 1 when something failed. -x: time limits times N.
 * --list: the groups.
 * --readonly: DIRECTORY is on a read-only mount that holds `file`, `dir/` and `link` (to file): only that nothing can
 * be changed is checked.
 */
#include "conf.h"

#include <ftw.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "state.h"

extern const struct checks groups_names[], groups_open[], groups_io[], groups_alloc[], groups_rename[], groups_links[],
	groups_dirs[], groups_attr[], groups_perm[], groups_xattr[], groups_mmap[], groups_lock[], groups_special[],
	groups_readonly[];

static const struct checks *const topics[] = {
	groups_names, groups_open, groups_io,	 groups_alloc, groups_rename, groups_links,   groups_dirs,
	groups_attr,  groups_perm, groups_xattr, groups_mmap,  groups_lock,   groups_special,
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static int open_up(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)ftw;
	if (flag == FTW_D && (st->st_mode & 0700) != 0700)
		(void)!chmod(path, 0700);
	return 0;
}

static void remove_tree(const char *path)
{
	chmod(path, 0700);
	for (int i = 0; i < 3; i++) /* what a chmod opened is seen in the next round */
		nftw(path, open_up, 16, FTW_PHYS);
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void fresh_directory(const char *base, const char *group, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", base, group);
	if (mkdir(path, 0755) < 0 || chmod(path, 0755) < 0 || chdir(path) < 0) {
		perror(path);
		exit(3);
	}
}

static void run_group(struct state *s, const struct checks *g, const char *base, bool readonly)
{
	struct timespec t0, t1;
	char path[4096];
	int status;
	pid_t pid;

	if (!readonly)
		fresh_directory(base, g->name, path, sizeof(path));
	clock_gettime(CLOCK_MONOTONIC, &t0);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		umask(022);
		state_enter(g->name);
		alarm((g->limit ? g->limit : 20) * (s->patience ? s->patience : 1));
		g->run();
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		exit(3);
	kill(-pid, SIGKILL); /* what it left running */
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (s->times)
		fprintf(stderr, "%6lld ms %s\n", (long long)(ns_of(t1) - ns_of(t0)) / 1000000, g->name);
	if (status != 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 2)) {
		s->failed++;
		printf("not ok %s.ends: %s %d\n", g->name, WIFSIGNALED(status) ? "killed by signal" : "status",
		       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		fflush(stdout);
	}
	if (!readonly && chdir(base) == 0)
		remove_tree(path);
}

static bool wanted(const struct state *s, const struct checks *g)
{
	char name[64];

	snprintf(name, sizeof(name), ",%s,", g->name);
	if (strstr(s->skip, name))
		return false;
	return !s->only[0] || strstr(g->name, s->only) || strstr(s->only, g->name) || strchr(s->only, '-');
}

static void run_all(struct state *s, const char *base, bool list)
{
	for (size_t t = 0; t < COUNT(topics); t++) {
		for (const struct checks *g = topics[t]; g->name; g++) {
			if (list)
				puts(g->name);
			else if (wanted(s, g))
				run_group(s, g, base, false);
		}
	}
}

static struct state *new_state(void)
{
	struct state *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (s == MAP_FAILED)
		exit(3);
	return s;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: conformance [-v] [-t] [-x N] [-k TEXT] [--skip GROUP,...] [--list] [--readonly] DIRECTORY\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct state *s = new_state();
	bool list = false, readonly = false;
	const char *dir = NULL;
	char base[3000];

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-v") == 0)
			s->verbose = true;
		else if (strcmp(argv[i], "-t") == 0)
			s->times = true;
		else if (strcmp(argv[i], "--skip") == 0 && i + 1 < argc)
			snprintf(s->skip, sizeof(s->skip), ",%s,", argv[++i]);
		else if (strcmp(argv[i], "-x") == 0 && i + 1 < argc)
			s->patience = (unsigned)atoi(argv[++i]);
		else if (strcmp(argv[i], "--list") == 0)
			list = true;
		else if (strcmp(argv[i], "--readonly") == 0)
			readonly = true;
		else if (strcmp(argv[i], "-k") == 0 && i + 1 < argc)
			snprintf(s->only, sizeof(s->only), "%s", argv[++i]);
		else if (argv[i][0] != '-' && !dir)
			dir = argv[i];
		else
			return usage();
	}
	if (!dir && !list)
		return usage();
	state_set(s);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (list) {
		run_all(s, NULL, true);
		return 0;
	}
	if (readonly && chdir(dir) == 0) {
		for (const struct checks *g = groups_readonly; g->name; g++)
			run_group(s, g, NULL, true);
	} else if (!readonly) {
		char *real = realpath(dir, NULL);

		snprintf(base, sizeof(base), "%s/conformance.XXXXXX", real ? real : dir);
		if (!mkdtemp(base) || chmod(base, 0755) < 0) {
			perror(base);
			return 3;
		}
		run_all(s, base, false);
		if (chdir("/") < 0 || rmdir(base) < 0) {
			perror(base);
			s->failed++;
		}
	}
	printf("%u passed, %u failed, %u skipped\n", s->passed, s->failed, s->skipped);
	return s->failed || !(s->passed + s->skipped) ? 1 : 0;
}
