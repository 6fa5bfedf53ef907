/* SPDX-License-Identifier: Apache-2.0 */
/* rename(2) and renameat2(2): every kind of file onto every other, flags, directories under themselves, times. */
#include "conf.h"

#include <sys/statvfs.h>

enum kind { NONE, FILE_, LINK_, FIFO, EMPTY, FULL, KINDS };

static const char *const kind_names[] = {"none", "file", "link", "fifo", "empty-dir", "full-dir"};

static void make(const char *path, enum kind kind)
{
	char below[32];

	switch (kind) {
	case FILE_:
		put_file(path, path, 0644);
		break;
	case LINK_:
		need(symlink(path, path) == 0, "symlink");
		break;
	case FIFO:
		need(mkfifo(path, 0644) == 0, "mkfifo");
		break;
	case FULL:
	case EMPTY:
		need(mkdir(path, 0755) == 0, "mkdir");
		snprintf(below, sizeof(below), "%s/child", path);
		if (kind == FULL)
			put_file(below, path, 0644);
		break;
	default:
		break;
	}
}

static void clear(const char *path)
{
	char below[32];

	snprintf(below, sizeof(below), "%s/child", path);
	(void)!unlink(below);
	(void)!rmdir(path);
	(void)!unlink(path);
}

static int expected(enum kind from, enum kind to, unsigned flags)
{
	bool from_dir = from >= EMPTY, to_dir = to >= EMPTY;

	if (from == NONE)
		return ENOENT;
	if (flags & RENAME_EXCHANGE)
		return to == NONE ? ENOENT : 0;
	if (to == NONE)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return EEXIST;
	if (from_dir && !to_dir)
		return ENOTDIR;
	if (!from_dir && to_dir)
		return EISDIR;
	return to == FULL ? ENOTEMPTY : 0;
}

static void check_done(enum kind from, enum kind to, unsigned flags, ino_t a, ino_t b, const char *what)
{
	const char *f = kind_names[from], *t = kind_names[to];

	is_true(exists("b") && stat_of("b").st_ino == a, "%s %s over %s: is there", what, f, t);
	if (flags & RENAME_EXCHANGE)
		is_true(exists("a") && stat_of("a").st_ino == b, "%s %s over %s: and the other here", what, f, t);
	else
		is_true(!exists("a"), "%s %s over %s: the old name is gone", what, f, t);
	if (from == FULL)
		is_true(exists("b/child"), "%s %s over %s: with its child", what, f, t);
}

static void matrix(void)
{
	static const struct {
		unsigned flags;
		const char *name;
	} ways[] = {{0, "plain"}, {RENAME_NOREPLACE, "noreplace"}, {RENAME_EXCHANGE, "exchange"}};

	for (size_t w = 0; w < COUNT(ways); w++) {
		for (int from = 0; from < KINDS; from++) {
			for (int to = 0; to < KINDS; to++) {
				int want = expected((enum kind)from, (enum kind)to, ways[w].flags), r;
				ino_t a, b;

				clear("a"), clear("b");
				make("a", (enum kind)from), make("b", (enum kind)to);
				a = from ? stat_of("a").st_ino : 0;
				b = to ? stat_of("b").st_ino : 0;
				r = ways[w].flags ? renameat2(AT_FDCWD, "a", AT_FDCWD, "b", ways[w].flags)
						  : rename("a", "b");
				if (want) {
					fails(r, want, "%s %s over %s", ways[w].name, kind_names[from], kind_names[to]);
					is_true(exists("a") == (from != NONE) && exists("b") == (to != NONE),
						"%s %s over %s changes nothing", ways[w].name, kind_names[from],
						kind_names[to]);
				} else if (works(r, "%s %s over %s", ways[w].name, kind_names[from], kind_names[to])) {
					check_done((enum kind)from, (enum kind)to, ways[w].flags, a, b, ways[w].name);
				}
			}
		}
	}
	fails(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL,
	      "exchange and noreplace");
	fails(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", 1u << 20), EINVAL, "unknown flag");
}

static void same_file(void)
{
	struct stat st;

	put_file("a", "x", 0644);
	works(link("a", "b"), "link");
	works(rename("a", "b"), "rename onto the same file");
	is_true(exists("a") && exists("b"), "does nothing");
	st = stat_of("a");
	is_eq(st.st_nlink, 2, "links");
	works(rename("a", "a"), "rename to the same name");
	is_true(exists("a"), "is still there");
	works(mkdir("d", 0755), "mkdir");
	works(rename("d", "d"), "rename a directory to itself");
	works(rename("a", "d/a"), "rename into a directory");
	works(rename("d/a", "c"), "and out again");
	is_true(exists("c") && !exists("d/a"), "names are right");
}

static void under_itself(void)
{
	need(mkdir("d", 0755) == 0 && mkdir("d/e", 0755) == 0 && mkdir("d/e/f", 0755) == 0 && mkdir("g", 0755) == 0,
	     "directories");
	fails(rename("d", "d/x"), EINVAL, "into itself");
	fails(rename("d", "d/e/x"), EINVAL, "into its child");
	fails(rename("d", "d/e/f/x"), EINVAL, "into its grandchild");
	fails(rename("d", "d/e"), EINVAL, "onto its child");
	fails(rename("d/e", "d"), ENOTEMPTY, "onto its parent");
	fails(rename("d/e/f", "d"), ENOTEMPTY, "onto its grandparent");
	fails(renameat2(AT_FDCWD, "d", AT_FDCWD, "d/e", RENAME_EXCHANGE), EINVAL, "exchange with its child");
	fails(renameat2(AT_FDCWD, "d/e", AT_FDCWD, "d", RENAME_EXCHANGE), EINVAL, "exchange with its parent");
	is_eq(stat_of("d").st_nlink, 3, "links before");
	is_eq(stat_of("g").st_nlink, 2, "links of the other before");
	works(rename("d/e", "g/e"), "move to another directory");
	is_eq(stat_of("d").st_nlink, 2, "links after");
	is_eq(stat_of("g").st_nlink, 3, "links of the other after");
	is_eq((long long)stat_of("g/e/..").st_ino, (long long)stat_of("g").st_ino, "dotdot is the new parent");
	is_true(exists("g/e/f"), "children came along");
	works(mkdir("d/e", 0755), "mkdir again");
	works(rename("d/e", "g/e/f"), "onto an empty directory elsewhere");
	is_eq(stat_of("g/e").st_nlink, 3, "links with the replaced one");
	put_file("d/file", "x", 0644);
	works(renameat2(AT_FDCWD, "d/file", AT_FDCWD, "g/e", RENAME_EXCHANGE), "exchange a file and a directory");
	is_eq(stat_of("d").st_nlink, 3, "links after exchange");
	is_eq(stat_of("g").st_nlink, 2, "links of the other after exchange");
	is_eq((long long)stat_of("d/file/..").st_ino, (long long)stat_of("d").st_ino, "dotdot after exchange");
}

static void open_files(void)
{
	char buf[8] = "";
	struct stat st;
	int a, b, d;

	put_file("a", "AAA", 0644);
	put_file("b", "BBB", 0644);
	a = open("a", O_RDWR);
	b = open("b", O_RDWR);
	works(rename("a", "b"), "over an open file");
	is_true(text_is("b", "AAA"), "the name has the new file");
	is_eq(pread(b, buf, 3, 0), 3, "read the replaced one");
	is_true(memcmp(buf, "BBB", 3) == 0, "it lives on");
	fstat(b, &st);
	is_eq(st.st_nlink, 0, "without a name");
	is_eq(pwrite(a, "CCC", 3, 0), 3, "write to the renamed one");
	is_true(text_is("b", "CCC"), "is seen by the name");
	works(mkdir("d", 0755), "mkdir");
	d = open("d", O_RDONLY | O_DIRECTORY);
	works(rename("d", "e"), "an open directory");
	works(close(openat(d, "in", O_WRONLY | O_CREAT, 0644)), "create in it");
	is_true(exists("e/in"), "is under the new name");
	works(chdir("e"), "enter");
	works(rename("../e", "../f"), "the current directory");
	is_true(exists("in"), "we are still in it");
	works(chdir(".."), "leave");
	close(a), close(b), close(d);
}

static void times(void)
{
	struct stat d1, d2, f1, f2, e1, e2;

	need(mkdir("d", 0755) == 0 && mkdir("e", 0755) == 0, "mkdir");
	put_file("d/f", "x", 0644);
	d1 = stat_of("d"), e1 = stat_of("e"), f1 = stat_of("d/f");
	nap(20);
	works(rename("d/f", "e/f"), "rename");
	d2 = stat_of("d"), e2 = stat_of("e"), f2 = stat_of("e/f");
	is_true(ns_of(d2.st_mtim) > ns_of(d1.st_mtim), "mtime of the old directory");
	is_true(ns_of(d2.st_ctim) > ns_of(d1.st_ctim), "ctime of the old directory");
	is_true(ns_of(e2.st_mtim) > ns_of(e1.st_mtim), "mtime of the new directory");
	is_true(ns_of(e2.st_ctim) > ns_of(e1.st_ctim), "ctime of the new directory");
	is_true(ns_of(f2.st_mtim) == ns_of(f1.st_mtim), "mtime of the file stays");
	is_true(f2.st_ino == f1.st_ino, "inode number stays");
	is_true(f2.st_size == 1 && f2.st_mode == f1.st_mode, "attributes stay");
}

static void across(void)
{
	struct stat here, there;

	/* /dev/shm and /proc are other file systems than any directory one would test */
	put_file("f", "x", 0644);
	fails(rename("f", "/proc/f"), EXDEV, "to another file system");
	stat(".", &here);
	if (stat("/dev/shm", &there) == 0 && here.st_dev != there.st_dev)
		fails(link("f", "/dev/shm/conformance.none"), EXDEV, "link to another file system");
	else
		skipped("no other file system is known", "link to another file system");
	is_true(text_is("f", "x"), "the file is unharmed");
}

static void many(void)
{
	char a[32], b[32];
	unsigned good = 0;

	need(mkdir("d", 0755) == 0 && mkdir("e", 0755) == 0, "mkdir");
	for (int i = 0; i < 200; i++) {
		snprintf(a, sizeof(a), "d/%d", i);
		put_file(a, a, 0644);
	}
	for (int i = 0; i < 200; i++) {
		snprintf(a, sizeof(a), "d/%d", i);
		snprintf(b, sizeof(b), "e/%d", (i * 7) % 200);
		good += rename(a, b) == 0;
	}
	is_eq(good, 200, "two hundred renames");
	good = 0;
	for (int i = 0; i < 200; i++) {
		snprintf(a, sizeof(a), "d/%d", i);
		snprintf(b, sizeof(b), "e/%d", (i * 7) % 200);
		good += text_is(b, a) && !exists(a);
	}
	is_eq(good, 200, "each is where it should be");
	works(rmdir("d"), "the old directory is empty");
}

GROUPS(rename) = {
	{"rename", matrix, 0},
	{"rename-same", same_file, 0},
	{"rename-tree", under_itself, 0},
	{"rename-open", open_files, 0},
	{"rename-time", times, 0},
	{"rename-across", across, 0},
	{"rename-many", many, 0},
	END_OF_GROUPS,
};
