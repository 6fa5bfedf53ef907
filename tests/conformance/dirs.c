/* SPDX-License-Identifier: Apache-2.0 */
/* Directories: modes, setgid, link counts, and listing them: seeking, many entries, changes while somebody reads. */
#include "conf.h"

#include <dirent.h>
#include <sys/syscall.h>

static void modes(void)
{
	static const mode_t masks[] = {0, 022, 077, 0777};
	struct stat st;

	for (size_t m = 0; m < COUNT(masks); m++) {
		for (mode_t mode = 0; mode <= 01777; mode += 0111) {
			umask(masks[m]);
			works(mkdir("d", mode), "mkdir %04o umask %03o", mode, masks[m]);
			st = stat_of("d");
			is_eq(st.st_mode & 07777, mode & ~masks[m], "mode %04o umask %03o", mode, masks[m]);
			rmdir("d");
		}
	}
	umask(022);
	works(mkdir("d", 0755), "mkdir");
	st = stat_of("d");
	is_true(S_ISDIR(st.st_mode), "type");
	is_eq(st.st_nlink, 2, "links");
	is_eq(st.st_uid, geteuid(), "owner");
	is_eq(st.st_gid, getegid(), "group");
	fails(mkdir("d", 0755), EEXIST, "again");
	put_file("f", "", 0644);
	fails(mkdir("f", 0755), EEXIST, "over a file");
	need(symlink("none", "l") == 0, "symlink");
	fails(mkdir("l", 0755), EEXIST, "over a dangling link");
	for (int i = 0; i < 30; i++) {
		char name[16];

		snprintf(name, sizeof(name), "d/%d", i);
		works(mkdir(name, 0755), "child %d", i);
		is_eq(stat_of("d").st_nlink, 3 + i, "links with child %d", i);
	}
}

static void setgid_children(void *arg)
{
	(void)arg;
	works(mkdir("shared/sub", 0777), "mkdir");
	works(close(open("shared/file", O_WRONLY | O_CREAT, 0666)), "create");
	works(mkfifo("shared/fifo", 0666), "mkfifo");
	works(symlink("x", "shared/link"), "symlink");
	works(mkdir("shared/sub/deeper", 0755), "mkdir deeper");
}

static void group_handed_down(void)
{
	if (!am_root()) {
		skipped("needs root", "setgid directories");
		return;
	}
	need(mkdir("shared", 0777) == 0 && chown("shared", 0, 4242) == 0 && chmod("shared", 02777) == 0, "directory");
	is_eq(stat_of("shared").st_mode & 07777, 02777, "mode");
	as_user(1001, 1002, 0, setgid_children, NULL);
	is_eq(stat_of("shared/sub").st_gid, 4242, "group of a directory");
	is_eq(stat_of("shared/sub").st_uid, 1001, "owner of a directory");
	is_eq(stat_of("shared/sub").st_mode & 07777, 02755, "a directory inherits setgid");
	is_eq(stat_of("shared/file").st_gid, 4242, "group of a file");
	is_eq(stat_of("shared/file").st_mode & 07777, 0644, "a file does not inherit setgid");
	is_eq(stat_of("shared/fifo").st_gid, 4242, "group of a fifo");
	is_eq(stat_of("shared/link").st_gid, 4242, "group of a link");
	is_eq(stat_of("shared/sub/deeper").st_gid, 4242, "group further down");
	is_eq(stat_of("shared/sub/deeper").st_mode & 02000, 02000, "setgid further down");
}

static unsigned list(DIR *d, unsigned char *seen, unsigned max, unsigned *ret_twice)
{
	unsigned n = 0;
	struct dirent *de;

	while ((de = readdir(d))) {
		unsigned i = (unsigned)atoi(de->d_name + 1);

		if (de->d_name[0] != 'n' || i >= max)
			continue;
		n++;
		*ret_twice += seen[i]++ != 0;
	}
	return n;
}

static void listing(void)
{
	static const struct {
		const char *name;
		int type;
	} kinds[] = {{"f", DT_REG}, {"d", DT_DIR}, {"l", DT_LNK}, {"p", DT_FIFO}, {".", DT_DIR}, {"..", DT_DIR}};
	unsigned found = 0;
	struct dirent *de;
	DIR *d;

	put_file("f", "", 0644);
	need(mkdir("d", 0755) == 0 && symlink("x", "l") == 0 && mkfifo("p", 0644) == 0, "files");
	d = opendir(".");
	while (d && (de = readdir(d))) {
		for (size_t i = 0; i < COUNT(kinds); i++) {
			if (strcmp(de->d_name, kinds[i].name) != 0)
				continue;
			found++;
			is_true(de->d_type == kinds[i].type || de->d_type == DT_UNKNOWN, "type of %s", kinds[i].name);
			if (kinds[i].name[0] != '.')
				is_true(de->d_ino == stat_of(de->d_name).st_ino, "inode number of %s", kinds[i].name);
		}
	}
	is_eq(found, COUNT(kinds), "all are listed");
	rewinddir(d);
	put_file("new", "", 0644);
	found = 0;
	rewinddir(d);
	while ((de = readdir(d)))
		found += strcmp(de->d_name, "new") == 0;
	is_eq(found, 1, "what was made is seen after rewinding");
	closedir(d);
	unlink("new");
	d = opendir(".");
	found = 0;
	while ((de = readdir(d)))
		found += strcmp(de->d_name, "new") == 0;
	is_eq(found, 0, "what was removed is not");
	closedir(d);
	d = opendir("d");
	found = 0;
	while ((de = readdir(d)))
		found++;
	is_eq(found, 2, "an empty directory has two");
	closedir(d);
	fails(opendir("f") ? 0 : -1, ENOTDIR, "opendir of a file");
	fails(opendir("none") ? 0 : -1, ENOENT, "opendir of nothing");
	int fd = open("f", O_RDONLY);

	fails(syscall(SYS_getdents64, fd, (char[512]){0}, 512), ENOTDIR, "getdents of a file");
	close(fd);
	fd = open("d", O_RDONLY);
	fails(syscall(SYS_getdents64, fd, (char[512]){0}, 1), EINVAL, "getdents with no room");
	close(fd);
}

static void fill(unsigned from, unsigned to)
{
	char name[16];

	for (unsigned i = from; i < to; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		need(close(open(name, O_WRONLY | O_CREAT, 0644)) == 0, "create");
	}
}

static void many(void)
{
	static const unsigned sizes[] = {1, 10, 100, 127, 128, 129, 400, 900};
	unsigned have = 0, twice, n;
	unsigned char seen[1000];
	DIR *d;

	for (size_t i = 0; i < COUNT(sizes); i++) {
		fill(have, sizes[i]);
		have = sizes[i];
		memset(seen, 0, sizeof(seen));
		twice = 0;
		d = opendir(".");
		n = list(d, seen, have, &twice);
		is_eq(n, have, "lists %u", have);
		is_eq(twice, 0, "none twice of %u", have);
		rewinddir(d);
		memset(seen, 0, sizeof(seen));
		is_eq(list(d, seen, have, &twice), have, "lists %u again", have);
		closedir(d);
	}
}

static void seeking(void)
{
	enum { N = 300 };
	long at[N + 8];
	char names[N + 8][16];
	int n = 0;
	struct dirent *de;
	DIR *d;

	fill(0, N);
	d = opendir(".");
	for (;;) {
		at[n] = telldir(d);
		de = readdir(d);
		if (!de)
			break;
		snprintf(names[n++], 16, "%.15s", de->d_name);
	}
	is_eq(n, N + 2, "entries");
	for (int i = 0; i < n; i += 7) {
		seekdir(d, at[i]);
		de = readdir(d);
		is_true(de && strcmp(de->d_name, names[i]) == 0, "seek to entry %d", i);
	}
	for (int i = n - 1; i >= 0; i -= 11) {
		seekdir(d, at[i]);
		de = readdir(d);
		is_true(de && strcmp(de->d_name, names[i]) == 0, "seek back to entry %d", i);
	}
	seekdir(d, at[n]);
	is_true(!readdir(d), "seek to the end");
	closedir(d);
	d = opendir("."); /* another open: the same places */
	seekdir(d, at[n / 2]);
	de = readdir(d);
	is_true(de && strcmp(de->d_name, names[n / 2]) == 0, "places hold in another open");
	closedir(d);
}

/* What was there all the time is listed exactly once, whatever else comes and goes. */
static void changing(void)
{
	enum { STAY = 250, COME = 250 };
	unsigned char seen[STAY] = {0};
	unsigned twice = 0, missed = 0, round = 0;
	char name[16];
	struct dirent *de;
	DIR *d;

	for (unsigned i = 0; i < STAY; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		put_file(name, "", 0644);
		snprintf(name, sizeof(name), "x%u", i);
		put_file(name, "", 0644);
	}
	d = opendir(".");
	while ((de = readdir(d))) {
		unsigned i = (unsigned)atoi(de->d_name + 1);

		if (de->d_name[0] == 'n' && i < STAY)
			twice += seen[i]++ != 0;
		snprintf(name, sizeof(name), "x%u", round);
		if (round < STAY)
			unlink(name);
		snprintf(name, sizeof(name), "y%u", round);
		if (round < COME)
			close(open(name, O_WRONLY | O_CREAT, 0644));
		round++;
	}
	for (unsigned i = 0; i < STAY; i++)
		missed += !seen[i];
	is_eq(missed, 0, "missed");
	is_eq(twice, 0, "listed twice");
	rewinddir(d);
	round = 0;
	while ((de = readdir(d))) {
		if (de->d_name[0] == 'n' || de->d_name[0] == 'y')
			round += unlink(de->d_name) == 0; /* rm -r while listing */
	}
	closedir(d);
	is_eq(round, STAY + COME, "removing while listing removes all");
}

static void times(void)
{
	struct stat a, b;

	need(mkdir("d", 0755) == 0, "mkdir");
	static const char *const steps[] = {"create", "mkdir", "symlink", "link", "rename", "unlink", "rmdir"};

	for (size_t i = 0; i < COUNT(steps); i++) {
		int r = -1;

		a = stat_of("d");
		nap(20);
		switch (i) {
		case 0:
			r = close(open("d/f", O_WRONLY | O_CREAT, 0644));
			break;
		case 1:
			r = mkdir("d/s", 0755);
			break;
		case 2:
			r = symlink("x", "d/l");
			break;
		case 3:
			r = link("d/f", "d/h");
			break;
		case 4:
			r = rename("d/h", "d/r");
			break;
		case 5:
			r = unlink("d/r");
			break;
		case 6:
			r = rmdir("d/s");
			break;
		}
		works(r, "%s", steps[i]);
		b = stat_of("d");
		is_true(ns_of(b.st_mtim) > ns_of(a.st_mtim), "mtime after %s", steps[i]);
		is_true(ns_of(b.st_ctim) > ns_of(a.st_ctim), "ctime after %s", steps[i]);
	}
	a = b;
	nap(20);
	put_file("d/f", "changed", 0644);
	b = stat_of("d");
	is_true(ns_of(b.st_mtim) == ns_of(a.st_mtim), "writing a file in it changes nothing");
}

static void deep(void)
{
	char path[2048] = "d";
	int depth = 1;

	works(mkdir(path, 0755), "level 0");
	for (; depth < 100; depth++) {
		snprintf(path + strlen(path), 16, "/%d", depth);
		if (!works(mkdir(path, 0755), "level %d", depth))
			break;
	}
	strcat(path, "/f");
	put_file(path, "bottom", 0644);
	is_true(text_is(path, "bottom"), "file at the bottom");
	works(rename("d", "e"), "rename the top");
	path[0] = 'e';
	is_true(text_is(path, "bottom"), "file under the new name");
	works(unlink(path), "unlink at the bottom");
	for (; depth > 0; depth--) {
		*strrchr(path, '/') = 0;
		works(rmdir(path), "remove level %d", depth - 1);
	}
}

GROUPS(dirs) = {
	{"mkdir", modes, 0},	 {"setgid-dir", group_handed_down, 0},
	{"readdir", listing, 0}, {"readdir-many", many, 0},
	{"seekdir", seeking, 0}, {"readdir-change", changing, 0},
	{"dir-time", times, 0},	 {"deep", deep, 0},
	END_OF_GROUPS,
};
