/* SPDX-License-Identifier: Apache-2.0 */
/* A shared tree and its clients, each of which is a daemon backend: the same answers as the backend's own, data by
 * descriptor or by shared memory, and what happens when either side dies or lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fileio.h"
#include "base/util.h"
#include "fuse/daemon.h"
#include "fuse/memory.h"
#include "fuse/posix.h"
#include "fuse/share_proto.h"
#include "fuse/share_server.h"
#include "fuse/watch.h"

#define MANY 700

static const struct sm_fs_caller who = {.pid = 1};

struct fixture {
	char dir[64], tree[80], path[80];
	struct sm_fs_backend *served, *a, *b;
	struct share_server *server;
};

static void serve(struct fixture *f, bool read_only)
{
	struct share_server_options o = {.read_only = read_only, .path = f->path};
	int fd = unix_listen(f->path, 8);

	assert_true(fd >= 0);
	assert_int_equal(share_server_start(f->served, fd, &o, &f->server, NULL), 0);
}

static struct fixture *prepare(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->dir, "/tmp/sm-test-daemon.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->tree, sizeof(f->tree), "%s/tree", f->dir);
	snprintf(f->path, sizeof(f->path), "%s/socket", f->dir);
	assert_int_equal(mkdir(f->tree, 0755), 0);
	return f;
}

static int setup_posix(void **state)
{
	struct fuse_posix_options o = {.ids = FUSE_POSIX_NONE, .valid_ns = 1000000000};
	struct fixture *f = prepare(state);

	assert_int_equal(fuse_posix_new(f->tree, &o, &f->served, NULL), 0);
	serve(f, false);
	assert_int_equal(fuse_daemon_new(f->path, NULL, &f->a, NULL), 0);
	assert_int_equal(fuse_daemon_new(f->path, NULL, &f->b, NULL), 0);
	return 0;
}

static int teardown_posix(void **state)
{
	struct fixture *f = *state;

	fuse_daemon_free(f->a);
	fuse_daemon_free(f->b);
	share_server_stop(f->server);
	fuse_posix_free(f->served);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return 0;
}

static int setup_memory(void **state)
{
	struct fixture *f = prepare(state);

	assert_int_equal(fuse_memory_new(NULL, &f->served), 0);
	serve(f, false);
	assert_int_equal(fuse_daemon_new(f->path, NULL, &f->a, NULL), 0);
	return 0;
}

static int teardown_memory(void **state)
{
	struct fixture *f = *state;

	fuse_daemon_free(f->a);
	share_server_stop(f->server);
	fuse_memory_free(f->served);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return 0;
}

static ssize_t read_all(struct sm_fs_backend *be, uint64_t id, uint64_t fh, void *p, size_t len, uint64_t off)
{
	struct iovec iov[2] = {{p, len / 2}, {(char *)p + len / 2, len - len / 2}};

	return be->ops->read(be, id, fh, iov, 2, off);
}

static ssize_t write_all(struct sm_fs_backend *be, uint64_t id, uint64_t fh, const void *p, size_t len, uint64_t off)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)p, len / 2}, {(char *)(uintptr_t)p + len / 2, len - len / 2}};

	return be->ops->write(be, &who, id, fh, iov, 2, off, 0);
}

/* Looks a name up that is not there. */
static int look_for(struct sm_fs_backend *be, const char *name)
{
	struct sm_fs_entry e = {0};
	int r = be->ops->lookup(be, &who, SM_FS_ROOT, name, &e);

	return r == 0 && !e.nodeid ? -ENOENT : r; /* both say so */
}

static uint64_t make_file(struct sm_fs_backend *be, const char *name, const char *text, uint64_t *ret_fh)
{
	struct sm_fs_entry e = {0};
	struct sm_fs_open o = {0};

	assert_int_equal(be->ops->create(be, &who, SM_FS_ROOT, name, 0644, O_RDWR | O_CREAT | O_EXCL, &e, &o), 0);
	assert_int_equal(write_all(be, e.nodeid, o.fh, text, strlen(text), 0), strlen(text));
	*ret_fh = o.fh;
	return e.nodeid;
}

static void test_all_clients_see_one_tree(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_backend *a = f->a, *b = f->b;
	struct sm_fs_entry e = {0}, link = {0};
	struct statvfs v;
	struct stat st;
	uint64_t fh, valid, id = make_file(a, "file", "hello", &fh);
	char text[64] = "";

	assert_int_equal(b->ops->lookup(b, &who, SM_FS_ROOT, "file", &e), 0);
	assert_int_equal(e.attr.st_size, 5);
	assert_int_equal(e.attr.st_mode, S_IFREG | 0644);
	assert_true(e.attr_valid_ns == 1000000000);
	assert_int_equal(b->ops->symlink(b, &who, SM_FS_ROOT, "link", "to/there", &link), 0);
	assert_int_equal(a->ops->lookup(a, &who, SM_FS_ROOT, "link", &link), 0);
	assert_int_equal(a->ops->readlink(a, link.nodeid, text, sizeof(text)), 8);
	assert_memory_equal(text, "to/there", 8);
	assert_int_equal(a->ops->readlink(a, link.nodeid, text, 2), 2);
	assert_int_equal(
		b->ops->setattr(b, &who, e.nodeid, false, 0, SM_FS_SET_SIZE, &(struct stat){.st_size = 3}, &st, &valid),
		0);
	assert_int_equal(a->ops->getattr(a, id, true, fh, &st, &valid), 0);
	assert_int_equal(st.st_size, 3);
	assert_int_equal(a->ops->link(a, &who, id, SM_FS_ROOT, "second", &e), 0);
	assert_int_equal(e.attr.st_nlink, 2);
	assert_int_equal(a->ops->rename(a, &who, SM_FS_ROOT, "second", SM_FS_ROOT, "third", 0), 0);
	assert_int_equal(look_for(b, "second"), -ENOENT);
	assert_int_equal(b->ops->unlink(b, &who, SM_FS_ROOT, "third"), 0);
	assert_int_equal(a->ops->statfs(a, SM_FS_ROOT, &v), 0);
	assert_true(v.f_blocks > 0 && v.f_namemax == 255);
	assert_int_equal(a->ops->fsync(a, id, fh, false), 0);
	assert_true(a->ops->lseek(a, id, fh, 0, SEEK_HOLE) == 3);
	assert_int_equal(a->ops->fallocate(a, id, fh, 0, 0, 100), 0);
	a->ops->release(a, id, fh, false, 0);
	/* What the backend lacks, the client lacks: the session answers for it. */
	assert_true(!a->ops->getlk && !a->ops->flush);
}

static void test_values_of_attributes(void **state)
{
	struct fixture *f = *state;
	char value[32], list[256];
	uint64_t fh, id = make_file(f->a, "file", "x", &fh);
	int r = f->a->ops->setxattr(f->a, &who, id, "user.colour", "blue", 4, 0);

	if (r == 0) { /* else /tmp has none: the backend's own answer came through */
		assert_int_equal(f->a->ops->getxattr(f->a, id, "user.colour", NULL, 0), 4);
		assert_int_equal(f->a->ops->getxattr(f->a, id, "user.colour", value, sizeof(value)), 4);
		assert_memory_equal(value, "blue", 4);
		assert_int_equal(f->a->ops->getxattr(f->a, id, "user.colour", value, 2), -ERANGE);
		assert_true(f->a->ops->listxattr(f->a, id, list, sizeof(list)) >= 12);
		assert_int_equal(f->a->ops->removexattr(f->a, &who, id, "user.colour"), 0);
		assert_int_equal(f->a->ops->getxattr(f->a, id, "user.colour", value, sizeof(value)), -ENODATA);
	} else {
		assert_int_equal(r, -EOPNOTSUPP);
	}
	f->a->ops->release(f->a, id, fh, false, 0);
}

static void test_data_goes_past_the_server(void **state)
{
	struct fixture *f = *state;
	struct share_server_stats before, after;
	struct sm_fs_map map;
	char text[16] = "";
	uint64_t fh, id = make_file(f->a, "file", "hello", &fh);

	assert_int_equal(f->a->ops->dax_map(f->a, id, fh, 0, 0, 0, &map), 0);
	assert_true(map.fd >= 0);
	share_server_get_stats(f->server, &before);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(write_all(f->a, id, fh, "moved", 5, (uint64_t)i * 5), 5);
		assert_int_equal(read_all(f->a, id, fh, text, 5, (uint64_t)i * 5), 5);
		assert_memory_equal(text, "moved", 5);
	}
	share_server_get_stats(f->server, &after);
	assert_true(before.requests == after.requests);
	f->a->ops->release(f->a, id, fh, false, 0);
	/* and what is mapped by node is this client's own to close */
	assert_int_equal(f->a->ops->dax_map(f->a, id, SM_FS_NO_HANDLE, 0, 4096, PROT_READ, &map), 0);
	assert_true(map.give && map.fd >= 0 && map.protection & PROT_READ);
	assert_int_equal(pread(map.fd, text, 5, 10), 5);
	assert_memory_equal(text, "moved", 5);
	close(map.fd);
}

static void test_data_without_a_descriptor(void **state)
{
	struct fixture *f = *state;
	size_t len = 1 << 20;
	uint8_t *out = malloc(len), *in = calloc(1, len);
	uint64_t fh, id = make_file(f->a, "file", "hello", &fh);

	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(i * 7 + i / 251);
	assert_null(f->a->ops->dax_map);
	assert_int_equal(write_all(f->a, id, fh, out, len, 3), len);
	assert_int_equal(read_all(f->a, id, fh, in, len, 3), len);
	assert_memory_equal(in, out, len);
	assert_int_equal(read_all(f->a, id, fh, in, 100, len + 3), 0);
	f->a->ops->release(f->a, id, fh, false, 0);
	free(out);
	free(in);
}

struct counted {
	unsigned names, most;
	uint64_t next;
};

static bool count_name(void *arg, const char *name, uint64_t ino, uint32_t type, uint64_t next,
		       const struct sm_fs_entry *entry)
{
	struct counted *c = arg;

	if (c->names == c->most)
		return false;
	if (*name != '.')
		assert_true(entry && entry->nodeid && entry->attr.st_ino == ino);
	c->names++;
	c->next = next;
	return true;
}

static void test_long_listings(void **state)
{
	struct fixture *f = *state;
	struct share_server_stats stats;
	struct counted c = {.most = 100};
	struct sm_fs_open dir;
	unsigned all = 0;
	char name[300];

	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%s/%0100d", f->tree, i);
		assert_int_equal(close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)), 0);
	}
	assert_int_equal(f->a->ops->opendir(f->a, &who, SM_FS_ROOT, &dir), 0);
	do {
		all += c.names;
		c.names = 0;
		assert_int_equal(f->a->ops->readdir(f->a, &who, SM_FS_ROOT, dir.fh, c.next, true, count_name, &c), 0);
	} while (c.names);
	assert_true(all == MANY || all == MANY + 2);
	/* What found no room was given back at once: as many are held as were handed on. */
	share_server_get_stats(f->server, &stats);
	assert_true(stats.nodes == MANY);
	f->a->ops->releasedir(f->a, SM_FS_ROOT, dir.fh);
	f->a->ops->destroy(f->a);
	share_server_get_stats(f->server, &stats);
	assert_true(stats.nodes == 0 && stats.handles == 0);
}

/* Waits until the server has as many clients. */
static void wait_for_clients(struct fixture *f, unsigned count, struct share_server_stats *ret)
{
	for (int i = 0; i < 3000; i++) {
		share_server_get_stats(f->server, ret);
		if (ret->clients == count)
			return;
		usleep(10000);
	}
	fail_msg("%u clients, not %u", (unsigned)ret->clients, count);
}

static void test_a_client_that_goes_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct share_server_stats stats;
	struct fuse_posix_stats posix;
	struct sm_fs_entry e;
	uint64_t fh, id = make_file(f->a, "file", "hello", &fh);
	struct sm_fs_map map;

	assert_int_equal(f->b->ops->lookup(f->b, &who, SM_FS_ROOT, "file", &e), 0);
	share_server_get_stats(f->server, &stats);
	assert_true(stats.handles == 1 && stats.nodes == 2);
	/* gone with an open file: this process frees its side of it, the server must free the rest */
	assert_int_equal(f->a->ops->dax_map(f->a, id, fh, 0, 0, 0, &map), 0);
	close(map.fd);
	free((void *)(uintptr_t)fh);
	f->a = fuse_daemon_free(f->a);
	wait_for_clients(f, 1, &stats);
	assert_true(stats.handles == 0 && stats.nodes == 1);
	fuse_posix_get_stats(f->served, &posix);
	assert_true(posix.open_files == 0);
	assert_int_equal(f->b->ops->lookup(f->b, &who, SM_FS_ROOT, "file", &e), 0);
}

static void test_no_client_reaches_what_is_another_s(void **state)
{
	struct fixture *f = *state;
	uint64_t fh, valid, id = make_file(f->a, "file", "hello", &fh);
	struct sm_fs_entry e;
	struct stat st;

	assert_int_equal(f->b->ops->getattr(f->b, id, false, 0, &st, &valid), -ESTALE); /* never looked it up */
	assert_int_equal(f->b->ops->getattr(f->b, id + 77, false, 0, &st, &valid), -ESTALE);
	assert_int_equal(f->b->ops->lookup(f->b, &who, SM_FS_ROOT, "file", &e), 0);
	assert_true(e.nodeid == id);
	f->b->ops->forget(f->b, id, 1000);
	assert_int_equal(f->a->ops->getattr(f->a, id, false, 0, &st, &valid), 0); /* its own reference holds */
	assert_int_equal(f->b->ops->getattr(f->b, id, false, 0, &st, &valid), -ESTALE);
	assert_int_equal(f->b->ops->lookup(f->b, &who, SM_FS_ROOT, "file", &e), 0);
	assert_int_equal(f->b->ops->fsync(f->b, id, fh, false), -EBADF); /* a's handle */
	f->a->ops->release(f->a, id, fh, false, 0);
}

static void test_cached_contents_are_the_client_s_own(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_backend *a = f->a, *b = f->b;
	uint64_t fh, id = make_file(a, "file", "hello", &fh);
	struct sm_fs_entry e;
	struct sm_fs_open o;
	char name[200];
	int fd;

	a->ops->release(a, id, fh, false, 0);
	usleep(50000); /* past the tick of the file's times */
	assert_int_equal(a->ops->lookup(a, &who, SM_FS_ROOT, "file", &e), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(a->ops->open(a, &who, id, O_RDONLY, &o), 0);
		a->ops->release(a, id, o.fh, false, 0);
	}
	snprintf(name, sizeof(name), "%s/file", f->tree);
	fd = open(name, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "HELLO", 5, 0), 5);
	close(fd);
	usleep(50000);
	/* b is shown the new contents, and so the backend takes them for known; a must not keep the old ones */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(b->ops->lookup(b, &who, SM_FS_ROOT, "file", &e), 0);
		assert_int_equal(b->ops->open(b, &who, id, O_RDONLY, &o), 0);
		b->ops->release(b, id, o.fh, false, 0);
	}
	assert_int_equal(a->ops->open(a, &who, id, O_RDONLY, &o), 0);
	assert_false(o.flags & SM_FS_OPEN_KEEP_CACHE);
	a->ops->release(a, id, o.fh, false, 0);
}

/* ------------------------------------------------------------------------------------------- one watcher */

/* A client as a session uses it, and how often it was told that a name was not as it knew it. */
struct watcher {
	struct sm_fs_backend *be;
	struct watch *watch;
	unsigned told;
};

static void on_stale(void *arg, const struct watch_stale *stale)
{
	struct watcher *w = arg;

	w->told += stale->what == WATCH_NAME;
}

static struct watcher watcher_of(struct sm_fs_backend *be)
{
	struct watcher w = {.be = be};

	assert_int_equal(watch_new(be, be->ops, &w.watch), 0);
	return w;
}

/* Looks a name up as a peer's kernel does: 0 when it is absent. */
static uint64_t look_up(struct watcher *w, uint64_t dir, const char *name)
{
	struct watch_mark mark = watch_begin(w->watch, dir);
	struct sm_fs_entry e = {0};

	if (w->be->ops->lookup(w->be, &who, dir, name, &e) < 0)
		e = (struct sm_fs_entry){.entry_valid_ns = 1};
	watch_entry(w->watch, &mark, name, &e);
	return e.nodeid;
}

static void forget_node(struct watcher *w, uint64_t id)
{
	watch_forget(w->watch, id, 1);
	w->be->ops->forget(w->be, id, 1);
}

/* Until it was told of something, or was not. */
static bool is_told(struct watcher *w, int ms)
{
	unsigned before = w->told;
	uint64_t end = time_now_ns() + (uint64_t)ms * 1000000;

	while (w->told == before && time_now_ns() < end) {
		struct pollfd p = {.fd = watch_fd(w->watch), .events = POLLIN};

		poll(&p, 1, 20);
		assert_int_equal(watch_step(w->watch, on_stale, w), 0);
	}
	return w->told > before;
}

static void make(const struct fixture *f, const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", f->tree, name);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)), 0);
}

static void expect_watched(struct fixture *f, uint64_t watched, uint64_t directories)
{
	struct share_server_stats stats;

	for (unsigned i = 0; i < 400; i++) {
		share_server_get_stats(f->server, &stats);
		if (stats.watched == watched && stats.directories == directories)
			return;
		usleep(20000);
	}
	fail_msg("%llu watched in %llu directories", (unsigned long long)stats.watched,
		 (unsigned long long)stats.directories);
}

static void test_one_watch_serves_all_clients(void **state)
{
	struct fixture *f = *state;
	struct watcher a = watcher_of(f->a), b = watcher_of(f->b);
	char dir[100];
	uint64_t id;

	snprintf(dir, sizeof(dir), "%s/dir", f->tree);
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(look_up(&a, SM_FS_ROOT, "new"), 0);
	assert_int_equal(look_up(&b, SM_FS_ROOT, "new"), 0);
	id = look_up(&b, SM_FS_ROOT, "dir");
	assert_int_equal(look_up(&b, id, "inner"), 0);
	expect_watched(f, 3, 2);
	make(f, "new");
	assert_true(is_told(&a, 20000));
	assert_true(is_told(&b, 20000));
	make(f, "dir/inner"); /* nobody else's */
	assert_true(is_told(&b, 20000));
	assert_false(is_told(&a, 50));
	/* One that is forgotten is watched no longer, one whose client is gone neither. */
	forget_node(&b, id);
	assert_false(is_told(&b, 50));
	expect_watched(f, 2, 1);
	watch_free(a.watch);
	expect_watched(f, 1, 1);
	assert_int_equal(look_up(&b, SM_FS_ROOT, "later"), 0);
	make(f, "later");
	assert_true(is_told(&b, 20000));
	watch_free(b.watch);
	expect_watched(f, 0, 0);
	/* Another session over the same connection. */
	a = watcher_of(f->a);
	assert_int_equal(look_up(&a, SM_FS_ROOT, "last"), 0);
	make(f, "last");
	assert_true(is_told(&a, 20000));
	watch_free(a.watch);
}

/* Who is told too much at once loses all that it was told and its watches, and nobody else does. */
static void test_a_flood_costs_who_does_not_listen(void **state)
{
	struct fixture *f = *state;
	struct watcher a = watcher_of(f->a), b = watcher_of(f->b);
	struct share_server_stats stats;
	char name[100], other[100];

	assert_int_equal(look_up(&a, SM_FS_ROOT, "absent"), 0);
	assert_int_equal(look_up(&b, SM_FS_ROOT, "absent"), 0);
	expect_watched(f, 2, 1);
	snprintf(name, sizeof(name), "%s/%064d", f->tree, 1);
	snprintf(other, sizeof(other), "%s/%064d", f->tree, 2);
	assert_int_equal(close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644)), 0);
	for (unsigned i = 0; i < 40; i++) {
		for (unsigned k = 0; k < 500; k++)
			assert_int_equal(rename(k & 1 ? other : name, k & 1 ? name : other), 0);
		(void)is_told(&a, 10);
		share_server_get_stats(f->server, &stats);
		if (stats.watched == 1)
			break;
	}
	expect_watched(f, 1, 1);	 /* b's are gone, */
	assert_true(is_told(&b, 20000)); /* which it is told */
	assert_int_equal(look_up(&b, SM_FS_ROOT, "new"), 0);
	assert_int_equal(look_up(&a, SM_FS_ROOT, "new"), 0);
	expect_watched(f, 2, 1);
	make(f, "new");
	assert_true(is_told(&b, 20000));
	assert_true(is_told(&a, 20000));
	watch_free(a.watch);
	watch_free(b.watch);
}

/* A server that dies can tell nothing any more: all is taken for changed. */
static void test_watches_end_with_the_server(void **state)
{
	struct fixture *f = *state;
	struct watcher a = watcher_of(f->a);

	assert_int_equal(look_up(&a, SM_FS_ROOT, "absent"), 0);
	expect_watched(f, 1, 1);
	f->server = share_server_stop(f->server);
	assert_true(is_told(&a, 20000));
	serve(f, false);
	usleep(120000); /* a connection is tried for again after a while */
	assert_int_equal(look_up(&a, SM_FS_ROOT, "absent"), 0);
	expect_watched(f, 1, 1);
	make(f, "absent");
	assert_true(is_told(&a, 20000));
	watch_free(a.watch);
}

/* ---------------------------------------------------------------------------------- those that lie or die */

/* size, seals: of the lane's memory. */
static int say(const char *path, uint32_t magic, off_t size, int seals, int *ret_lane)
{
	uint32_t hello[4] = {magic, SHARE_VERSION, 1, 0};
	uint8_t welcome[SHARE_WELCOME];
	int sock = unix_connect(path), memfd = memfd_create("lane", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t num_fds = 1;

	assert_true(sock >= 0 && memfd >= 0);
	assert_int_equal(ftruncate(memfd, size), 0);
	assert_int_equal(fcntl(memfd, F_ADD_SEALS, seals), 0);
	assert_int_equal(fd_send(sock, hello, sizeof(hello), &memfd, 1), 0);
	close(memfd);
	*ret_lane = -1;
	if (fd_recv(sock, welcome, sizeof(welcome), ret_lane, &num_fds) == sizeof(welcome))
		assert_int_equal(num_fds, 1);
	return sock;
}

static void test_liars_are_cut_off_alone(void **state)
{
	struct fixture *f = *state;
	const uint32_t unknown[10] = {SHARE_NUM_OPS, 0}, bulky[10] = {SHARE_SYNCFS, UINT32_MAX},
		       half[10] = {SHARE_LOOKUP, 0, 0, 0, 0, 0, 1, 0};
	const struct {
		const void *p;
		size_t len;
	} lies[] = {{unknown, sizeof(unknown)}, {bulky, sizeof(bulky)}, {half, sizeof(half)}, {"x", 1}};
	struct share_server_stats stats;
	char byte;
	int lane, sock = say(f->path, 4711, SHARE_BULK, F_SEAL_SHRINK, &lane);

	assert_int_equal(lane, -1);
	close(sock);
	close(say(f->path, SHARE_MAGIC, SHARE_BULK, F_SEAL_GROW, &lane)); /* it could be shrunk */
	assert_int_equal(lane, -1);
	close(say(f->path, SHARE_MAGIC, SHARE_BULK - 1, F_SEAL_SHRINK, &lane));
	assert_int_equal(lane, -1);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		sock = say(f->path, SHARE_MAGIC, SHARE_BULK, F_SEAL_SHRINK, &lane);
		assert_int_equal(send(lane, lies[i].p, lies[i].len, 0), lies[i].len);
		assert_int_equal(recv(lane, &byte, 1, 0), 0); /* the end */
		assert_int_equal(recv(sock, &byte, 1, 0), 0);
		close(lane);
		close(sock);
	}
	wait_for_clients(f, 2, &stats);
	assert_true(stats.cut_off == ARRAY_SIZE(lies));
	assert_int_equal(look_for(f->b, "none"), -ENOENT);
}

/* A process of its own that serves f->tree on f->path. */
static pid_t start_daemon(struct fixture *f)
{
	struct fuse_posix_options o = {.ids = FUSE_POSIX_NONE};
	pid_t pid;

	unlink(f->path);
	pid = fork();
	if (pid == 0) {
		struct sm_fs_backend *be;
		struct share_server *s;
		int fd = unix_listen(f->path, 8);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (fd < 0 || fuse_posix_new(f->tree, &o, &be, NULL) < 0 ||
		    share_server_start(be, fd, NULL, &s, NULL) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	return pid;
}

static void connect_daemon(struct fixture *f)
{
	for (int i = 0; i < 3000 && fuse_daemon_new(f->path, NULL, &f->a, NULL) < 0; i++)
		usleep(10000);
	assert_non_null(f->a);
}

/* The same call again, until it is answered otherwise than by the lack of a server. */
static int lookup_until_served(struct sm_fs_backend *be, const char *name, struct sm_fs_entry *ret)
{
	int r = -ENOTCONN;

	for (int i = 0; i < 3000 && r == -ENOTCONN; i++) {
		r = be->ops->lookup(be, &who, SM_FS_ROOT, name, ret);
		if (r == -ENOTCONN)
			usleep(10000);
	}
	return r;
}

static void test_a_killed_server_and_the_next(void **state)
{
	struct fixture *f = prepare(state);
	pid_t pid = start_daemon(f);
	struct sm_fs_entry e, dir;
	struct sm_fs_open root;
	struct stat st;
	uint64_t id, fh, valid;
	char text[8] = "";

	connect_daemon(f);
	id = make_file(f->a, "file", "hello", &fh);
	assert_int_equal(f->a->ops->mkdir(f->a, &who, SM_FS_ROOT, "dir", 0755, &dir), 0);
	assert_int_equal(f->a->ops->opendir(f->a, &who, SM_FS_ROOT, &root), 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* clean errors, and what is open goes on where it has a descriptor */
	assert_int_equal(f->a->ops->lookup(f->a, &who, SM_FS_ROOT, "file", &e), -ENOTCONN);
	assert_int_equal(f->a->ops->fsync(f->a, id, fh, false), -ENOTCONN);
	assert_int_equal(read_all(f->a, id, fh, text, 5, 0), 5);
	assert_string_equal(text, "hello");

	pid = start_daemon(f);
	assert_int_equal(lookup_until_served(f->a, "file", &e), 0);
	assert_int_equal(e.attr.st_size, 5);
	assert_true(e.nodeid != id);
	assert_int_equal(f->a->ops->getattr(f->a, id, false, 0, &st, &valid), -ESTALE);
	assert_int_equal(f->a->ops->getattr(f->a, e.nodeid, false, 0, &st, &valid), 0);
	assert_int_equal(f->a->ops->mkdir(f->a, &who, dir.nodeid, "below", 0755, &e), -ESTALE);
	assert_int_equal(f->a->ops->fsync(f->a, id, fh, false), -EIO);
	assert_int_equal(f->a->ops->fsyncdir(f->a, SM_FS_ROOT, root.fh, false), -EIO);
	f->a->ops->forget(f->a, id, 1);
	f->a->ops->release(f->a, id, fh, false, 0);
	f->a->ops->releasedir(f->a, SM_FS_ROOT, root.fh);
	assert_int_equal(f->a->ops->rmdir(f->a, &who, SM_FS_ROOT, "dir"), 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	fuse_daemon_free(f->a);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
}

/* A server that answers a lookup with what it likes. */
struct liar {
	int sock;
	const void *answer;
	size_t len;
};

static void *lie(void *arg)
{
	struct liar *l = arg;
	uint32_t welcome[6] = {SHARE_MAGIC, SHARE_VERSION, 1, 0, UINT32_MAX, UINT32_MAX};
	uint8_t bytes[SHARE_PACKET];
	int lane[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lane) < 0 ||
	    recv(l->sock, bytes, SHARE_HELLO, 0) != SHARE_HELLO)
		return NULL;
	fd_send(l->sock, welcome, sizeof(welcome), &lane[1], 1);
	close(lane[1]);
	if (recv(lane[0], bytes, sizeof(bytes), 0) > 0)
		send(lane[0], l->answer, l->len, MSG_NOSIGNAL);
	recv(lane[0], bytes, sizeof(bytes), 0);
	close(lane[0]);
	close(l->sock);
	return NULL;
}

/* The backend whose server that is, in a thread. */
static struct sm_fs_backend *backend_of(struct liar *l, pthread_t *ret_thread)
{
	struct sm_fs_backend *be;
	int sock[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
	l->sock = sock[0];
	assert_int_equal(pthread_create(ret_thread, NULL, lie, l), 0);
	assert_int_equal(fuse_daemon_new_fd(sock[1], NULL, &be, NULL), 0);
	return be;
}

static void test_a_server_that_lies_is_given_up(void **state)
{
	const uint8_t success[12] = {0}, far[12] = {0, 0, 0, 0, 0, 0, 0, 0x80}, bulky[12] = {[11] = 0xff};
	const struct liar lies[] = {
		{-1, success, sizeof(success)}, {-1, success, 3}, {-1, far, sizeof(far)}, {-1, bulky, sizeof(bulky)}};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct liar l = lies[i];
		struct sm_fs_backend *be;
		struct sm_fs_entry e;
		pthread_t thread;

		be = backend_of(&l, &thread);
		assert_int_equal(be->ops->lookup(be, &who, SM_FS_ROOT, "file", &e), -EIO);
		assert_int_equal(be->ops->lookup(be, &who, SM_FS_ROOT, "file", &e), -ENOTCONN); /* for good */
		fuse_daemon_free(be);
		pthread_join(thread, NULL);
	}
}

/* What changes nothing is to be asked again, of the next server: the kernel does that on ESTALE. All else has failed.
 */
static void test_a_server_that_ends_over_a_request(void **state)
{
	for (int changes = 0; changes < 2; changes++) {
		struct liar l = {-1, "", 0}; /* an empty packet is the end */
		struct sm_fs_backend *be;
		struct sm_fs_entry e;
		struct sm_fs_open open;
		pthread_t thread;
		int r;

		be = backend_of(&l, &thread);
		r = changes ? be->ops->mkdir(be, &who, SM_FS_ROOT, "dir", 0755, &e)
			    : be->ops->open(be, &who, SM_FS_ROOT, O_RDONLY, &open);
		assert_int_equal(r, changes ? -EIO : -ESTALE);
		fuse_daemon_free(be);
		pthread_join(thread, NULL);
	}
}

static void test_read_only_is_held(void **state)
{
	struct fuse_posix_options o = {.ids = FUSE_POSIX_NONE};
	struct fixture *f = prepare(state);
	struct sm_fs_entry e;
	struct sm_fs_open open;
	char name[200];

	snprintf(name, sizeof(name), "%s/file", f->tree);
	assert_int_equal(close(creat(name, 0644)), 0);
	assert_int_equal(fuse_posix_new(f->tree, &o, &f->served, NULL), 0);
	serve(f, true);
	assert_int_equal(fuse_daemon_new(f->path, NULL, &f->a, NULL), 0);
	assert_int_equal(f->a->ops->lookup(f->a, &who, SM_FS_ROOT, "file", &e), 0);
	assert_int_equal(f->a->ops->unlink(f->a, &who, SM_FS_ROOT, "file"), -EROFS);
	assert_int_equal(f->a->ops->open(f->a, &who, e.nodeid, O_RDWR, &open), -EROFS);
	assert_int_equal(f->a->ops->open(f->a, &who, e.nodeid, O_RDONLY | O_TRUNC, &open), -EROFS);
	assert_int_equal(f->a->ops->open(f->a, &who, e.nodeid, O_RDONLY, &open), 0);
	assert_int_equal(write_all(f->a, e.nodeid, open.fh, "x", 1, 0), -EROFS);
	f->a->ops->release(f->a, e.nodeid, open.fh, false, 0);
	teardown_posix(state);
}

/* ------------------------------------------------------------------------------------------------ locks */

/* A file system in memory with one lock for everything. */
struct locking {
	struct sm_fs_backend be;
	struct sm_fs_ops ops;
	pthread_mutex_t lock;
	bool held;
	uint64_t owner;
	unsigned tries;
};

static struct locking one;

static int one_setlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct sm_fs_lock *lock, bool wait)
{
	int r = 0;

	pthread_mutex_lock(&one.lock);
	__atomic_add_fetch(&one.tries, 1, __ATOMIC_RELAXED); /* is read without the lock */
	if (one.held && one.owner != lock->owner)
		r = -EAGAIN;
	else
		one.held = lock->type != F_UNLCK;
	if (r == 0)
		one.owner = lock->owner;
	pthread_mutex_unlock(&one.lock);
	return r;
}

static int one_getlk(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, struct sm_fs_lock *lock)
{
	lock->type = one.held ? F_WRLCK : F_UNLCK;
	return 0;
}

static int one_flush(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, uint64_t owner)
{
	pthread_mutex_lock(&one.lock);
	if (one.held && one.owner == owner)
		one.held = false;
	pthread_mutex_unlock(&one.lock);
	return 0;
}

static int one_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *caller, uint64_t parent, const char *name,
		      struct sm_fs_entry *ret)
{
	*ret = (struct sm_fs_entry){.nodeid = 2, .attr = {.st_mode = S_IFREG | 0644, .st_ino = 2}};
	return 0;
}

static int one_getattr(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
		       uint64_t *ret_valid)
{
	*ret = (struct stat){.st_mode = S_IFREG | 0644, .st_ino = nodeid};
	return 0;
}

static ssize_t one_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			uint64_t offset)
{
	return 0;
}

static int one_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *caller, uint64_t nodeid, uint64_t fh,
		       uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	return 0;
}

struct waiter {
	struct sm_fs_backend *be;
	uint64_t id, fh;
	int result;
};

static void *wait_for_lock(void *arg)
{
	struct waiter *w = arg;
	struct sm_fs_lock lock = {.owner = 7, .end = UINT64_MAX, .type = F_WRLCK};

	w->result = w->be->ops->setlk(w->be, w->id, w->fh, &lock, true);
	return NULL;
}

static void test_locks_go_with_their_client(void **state)
{
	struct fixture *f = prepare(state);
	struct sm_fs_lock lock = {.owner = 7, .end = UINT64_MAX, .type = F_WRLCK};
	struct waiter w = {.result = 1};
	struct sm_fs_entry e;
	struct sm_fs_open oa, ob;
	pthread_t thread;

	one = (struct locking){.lock = PTHREAD_MUTEX_INITIALIZER,
			       .ops = {.size = sizeof(struct sm_fs_ops),
				       .lookup = one_lookup,
				       .getattr = one_getattr,
				       .read = one_read,
				       .readdir = one_readdir,
				       .getlk = one_getlk,
				       .setlk = one_setlk,
				       .flush = one_flush}};
	one.be.ops = &one.ops;
	f->served = &one.be;
	serve(f, false);
	assert_int_equal(fuse_daemon_new(f->path, NULL, &f->a, NULL), 0);
	assert_int_equal(fuse_daemon_new(f->path, NULL, &f->b, NULL), 0);
	assert_int_equal(f->a->ops->lookup(f->a, &who, SM_FS_ROOT, "x", &e), 0);
	assert_int_equal(f->b->ops->lookup(f->b, &who, SM_FS_ROOT, "x", &e), 0);
	assert_int_equal(f->a->ops->open(f->a, &who, e.nodeid, O_RDWR, &oa), 0);
	assert_int_equal(f->b->ops->open(f->b, &who, e.nodeid, O_RDWR, &ob), 0);
	assert_int_equal(f->a->ops->setlk(f->a, e.nodeid, oa.fh, &lock, false), 0);
	/* the same owner's number in another client is another owner */
	assert_int_equal(f->b->ops->setlk(f->b, e.nodeid, ob.fh, &lock, false), -EAGAIN);
	assert_int_equal(f->b->ops->getlk(f->b, e.nodeid, ob.fh, &lock), 0);
	assert_int_equal(lock.type, F_WRLCK);
	w = (struct waiter){.be = f->b, .id = e.nodeid, .fh = ob.fh, .result = 1};
	assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &w), 0);
	while (__atomic_load_n(&one.tries, __ATOMIC_RELAXED) < 4)
		usleep(1000);
	/* one waits, nobody else does for it */
	assert_int_equal(f->b->ops->lookup(f->b, &who, SM_FS_ROOT, "x", &e), 0);
	fuse_daemon_free(f->a); /* with its lock */
	pthread_join(thread, NULL);
	assert_int_equal(w.result, 0);
	free((void *)(uintptr_t)oa.fh);
	f->b->ops->release(f->b, e.nodeid, ob.fh, false, 0);
	fuse_daemon_free(f->b);
	share_server_stop(f->server);
	assert_false(one.held);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
}

static void test_a_server_that_stops_with_clients(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_entry e;

	assert_int_equal(look_for(f->a, "none"), -ENOENT);
	f->server = share_server_stop(f->server);
	assert_int_equal(look_for(f->a, "none"), -ENOTCONN);
	assert_int_equal(access(f->path, F_OK), -1);
	serve(f, false);
	assert_int_equal(lookup_until_served(f->a, "none", &e), 0);
	assert_true(e.nodeid == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_all_clients_see_one_tree, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_values_of_attributes, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_data_goes_past_the_server, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_data_without_a_descriptor, setup_memory, teardown_memory),
		cmocka_unit_test_setup_teardown(test_long_listings, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_a_client_that_goes_leaves_nothing, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_no_client_reaches_what_is_another_s, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_cached_contents_are_the_client_s_own, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_one_watch_serves_all_clients, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_a_flood_costs_who_does_not_listen, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_watches_end_with_the_server, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_liars_are_cut_off_alone, setup_posix, teardown_posix),
		cmocka_unit_test_setup_teardown(test_a_server_that_stops_with_clients, setup_posix, teardown_posix),
		cmocka_unit_test(test_a_killed_server_and_the_next),
		cmocka_unit_test(test_a_server_that_lies_is_given_up),
		cmocka_unit_test(test_a_server_that_ends_over_a_request),
		cmocka_unit_test(test_read_only_is_held),
		cmocka_unit_test(test_locks_go_with_their_client),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
