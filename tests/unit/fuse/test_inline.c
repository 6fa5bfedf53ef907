/* SPDX-License-Identifier: Apache-2.0 */
/* A shared tree over a stream that carries bytes and nothing else: data, listings and changes of a backend that is
 * served so, several requests at once, a server that goes and comes, and lengths that are wrong. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fileio.h"
#include "base/util.h"
#include "fuse/daemon.h"
#include "fuse/memory.h"
#include "fuse/posix.h"
#include "fuse/share_proto.h"
#include "fuse/share_server.h"

#define MANY 700
#define BULK (1 << 20)

static const struct sm_fs_caller who = {.pid = 1};

struct fixture {
	char dir[64], path[80];
	struct sm_fs_backend *served, *a;
	struct share_server *server;
};

/* ----------------------------------------------------------------------------------------- the stream */

struct carrier {
	int ends[2];
};

/* Bytes both ways, in odd pieces; descriptors that come along are lost. Until either side is gone. */
static void *carry(void *arg)
{
	struct carrier *c = arg;
	char piece[4099];
	bool open = true;

	while (open) {
		struct pollfd p[2] = {{.fd = c->ends[0], .events = POLLIN}, {.fd = c->ends[1], .events = POLLIN}};

		if (poll(p, 2, -1) < 0)
			break;
		for (int i = 0; i < 2 && open; i++) {
			ssize_t n = p[i].revents ? read(p[i].fd, piece, sizeof(piece)) : 0;

			if (p[i].revents)
				open = n > 0 && send(p[!i].fd, piece, (size_t)n, MSG_NOSIGNAL) == n;
		}
	}
	close(c->ends[0]);
	close(c->ends[1]);
	free(c);
	return NULL;
}

static int connect_carried(void *path, struct sm_error *err)
{
	struct carrier *c = calloc(1, sizeof(*c));
	int sock = unix_connect(path), pair[2];
	pthread_t thread;

	if (sock < 0) {
		free(c);
		return error_sys(err, -sock, "connect");
	}
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	*c = (struct carrier){{sock, pair[0]}};
	assert_int_equal(pthread_create(&thread, NULL, carry, c), 0);
	pthread_detach(thread);
	return pair[1];
}

static void serve(struct fixture *f)
{
	struct share_server_options o = {.path = f->path};
	int fd = unix_listen(f->path, 8);

	assert_true(fd >= 0);
	assert_int_equal(share_server_start(f->served, fd, &o, &f->server, NULL), 0);
}

static struct fixture *prepare(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	strcpy(f->dir, "/tmp/sm-test-inline.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/socket", f->dir);
	return f;
}

static void connect_client(struct fixture *f)
{
	struct fuse_daemon_options o = {.connect = connect_carried, .arg = f->path};

	assert_int_equal(fuse_daemon_new_with(&o, &f->a, NULL), 0);
}

static int setup(void **state)
{
	struct fixture *f = prepare(state);

	assert_int_equal(fuse_memory_new(NULL, &f->served), 0);
	serve(f);
	connect_client(f);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	fuse_daemon_free(f->a);
	share_server_stop(f->server);
	fuse_memory_free(f->served);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
	return 0;
}

/* ----------------------------------------------------------------------------------------- what is served */

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

static uint64_t make_file(struct sm_fs_backend *be, const char *name, uint64_t *ret_fh)
{
	struct sm_fs_entry e = {0};
	struct sm_fs_open o = {0};

	assert_int_equal(be->ops->create(be, &who, SM_FS_ROOT, name, 0644, O_RDWR | O_CREAT | O_EXCL, &e, &o), 0);
	*ret_fh = o.fh;
	return e.nodeid;
}

static int look_for(struct sm_fs_backend *be, const char *name, struct sm_fs_entry *ret)
{
	int r = be->ops->lookup(be, &who, SM_FS_ROOT, name, ret);

	return r == 0 && !ret->nodeid ? -ENOENT : r;
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void test_large_data_and_changes(void **state)
{
	struct fixture *f = *state;
	uint8_t *out = malloc(BULK), *in = calloc(1, BULK);
	struct sm_fs_entry e = {0};
	struct stat st;
	uint64_t fh, valid, id = make_file(f->a, "file", &fh);

	fill(out, BULK, 0);
	assert_true(!f->a->ops->dax_map && !f->a->ops->watch);
	assert_int_equal(write_all(f->a, id, fh, out, BULK, 3), BULK);
	assert_int_equal(read_all(f->a, id, fh, in, BULK, 3), BULK);
	assert_memory_equal(in, out, BULK);
	assert_int_equal(read_all(f->a, id, fh, in, 100, BULK + 3), 0);
	assert_int_equal(f->a->ops->mkdir(f->a, &who, SM_FS_ROOT, "dir", 0755, &e), 0);
	assert_int_equal(f->a->ops->rename(f->a, &who, SM_FS_ROOT, "file", e.nodeid, "there", 0), 0);
	assert_int_equal(look_for(f->a, "file", &e), -ENOENT);
	assert_int_equal(f->a->ops->getattr(f->a, id, true, fh, &st, &valid), 0);
	assert_int_equal(st.st_size, BULK + 3);
	assert_int_equal(f->a->ops->setxattr(f->a, &who, id, "user.long", out, 60000, 0), 0);
	assert_int_equal(f->a->ops->getxattr(f->a, id, "user.long", in, BULK), 60000);
	assert_memory_equal(in, out, 60000);
	f->a->ops->release(f->a, id, fh, false, 0);
	free(out);
	free(in);
}

static bool count_name(void *arg, const char *name, uint64_t ino, uint32_t type, uint64_t next,
		       const struct sm_fs_entry *entry)
{
	unsigned *names = arg;

	*names += *name != '.';
	return true;
}

static void test_listings_and_what_is_held(void **state)
{
	struct fixture *f = *state;
	struct share_server_stats stats;
	struct sm_fs_open dir;
	struct sm_fs_entry e = {0};
	unsigned names = 0;
	char name[200];

	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%0100d", i);
		assert_int_equal(f->a->ops->mknod(f->a, &who, SM_FS_ROOT, name, S_IFREG | 0644, 0, &e), 0);
		f->a->ops->forget(f->a, e.nodeid, 1);
	}
	share_server_get_stats(f->server, &stats);
	assert_int_equal(stats.nodes, 0);
	assert_int_equal(f->a->ops->opendir(f->a, &who, SM_FS_ROOT, &dir), 0);
	assert_int_equal(f->a->ops->readdir(f->a, &who, SM_FS_ROOT, dir.fh, 0, true, count_name, &names), 0);
	assert_int_equal(names, MANY);
	f->a->ops->releasedir(f->a, SM_FS_ROOT, dir.fh);
	f->a->ops->destroy(f->a);
	share_server_get_stats(f->server, &stats);
	assert_true(stats.nodes == 0 && stats.handles == 0);
}

struct worker {
	struct sm_fs_backend *be;
	unsigned number;
};

static void *write_and_read(void *arg)
{
	struct worker *w = arg;
	size_t len = 100000 + w->number * 30011;
	_free_ uint8_t *out = malloc(len), *in = calloc(1, len);
	uint64_t fh, id;
	char name[16];

	snprintf(name, sizeof(name), "f%u", w->number);
	id = make_file(w->be, name, &fh);
	for (unsigned i = 0; i < 30; i++) {
		struct sm_fs_entry e = {0};

		fill(out, len, w->number * 100 + i);
		assert_int_equal(write_all(w->be, id, fh, out, len, 0), len);
		assert_int_equal(read_all(w->be, id, fh, in, len, 0), len);
		assert_memory_equal(in, out, len);
		assert_int_equal(look_for(w->be, name, &e), 0);
		assert_true(e.nodeid == id);
		w->be->ops->forget(w->be, id, 1);
	}
	w->be->ops->release(w->be, id, fh, false, 0);
	return NULL;
}

static void test_many_at_once(void **state)
{
	struct fixture *f = *state;
	struct worker w[7];
	pthread_t threads[7];

	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		w[i] = (struct worker){f->a, i};
		assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &w[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(w); i++)
		pthread_join(threads[i], NULL);
}

/* The same call again, until it is answered otherwise than by the lack of a server. */
static int look_until_served(struct sm_fs_backend *be, const char *name, struct sm_fs_entry *ret)
{
	int r = -ENOTCONN;

	for (int i = 0; i < 3000 && r == -ENOTCONN; i++) {
		r = look_for(be, name, ret);
		if (r == -ENOTCONN)
			usleep(10000);
	}
	return r;
}

/* The stream's end comes a moment after the server's. */
static int look_until_gone(struct sm_fs_backend *be)
{
	struct sm_fs_entry e;
	int r = -ENOENT;

	for (int i = 0; i < 3000 && (r == -ENOENT || r == -EIO); i++) {
		r = look_for(be, "none", &e);
		usleep(1000);
	}
	return r;
}

static void test_a_server_that_goes_and_comes(void **state)
{
	struct fixture *f = *state;
	struct sm_fs_entry e;
	struct stat st;
	uint64_t fh, valid, id = make_file(f->a, "file", &fh);
	char text[8];

	f->server = share_server_stop(f->server);
	assert_int_equal(look_until_gone(f->a), -ENOTCONN);
	serve(f);
	assert_int_equal(look_until_served(f->a, "file", &e), 0);
	assert_int_equal(f->a->ops->getattr(f->a, id, false, 0, &st, &valid), -ESTALE);
	assert_int_equal(f->a->ops->getattr(f->a, e.nodeid, false, 0, &st, &valid), 0);
	assert_int_equal(read_all(f->a, id, fh, text, 5, 0), -EIO);
	f->a->ops->release(f->a, id, fh, false, 0);
}

/* One that was told of descriptors by its first server, and now has one behind a stream. */
static int connect_first_plainly(void *arg, struct sm_error *err)
{
	struct fixture *f = arg;

	return f->a ? connect_carried(f->path, err) : unix_connect(f->path);
}

static void test_descriptors_then_none(void **state)
{
	struct fixture *f = prepare(state);
	struct fuse_daemon_options o = {.connect = connect_first_plainly, .arg = f};
	struct fuse_posix_options p = {.ids = FUSE_POSIX_NONE};
	struct sm_fs_entry e;
	struct sm_fs_open file;
	struct sm_fs_map map;
	char tree[80], text[8] = "";

	snprintf(tree, sizeof(tree), "%s/tree", f->dir);
	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(fuse_posix_new(tree, &p, &f->served, NULL), 0);
	serve(f);
	assert_int_equal(fuse_daemon_new_with(&o, &f->a, NULL), 0);
	assert_true(f->a->ops->dax_map && f->a->ops->watch);
	f->server = share_server_stop(f->server);
	assert_int_equal(look_until_gone(f->a), -ENOTCONN);
	serve(f);
	snprintf(tree, sizeof(tree), "%s/tree/file", f->dir);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, tree, "hello", 5, 0600), 0);
	assert_int_equal(look_until_served(f->a, "file", &e), 0);
	assert_int_equal(f->a->ops->watch(f->a, SM_FS_ROOT, 0, 1), -EOPNOTSUPP);
	assert_int_equal(f->a->ops->dax_map(f->a, e.nodeid, SM_FS_NO_HANDLE, 0, 5, 1, &map), -EOPNOTSUPP);
	assert_int_equal(f->a->ops->open(f->a, &who, e.nodeid, O_RDWR, &file), 0);
	assert_int_equal(f->a->ops->dax_map(f->a, e.nodeid, file.fh, 0, 0, 0, &map), -EOPNOTSUPP);
	assert_int_equal(write_all(f->a, e.nodeid, file.fh, "J", 1, 0), 1);
	assert_int_equal(read_all(f->a, e.nodeid, file.fh, text, 5, 0), 5);
	assert_string_equal(text, "Jello");
	f->a->ops->release(f->a, e.nodeid, file.fh, false, 0);
	fuse_daemon_free(f->a);
	share_server_stop(f->server);
	fuse_posix_free(f->served);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
}

/* A request that takes its time holds up nobody but whoever waits for it. */
struct slow {
	struct sm_fs_backend be;
	struct sm_fs_ops ops;
	bool go, waits; /* atomic */
};

static struct slow slow;

static int slow_lookup(struct sm_fs_backend *be, const struct sm_fs_caller *caller, uint64_t parent, const char *name,
		       struct sm_fs_entry *ret)
{
	while (streq(name, "slow") && !__atomic_load_n(&slow.go, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&slow.waits, true, __ATOMIC_RELEASE);
		usleep(1000);
	}
	*ret = (struct sm_fs_entry){.nodeid = 2, .attr = {.st_mode = S_IFREG | 0644, .st_ino = 2}};
	return 0;
}

static int slow_getattr(struct sm_fs_backend *be, uint64_t nodeid, bool has_fh, uint64_t fh, struct stat *ret,
			uint64_t *ret_valid)
{
	*ret = (struct stat){.st_mode = S_IFREG | 0644, .st_ino = nodeid};
	return 0;
}

static ssize_t slow_read(struct sm_fs_backend *be, uint64_t nodeid, uint64_t fh, const struct iovec *iov, int count,
			 uint64_t offset)
{
	return 0;
}

static int slow_readdir(struct sm_fs_backend *be, const struct sm_fs_caller *caller, uint64_t nodeid, uint64_t fh,
			uint64_t offset, bool plus, sm_fs_add_dirent add, void *arg)
{
	return 0;
}

static void *look_slowly(void *arg)
{
	struct sm_fs_entry e = {0};

	return (void *)(intptr_t)look_for(arg, "slow", &e);
}

static void test_a_slow_request_holds_up_none(void **state)
{
	struct fixture *f = prepare(state);
	struct sm_fs_entry e;
	pthread_t thread;
	void *result;

	slow = (struct slow){.ops = {.size = sizeof(struct sm_fs_ops),
				     .lookup = slow_lookup,
				     .getattr = slow_getattr,
				     .read = slow_read,
				     .readdir = slow_readdir}};
	slow.be.ops = &slow.ops;
	f->served = &slow.be;
	serve(f);
	connect_client(f);
	assert_int_equal(pthread_create(&thread, NULL, look_slowly, f->a), 0);
	while (!__atomic_load_n(&slow.waits, __ATOMIC_ACQUIRE))
		usleep(1000);
	for (int i = 0; i < 20; i++)
		assert_int_equal(look_for(f->a, "quick", &e), 0);
	__atomic_store_n(&slow.go, true, __ATOMIC_RELEASE);
	pthread_join(thread, &result);
	assert_int_equal((intptr_t)result, 0);
	fuse_daemon_free(f->a);
	share_server_stop(f->server);
	remove_tree_at(AT_FDCWD, f->dir);
	free(f);
}

/* ------------------------------------------------------------------------------------------- wrong lengths */

static int greeted(struct fixture *f)
{
	const uint32_t hello[4] = {SHARE_MAGIC, SHARE_VERSION, 2, SHARE_INLINE};
	uint32_t welcome[6];
	int sock = unix_connect(f->path);

	assert_int_equal(write_full(sock, hello, sizeof(hello)), 0);
	assert_int_equal(read_full(sock, welcome, sizeof(welcome)), sizeof(welcome));
	assert_true(welcome[2] == 2 && welcome[3] == SHARE_INLINE);
	assert_false((welcome[4] | (uint64_t)welcome[5] << 32) >> SHARE_WATCH & 1);
	return sock;
}

/* A frame's head with a request that says as much bulk as `says`. */
static void put_request(struct buf *b, uint32_t lane, uint32_t packet, uint32_t bulk, uint32_t says)
{
	struct share_request rq = {.op = SHARE_GETATTR, .bulk = says, .nodeid = SM_FS_ROOT};

	buf_put_u32(b, lane);
	buf_put_u32(b, packet);
	buf_put_u32(b, bulk);
	share_put_request(b, &rq);
	buf_put_u8(b, 0);
}

static void test_wrong_lengths_are_cut_off(void **state)
{
	struct fixture *f = *state;
	const uint32_t wrong[][4] = {{2, 41, 0, 0},
				     {0, 0, 0, 0},
				     {1, SHARE_PACKET + 1, 0, 0},
				     {1, 41, SHARE_BULK + 1, 0},
				     {0, 41, 0, 100},
				     {0, 41, UINT32_MAX, UINT32_MAX},
				     {UINT32_MAX, 41, 0, 0}};
	struct share_server_stats stats;
	struct sm_fs_entry e;
	char byte;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		_cleanup_(buf_done) struct buf b = {0};
		_fd_ int sock = greeted(f);

		put_request(&b, wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3]);
		assert_int_equal(write_full(sock, b.data, b.len), 0);
		assert_true(read_full(sock, &byte, 1) <= 0);
		share_server_get_stats(f->server, &stats);
		assert_int_equal(stats.cut_off, i + 1);
	}
	assert_int_equal(look_for(f->a, "none", &e), -ENOENT); /* nobody else notices */
}

static void test_a_client_that_stops_in_the_middle(void **state)
{
	struct fixture *f = *state;
	_cleanup_(buf_done) struct buf b = {0};
	_fd_ int half = greeted(f), right = greeted(f);
	uint8_t answer[SHARE_HEAD + 12];

	put_request(&b, 1, 41, 0, 0);
	assert_int_equal(write_full(right, b.data, b.len), 0);
	assert_int_equal(read_full(right, answer, sizeof(answer)), sizeof(answer));
	assert_true(answer[0] == 1 && answer[SHARE_HEAD] == 0);
	assert_int_equal(write_full(half, b.data, 20), 0);
	/* the server ends all the same */
	f->server = share_server_stop(f->server);
	serve(f);
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
	uint32_t welcome[6] = {SHARE_MAGIC, SHARE_VERSION, 1, SHARE_INLINE, UINT32_MAX, UINT32_MAX};
	uint8_t bytes[SHARE_PACKET];

	if (recv(l->sock, bytes, SHARE_HELLO, 0) == SHARE_HELLO && write_full(l->sock, welcome, sizeof(welcome)) == 0 &&
	    recv(l->sock, bytes, sizeof(bytes), 0) > 0)
		send(l->sock, l->answer, l->len, MSG_NOSIGNAL);
	shutdown(l->sock, SHUT_WR);
	while (recv(l->sock, bytes, sizeof(bytes), 0) > 0)
		;
	close(l->sock);
	return NULL;
}

static void test_a_server_that_lies_is_given_up(void **state)
{
	const uint32_t lane[6] = {1, 12, 0}, short_one[4] = {0, 4, 0}, long_one[6] = {0, SHARE_PACKET + 1, 0},
		       bulk[7] = {0, 12, 4}, huge[6] = {0, 12, SHARE_BULK + 1}, empty[3] = {0, 0, 0},
		       no_entry[6] = {0, 12, 0};
	const struct liar lies[] = {{-1, lane, sizeof(lane)},	      {-1, short_one, sizeof(short_one)},
				    {-1, long_one, sizeof(long_one)}, {-1, bulk, sizeof(bulk)},
				    {-1, huge, sizeof(huge)},	      {-1, empty, sizeof(empty)},
				    {-1, no_entry, sizeof(no_entry)}, {-1, lane, 5}};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct liar l = lies[i];
		struct sm_fs_backend *be;
		struct sm_fs_entry e;
		pthread_t thread;
		int sock[2], r;

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock), 0);
		l.sock = sock[0];
		assert_int_equal(pthread_create(&thread, NULL, lie, &l), 0);
		assert_int_equal(fuse_daemon_new_fd(sock[1], NULL, &be, NULL), 0);
		r = be->ops->lookup(be, &who, SM_FS_ROOT, "file", &e);
		assert_true(r == -EIO || r == -ESTALE); /* a frame that is none is as the stream's end */
		assert_int_equal(be->ops->lookup(be, &who, SM_FS_ROOT, "file", &e), -ENOTCONN);
		fuse_daemon_free(be);
		pthread_join(thread, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_large_data_and_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listings_and_what_is_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_server_that_goes_and_comes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_lengths_are_cut_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_client_that_stops_in_the_middle, setup, teardown),
		cmocka_unit_test(test_descriptors_then_none),
		cmocka_unit_test(test_a_slow_request_holds_up_none),
		cmocka_unit_test(test_a_server_that_lies_is_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
