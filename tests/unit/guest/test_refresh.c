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

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* One record of the wire format into the connection. */
static void on_stale(void *arg, const struct watch_stale *s)
{
	uint8_t head[5];
	uint32_t len = (uint32_t)strlen(s->path) + 1;
	int fd = *(int *)arg;

	assert_non_null(s->path);
	memcpy(head, &len, 4);
	head[4] = (uint8_t)s->what;
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
	assert_int_equal(refresh_serve(f->base, f->proc, pair[1]), 0);
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

static void test_a_refresh_changes_nothing_on_the_host(void **state)
{
	struct fixture *f = *state;
	struct stat before, after;

	put(f->host, "file", "text");
	assert_int_equal(fstatat(f->host, "file", &before, 0), 0);
	for (int what = REFRESH_NAME; what <= REFRESH_CONTENTS; what *= 2) {
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
		assert_int_equal(refresh_serve(f->base, f->proc, pair[1]), -EPROTO);
		close(pair[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_the_host_changed_is_seen_after_a_refresh, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_refresh_changes_nothing_on_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_watchers_in_the_guest_see_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense_ends_the_connection, setup, teardown),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "skipped: mounting needs root and /dev/fuse\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
