/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Coherence in a peer that cannot be notified, as a guest: its kernel believes names and attributes for long, and only
 * refresh_apply, told what the session's watch found, makes it ask again. The host's own kernel is the peer here, by
 * /dev/fuse without notifications. Needs root and /dev/fuse, else it is a skip.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/dev_mount.h"
#include "fuse/mux.h"
#include "fuse/posix.h"
#include "fuse/session.h"
#include "fuse/watch.h"
#include "guest/refresh.h"

#define ROOM (1u << 21)

struct fixture {
	char dir[64], source[64];
	struct sm_fs_backend *be, *mux;
	struct fuse_session *session;
	int fd, host, base, proc;
	pthread_t thread;
};

static void *serve(void *arg)
{
	struct fixture *f = arg;
	uint8_t *in = malloc(ROOM), *out = malloc(ROOM);
	ssize_t n;

	while (in && out && ((n = read(f->fd, in, ROOM)) > 0 || (n < 0 && errno != ENODEV))) {
		struct iovec i = {in, (size_t)MAX(n, 0)}, o = {out, ROOM};

		n = n > 0 ? fuse_session_serve(f->session, &i, 1, &o, 1) : 0;
		if (n > 0 && write(f->fd, out, (size_t)n) < 0 && errno == ENODEV)
			break;
	}
	free(in);
	free(out);
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct fuse_posix_options o = {.valid_ns = 1000000000};
	struct fuse_session_options so = {.watch = true};
	struct fuse_mux_child child = {.name = "0"};
	struct sm_error err = {0};

	if (!f)
		return -1;
	*state = f;
	strcpy(f->dir, "/tmp/sm-test-mount.XXXXXX");
	strcpy(f->source, "/tmp/sm-test-source.XXXXXX");
	if (!mkdtemp(f->dir) || !mkdtemp(f->source) || fuse_posix_new(f->source, &o, &f->be, &err) < 0)
		return -1;
	child.backend = f->be;
	if (fuse_mux_new(&child, 1, &f->mux) < 0 || fuse_session_new(f->mux, &so, &f->session) < 0)
		return -1;
	watch_paths(fuse_session_watch(f->session));
	f->fd = dev_mount(f->dir, "test", false, false, &err);
	if (f->fd < 0 || pthread_create(&f->thread, NULL, serve, f) != 0)
		return -1;
	f->host = open(f->source, O_PATH | O_DIRECTORY);
	f->base = open(f->dir, O_PATH | O_DIRECTORY);
	f->proc = open("/proc", O_PATH | O_DIRECTORY);
	return f->host < 0 || f->base < 0 || f->proc < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int r;

	close(f->host);
	close(f->base);
	close(f->proc);
	umount2(f->dir, MNT_DETACH);
	pthread_join(f->thread, NULL);
	close(f->fd);
	fuse_session_free(f->session);
	fuse_mux_free(f->mux);
	fuse_posix_free(f->be);
	r = remove_tree_at(AT_FDCWD, f->source) | rmdir(f->dir);
	free(f);
	return r;
}

static void put(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static const char *get(int dir, const char *name, char buf[static 64])
{
	int fd = openat(dir, name, O_RDONLY);
	ssize_t n = fd < 0 ? -errno : read(fd, buf, 63);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return n == -ENOENT ? "absent" : "error";
	buf[n] = '\0';
	return buf;
}

static enum refresh_what record_of(const struct watch_stale *s)
{
	if (s->made)
		return S_ISDIR(s->made)	  ? REFRESH_MADE_DIRECTORY
		       : S_ISLNK(s->made) ? REFRESH_MADE_LINK
					  : REFRESH_MADE_FILE;
	if (s->gone)
		return S_ISDIR(s->gone) ? REFRESH_GONE_DIRECTORY : REFRESH_GONE;
	return (enum refresh_what)s->what;
}

/* One record of the wire format into the connection. */
static void on_stale(void *arg, const struct watch_stale *s)
{
	uint8_t head[5];
	uint32_t len = (uint32_t)strlen(s->path) + 1;
	int fd = *(int *)arg;

	assert_non_null(s->path);
	memcpy(head, &len, 4);
	head[4] = (uint8_t)record_of(s);
	assert_int_equal(write_full(fd, head, 5), 0);
	assert_int_equal(write_full(fd, s->path, len - 1), 0);
}

/* What the monitor and the agent do all the time. */
static void refresh(struct fixture *f)
{
	int pair[2];

	usleep(20000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(watch_step(fuse_session_watch(f->session), on_stale, &pair[0]), 0);
	close(pair[0]);
	assert_int_equal(refresh_serve(f->base, f->proc, pair[1], -1), 0);
	close(pair[1]);
}

static void test_what_the_host_changed_is_seen_after_a_refresh(void **state)
{
	struct fixture *f = *state;
	char buf[64];
	struct stat st;

	put(f->host, "file", "one");
	assert_int_equal(mkdirat(f->host, "dir", 0755), 0);
	put(f->host, "dir/inner", "in");
	for (int i = 0; i < 2; i++) {
		assert_string_equal(get(f->base, "0/file", buf), "one");
		assert_string_equal(get(f->base, "0/absent", buf), "absent");
		assert_string_equal(get(f->base, "0/dir/inner", buf), "in");
	}
	put(f->host, "absent", "made");
	put(f->host, "other", "moved over it");
	assert_int_equal(renameat(f->host, "other", f->host, "file"), 0);
	assert_int_equal(unlinkat(f->host, "dir/inner", 0), 0);
	/* The kernel believes what it has: this is what the refresh is for. */
	assert_int_equal(fstatat(f->base, "0/file", &st, 0), 0);
	assert_int_equal(st.st_size, 3);
	assert_string_equal(get(f->base, "0/absent", buf), "absent");
	refresh(f);
	assert_string_equal(get(f->base, "0/file", buf), "moved over it");
	assert_string_equal(get(f->base, "0/absent", buf), "made");
	assert_string_equal(get(f->base, "0/dir/inner", buf), "absent");
	put(f->host, "file", "rewritten");
	assert_int_equal(fchmodat(f->host, "absent", 0600, 0), 0);
	refresh(f);
	assert_string_equal(get(f->base, "0/file", buf), "rewritten");
	assert_int_equal(fstatat(f->base, "0/absent", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static unsigned names_in(int base, const char *path)
{
	int fd = openat(base, path, O_RDONLY | O_DIRECTORY);
	DIR *d = fdopendir(fd);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static uint64_t requests(struct fixture *f)
{
	struct fuse_session_stats st;

	fuse_session_get_stats(f->session, &st);
	return st.requests;
}

/* As a change within one tick of a clock leaves it: not to be seen by the directory's times. */
static void put_unseen(int dir, const char *name)
{
	struct timespec times[2];
	struct stat st;

	assert_int_equal(fstatat(dir, "dir", &st, 0), 0);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	put(dir, name, "");
	assert_int_equal(utimensat(dir, "dir", times, 0), 0);
}

static void test_a_listing_costs_nothing_until_it_is_another(void **state)
{
	struct fixture *f = *state;
	char name[32];
	uint64_t before;

	assert_int_equal(mkdirat(f->host, "dir", 0755), 0);
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "dir/file-%03u", i);
		put(f->host, name, "");
	}
	assert_int_equal(names_in(f->base, "0/dir"), 500);
	assert_int_equal(names_in(f->base, "0/dir"), 500);
	before = requests(f);
	for (int i = 0; i < 10; i++)
		assert_int_equal(names_in(f->base, "0/dir"), 500);
	assert_int_equal(requests(f), before);
	for (unsigned i = 500; i < 520; i++) {
		snprintf(name, sizeof(name), "dir/file-%03u", i);
		put_unseen(f->host, name);
		refresh(f);
		assert_int_equal(names_in(f->base, "0/dir"), i + 1);
	}
	/* Its own changes the kernel knows of. */
	put(f->base, "0/dir/own", "");
	assert_int_equal(names_in(f->base, "0/dir"), 521);
	assert_int_equal(unlinkat(f->base, "0/dir/own", 0), 0);
	assert_int_equal(names_in(f->base, "0/dir"), 520);
	refresh(f);
	assert_int_equal(names_in(f->base, "0/dir"), 520);
	assert_int_equal(unlinkat(f->base, "0/dir/nothing", 0), -1);
	assert_int_equal(mkdirat(f->base, "0/dir/file-000", 0755), -1); /* fails, and makes nothing stale */
	put_unseen(f->host, "dir/file-520");
	refresh(f);
	assert_int_equal(names_in(f->base, "0/dir"), 521);
}

static void test_a_refresh_changes_nothing_on_the_host(void **state)
{
	struct fixture *f = *state;
	struct stat before, after;

	put(f->host, "file", "text");
	assert_int_equal(fstatat(f->host, "file", &before, 0), 0);
	for (int what = REFRESH_NAME; what <= REFRESH_LISTING; what++) {
		assert_int_equal(refresh_apply(f->base, f->proc, what, "0/file"), 0);
		refresh_apply(f->base, f->proc, what, "0/nothing");
		refresh_apply(f->base, f->proc, what, "0/no/way");
	}
	assert_int_equal(fstatat(f->host, "file", &after, 0), 0);
	assert_memory_equal(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim));
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
	assert_int_equal(faccessat(f->host, "nothing", F_OK, 0), -1);
}

static bool has_event(int fd, uint32_t mask)
{
	char buf[4096] __attribute__((aligned(8)));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = poll(&p, 1, 2000) == 1 ? read(fd, buf, sizeof(buf)) : 0;

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const struct inotify_event *)(buf + at);

		if (ev->mask & mask)
			return true;
		at += (ssize_t)sizeof(*ev) + ev->len;
	}
	return false;
}

static void test_watchers_in_the_guest_see_changes(void **state)
{
	struct fixture *f = *state;
	int events = inotify_init1(IN_CLOEXEC);
	char path[128], buf[64];

	put(f->host, "file", "text");
	snprintf(path, sizeof(path), "%s/0/file", f->dir);
	assert_true(inotify_add_watch(events, path, IN_MODIFY | IN_ATTRIB) > 0);
	assert_string_equal(get(f->base, "0/file", buf), "text");
	put(f->host, "file", "other text");
	refresh(f);
	assert_true(has_event(events, IN_MODIFY));
	assert_int_equal(fchmodat(f->host, "file", 0600, 0), 0);
	refresh(f);
	assert_true(has_event(events, IN_ATTRIB));
	close(events);
}

/* All that is there, as "mask:name " in hexadecimal; waits for the first. */
static const char *events_of(int fd, char out[static 1024])
{
	char buf[4096] __attribute__((aligned(8)));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t len = 0;

	out[0] = '\0';
	for (int wait = 1000; poll(&p, 1, wait) == 1; wait = 0) {
		ssize_t n = read(fd, buf, sizeof(buf));

		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *ev = (const struct inotify_event *)(buf + at);

			len += (size_t)snprintf(out + len, 1024 - len, "%s%s:%s ", ev->mask & IN_ISDIR ? "dir-" : "",
						ev->mask & IN_CREATE   ? "made"
						: ev->mask & IN_DELETE ? "gone"
								       : "other",
						ev->len ? ev->name : "");
			assert_true(len < 1024);
			at += (ssize_t)sizeof(*ev) + ev->len;
		}
	}
	return out;
}

static int watch_directory(struct fixture *f, const char *name)
{
	int events = inotify_init1(IN_CLOEXEC);
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	assert_true(inotify_add_watch(events, path, IN_CREATE | IN_DELETE | IN_MOVE) > 0);
	return events;
}

static void test_watchers_in_the_guest_see_what_comes_and_goes(void **state)
{
	struct fixture *f = *state;
	char buf[64], seen[1024];
	struct stat before, after;
	int events;

	put(f->host, "old", "1");
	put(f->host, "over", "1");
	assert_int_equal(mkdirat(f->host, "old-dir", 0755), 0);
	assert_string_equal(get(f->base, "0/old", buf), "1");
	assert_string_equal(get(f->base, "0/over", buf), "1");
	assert_string_equal(get(f->base, "0/nothing-yet", buf), "absent");
	assert_string_equal(get(f->base, "0/old-dir/x", buf), "absent");
	events = watch_directory(f, "0");
	/* The peer's own doings are events already. */
	put(f->base, "0/own", "own");
	assert_int_equal(unlinkat(f->base, "0/own", 0), 0);
	assert_string_equal(events_of(events, seen), "made:own gone:own ");
	refresh(f);
	assert_string_equal(events_of(events, seen), "");
	put(f->host, "new", "2");
	put(f->host, "nothing-yet", "3");
	assert_int_equal(mkdirat(f->host, "dir", 0755), 0);
	assert_int_equal(symlinkat("new", f->host, "link"), 0);
	assert_int_equal(fstatat(f->host, "new", &before, 0), 0);
	refresh(f);
	assert_string_equal(events_of(events, seen), "made:new made:nothing-yet dir-made:dir made:link ");
	assert_string_equal(get(f->base, "0/new", buf), "2");
	assert_string_equal(get(f->base, "0/link", buf), "2");
	assert_string_equal(get(f->base, "0/nothing-yet", buf), "3");
	assert_int_equal(unlinkat(f->host, "old", 0), 0);
	assert_int_equal(unlinkat(f->host, "old-dir", AT_REMOVEDIR), 0);
	refresh(f);
	assert_string_equal(events_of(events, seen), "gone:old dir-gone:old-dir ");
	assert_string_equal(get(f->base, "0/old", buf), "absent");
	assert_int_equal(renameat(f->host, "new", f->host, "over"), 0);
	refresh(f);
	assert_string_equal(events_of(events, seen), "gone:new made:over ");
	assert_string_equal(get(f->base, "0/over", buf), "2");
	/* It went through all that unchanged but for its name. */
	assert_int_equal(fstatat(f->host, "over", &after, 0), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
	close(events);
}

static void test_a_moved_directory_lives_on(void **state)
{
	struct fixture *f = *state;
	char buf[64];

	assert_int_equal(mkdirat(f->host, "dir", 0755), 0);
	put(f->host, "dir/a", "1");
	assert_string_equal(get(f->base, "0/dir/a", buf), "1");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(renameat(f->host, i ? "moved" : "dir", f->host, i ? "dir" : "moved"), 0);
		refresh(f);
		assert_string_equal(get(f->base, i ? "0/moved/a" : "0/dir/a", buf), "absent");
		assert_string_equal(get(f->base, i ? "0/dir/a" : "0/moved/a", buf), "1");
		put(f->base, i ? "0/dir/b" : "0/moved/b", "2");
	}
}

/* Whoever takes the herald's number gets nothing done. */
static void test_the_herald_changes_nothing_on_the_host(void **state)
{
	struct fixture *f = *state;
	struct stat before, after, dir, dir_after;
	int fd;

	put(f->host, "file", "text");
	assert_int_equal(mkdirat(f->host, "dir", 0755), 0);
	assert_int_equal(fchmodat(f->host, "file", 0666, 0), 0);
	assert_int_equal(fchmodat(f->host, ".", 0777, 0), 0);
	assert_int_equal(fstatat(f->host, "file", &before, 0), 0);
	assert_int_equal(fstatat(f->host, ".", &dir, 0), 0);
	fd = openat(f->base, "0/file", O_WRONLY);
	assert_true(fd >= 0);
	setfsuid(WATCH_HERALD_UID);
	assert_int_equal(openat(f->base, "0/new", O_WRONLY | O_CREAT, 0644), -1);
	assert_int_equal(openat(f->base, "0/file", O_WRONLY | O_TRUNC), -1);
	assert_int_equal(unlinkat(f->base, "0/file", 0), -1);
	assert_int_equal(unlinkat(f->base, "0/dir", AT_REMOVEDIR), -1);
	assert_int_equal(mkdirat(f->base, "0/new", 0755), -1);
	assert_int_equal(mknodat(f->base, "0/new", S_IFREG | 0600, 0), -1);
	assert_int_equal(symlinkat("x", f->base, "0/new"), -1);
	assert_int_equal(linkat(f->base, "0/file", f->base, "0/new", 0), -1);
	assert_int_equal(renameat(f->base, "0/file", f->base, "0/new"), -1);
	assert_int_equal(fchmodat(f->base, "0/file", 0600, 0), -1);
	assert_int_equal(utimensat(f->base, "0/file", NULL, 0), -1);
	assert_int_equal(pwrite(fd, "X", 1, 0), -1);
	setfsuid(0);
	close(fd);
	assert_int_equal(fstatat(f->host, "file", &after, 0), 0);
	assert_int_equal(fstatat(f->host, ".", &dir_after, 0), 0);
	assert_memory_equal(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim));
	assert_memory_equal(&dir.st_ctim, &dir_after.st_ctim, sizeof(dir.st_ctim));
}

static void test_nonsense_ends_the_connection(void **state)
{
	static const char *const bad[] = {"\0\0\0\0", "\xff\xff\0\0x", "\2\0\0\0\1/", "\3\0\0\0\1\0x", "\4\0\0\0\1"};
	static const size_t len[] = {4, 5, 6, 7, 5};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		assert_int_equal(write_full(pair[0], bad[i], len[i]), 0);
		close(pair[0]);
		assert_int_equal(refresh_serve(f->base, f->proc, pair[1], -1), -EPROTO);
		close(pair[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_the_host_changed_is_seen_after_a_refresh, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_listing_costs_nothing_until_it_is_another, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_refresh_changes_nothing_on_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watchers_in_the_guest_see_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watchers_in_the_guest_see_what_comes_and_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_moved_directory_lives_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_herald_changes_nothing_on_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense_ends_the_connection, setup, teardown),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "skipped: mounting needs root and /dev/fuse\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
