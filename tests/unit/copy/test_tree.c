/* SPDX-License-Identifier: Apache-2.0 */
/* Trees of files as a stream and back: what is kept, where it goes, and what a hostile sender gets. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "copy/copy.h"

static char top[64];

static int setup(void **state)
{
	strcpy(top, "/tmp/test-copy.XXXXXX");
	return !mkdtemp(top) || chdir(top) < 0;
}

static int teardown(void **state)
{
	return chdir("/") < 0 || remove_tree_at(AT_FDCWD, top) < 0;
}

static void put(const char *path, const char *text)
{
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, strlen(text), 0644), 0);
}

static void has(const char *path, const char *text)
{
	_free_ char *got = NULL;

	assert_int_equal(read_file_at(AT_FDCWD, path, 1 << 20, &got, NULL), 0);
	assert_string_equal(got, text);
}

static int to_buf(void *arg, const void *p, size_t len)
{
	return buf_put(arg, p, len);
}

/* What cp does, without the way in between. */
static int copy(const char *from, const char *to, const struct copy_unpack_options *o, size_t piece)
{
	struct copy_unpack_options none = {0};
	_cleanup_(buf_done) struct buf stream = {0};
	struct copy_out out = {.write = to_buf, .arg = &stream};
	struct copy_pack pack = {0};
	struct copy_place how = {0};
	_free_ char *name = copy_source_name(from, &how.contents);
	struct sm_error err = {0};
	struct copy_unpack *u;
	int r;

	how.source_name = name;
	r = copy_pack(from, name, &pack, &out, &err);
	if (r == 0)
		assert_int_equal(copy_put_end(&out), 0);
	assert_int_equal(copy_unpack_new(to, &how, o ? o : &none, &u), 0);
	for (size_t i = 0; r == 0 && i < stream.len; i += piece)
		r = copy_unpack_feed(u, stream.data + i, MIN(piece, stream.len - i), &err);
	if (r == 0)
		assert_true(copy_unpack_ended(u));
	else
		assert_true(err.code == -r && err.message[0]);
	copy_unpack_free(u);
	copy_out_done(&out);
	return r;
}

static void test_kept(void **state)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1234567, .tv_nsec = 987654321}};
	struct stat a, b;
	char value[8], target[32] = "";
	int fd;

	assert_int_equal(mkdir("src", 0750), 0);
	assert_int_equal(mkdir("src/empty", 0711), 0);
	assert_int_equal(mkdir("src/locked", 0755), 0);
	put("src/locked/in", "inside");
	put("src/file", "contents");
	assert_int_equal(chmod("src/file", 0604), 0);
	assert_int_equal(link("src/file", "src/locked/same"), 0);
	assert_int_equal(symlink("../../no/where", "src/link"), 0);
	assert_int_equal(mkfifo("src/fifo", 0620), 0);
	assert_int_equal(chmod("src/fifo", 0620), 0);
	fd = open("src/sparse", O_WRONLY | O_CREAT, 0644);
	assert_int_equal(pwrite(fd, "x", 1, 5 << 20), 1);
	assert_int_equal(ftruncate(fd, 9 << 20), 0);
	close(fd);
	(void)!setxattr("src/file", "user.note", "abc", 3, 0);
	assert_int_equal(utimensat(AT_FDCWD, "src/file", times, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, "src/link", times, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(utimensat(AT_FDCWD, "src/locked", times, 0), 0);
	assert_int_equal(chmod("src/locked", 0555), 0);
	for (size_t piece = 1; piece < 100000; piece *= 99) {
		assert_int_equal(copy("src", "dst", NULL, piece), 0);
		has("dst/file", "contents");
		has("dst/locked/in", "inside");
		assert_int_equal(stat("dst/file", &a), 0);
		assert_int_equal(stat("dst/locked/same", &b), 0);
		assert_int_equal(a.st_ino, b.st_ino);
		assert_int_equal(a.st_mode, S_IFREG | 0604);
		assert_int_equal(a.st_mtim.tv_sec, 1234567);
		assert_int_equal(a.st_mtim.tv_nsec, 987654321);
		if (getxattr("src/file", "user.note", value, sizeof(value)) == 3)
			assert_int_equal(getxattr("dst/file", "user.note", value, sizeof(value)), 3);
		assert_int_equal(lstat("dst/link", &a), 0);
		assert_int_equal(a.st_mtim.tv_nsec, 987654321);
		assert_int_equal(readlink("dst/link", target, sizeof(target)), 14);
		assert_string_equal(target, "../../no/where");
		assert_int_equal(stat("dst/locked", &a), 0);
		assert_int_equal(a.st_mode, S_IFDIR | 0555);
		assert_int_equal(a.st_mtim.tv_sec, 1234567);
		assert_int_equal(stat("dst/empty", &a), 0);
		assert_int_equal(a.st_mode, S_IFDIR | 0711);
		assert_int_equal(stat("dst", &a), 0);
		assert_int_equal(a.st_mode, S_IFDIR | 0750);
		assert_int_equal(stat("dst/fifo", &a), 0);
		assert_int_equal(a.st_mode, S_IFIFO | 0620);
		assert_int_equal(stat("dst/sparse", &a), 0);
		assert_int_equal(a.st_size, 9 << 20);
		assert_true(a.st_blocks < 1000);
		assert_int_equal(chmod("dst/locked", 0755), 0);
		assert_int_equal(remove_tree_at(AT_FDCWD, "dst"), 0);
	}
	assert_int_equal(chmod("src/locked", 0755), 0);
	/* What the kernel makes up has no size. */
	assert_int_equal(copy("/proc/self/status", "status", NULL, 65536), 0);
	assert_int_equal(stat("status", &a), 0);
	assert_true(a.st_size > 100);
}

static void test_docker_rules(void **state)
{
	struct stat st;

	put("f", "file");
	put("g", "old");
	assert_int_equal(mkdir("d", 0755), 0);
	put("d/x", "x");
	assert_int_equal(mkdir("to", 0755), 0);
	assert_int_equal(copy("f", "new", NULL, 65536), 0);
	has("new", "file");
	assert_int_equal(copy("f", "g", NULL, 65536), 0);
	has("g", "file");
	assert_int_equal(copy("f", "to", NULL, 65536), 0);
	has("to/f", "file");
	assert_int_equal(copy("f", "none/", NULL, 65536), -ENOENT);
	assert_int_equal(copy("f", "no/parent", NULL, 65536), -ENOENT);
	assert_int_equal(copy("f", "f/x", NULL, 65536), -ENOTDIR);
	assert_int_equal(copy("d", "d2", NULL, 65536), 0);
	has("d2/x", "x");
	assert_int_equal(copy("d", "to/", NULL, 65536), 0);
	has("to/d/x", "x");
	assert_int_equal(copy("d/.", "to", NULL, 65536), 0);
	has("to/x", "x");
	assert_int_equal(copy("d", "f", NULL, 65536), -ENOTDIR);
	assert_int_equal(copy("absent", "y", NULL, 65536), -ENOENT);
	/* A destination that is a link: what it leads to. */
	assert_int_equal(symlink("d2", "l"), 0);
	assert_int_equal(copy("f", "l", NULL, 65536), 0);
	has("d2/f", "file");
	put("old", "old");
	assert_int_equal(symlink("old", "lf"), 0);
	assert_int_equal(copy("f", "lf", NULL, 65536), 0);
	has("old", "file");
	assert_true(lstat("lf", &st) == 0 && S_ISLNK(st.st_mode));
	/* A directory is not replaced by a file, nor the reverse. */
	assert_int_equal(mkdir("to/g", 0755), 0);
	assert_int_equal(copy("g", "to", NULL, 65536), -EISDIR);
	put("to/d3", "file");
	assert_int_equal(mkdir("d3", 0755), 0);
	assert_int_equal(copy("d3", "to", NULL, 65536), -ENOTDIR);
	assert_int_equal(copy_remove("d2", false, NULL), -ENOTEMPTY);
	assert_int_equal(copy_remove("d2", true, NULL), 0);
	assert_int_equal(copy_remove("d2", true, NULL), -ENOENT);
}

/* -------------------------------------------------------------------------------------------- hostile */

static struct buf evil;
static struct copy_out evil_out = {.write = to_buf, .arg = &evil};

static void entry(enum copy_kind kind, const char *name, const char *link)
{
	struct copy_entry e = {
		.kind = kind, .mode = 06755, .name = name, .link = link, .size = kind == COPY_FILE ? 4 : 0};

	assert_int_equal(copy_put_entry(&evil_out, &e), 0);
}

/* Ends the stream, unpacks it into "in", and begins a new one. */
static int attack(const struct copy_unpack_options *o)
{
	struct copy_place how = {.contents = true, .source_name = "name"};
	struct sm_error err = {0};
	struct copy_unpack *u;
	int r;

	assert_int_equal(copy_put_end(&evil_out), 0);
	assert_int_equal(copy_unpack_new("in", &how, o, &u), 0);
	r = copy_unpack_feed(u, evil.data, evil.len, &err);
	copy_unpack_free(u);
	buf_done(&evil);
	evil = (struct buf){0};
	return r;
}

static void test_hostile(void **state)
{
	static const char *const names[] = {"..", ".", "", "a/b", "/etc", "../x"};
	static const char *const links[] = {"..", "../x", "/etc/passwd", "a/../b", "a//b", "a/", "."};
	struct copy_unpack_options o = {.untrusted = true};
	struct stat st;

	assert_int_equal(mkdir("in", 0755), 0);
	assert_int_equal(mkdir("out", 0755), 0);
	put("out/secret", "secret");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		entry(COPY_DIR, "r", NULL);
		entry(COPY_FILE, names[i], NULL);
		assert_int_equal(attack(&o), -EPROTO);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		entry(COPY_DIR, "r", NULL);
		entry(COPY_HARDLINK, "h", links[i]);
		assert_int_equal(attack(&o), -EPROTO);
	}
	/* A link out, then a directory of its name: not entered. */
	entry(COPY_DIR, "r", NULL);
	entry(COPY_SYMLINK, "l", "../out");
	entry(COPY_DIR, "l", NULL);
	entry(COPY_FILE, "planted", NULL);
	assert_int_equal(attack(&o), -ENOTDIR);
	assert_int_equal(access("out/planted", F_OK), -1);
	/* A file of its name: it is replaced. */
	entry(COPY_DIR, "r", NULL);
	entry(COPY_SYMLINK, "f", "../out/secret");
	entry(COPY_FILE, "f", NULL);
	assert_int_equal(copy_put_data(&evil_out, 0, "evil", 4), 0);
	assert_int_equal(copy_put_up(&evil_out), 0);
	assert_int_equal(attack(&o), 0);
	has("out/secret", "secret");
	has("in/f", "evil");
	assert_true(stat("in/f", &st) == 0 && st.st_mode == (S_IFREG | 0755)); /* no set-id bits */
	/* A hard link through a link. */
	entry(COPY_DIR, "r", NULL);
	entry(COPY_HARDLINK, "h", "l/secret");
	assert_int_equal(attack(&o), -ENOTDIR);
	entry(COPY_DIR, "r", NULL);
	entry(COPY_CHAR, "dev", NULL);
	assert_int_equal(attack(&o), -EPERM);
	/* Records that do not fit together. */
	entry(COPY_FILE, "x", NULL);
	entry(COPY_FILE, "y", NULL);
	assert_int_equal(attack(&o), -EPROTO);
	assert_int_equal(copy_put_up(&evil_out), 0);
	assert_int_equal(attack(&o), -EPROTO);
	entry(COPY_FILE, "x", NULL);
	assert_int_equal(copy_put_data(&evil_out, 2, "abc", 3), 0);
	assert_int_equal(attack(&o), -EPROTO);
	entry(COPY_FILE, "x", NULL);
	assert_int_equal(copy_put_data(&evil_out, UINT64_MAX, "a", 1), 0);
	assert_int_equal(attack(&o), -EPROTO);
	entry(COPY_DIR, "r", NULL);
	assert_int_equal(copy_put_data(&evil_out, 0, "a", 1), 0);
	assert_int_equal(attack(&o), -EPROTO);
	for (unsigned i = 0; i < COPY_MAX_DEPTH + 1; i++)
		entry(COPY_DIR, "r", NULL);
	assert_int_equal(attack(&o), -EPROTO);
	assert_int_equal(copy_put_error(&evil_out, ENOSPC, "no\x1b[31m room"), 0);
	assert_int_equal(attack(&o), -ENOSPC);
	/* Taking away: only where changes were asked for, and never through a link. */
	entry(COPY_DIR, "r", NULL);
	entry(COPY_GONE, "f", NULL);
	assert_int_equal(attack(&o), -EPROTO);
	o.changes = true;
	entry(COPY_GONE, "r", NULL); /* the directory itself */
	assert_int_equal(attack(&o), -EPROTO);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		entry(COPY_DIR, "r", NULL);
		entry(COPY_GONE, names[i], NULL);
		assert_int_equal(attack(&o), -EPROTO);
	}
	entry(COPY_DIR, "r", NULL);
	entry(COPY_DIR, "l", NULL);
	entry(COPY_GONE, "secret", NULL);
	assert_int_equal(attack(&o), -ENOTDIR);
	entry(COPY_DIR, "r", NULL);
	entry(COPY_GONE, "l", NULL);
	entry(COPY_GONE, "nothing", NULL);
	assert_int_equal(copy_put_up(&evil_out), 0);
	assert_int_equal(attack(&o), 0);
	assert_true(lstat("in/l", &st) < 0);
	has("out/secret", "secret");
}

/* What lies in `upper` over `lower`, into `host`. */
static void apply(const char *const *skip)
{
	_cleanup_(buf_done) struct buf stream = {0};
	struct copy_out out = {.write = to_buf, .arg = &stream};
	struct copy_unpack_options o = {.untrusted = true, .changes = true};
	struct copy_place how = {.contents = true, .into = true, .source_name = ""};
	struct copy_changes c = {.upper = open("upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
				 .lower = open("lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
				 .skip = skip};
	struct copy_unpack *u;

	assert_int_equal(copy_pack_changes(&c, &out, NULL), 0);
	assert_int_equal(copy_put_end(&out), 0);
	close(c.upper);
	close(c.lower);
	assert_int_equal(copy_unpack_new("host", &how, &o, &u), 0);
	assert_int_equal(copy_unpack_feed(u, stream.data, stream.len, NULL), 0);
	assert_true(copy_unpack_ended(u));
	copy_unpack_free(u);
	copy_out_done(&out);
}

static void test_changes(void **state)
{
	static const char *const dirs[] = {"lower", "lower/d", "lower/kept", "lower/r", "lower/o",
					   "upper", "upper/d", "upper/new",  "upper/o", "upper/s",
					   "host",  "host/d",  "host/kept",  "host/r",	"host/o"};
	static const char *const skip[] = {"/s", NULL};
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		assert_int_equal(mkdir(dirs[i], 0755), 0);
	put("lower/f", "old");
	put("lower/r/in", "old");
	put("lower/o/old", "old");
	put("lower/d/x", "old");
	put("host/f", "old");
	put("host/r/in", "old");
	put("host/o/old", "old");
	put("host/d/x", "old");
	put("host/d/mine", "mine");
	put("upper/f", "changed");
	put("upper/r", "a file now");
	put("upper/new/in", "new");
	put("upper/s/secret", "left out");
	put("upper/o/new", "new");
	assert_int_equal(chmod("upper/f", 04755), 0);
	assert_int_equal(symlink("/etc", "upper/d/link"), 0);
	assert_int_equal(mknod("upper/d/x", S_IFCHR | 0600, 0), 0);
	assert_int_equal(chmod("host/d", 0700), 0); /* its own: of a directory on the way nothing is said */
	apply(skip);
	has("host/f", "changed");
	assert_true(stat("host/f", &st) == 0 && st.st_mode == (S_IFREG | 0755));
	has("host/r", "a file now");
	has("host/new/in", "new");
	has("host/d/mine", "mine");
	assert_true(access("host/d/x", F_OK) < 0 && access("host/s", F_OK) < 0);
	assert_true(lstat("host/d/link", &st) == 0 && S_ISLNK(st.st_mode));
	assert_true(stat("host/d", &st) == 0 && st.st_mode == (S_IFDIR | 0700));
	assert_true(stat("host/kept", &st) == 0);
	has("host/o/old", "old");
	has("host/o/new", "new");
	/* A directory that was made anew hides all of the old one. Only root can make one look so here. */
	if (setxattr("upper/o", "trusted.overlay.opaque", "y", 1, 0) == 0) {
		apply(skip);
		assert_true(access("host/o/old", F_OK) < 0);
		has("host/o/new", "new");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_docker_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
